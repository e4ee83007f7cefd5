"""`cyclery check` of benchmark tables: names, two figures for one cell, other data."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from factories.project import PAPER, TIER, refused, write

from cyclery.cli.main import main
from cyclery.config.load import load
from cyclery.plan.project_checks import check
from cyclery.plan.snakemake_api import Graph

Json = dict[str, Any]
HEAD = "paper,table,dataset,labels,architecture,method,metric,value,std,runs,source,confidence\n"
TABLE: Json = {
    "title": "Table 1",
    "caption": "accuracy",
    "experiments": "main",
    "printed": {"table": "Table 1", "method": "{row}", "dataset": "{column}"},
    "rows": [{"head": "Plain", "arm": "plain"}, {"head": "Fast", "arm": "fast"}],
    "columns": ["Digits (8x8)"],
}


def project(root: Path, lines: str = "", **changes: Any) -> None:
    """Write a project whose paper has one table with these changes."""
    paper = copy.deepcopy(PAPER)
    paper["tables"] = {"t": {**copy.deepcopy(TABLE), **changes}}
    write(root, TIER, paper)
    reported = root / "config/reported/one.csv"
    reported.parent.mkdir(exist_ok=True)
    reported.write_text(HEAD + lines)


def row(dataset: str, method: str = "Plain", table: str = "Table 1") -> str:
    return f"one,{table},{dataset},,,{method},accuracy,90,,,text,read\n"


def test_a_good_table_passes(tmp_path: Path) -> None:
    project(tmp_path, row("Digits (8x8)"), same={"smoke": "same images"})
    check(load(tmp_path))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"experiments": "mian"}, "unknown experiment 'mian'. Did you mean 'main'?"),
        ({"metric": "test_acuracy"}, "tables.t.metric: unknown metric 'test_acuracy'"),
        ({"metric": "test_accuracy_best"}, "would choose the checkpoint on the test set"),
        ({"same": {"papre": "-"}}, "tables.t.same: unknown tier 'papre'"),
        ({"printed": {"tabel": "Table 1"}}, "unknown field 'tabel'. Did you mean 'table'?"),
        ({"rows": [{"head": "Plain", "arm": "plian"}]}, "unknown arm 'plian' in main."),
        ({"shows": "percentage"}, "tables.t.shows"),
        ({"rows": []}, "tables.t.rows"),
    ],
)
def test_a_wrong_name_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: Json, said: str
) -> None:
    project(tmp_path, row("Digits (8x8)"), **changes)
    message = refused(tmp_path, capsys)
    assert said in message and "config/papers/one.yaml" in message


def test_two_printed_figures_for_one_cell_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project(tmp_path, row("Digits (8x8)") * 2)
    assert "2 printed figures for one cell" in refused(tmp_path, capsys)


def test_other_data_cannot_be_subtracted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project(tmp_path, row("CIFAR-10"), same={"smoke": "as printed"}, columns=["CIFAR-10"])
    message = refused(tmp_path, capsys)
    assert "is of 'CIFAR-10', main/plain has the dataset 'digits'; they cannot be" in message


def test_evidence_of_other_tiers_counts_where_it_is_on_disk(tmp_path: Path) -> None:
    project(tmp_path, row("Digits (8x8)"))
    (tmp_path / "config/tiers/desk.yaml").write_text(
        (tmp_path / "config/tiers/smoke.yaml").read_text()
    )
    for path in (
        "smoke/evidence/one",
        "desk/evidence/one",
        "desk/evidence/two",
        "odd/evidence/one",
    ):
        file = tmp_path / f"results/{path}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
    assert Graph.of(load(tmp_path, {})).other_evidence() == ["results/desk/evidence/one.json"]


def test_check_counts_printed_figures_that_no_table_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project(tmp_path, row("Digits (8x8)") + row("Digits (8x8)", "Slow") + row("Other"))
    assert main(["--root", str(tmp_path), "check"]) == 0
    assert "one: 1 of 3 printed figures stand in a table" in capsys.readouterr().out
