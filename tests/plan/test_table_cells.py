"""Cells of benchmark tables: names, inheritance, experiments, and what is wrong said in words."""

from __future__ import annotations

import copy
from typing import Any, cast

import pytest
from factories.project import PAPER
from pydantic import ValidationError

from cyclery.config.models import Paper
from cyclery.config.tables import BenchmarkTable
from cyclery.plan.table_cells import TableCell, TableCells, resolve
from cyclery.records.evidence import PrintedFigure

Json = dict[str, Any]
TABLE: Json = {
    "title": "Table 1",
    "caption": "accuracy",
    "experiments": "digits",
    "rows": [{"head": "Plain", "arm": "plain"}, {"head": "Fast", "arm": "fast"}],
    "columns": ["Digits"],
}


def paper_of(**changes: Any) -> Paper:
    """Return a paper with the experiments digits and fashion, and one table with these changes."""
    paper = copy.deepcopy(PAPER)
    main = paper["experiments"].pop("main")
    paper["claims"]["C-1"]["comparisons"][0]["experiment"] = "digits"
    fashion = {**main, "arms": {"plain": {}, "slow": {"lr": 0.01}}}
    paper["experiments"] = {"digits": main, "fashion": fashion}
    paper["tables"] = {"t": {**copy.deepcopy(TABLE), **changes}}
    return Paper.model_validate(paper)


def figure(method: str, **fields: str) -> PrintedFigure:
    return cast(PrintedFigure, {"metric": "accuracy", "value": 90.0, "std": None, "runs": None,
                                "method": method, **fields})  # fmt: skip


def cells(*printed: PrintedFigure, **changes: Any) -> TableCells:
    paper = paper_of(**changes)
    return resolve("t", paper.tables["t"], paper, printed)


def good(*printed: PrintedFigure, **changes: Any) -> list[TableCell]:
    found = cells(*printed, **changes)
    assert found.problems == []
    return found.cells


def problem(*printed: PrintedFigure, **changes: Any) -> str:
    found = cells(*printed, **changes)
    assert len(found.problems) == 1, found.problems
    return found.problems[0]


def test_a_cell_takes_what_row_column_and_table_say() -> None:
    first, second = good()
    assert (first.row, first.column, first.sources) == (0, 0, (("digits", "plain"),))
    assert second.sources == (("digits", "fast"),)
    assert (first.metric, first.shows, first.by, first.empty) == (
        "test_accuracy", "percent", None, ""
    )  # fmt: skip
    row: Json = {"head": "NLL", "arm": "plain", "metric": "test_nll", "shows": "value",
                 "by": "others"}  # fmt: skip
    [cell] = good(rows=[row])
    assert (cell.metric, cell.shows, cell.by) == ("test_nll", "value", "others")


def test_sources_are_looked_for_by_experiment_then_by_arm() -> None:
    [cell] = good(experiments=["fashion", "digits"], rows=[{"head": "x", "arm": ["fast", "plain"]}])
    assert cell.sources == (("fashion", "plain"), ("digits", "fast"), ("digits", "plain"))


def test_an_arm_with_its_experiment_keeps_its_place_in_the_order() -> None:
    arms = ["fashion/slow", "plain", "fashion/plain"]
    [cell] = good(rows=[{"head": "x", "arm": arms}])
    assert cell.sources == (("fashion", "slow"), ("digits", "plain"), ("fashion", "plain"))
    [cell] = good(experiments=[], rows=[{"head": "x", "arm": "fashion/slow"}])
    assert cell.sources == (("fashion", "slow"),), "no experiments need be named"


def test_an_empty_list_of_experiments_means_none_of_ours() -> None:
    rows: list[Json] = [{"head": "Plain", "arm": ["plain", "fashion/plain"]}]
    columns: list[Json] = [{"head": "Digits"}, {"head": "Text", "experiments": [], "empty": "no"}]
    ours, none = good(rows=rows, columns=columns)
    assert len(ours.sources) == 2
    assert none.sources == () and none.empty == "no"
    # The row may say where ours come from elsewhere.
    both = good(rows=[{**rows[0], "experiments": "digits"}], columns=columns)
    assert [len(cell.sources) for cell in both] == [2, 0]


