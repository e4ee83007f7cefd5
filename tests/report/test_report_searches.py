"""A project whose arms are searched, from its jobs to its report."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from factories.page import unpacked
from factories.searches import trained

from cyclery.cli.main import main
from cyclery.evidence import searched
from cyclery.records.readers import read_records

Json = dict[str, Any]


@pytest.fixture(scope="module")
def records() -> Json:
    found: Any = read_records(
        {trained() / f"results/smoke/records/one/L{k}-0000.jsonl": [] for k in (0, 1)}
    )
    return found


@pytest.fixture(scope="module")
def evidence() -> Json:
    found: Json = json.loads((trained() / "results/smoke/evidence/one.json").read_bytes())
    return found


def arm(evidence: Json, name: str) -> Json:
    [found] = [arm for arm in evidence["experiments"][0]["arms"] if arm["id"] == name]
    return dict(found)


def test_runs_have_the_schedules_that_the_study_of_their_split_chose(records: Json) -> None:
    runs = [r for r in records.values() if "searched" in r["settings"]]
    assert len(runs) == 8
    for run in runs:
        study = records[run["settings"]["searched"]]
        assert study["kind"] == "study"
        assert study["settings"]["seed"] == run["settings"]["seed"] // 2 * 2
        best = max(study["trials"], key=lambda t: t["metric"][-1])
        assert run["inputs"]["tuned"] == best["values"]
        number = study["trials"].index(best)
        chosen = study["settings"]["study"]["trials"][number]["schedules"]
        assert run["settings"]["schedules"] == chosen
        # Trained on labelled and validation samples, where trials had the labelled ones.
        assert sum(run["final"]["train_class_count"]) == 200
        assert "val_accuracy" not in run["final"]


def test_the_evidence_has_every_trial(evidence: Json, records: Json) -> None:
    fast = arm(evidence, "fast")["searched"]
    assert "searched" not in arm(evidence, "plain")
    assert [study["seeds"] for study in fast["studies"]] == [[0, 1], [2, 3]]
    for study in fast["studies"]:
        assert len(study["trials"]) == fast["tried"] == 6
        assert study["chosen"] is not None
    assert not any("differ in" in text for text in evidence["experiments"][0]["warnings"])


def test_the_report_shows_trials_curves_and_choices() -> None:
    page = unpacked((trained() / "results/smoke/report/index.html").read_text())
    text = re.sub(r"<[^>]+>", "", page)
    assert "Random search, 6 configurations a study, the same for every arm" in text
    assert "drawn at random and halved, the best trial on validation counts. A: untuned" in text
    assert "best of 6 drawn trials on validation: batch size" in text
    assert "2 of 3 arms, 24 trials in all" in text
    assert "B fast: val. acc. (%) by epoch" in text and "C focal: val. acc. (%) by epoch" in text
    for word in ("pruned", "finished", "chosen"):
        assert word in text
    tables = [p.name for p in (trained() / "results/smoke/report/tables").glob("*trials*.tex")]
    figures = [p.name for p in (trained() / "results/smoke/report/figures").glob("*search*.pdf")]
    assert len(tables) == 1 and len(figures) == 2


def test_runs_of_another_choice_are_left_out(evidence: Json) -> None:
    values = searched.choices(arm(evidence, "fast")["searched"])  # type: ignore[arg-type]

    class Plan:
        def key(self, seed: int) -> str:
            return f"run {seed}"

    runs: Json = {f"run {s}": {"inputs": {"tuned": values[s]}, "status": "done"} for s in range(4)}
    runs["run 1"]["inputs"]["tuned"] = {"lr": 1.0}
    searched.leave_out_others(Plan(), values, runs)  # type: ignore[arg-type]
    assert [run["status"] for run in runs.values()] == [
        "done", "of another tuning", "done", "done"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("command", "text"), [("status", "All 16 runs"), ("plan", " 16 "), ("verify", "2 files of r")]
)
def test_other_commands_know_of_studies(command: str, text: str, capsys: Any) -> None:
    assert main(["--root", str(trained()), command]) == 0
    assert text in capsys.readouterr().out
