"""Batches as one call of Snakemake: stopped with all that it started, refused, and failing."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from factories.deciding import project

from cyclery.budget import batches
from cyclery.common.errors import UserError
from cyclery.config.load import load
from cyclery.plan.graph import Plan

# Starts another process, and both say when they are told to end.
CHILD = """
import subprocess, sys, time
if len(sys.argv) < 3:
    subprocess.Popen([sys.executable, __file__, sys.argv[1], "job"])
name = sys.argv[2] if len(sys.argv) > 2 else "graph"
open(f"{sys.argv[1]}/{name}-begun", "w").close()
try:
    time.sleep(60)
except KeyboardInterrupt:
    open(f"{sys.argv[1]}/{name}-stopped", "w").close()
"""


def test_what_it_started_is_stopped_as_by_ctrl_c(tmp_path: Path) -> None:
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    command = [sys.executable, str(script), str(tmp_path)]
    with subprocess.Popen(command, start_new_session=True) as child:
        until = time.monotonic() + 60
        while len(list(tmp_path.glob("*-begun"))) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        batches.stop(child)
        assert child.poll() is not None
    while len(list(tmp_path.glob("*-stopped"))) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    assert {path.name for path in tmp_path.glob("*-stopped")} == {"graph-stopped", "job-stopped"}
    batches.stop(child)  # It has ended.


def test_a_locked_folder_and_a_failure_get_one_message(tmp_path: Path) -> None:
    plan = Plan(load(project(tmp_path)))
    log, ticks = tmp_path / "results/smoke/logs/decide.log", list[int]()
    with pytest.raises(UserError, match=r"Snakemake failed, .*decide.log says why.*kept"):
        # There is no Snakefile.
        batches.run(plan, ["one"], "1", [], log, lambda: ticks.append(1))
    assert ticks and log.read_text()
    locks = tmp_path / ".snakemake/locks"
    locks.mkdir(parents=True, exist_ok=True)
    (locks / "0.input.lock").touch()
    with pytest.raises(UserError, match="Snakemake is at work here; wait for it"):
        batches.run(plan, ["one"], "1", [], log, lambda: None)


def test_the_pace_is_learnt_from_batches() -> None:
    pace = batches.Pace(2)
    assert pace.wall(60) == batches.OVERHEAD + 30
    assert pace.room(pace.wall(60)) == pytest.approx(60)
    pace.learn(60, 90)
    assert pace.factor == pytest.approx(2) and pace.room(90) == pytest.approx(60)
    pace.learn(1e6, 0.1)
    assert pace.factor == batches.QUICKEST
    assert pace.room(1) == 0