def test_a_name_that_no_line_has_is_a_mistake() -> None:
    """Cells would be empty without a word."""
    rows = [{"head": "A", "names": {"net": "plain"}, "arm": "{nte}", "of": ["B", "C"]}]
    assert problem(figure("B"), figure("C"), rows=rows, printed={"method": "{row}"}) == (
        "tables.t.rows[0].of[0]: no row or column has the name 'nte' of '{nte}'. Did you mean "
        "'net'? There are: column, column_group, net, row, row_group."
    )
    assert "the name 'x' of 'test_{x}'" in problem(metric="test_{x}")


def test_lines_inherit_from_those_above_and_say_more() -> None:
    rows: list[Json] = [
        {"head": "Group", "arm": "plain", "names": {"a": "x", "b": "y"}, "competes": False,
         "printed": {"method": "{a}{b}"},
         "of": ["First", {"head": "Second", "arm": "fast", "names": {"b": "z"}}]},
        {"head": "Third", "arm": "plain"},
    ]  # fmt: skip
    found = cells(figure("xy"), figure("xz"), rows=rows)
    assert found.problems == []
    assert [leaf.heads for leaf in found.rows] == [("Group", "First"), ("Group", "Second"),
                                                   ("Third",)]  # fmt: skip
    assert [leaf.where for leaf in found.rows] == [
        "tables.t.rows[0].of[0]", "tables.t.rows[0].of[1]", "tables.t.rows[1]"
    ]  # fmt: skip
    assert [cell.sources[0][1] for cell in found.cells] == ["plain", "fast", "plain"]
    assert [cell.printed for cell in found.cells] == [0, 1, None]
    assert [cell.competes for cell in found.cells] == [False, False, True]


def test_a_column_that_does_not_compete_holds_for_its_cells() -> None:
    columns: list[Json] = [{"head": "a", "competes": False}, {"head": "b"}]
    assert [cell.competes for cell in good(columns=columns)] == [False, True] * 2


def test_patterns_take_names_and_heads() -> None:
    columns: list[Json] = [
        {"head": "Sets", "of": [{"head": "Digits", "names": {"where": "digits"}},
                                {"head": "Fashion", "names": {"where": "fashion"}}]}
    ]  # fmt: skip
    rows: list[Json] = [{"head": "plain", "arm": "{row}"}]
    changes: Json = {"rows": rows, "columns": columns, "experiments": "{where}",
                     "printed": {"method": "{row_group} {row}", "dataset": "{column_group}",
                                 "labels": "{column}"}}  # fmt: skip
    printed = [figure("plain plain", dataset="Sets", labels=name) for name in ("Fashion", "Digits")]
    ours = good(*printed, **changes)
    assert [cell.sources for cell in ours] == [(("digits", "plain"),), (("fashion", "plain"),)]
    assert [cell.printed for cell in ours] == [1, 0]


def test_a_name_may_stand_for_names_and_a_cell_that_lacks_one_has_nothing() -> None:
    rows: list[Json] = [{"head": "x", "arm": "{a}"}]
    columns: list[Json] = [{"head": "Digits", "names": {"a": "{b}", "b": "{c}", "c": "plain"}},
                           {"head": "Other", "empty": "no arm"}]  # fmt: skip
    first, second = good(rows=rows, columns=columns)
    assert first.sources == (("digits", "plain"),) and second.sources == ()
    assert second.empty == "no arm"


@pytest.mark.parametrize("names", [{"a": "{b}", "b": "{a}"}, {"a": "{a}"}, {"a": "x{a}"}])
def test_names_that_never_end_are_named(names: Json) -> None:
    row: Json = {"head": "x", "arm": "{a}", "names": names}
    assert problem(rows=[row]) == "tables.t.rows[0]: '{a}': its names never end."


def test_printed_figures_are_chosen_by_all_fields() -> None:
    printed = [figure("Plain", labels="40"), figure("Plain", labels="250"), figure("Plain")]
    columns: list[Json] = [{"head": "40", "printed": {"labels": 40}},
                           {"head": "250", "printed": {"labels": 250}},
                           {"head": "all", "printed": {"labels": ""}},
                           {"head": "1", "printed": {"labels": 1}}]  # fmt: skip
    found = good(*printed, printed={"method": "{row}"}, columns=columns)[:4]
    assert [cell.printed for cell in found] == [0, 1, 2, None]


