"""The table over all papers: methods by data splits at an equal budget."""

from __future__ import annotations

from typing import Any, cast

import pytest
from factories import evidence as factory
from factories.page import downloaded

from cyclery.records.evidence import Evidence
from cyclery.report import methods_table
from cyclery.report.model import Slugs
from cyclery.report.view_types import BenchmarkView

Json = dict[str, Any]
FORTY: Json = {"data": "digits, 40 labels", "network": "bn_mlp 128-128", "images": 8200.0}
MANY: Json = {"data": "digits, 900 labels", "network": "bn_mlp 128-128", "images": 11700.0}


def arm(label: str, mean: float = 0.9, role: str = "baseline", **other: Any) -> Json:
    """Return an arm of five runs whose standard deviation is 1.58 points, 0.9 the mean."""
    values = [mean + shift / 100 for shift in (-2, -1, 0, 1, 2)]
    accuracy = factory.metric(values, [0, 1, 2, 3, 4])
    return {
        "id": f"{label}{other}", "label": label, "role": role, "own_definition": None,
        "method": "supervised",
        **FORTY, "n": 5, "units": None, "diverged": [], "metrics": {"test_accuracy": accuracy},
        "views": other.get("images", 8200.0),
        "forwards": other.get("views", other.get("images", 8200.0)),
        "updates": 100.0, "seconds": 12.345, "ancestors_images": 0.0,
        "ancestors_views": other.get("ancestors_images", 0.0),
        "ancestors_forwards": other.get("ancestors_views", other.get("ancestors_images", 0.0)),
        "keys": [], "tuned": None, **other,
    }  # fmt: skip


def part(experiments: dict[str, list[Json]], tier: str = "smoke") -> Evidence:
    found = [
        {"id": title.lower(), "title": title, "selection_rule": "last checkpoint", "arms": arms}
        for title, arms in experiments.items()
    ]
    devices = {"devices": ["a small CPU"]}
    return cast(Evidence, {"tier": tier, "experiments": found, "provenance": devices})


def made(*papers: tuple[str, dict[str, list[Json]]]) -> BenchmarkView:
    view = methods_table.table([(n, [part(e)]) for n, e in papers], Slugs(), "cyclery report")
    assert view is not None
    return view


def rows(view: BenchmarkView) -> list[list[str]]:
    return [line["heads"] for line in view["rows"]]


def texts(view: BenchmarkView) -> list[list[str]]:
    return [[cell["text"] for cell in cells] for cells in view["cells"]]


def test_arms_of_a_split_stand_in_two_columns_accuracy_and_time() -> None:
    view = made(("A", {"Few": [arm("plain"), arm("cycle", 0.95, "method")]}))
    few = ["digits, 40 labels (smoke tier)", "bn_mlp 128-128, 8,200 images"]
    assert [line["heads"] for line in view["columns"]] == [
        [*few, "accuracy (%)"], [*few, "s a run"]
    ]  # fmt: skip
    assert rows(view) == [["A", "plain"], ["A", "cycle"]]
    assert texts(view) == [["90.0", "12.3"], ["95.0", "12.3"]]
    cell = view["cells"][0][0]
    assert (cell["spread"], cell["interval"]) == ("1.6", "[88.0, 92.0]")
    assert cell["title"] == "n = 5; Few"
    assert cell["number"] == pytest.approx(90.0)
    assert not any(cell["bold"] for cells in view["cells"] for cell in cells)
    assert view["values"] == ["ours"]


def test_other_budgets_networks_and_tiers_are_other_columns() -> None:
    base = [arm("one"), arm("two")]
    changes: list[Json] = [
        {"images": 8300.0}, {"network": "bn_mlp 16"}, {"data": "digits, 50 labels"}
    ]  # fmt: skip
    others = [[arm("one", **change), arm("two", **change)] for change in changes]
    view = made(("A", {"E": [*base, *(one for pair in others for one in pair)]}))
    assert len(view["columns"]) == 8
    assert len(rows(view)) == 2, "one row with all its columns"
    near = part({"F": [arm("one", images=9e6), arm("two", images=9e6)]}, tier="paper")
    both = [("A", [part({"E": base}), near])]
    found = methods_table.table(both, Slugs(), "")
    assert found is not None
    tiers = [line["tier"] for line in found["columns"]]
    assert tiers == ["paper", "paper", "smoke", "smoke"], "the nearest to the paper is first"


