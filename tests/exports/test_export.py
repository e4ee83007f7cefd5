"""Runs, curves and claims for other tools: whole, typed, the same bytes, readable elsewhere."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from factories import project as projects

from cyclery.cli.main import main
from cyclery.common import checksums

Json = dict[str, Any]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(projects.trained(), root, dirs_exist_ok=True)
    return root


@pytest.fixture(scope="module")
def exported(project: Path) -> Path:
    folder = project / "exported"
    projects.run(project, "export", "--to", str(folder), "--format", "both")
    return folder


def records(project: Path) -> dict[str, Json]:
    files = (project / "results/smoke/records").rglob("*.jsonl")
    return {r["key"]: r for f in files for r in map(json.loads, f.read_text().splitlines())}


def test_tables_hold_what_records_and_evidence_say(project: Path, exported: Path) -> None:
    runs, claims = (pd.read_parquet(exported / f"{name}.parquet") for name in ("runs", "claims"))
    known = records(project)
    rows = runs[runs["kind"] == "run"]
    assert set(rows["key"]) == known.keys() and set(runs["status"]) == {"done"}
    assert len(runs) == 3 * 7 + 2  # seven arms, and the range test with two seeds
    for row in rows.to_dict("records"):
        record = known[row["key"]]
        assert row["test_accuracy"] == record["final"]["test_accuracy"]
        assert json.loads(row["settings"]) == record["settings"]
        assert row["seed"] == record["settings"]["seed"] and row["classes"] == 10
        taken = [p["key"] for each in record["inputs"]["parents"].values() for p in each]
        assert list(row["parents"]) == taken == list(row["ancestors"])
    assert set(runs.loc[runs["arm"] == "range-test", "seeds_at_most"]) == {2}
    assert runs["range_deviation"].notna().sum() == 2 and runs["diverged_step"].isna().all()
    said = {claim["id"]: claim for claim in projects.evidence(project)["claims"]}
    assert list(claims["claim"]) == ["C-1", "C-2", "C-2", "C-3"]
    for (name, place), row in claims.set_index(["claim", "comparison"]).iterrows():
        compared = said[name]["comparisons"][place - 1]
        assert row["claim_verdict"] == said[name]["verdict"]
        for key in ("verdict", "metric", "margin", "test", "n"):
            assert row[key] == compared[key], key
        for key in ("effect", "p_holm"):
            # Evidence is rounded, tables are not.
            expected = pytest.approx(np.float64(compared[key]), rel=1e-9, nan_ok=True)
            assert row[key] == expected, key
    against = json.loads(claims["declared"][1])["against"]
    assert against == {"best_of": ["plain", "fast"], "by": "val_accuracy"}
    assert list(claims["percent"][1]) == ["test_accuracy", "val_accuracy"]
    # What a claim names on the way is a column, too.
    assert runs["test_accuracy@0.4"].notna().sum() >= 3


def test_curves_are_those_of_the_records_once(project: Path, exported: Path) -> None:
    curves = pd.read_parquet(exported / "curves.parquet")
    assert not curves.duplicated(["key", "metric", "epoch"]).any()
    for key, record in records(project).items():
        own = curves[(curves["key"] == key) & (curves["metric"] == "test_accuracy")]
        assert list(own["epoch"]) == record["curve"]["eval_epoch"]
        assert list(own["value"]) == record["curve"]["test_accuracy"]


def test_tensorboard_reads_every_event_file(project: Path, exported: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    files = sorted((exported / "tensorboard").rglob("*tfevents*"))
    assert len(files) == 3 * 7
    folder = exported / "tensorboard/one/main/fast/seed-1"
    found = EventAccumulator(str(folder)).Reload()
    runs = pd.read_parquet(exported / "runs.parquet")
    row = runs[(runs["experiment"] == "main") & (runs["arm"] == "fast") & (runs["seed"] == 1)]
    record = records(project)[row["key"].item()]
    curve = found.Scalars("test_accuracy")
    assert [event.step for event in curve] == record["curve"]["eval_epoch"]
    assert [event.value for event in curve] == pytest.approx(record["curve"]["test_accuracy"])
    [final] = found.Scalars("final/test_accuracy")
    assert final.value == pytest.approx(record["final"]["test_accuracy"])
    times = [event.wall_time for event in curve]
    assert times == sorted(times) and found.FirstEventTimestamp() <= times[0]


def test_the_same_records_give_the_same_bytes(project: Path, exported: Path) -> None:
    again = project / "again"
    projects.run(project, "export", "--to", str(again), "--format", "both", "one")
    first, second = (
        {str(path.relative_to(folder)): path.read_bytes()
         for path in folder.rglob("*") if path.is_file()}
        for folder in (exported, again)
    )  # fmt: skip
    assert first == second and not checksums.wrong(exported / checksums.NAME)
    assert first.keys() == {*(checksums.listed(exported / checksums.NAME) or ()), checksums.NAME}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--to", "{root}/src/here"], "--to: must not lie in src/"),
        (["--to", "out", "two"], "unknown paper 'two'"),
        (["--to", "out", "--set", "results=elsewhere"], "has the records of no selected paper"),
        (["--to", "out", "--tier", "desk"], "unknown tier 'desk'"),
    ],
)
def test_what_cannot_be_exported_is_one_message(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    arguments = [text.replace("{root}", str(project)) for text in arguments]
    assert main(["--root", str(project), "export", *arguments]) == 2
    said = capsys.readouterr()
    assert words in said.err and said.out == "" and "Traceback" not in said.err


def test_without_tensorboard_the_message_says_how_to_get_it(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto", None)
    arguments = ["export", "--to", str(project / "none"), "--format", "tensorboard"]
    assert main(["--root", str(project), *arguments]) == 2
    assert 'pip install "cyclery[tensorboard]"' in capsys.readouterr().err