def test_two_printed_figures_for_one_cell_say_in_what_they_differ() -> None:
    one, other = figure("Plain", labels="40"), figure("Plain", labels="250")
    where = "tables.t.rows[0], tables.t.columns[0]: 2 printed figures for one cell"
    assert problem(one, other, printed={"method": "{row}"}) == (
        f"{where} (method 'Plain'); they differ in labels."
    )
    text = problem(one, one, printed={"method": "{row}"})
    assert text == f"{where} (method 'Plain'); they are alike."


def test_same_holds_from_the_innermost_and_is_dropped_by_an_empty_one() -> None:
    def senses(**changes: Any) -> list[Json]:
        return [dict(cell.same) for cell in good(**changes)]

    table: Json = {"smoke": "as printed"}
    assert senses(same=table) == [table, table]
    rows: list[Json] = [{"head": "a", "arm": "plain", "same": {}}, {"head": "b", "arm": "plain"}]
    assert senses(same=table, rows=rows) == [{}, table]
    group: list[Json] = [{"head": "g", "same": {"desk": "all images"}, "arm": "plain",
                          "of": ["x", {"head": "y", "same": {}}]}]  # fmt: skip
    assert senses(same=table, rows=group) == [{"desk": "all images"}, {}]
    # Whichever of row and column says that nothing is the same holds.
    column: Json = {"head": "Digits", "same": {"smoke": "these"}}
    assert senses(rows=rows, columns=[column]) == [{}, {"smoke": "these"}]
    rows[0]["same"], column["same"] = {"smoke": "those"}, {}
    assert senses(rows=rows, columns=[column]) == [{}, {}]


CONFLICTS: list[tuple[Json, Json, str]] = [
    ({"arm": "plain"}, {"arm": "fast"}, "arm ['fast'], and tables.t.rows[0] says ['plain']"),
    ({"arm": "plain", "metric": "test_nll"}, {"metric": "test_ece"}, "metric 'test_ece'"),
    ({"arm": "plain", "shows": "error"}, {"shows": "value"}, "shows 'value'"),
    ({"arm": "plain", "by": "me"}, {"by": "you"}, "by 'you', and tables.t.rows[0] says 'me'"),
    ({"arm": "plain", "names": {"n": "1"}}, {"names": {"n": "2"}}, "names.n '2'"),
    ({"arm": "plain", "experiments": "digits"}, {"experiments": "fashion"}, "experiments ['fas"),
    ({"arm": "plain", "printed": {"method": "a"}}, {"printed": {"method": "b"}},
     "printed.method 'b', and tables.t.rows[0] says 'a'"),
    ({"arm": "plain", "same": {"smoke": "a"}}, {"same": {"smoke": "b"}}, "same {'smoke': 'b'}"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "column", "said"), CONFLICTS)
def test_row_and_column_may_not_say_different_things(row: Json, column: Json, said: str) -> None:
    changes: Json = {"rows": [{"head": "r", **row}], "columns": [{"head": "c", **column}]}
    text = problem(**changes)
    assert text.startswith(f"tables.t.columns[0]: says {said}")
    assert text.endswith(": two for one cell; leave it to one of them.")
    changes["columns"][0].update(row, head="c")
    assert cells(**changes).problems == [], "the same said twice is no conflict"


UNKNOWN: list[tuple[Json, str]] = [
    ({"experiments": "digit"}, "tables.t.experiments: unknown experiment 'digit'. Did you mean "
     "'digits'? There are: digits, fashion."),
    ({"columns": [{"head": "c", "experiments": "digit"}]}, "tables.t.columns[0]: unknown exp"),
    ({"rows": [{"head": "r", "arm": "digit/plain"}]}, "tables.t.rows[0]: unknown experiment 'di"),
    ({"rows": [{"head": "r", "arm": "plian"}]}, "tables.t.rows[0]: unknown arm 'plian' in digits. "
     "Did you mean 'plain'? There are: fast, plain."),
    ({"rows": [{"head": "r", "arm": "plian", "competes": False}]}, "unknown arm 'plian'"),
    ({"rows": [{"head": "r", "arm": ["plain", "plian"]}]}, "unknown arm 'plian'"),
    ({"rows": ["r"], "columns": [{"head": "c", "arm": "plian"}]}, "tables.t.columns[0]: unknown a"),
    ({"rows": ["r"], "arm": "plian"}, "tables.t.arm: unknown arm 'plian'"),
    ({"rows": [{"head": "r", "arm": "fashion/fast"}]}, "tables.t.rows[0]: unknown arm 'fast' in "
     "fashion."),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "said"), UNKNOWN)