def test_a_split_with_one_row_is_left_out_and_its_arms_are_counted() -> None:
    alone = arm("alone", **MANY)
    view = made(("A", {"E": [arm("one"), arm("two"), alone, arm("shuffled", role="control")]}))
    assert len(view["columns"]) == 2
    assert rows(view) == [["A", "one"], ["A", "two"]]
    assert "own tables: 2 arms, as controls or without another on their split." in view["notes"][-1]
    nothing = [("A", [part({"E": [arm("one"), alone]})])]
    assert methods_table.table(nothing, Slugs(), "") is None


def test_shared_runs_stand_once_in_the_paper_that_is_about_them() -> None:
    runs: Json = {"keys": ["k0", "k1"]}
    fixmatch = {"Digits": [arm("Mean Teacher", **runs), arm("FixMatch", role="method")]}
    teacher = {
        "Labels": [arm("weight 50", role="method", **runs)],
        "Cost": [arm("squared distance", role="method", **runs)],
        "Grid": [arm("for control", role="control", **runs)],
    }
    view = made(("FM", fixmatch), ("MT", teacher))
    assert rows(view) == [["FM", "FixMatch"], ["MT", "weight 50"]]
    title = view["cells"][1][0]["title"]
    assert title == "n = 5; Labels; also FM: Mean Teacher; MT: squared distance"
    assert "Left to" not in view["notes"][-1], "the control has the runs of the row"


def test_a_label_that_stands_twice_in_a_column_says_its_experiment() -> None:
    both = {"SGD": [arm("fixed")], "Adam": [arm("fixed"), arm("fixed", **MANY)],
            "Many": [arm("other", **MANY)]}  # fmt: skip
    view = made(("A", both))
    assert rows(view) == [["A", "fixed (SGD)"], ["A", "fixed (Adam)"], ["A", "fixed"],
                          ["A", "other"]]  # fmt: skip
    assert view["cells"][0][0]["title"] == "n = 5", "the row says its experiment"
    same = made(("A", {"E": [arm("x", id="one"), arm("x", id="two")]}))
    assert rows(same) == [["A", "x (E) (one)"], ["A", "x (E) (two)"]]


def test_one_label_of_two_methods_is_two_rows_that_say_so() -> None:
    many = [arm("teacher", method="kd", **MANY), arm("other", **MANY)]
    view = made(("A", {"E": [arm("teacher"), arm("other"), *many]}))
    assert rows(view) == [["A", "teacher (supervised)"], ["A", "other"], ["A", "teacher (kd)"]]


def test_what_an_arm_had_beyond_the_budget_has_a_note() -> None:
    taught: Json = {"ancestors_images": 12300.0}
    rich: Json = {"views": 94080.0}
    arms = [arm("plain"), arm("student", **taught), arm("semi", **rich)]
    arms += [arm("both", **taught, **rich), arm("assistant", ancestors_images=24600.0)]
    view = made(("A", {"E": arms}))
    assert [cells[0]["note"] for cells in view["cells"]] == ["", "a", "b", "c", "a"]
    assert view["notes"][0] == (
        "a: More than the column's budget: descends from runs that were trained, too. "
        "Ancestors: 12.3\u00a0k to 24.6\u00a0k images."
    )
    assert view["notes"][1].endswith("trained on further views, as of unlabelled images.")
    assert "too; trained on" in view["notes"][2]
    assert "Ancestors: 12.3\u00a0k images." in view["notes"][2]
    title = view["cells"][3][0]["title"]
    assert title == "n = 5; ancestors 12.3\u00a0k images; 94.1\u00a0k views; E"


def test_passes_and_ancestors_views_are_said_where_they_are_others() -> None:
    twice: Json = {"forwards": 16400.0}
    taught: Json = {"ancestors_images": 4350.0, "ancestors_views": 8700.0}
    arms = [arm("plain"), arm("two", **twice), arm("student", **taught)]
    arms += [arm("both", **taught, ancestors_forwards=26100.0)]
    view = made(("A", {"E": arms}))
    assert [cells[0]["note"] for cells in view["cells"]] == ["", "a", "b", "b"]
    assert view["notes"][0].startswith("a: More than the column's budget: passes more images forw")
    titles = [cells[0]["title"] for cells in view["cells"][1:]]
    assert titles == [
        "n = 5; 16.4\u00a0k forward passes; E",
        "n = 5; ancestors 4350 images, 8700 views; E",
        "n = 5; ancestors 4350 images, 8700 views, 26.1\u00a0k forward passes; E",
    ]


