"""Benchmark tables: cells, columns of all tiers, notes, costs, and the same figures as CSV."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
from collections.abc import Sequence
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import benchmark_tables as factory
from factories import evidence as evidence_factory
from factories.page import downloaded
from scipy import stats

from cyclery.common import checksums
from cyclery.common.seals import seal
from cyclery.report import benchmark, benchmark_cells, benchmark_join, contents, view
from cyclery.report.command import report
from cyclery.report.model import Slugs, complete
from cyclery.report.view_types import BenchmarkView, GridCell

DATA = "CIFAR-10, 40 labels"


def part(name: str) -> Any:
    """Return the made-up evidence of a paper at the smoke tier."""
    [found] = [e for e in evidence_factory.evidence(1, 6, 5) if e["part"] == name]
    return complete(found)


def views(own: Any, *others: Any) -> list[BenchmarkView]:
    """Return the tables of a paper."""
    found = [complete(other) for other in others]
    return benchmark.tables([own], found, Slugs(), own["part"].upper())


def heads(table: BenchmarkView, axis: str = "columns") -> list[str]:
    """Return the heads of all lines of an axis as texts."""
    lines: Any = table[axis]  # type: ignore[literal-required]
    return [" > ".join(filter(None, line["heads"])) for line in lines]


def texts(cells: Sequence[GridCell]) -> list[str]:
    """Return cells as they are read."""
    return [f"{c['text']} ± {c['spread']}" if c["spread"] else c["text"] for c in cells]


def column(table: BenchmarkView, head: str) -> list[GridCell]:
    """Return the cells under a head."""
    place = heads(table).index(head)
    return [row[place] for row in table["cells"]]


@pytest.mark.parametrize(
    ("spread", "shows", "value", "decimals"),
    [
        (0.41, "percent", 93.0, 2), (0.0996, "percent", 93.0, 2), (0.0004, "error", 6.0, 3),
        (12.3, "percent", 50.0, 1), (None, "percent", 93.0, 2), (0.0, "error", 6.0, 2),
        (0.00236, "value", 0.17, 4), (0.00001, "value", 0.17, 4), (120.0, "value", 3400.0, 0),
        (None, "value", 12000.0, 0), (None, "value", 0.1234567, 4), (None, "value", 0.0, 2),
    ],
)  # fmt: skip
def test_two_digits_of_the_spread_decide_the_decimals(
    spread: float | None, shows: str, value: float, decimals: int
) -> None:
    assert benchmark_cells.digits(spread, shows, value) == decimals


def test_an_error_is_what_is_missing_to_a_hundred_and_its_interval_turns_round() -> None:
    cell: Any = {"shows": "error", "experiment": "e", "arm": "a"}
    metric: Any = {"mean": 0.96, "sd": 0.004, "ci95": [0.955, 0.967], "values": [1.0] * 5}
    arm: Any = {"units": None}
    found = benchmark_cells.of_ours(benchmark_join.Ours(cell, arm, metric, "smoke"))
    assert [found.mean, found.sd, found.low, found.high] == pytest.approx([4.0, 0.4, 3.3, 4.5])
    assert (found.interval, found.n, found.source) == ("[3.30, 4.50]", 5, "e/a")


def test_ours_of_the_same_setting_stand_beside_what_is_printed() -> None:
    [table, _] = views(part("cfl"))
    inner = ["printed", "ours", "difference"]
    assert heads(table) == [f"CIFAR-10 > {name}" for name in inner]
    assert [line["value"] for line in table["columns"]] == inner
    assert table["values"] == ["ours", "printed", "difference"]
    printed = column(table, "CIFAR-10 > printed")
    assert texts(printed) == ["4.5 ± 0.2", "not read", "4.10 ± 0.15", "4.0 ± 0.1"]
    ours, difference = (column(table, f"CIFAR-10 > {name}") for name in inner[1:])
    assert [cell["bold"] for cell in ours] == [False, False, True, False]
    assert any(note.startswith("Bold: the best of ours") for note in table["notes"])
    assert difference[0]["text"].startswith("\u22120.") and difference[0]["interval"]
    assert difference[0]["number"] == pytest.approx((ours[0]["number"] or 0) - 4.5)
    assert [cell["text"] for cell in difference[1::2]] == ["", ""]
    [line] = table["lines"]
    assert line == (
        "Smoke tier: the paper's data, network and budget. Differences are ours minus printed."
    )


def test_what_is_converted_or_from_memory_has_a_note() -> None:
    [table, _] = views(part("cfl"))
    first, _, _, last = column(table, "CIFAR-10 > printed")
    assert f"{first['note']}: Printed as accuracy: 100 minus it is shown." in table["notes"]
    assert f"{last['note']}: From memory, not read in the source." in table["notes"]
    assert last["title"] == "printed, 1 run, source [1], from memory"
    assert "Printed figures were read in [1] the full text." in table["notes"]


def test_welch_interval_is_that_of_the_samples() -> None:
    ours, theirs = np.array([4.0, 4.3, 3.9, 4.6, 4.1]), np.array([4.9, 5.6, 4.4])
    figures = [benchmark_cells.Figure(x.mean(), 2, x.std(ddof=1), n=len(x)) for x in (ours, theirs)]
    found = benchmark_cells.difference(*figures)
    wanted = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval()
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    shared = dataclasses.replace(figures[0], n=15, units=5)
    assert benchmark_cells.difference(shared, figures[1]) == found
    lacking = benchmark_cells.difference(figures[0], benchmark_cells.Figure(5.0, 2, 0.1, n=1))
    assert lacking.interval == "" and lacking.mean == pytest.approx(ours.mean() - 5)


def test_printed_figures_have_the_decimals_that_they_are_printed_with() -> None:
    figure: Any = {"metric": "m", "source": "s", "value": 72.5, "decimals": 2, "std": 0.3,
                   "runs": None}  # fmt: skip
    cell: Any = {"shows": "percent"}
    found = benchmark_cells.of_printed(benchmark_join.Printed(cell, figure), True)
    assert found is not None and found.digits == 2
    made = benchmark_cells.shown(found, "").cell
    assert (made["text"], made["spread"]) == ("72.50", "0.30")


def test_columns_with_the_same_runs_are_one_under_a_head_of_their_own() -> None:
    own = part("gct")
    [table] = views(own)
    assert heads(table)[0] == "Ours, smoke tier > digits, 997 labels" and len(heads(table)) == 10
    assert heads(table)[1] == "Printed > CIFAR-10 > 40 labels"
    assert {len(line["heads"]) for line in table["columns"]} == {3}
    assert "difference" not in table["values"]
    assert table["lines"] == [
        "Smoke tier: digits, 997 labels, bn_mlp 128-128, 40.9\u00a0k images a run, 5 seeds: not "
        "the paper's data or setting, so nothing is subtracted.", "Ours uses RandAugment.",
    ]  # fmt: skip
    # Another arm for 250 labels makes a column of its own.
    cells = own["tables"][0]["cells"]
    [other] = [c for c in cells if (c["row"], c["column"]) == (2, 1)]
    other["arm"] = "mean"
    [table] = views(own)
    first = "Ours, smoke tier > digits, 997 labels, for"
    assert heads(table)[:2] == [f"{first} 40 labels and 4000 labels", f"{first} 250 labels"]


def test_a_column_of_each_metric_keeps_its_head() -> None:
    [_, table] = views(part("cfl"))
    data = "Ours, smoke tier > digits, 997 labels"
    names = ["Accuracy (%)", "NLL (nats)"]
    assert heads(table) == [*(f"{data} > {n}" for n in names), *(f"Printed > {n}" for n in names)]
    assert [len(c["text"].partition(".")[2]) for c in table["cells"][0]] == [2, 4, 1, 3]


def test_methods_in_columns_are_turned_as_printed() -> None:
    [table] = views(part("clr"))
    assert heads(table) == ["Fixed", "CLR > triangular", "CLR > triangular2"]
    assert heads(table, "rows") == [
        "Ours, smoke tier > digits, 997 labels", "Printed > CIFAR-10", "Printed > CIFAR-100",
    ]  # fmt: skip
    assert [line["value"] for line in table["rows"]] == ["ours", "printed", "printed"]
    assert {line["value"] for line in table["columns"]} == {None}
    assert texts(table["cells"][1]) == ["92.3", "92.4", "92.5"]
    assert len(table["cells"]) == 3 and {len(row) for row in table["cells"]} == {3}
    assert downloaded(table["file"])[0]["column"] == "Fixed"


def test_ours_of_the_same_setting_stand_beside_where_nothing_is_printed() -> None:
    own = part("cfl")
    for cell in own["tables"][0]["cells"]:
        cell["printed"] = None
    [table, _] = views(own)
    assert heads(table) == ["CIFAR-10 > ours"] and table["values"] == ["ours"]
    assert table["lines"] == ["Smoke tier: the paper's data, network and budget."]


def test_tiers_stand_in_order_of_their_distance_from_the_paper() -> None:
    own = part("gct")
    desk = factory.at_tier(own, "desk", "Fashion-MNIST, 250 labels", 1e6)
    paper = factory.at_tier(own, "paper", DATA, 1e5)
    for cell in paper["tables"][0]["cells"]:
        cell["same"] = bool(cell["experiment"]) and cell["column"] == 0
    [table] = views(own, desk, paper)
    assert heads(table)[:4] == [f"CIFAR-10 > {n}" for n in (
        "40 labels > printed", "40 labels > ours", "40 labels > difference",
        "250 labels > printed")]  # fmt: skip
    assert heads(table)[-3:] == [
        f"Ours, paper tier > {DATA}", "Ours, desk tier > Fashion-MNIST, 250 labels",
        "Ours, smoke tier > digits, 997 labels",
    ]  # fmt: skip
    tiers = [line.split()[0] for line in table["lines"]]
    assert tiers == ["Paper", "Paper", "Desk", "Smoke", "Ours"]
    assert sum("Device: " in note for note in table["notes"]) == 1


def test_cells_of_another_tier_are_matched_by_their_heads() -> None:
    own = part("gct")
    other = factory.at_tier(own, "desk", DATA)
    [given] = other["tables"]
    given["rows"].reverse()
    given["columns"].reverse()
    for cell in given["cells"]:
        cell.update(row=5 - cell["row"], column=8 - cell["column"])
    [straight] = views(own, factory.at_tier(own, "desk", DATA))
    assert views(own, other) == [straight]
    # What this declaration does not have is left out.
    given["columns"][8]["heads"] = ["CIFAR-10", "77 labels"]
    other["tables"].append(copy.deepcopy(given) | {"id": "unknown"})
    [table] = views(own, other)
    assert heads(table) == heads(straight)
    assert not any("77 labels" in row["column"] for row in downloaded(table["file"]))
    assert "other lines: CIFAR-10, 77 labels;" in " ".join(table["notes"])


def test_evidence_of_other_papers_or_of_the_same_tier_adds_nothing() -> None:
    own = part("gct")
    alone = view.report([own], "smoke")["benchmarks"]
    others = [factory.at_tier(part("clr"), "desk", DATA), factory.at_tier(own, "smoke", DATA)]
    assert view.report([own], "smoke", others)["benchmarks"] == alone


def test_an_empty_cell_has_its_reason_and_its_cost() -> None:
    own = part("gct")
    for cell in own["tables"][0]["cells"]:
        if cell["row"] == 3:
            fill = {"tier": "paper", "run": "x", "seconds": {"parent": 20.0, "own": 40.0}}
            cell.update(empty="needs CTAugment", fill=fill)
    [table] = views(own)
    assert heads(table, "rows") == [
        "\u03a0-model", "Mean Teacher", "FixMatch > RA", "FixMatch > CTA", "FixMatch (RA)",
    ]  # fmt: skip
    ours = column(table, "Ours, smoke tier > digits, 997 labels")
    assert [cell["text"] for cell in ours][::3] == ["\u2013", "\u2013"]
    assert f"{ours[0]['note']}: No arm of ours." in table["notes"]
    assert f"{ours[3]['note']}: Needs CTAugment." in table["notes"]
    assert ours[3]["title"] == "needs CTAugment; about 60\u00a0s at the paper tier"
    assert (ours[4]["text"], ours[4]["title"]) == ("", "no arm of ours")
    assert table["rows"][4]["by"] == "TorchSSL"
    assert "Left out, without any figure: Nothing of anyone." in table["notes"]
    [said] = [note for note in table["notes"] if "italics" in note]
    assert said.endswith(
        "reproduced by others than the paper's authors: FixMatch (RA) by TorchSSL."
    )


def test_columns_without_ours_have_their_reasons_once() -> None:
    own = part("gct")
    for cell in own["tables"][0]["cells"]:
        if cell["row"] == 3:
            cell["empty"] = "needs CTAugment"
        elif cell["column"] > 5 and cell["row"] < 3:
            cell["empty"] = "needs SVHN"
        elif cell["column"] == 2:
            cell.update(experiment=None, arm=None, empty="no run has finished")
    assert [note for note in views(own)[0]["notes"] if note.startswith("Nothing of ours")] == [
        "Nothing of ours in CIFAR-10 (4000 labels): no run has finished.",
        "Nothing of ours in CIFAR-100: not run at the smoke tier.",
        "Nothing of ours in SVHN: needs SVHN.",
    ]


def test_runs_that_diverged_have_a_note() -> None:
    own = part("cfl")
    [arm] = [a for a in own["experiments"][0]["arms"] if a["id"] == "mean"]
    arm.update(n=3, diverged=[{"seed": 3, "step": 7}, {"seed": 4, "step": 9}])
    [table, _] = views(own)
    keys = [cell["note"] for cell in column(table, "CIFAR-10 > ours")]
    assert f"{keys[1]}: 2 of 5 runs diverged, not in the mean." in table["notes"] and not keys[0]


def test_lines_of_others_among_the_data_are_named() -> None:
    own = part("clr")
    own["tables"][0]["rows"][1]["by"] = "a user of the code"
    [table] = views(own)
    assert [line["by"] for line in table["rows"]] == [None, None, "a user of the code"]
    [said] = [note for note in table["notes"] if "italics" in note]
    assert said.endswith("CIFAR-100 by a user of the code.")
    assert [r["by"] for r in downloaded(table["file"])].count("a user of the code") == 3


def test_equal_reasons_share_a_key() -> None:
    [table] = views(part("gct"))
    ours = column(table, "Ours, smoke tier > digits, 997 labels")
    assert ours[0]["note"] == ours[3]["note"] != ""
    assert sum("No arm of ours" in note for note in table["notes"]) == 1


def test_costs_count_a_shared_run_once_and_name_the_largest_columns() -> None:
    own = part("gct")
    fills = [c["fill"] for c in own["tables"][0]["cells"] if c["fill"]]
    assert len(fills) == 18
    [joined] = benchmark_join.joined([own], [])
    [line] = benchmark.costs(joined)
    total = 2 * 3600 * sum(range(1, 10))
    assert total == sum(sum(f["seconds"].values()) for f in fills)
    assert line == (
        f"Ours at the paper tier would take about {total / 86400:.1f}\u00a0days of training: among "
        "them SVHN, 40 labels 14\u00a0h; SVHN, 250 labels 16\u00a0h; SVHN, 1000 labels 18\u00a0h."
    )
    for place, fill in enumerate(fills):
        fill["seconds"] = {"teacher": 1800.0 - place, f"own {place}": 100.0}
    [line] = benchmark.costs(joined)
    assert line.startswith("Ours at the paper tier would take about 60\u00a0min of training: ")
    # What that tier has by now is not to be trained.
    [joined] = benchmark_join.joined([own], [factory.at_tier(own, "paper", DATA)])
    assert "CIFAR-10," not in benchmark.costs(joined)[0]


def test_the_download_has_the_figures_of_the_evidence() -> None:
    own = part("cfl")
    [table, _] = views(own)
    found = downloaded(table["file"])
    [arm] = [a for a in own["experiments"][0]["arms"] if a["id"] == "easy-hard-easy"]
    metric = arm["metrics"]["test_accuracy"]
    [row] = [r for r in found if r["row"] == "Cyclical focal loss" and r["whose"] == "ours"]
    low, high = metric["ci95"]
    wanted = [100 - 100 * metric["mean"], 100 * metric["sd"], 100 - 100 * high, 100 - 100 * low]
    shown = [float(row[name]) for name in ("mean", "sd", "low95", "high95")]
    assert shown == pytest.approx(wanted, rel=1e-4)
    assert (row["tier"], row["n"], row["source"]) == ("smoke", "5", "cfl-0/easy-hard-easy")
    printed = [r for r in found if r["whose"] == "printed"]
    assert [r["mean"] for r in printed] == ["4.5", "4.1", "4"]
    assert printed[0]["source"] == "the full text"
    texts_shown = {c["text"] for line in table["cells"] for c in line if c["number"] is not None}
    assert len(found) == len([c for r in table["cells"] for c in r if c["number"] is not None])
    assert {f"{float(r['mean']):.2f}" for r in found if r["whose"] == "ours"} <= texts_shown


def test_a_single_seed_has_no_spread_and_a_table_without_figures_is_left_out() -> None:
    own = part("cfl")
    for arm in own["experiments"][0]["arms"]:
        arm["metrics"]["test_accuracy"].update(sd=None, ci95=None, values=[0.9512], mean=0.9512)
    [table, _] = views(own)
    cell = column(table, "CIFAR-10 > ours")[0]
    assert (cell["text"], cell["spread"], cell["interval"]) == ("4.88", "", "")
    assert column(table, "CIFAR-10 > difference")[0]["interval"] == ""
    for table_ in own["tables"]:
        for each in table_["cells"]:
            each.update(printed=None, experiment=None, arm=None, empty="not run")
    assert views(own) == []


def test_the_flat_list_names_the_tables_and_those_in_none_come_first() -> None:
    paper = view.paper([part("clr")], Slugs())
    full, rest = paper["printed_table"], paper["printed_rest"]
    assert full is not None and rest is not None
    titles = [row[-1] for row in full.rows]
    assert titles == ["", "", *["Table 4"] * 6] and full.columns[-1].header == "In table"
    assert len(rest.rows) == 2 and rest.columns[-1].header != "In table"
    paper["in_tables"] = [["Table 4"]] * 8
    assert contents.printed("x", paper, rest=True) is None


def test_evidence_of_other_tiers_that_cannot_be_used_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(import_module("cyclery.report.tex"), "compile_pdf", lambda folder: None)
    own = evidence_factory.evidence(1, 3, 3)[0]
    desk = factory.at_tier(own, "desk", DATA)
    files = {"own": own, "desk": desk, "old": {**desk, "schema": 1}, "cut": None}
    for name, content in files.items():
        text = "{" if content is None else json.dumps(seal(content))
        (tmp_path / f"{name}.json").write_text(text)
    folder = tmp_path / "report"
    also = [tmp_path / f"{name}.json" for name in ("desk", "old", "cut", "none")]
    with caplog.at_level(logging.WARNING):
        report([tmp_path / "own.json"], folder, also)
    said = [r.getMessage() for r in caplog.records if "left out" in r.getMessage()]
    assert ["schema 1" in said[0], "cut.json" in said[1], "none.json" in said[2]] == [True] * 3
    source = (folder / "benchmarks/gct-table-2.tex").read_text("utf-8")
    assert "Ours, desk" in source and "Ours, smoke" in source
    listed = checksums.listed(folder / checksums.NAME)
    assert listed is not None and {
        f"benchmarks/{name}" for name in ("gct-table-2.tex", "packages.sty")
    } <= set(listed)
    assert listed["benchmarks/gct-table-2.tex"] == sha256(source.encode()).hexdigest()