def test_an_unknown_name_is_one_message_where_it_stands(changes: Json, said: str) -> None:
    assert said in problem(**changes)


def test_an_arm_that_another_experiment_has_is_no_mistake() -> None:
    rows: list[Json] = [{"head": "slow", "arm": "slow"}, {"head": "plain", "arm": "plain"}]
    columns: list[Json] = [{"head": "a", "experiments": "digits"},
                           {"head": "b", "experiments": "fashion"}]  # fmt: skip
    first, second, *_ = good(rows=rows, columns=columns)
    assert first.sources == () and second.sources == (("fashion", "slow"),)


@pytest.mark.parametrize("methods", ["rows", "columns"])
def test_a_lacking_method_says_why_a_cell_is_empty_whatever_the_data(methods: str) -> None:
    lacking: list[Json] = [{"head": "Lacking", "empty": "no method"}, {"head": "Plain"}]
    data: list[Json] = [{"head": "Far", "empty": "no data"}, {"head": "Digits"}]
    rows, columns = (lacking, data) if methods == "rows" else (data, lacking)
    found = good(figure("Plain"), methods=methods, rows=rows, columns=columns, arm="plain")
    reasons = {(cell.row, cell.column): cell.empty for cell in found}
    other = {"rows": (1, 0), "columns": (0, 1)}[methods]
    assert reasons == {
        (0, 0): "no method", (1 - other[0], 1 - other[1]): "no method", other: "no data",
        (1, 1): "",
    }  # fmt: skip


def test_a_line_that_shows_nothing_needs_a_reason() -> None:
    rows: list[Json] = [*TABLE["rows"], {"head": "Other"}]
    assert problem(rows=rows) == (
        "tables.t.rows[2]: 'Other' shows nothing: no arm of ours and no printed figure of any "
        "cell; name them, or give the reason as `empty`."
    )
    columns: list[Json] = [{"head": "Digits"}, {"head": "Text", "experiments": []}]
    assert "tables.t.columns[1]: 'Text' shows nothing" in problem(columns=columns)
    rows[2]["empty"] = "not built"
    assert [cell.empty for cell in good(rows=rows)] == ["", "", "not built"]
    assert [c.printed for c in good(figure("Other"), rows=[*rows[:2], "Other"],
                                    printed={"method": "{row}"})] == [None, None, 0]  # fmt: skip


MISTAKES: list[tuple[Json, str]] = [
    ({"printed": {"metod": "x"}}, "unknown field 'metod'. Did you mean 'method'? Fields: "),
    ({"rows": [{"head": "r", "printed": {"value": "1"}}]}, "unknown field 'value'"),
    ({"rows": []}, "at least 1 item"),
    ({"shows": "percentage"}, "'percent', 'error' or 'value'"),
    ({"spread": "se"}, "'sd' or 'none'"),
    ({"rows": [{"head": "r", "arms": "plain"}]}, "unknown key 'arms'. Did you mean 'arm'?"),
    ({"rows": [{"arm": "plain"}]}, "Field required"),
    ({"rows": [{"head": " "}]}, "must say something"),
    ({"rows": [{"head": "r", "empty": ""}]}, "at least 1 character"),
    ({"arm": [f"a{i}" for i in range(21)]}, "at most 20 items"),
    ({"columns": [{"head": "c", "names": {"a b": "x"}}]}, "names"),
]


@pytest.mark.parametrize(("changes", "said"), MISTAKES)
def test_a_mistake_in_a_file_is_refused(changes: Json, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        BenchmarkTable.model_validate({**copy.deepcopy(TABLE), **changes})
    assert said in str(caught.value)


def test_short_forms_are_read_as_the_long_ones() -> None:
    short = BenchmarkTable.model_validate({**TABLE, "rows": ["Plain"], "arm": "plain",
                                           "printed": {"labels": 40}})  # fmt: skip
    full = BenchmarkTable.model_validate({**TABLE, "rows": [{"head": "Plain"}], "arm": ["plain"],
                                          "experiments": ["digits"], "printed": {"labels": "40"},
                                          "columns": [{"head": "Digits"}]})  # fmt: skip
    assert short == full
