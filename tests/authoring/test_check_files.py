"""`cyclery check` reads the file of every component, and says of each that is wrong why."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from factories import component
from factories.project import PAPER, TIER, refused, run, write

from cyclery import augment, methods, models, optim, probes, schedules
from cyclery.data import readers
from cyclery.models import heads
from cyclery.records import metrics

NOUNS = {
    methods: "method",
    models: "model",
    heads: "head",
    optim: "optimiser",
    augment: "op",
    schedules: "schedule",
    probes: "probe",
    readers: "reader",
    metrics: "metric",
}


@pytest.mark.parametrize("package", NOUNS, ids=NOUNS.values())
def test_a_file_that_no_arm_names_is_read(
    package: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "project"
    write(root, TIER, PAPER)
    with component.written(package, tmp_path / "own") as add:
        path = add("unused", "")
        said = refused(root, capsys)
        assert said.startswith(f"cyclery: {path}: declares no ")
        assert f"; every {NOUNS[package]}'s file has " in said and len(said.splitlines()) == 1
    run(root, "check")
