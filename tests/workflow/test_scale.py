"""The stress project of benchmarks/scale.py: planned whole, and executed without training."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cyclery.config.load import load
from cyclery.plan.snakemake_api import Graph

ROOT = Path(__file__).resolve().parents[2]
# Its figures are the benchmark's; no time is asserted here.


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import scale_project

    return scale_project


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import scale_page

    return scale_page


def snakemake(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "2", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout + done.stderr


def test_a_small_matrix_is_executed_without_training(project: Any, tmp_path: Path) -> None:
    project.write(tmp_path, 25, 8, experiments=1)
    assert project.fill(tmp_path) == 125
    targets = Graph.of(load(tmp_path, {})).record_files(project.NAME)
    snakemake(tmp_path, "--", *targets)
    logs = list((tmp_path / "results/paper/logs/records").rglob("*.log"))
    assert len(logs) == len(targets) == 4
    found = [re.findall(r"(\d+) in the store, (\d+) to train", log.read_text()) for log in logs]
    assert sum(int(done) for [(done, _)] in found) == 125
    assert {left for [(_, left)] in found} == {"0"}
    lines = [line for path in targets for line in (tmp_path / path).read_text().splitlines()]
    records = [json.loads(line) for line in lines]
    assert len({record["key"] for record in records}) == 125


@pytest.mark.slow
def test_three_thousand_cells_are_planned_whole(project: Any, tmp_path: Path) -> None:
    project.write(tmp_path, 3000, 1)
    output = snakemake(tmp_path, "-n", "--quiet", "rules", "--", project.NAME)
    assert re.search(r"train\s+3000", output), output[-2000:]
    shards = Graph.of(load(tmp_path, {})).plan.closure(project.NAME)
    assert len({arm.key(seed) for shard in shards for arm, seed in shard.runs}) == 15_000


def test_the_page_says_what_is_stored(page: Any) -> None:
    found = json.loads((ROOT / "results/published/scale/scale.json").read_bytes())
    text = (ROOT / page.PAGE).read_text(encoding="utf-8")
    assert page.filled(text, found) == text, "run `python benchmarks/scale.py --docs`"
    assert (ROOT / page.PLOT).read_bytes() == page.plot(found)
    assert {one["cells"] for one in found["planning"]} >= {300, page.WHOLE}
    assert len(list(page.goals(found))) >= 5