def test_splits_that_papers_share_come_first_and_one_without_room_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    big: Json = {"network": "big", "images": 8200.0}
    own = {"E": [*(arm(f"arm {i}", **big) for i in range(5)), arm("one"), arm("one", **MANY),
                 arm("last", **MANY)]}  # fmt: skip
    papers = (("A", own), ("B", {"F": [arm("two")]}))
    networks = [line["heads"][1] for line in made(*papers)["columns"][::2]]
    # The tier has one largest budget, so sharing decides, then the number of rows.
    assert networks == [
        "bn_mlp 128-128, 8,200 images", "big, 8,200 images", "bn_mlp 128-128, 11,700 images"
    ]  # fmt: skip
    monkeypatch.setattr(methods_table, "MOST_ROWS", 4)
    view = made(*papers)
    assert len(view["rows"]) == 3
    assert (
        "5 arms, as controls or without another on their split, or of 1 further split."
        in (view["notes"][-1])
    )
    monkeypatch.setattr(methods_table, "MOST_SPLITS", 1)
    assert "or of 2 further splits." in made(*papers)["notes"][-1]


def test_arms_without_data_or_accuracy_are_in_no_column() -> None:
    blank = arm("range test", role="method", data="", network="", metrics={})
    mixed = arm("no data", role="method", data="", network="")
    view = made(("A", {"E": [arm("one"), arm("two"), blank, mixed]}))
    assert rows(view) == [["A", "one"], ["A", "two"]]
    assert " 1 arm, " in view["notes"][-1], "a range test is no arm of the leaderboards"


def test_one_run_has_neither_spread_nor_interval() -> None:
    single = arm("one", metrics={"test_accuracy": factory.metric([0.91234], [0])}, n=1,
                 seconds=None, diverged=[{"seed": 1, "step": 3}], units=1)  # fmt: skip
    view = made(("A", {"E": [single, arm("two")]}))
    accuracy, time = view["cells"][0]
    assert (accuracy["text"], accuracy["spread"], accuracy["interval"]) == ("91.23", "", "")
    assert accuracy["title"] == "n = 1; 1 independent unit; 1 diverged; E"
    assert (time["text"], time["number"]) == ("", None)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.01234, "0.0123"), (0.5, "0.500"), (12.345, "12.3"), (54321.0, "54321")]
)
def test_time_has_three_digits_and_no_power(seconds: float, text: str) -> None:
    view = made(("A", {"E": [arm("one", seconds=seconds), arm("two")]}))
    assert view["cells"][0][1]["text"] == text


def test_the_notes_say_rule_seeds_tuning_and_device() -> None:
    tuned: Json = {"tuned": {"trials": [{}, {}, {}]}}
    view = made(("A", {"E": [arm("one", **tuned), arm("two")]}))
    assert view["notes"][0] == (
        "Selection: last checkpoint. Seeds: 0\u20134. Mean ± standard deviation over seeds. "
        "Tuning: 1 arm without trials; 1 arm with 3 trials each. Time is that of a final "
        "run, trials and ancestors not counted, on a small CPU."
    )
    assert "Nothing is bold" in view["notes"][1]
    assert "3 trials" in view["cells"][0][0]["title"]


def test_the_file_has_every_figure() -> None:
    view = made(("A", {"E": [arm("one"), arm("two", 0.8, ancestors_images=100.0)]}))
    assert view["file"]["name"] == f"{view['slug']}.csv"
    first, second = downloaded(view["file"])
    assert first["test_accuracy"] == "90" and first["sd"] == "1.581"
    assert (first["low95"], first["high95"]) == ("88.04", "91.96")
    assert (second["arm"], second["test_accuracy"], second["ancestors_images"]) == (
        "two", "80", "100"
    )  # fmt: skip
    assert (first["data"], first["images"], first["seconds"]) == (FORTY["data"], "8200", "12.35")


def test_long_names_are_cut() -> None:
    endless = "word " * 200
    view = made((endless, {endless: [arm(endless), arm("two", network=f"bn_mlp {endless}"),
                                     arm("two")]}))  # fmt: skip
    assert max(len(head) for row in rows(view) for head in row) <= methods_table.LONG
    titles = [cell["title"] for cells in view["cells"] for cell in cells]
    assert max(map(len, titles)) <= methods_table.LONGEST
