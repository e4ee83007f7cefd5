"""`cyclery decide` with Snakemake itself: stopped in the middle, it goes on and ends as planned."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from factories.checkout import ROOT

from cyclery.plan import allocation
from cyclery.records.readers import read_evidence

# A plan of two seeds has hardly a chance.
DECIDE = [sys.executable, "-m", "cyclery", "decide", "--hours", "1", "--cores", "2", "--all"]


@pytest.mark.slow
def test_a_stopped_call_goes_on_and_leaves_nothing_to_do(tmp_path: Path) -> None:
    for name in ("workflow", "profiles"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / ".test/config", tmp_path / "config")
    shutil.copy(ROOT / "Snakefile", tmp_path)
    with subprocess.Popen(DECIDE, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as child:
        until = time.monotonic() + 200
        while not list(tmp_path.glob("results/store/*/*/lock")) and time.monotonic() < until:
            time.sleep(0.1)
        child.send_signal(signal.SIGINT)
        assert child.stderr is not None
        assert "Traceback" not in child.stderr.read()
    assert child.returncode == 130
    # Whoever is left holds no lock of Snakemake's.
    assert not list((tmp_path / ".snakemake/locks").glob("*"))
    done = subprocess.run(DECIDE, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "end of the plan" in done.stdout
    seeds = allocation.read(allocation.place(tmp_path / "results", "smoke"))
    assert seeds == {"toy.main.plain": 2, "toy.main.range": 2, "toy.main.student": 2}
    evidence = read_evidence(tmp_path / "results/smoke/evidence/toy.json")
    assert all(claim["n"] == 2 for claim in evidence["claims"])
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--dry-run", "toy"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "Nothing to be done" in said.stdout + said.stderr
