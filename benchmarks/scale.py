"""Measure the graph of 15,000 runs: planning, jobs that have nothing to train, files, status.

    python benchmarks/scale.py             # about ten minutes of two cores
    python benchmarks/scale.py --singles   # and 3,000 jobs of a single cell, eight minutes more
    python benchmarks/scale.py --docs      # put what is stored into docs/scale.md

The project is that of scale_project.py, whose run store holds every run. A job that is executed
looks its runs up, finds them all and writes its file of records. Stored are seconds, peak memory of
the largest process and numbers of files, in results/published/scale/scale.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import scale_page as page
import scale_project as project

from cyclery.common.files import write_atomic
from cyclery.config.load import load
from cyclery.engine.machine import device_name
from cyclery.plan.snakemake_api import Graph

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[1]
STORED = Path("results/published/scale/scale.json")
WHOLE, PLANNED, EXECUTED, SINGLES = 3000, (300, 1200, 3000, 6000), (300, 1200, 3000), (300, 600)
# As many as a job of the desk tier holds.
PER_JOB = 8
# A command that is done sooner is repeated, for the median.
CHEAP_SECONDS, TIMES = 6.0, 3
# In a small process of its own, because a child's peak begins with the size of who started it.
TIMER = """
import resource, subprocess, sys, time
began = time.perf_counter()
code = subprocess.call(sys.argv[1:])
seconds = time.perf_counter() - began
print(seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""


def run(folder: Path, *command: str) -> Json:
    """Run a command in a project; return its seconds and the peak memory of a process of it."""
    source = str(ROOT / "src")
    environment = {**os.environ, "PYTHONPATH": source}
    # Users have compiled files of Python.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        [sys.executable, "-c", TIMER, sys.executable, "-m", *command],
        cwd=folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError((done.stdout + done.stderr)[-2000:])
    seconds, kilobytes = done.stderr.split()[-2:]
    return {"seconds": round(float(seconds), 2), "peak_mb": round(int(kilobytes) / 1024)}


def middle(folder: Path, *command: str) -> Json:
    """Run a command, a cheap one several times; return the median of each figure."""
    found = [run(folder, *command)]
    if found[0]["seconds"] < CHEAP_SECONDS:
        found += [run(folder, *command) for _ in range(TIMES - 1)]
    return {name: median(one[name] for one in found) for name in found[0]}


def planning(folder: Path, state: str, *targets: str) -> Json:
    """Measure `snakemake -n`."""
    return {"state": state, **middle(folder, "snakemake", "-n", "--quiet", "all", "--", *targets)}


def files(folder: Path) -> int:
    """Return the number of files below a folder."""
    return sum(len(names) for _, _, names in os.walk(folder))


def executing(folder: Path, targets: list[str]) -> Json:
    """Execute every job of the project; nothing is trained."""
    before = files(folder / "results")
    taken = run(folder, "snakemake", "--cores", "2", "--quiet", "all", "--", *targets)
    logs = list((folder / "results/paper/logs/records").rglob("*.log"))
    assert len(logs) == len(targets) and all(", 0 to train" in log.read_text() for log in logs)
    return {
        "jobs": len(targets), **taken, "store_files": before,
        "results_files": files(folder / "results"),
        "snakemake_files": files(folder / ".snakemake"),
        "cyclery_files": files(folder / ".cyclery"),
    }  # fmt: skip


def commands(folder: Path) -> Iterator[Json]:
    """Measure what people ask, before and after a third of the runs is taken away."""
    for state in ("all done", "a third to do"):
        if state != "all done":
            for path in sorted(folder.glob("results/store/*/*/record.json"))[::3]:
                path.unlink()
        for command in (("status",), ("status", "--json"), ("plan",)):
            taken = middle(folder, "cyclery", *command)
            yield {"command": f"cyclery {' '.join(command)}", "state": state, **taken}


def measure(singles: bool) -> Json:
    """Return all figures."""
    found: Json = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"), "cores": os.cpu_count(),
        "device": _device(), "load": round(os.getloadavg()[0], 1),
        "versions": {"python": sys.version.split()[0],
                     **{name: version(name) for name in ("cyclery", "snakemake", "pydantic")}},
        "planning": [], "execution": [], "commands": [],
    }  # fmt: skip
    began = time.monotonic()
    sizes = [(cells, PER_JOB) for cells in PLANNED]
    sizes += [(cells, 1) for cells in sorted({*SINGLES, *PLANNED})]
    for cells, cells_per_job in sizes:
        with tempfile.TemporaryDirectory() as name:
            folder, head = Path(name), {"cells": cells, "cells_per_job": cells_per_job}
            project.write(folder, cells, cells_per_job)
            found["planning"].append(head | planning(folder, "nothing made", project.NAME))
            if cells in (SINGLES if cells_per_job == 1 and not singles else EXECUTED):
                project.fill(folder)
                targets = Graph.of(load(folder, {})).record_files(project.NAME)
                found["execution"].append(head | executing(folder, targets))
                found["planning"].append(head | planning(folder, "all made", *targets))
                if (cells, cells_per_job) == (WHOLE, PER_JOB):
                    found["commands"] += commands(folder)
        print(f"{cells} cells, {cells_per_job} a job: {time.monotonic() - began:.0f} s", flush=True)
    return found


def _device() -> str:
    """Return the processor's name, without importing torch for it."""
    return device_name(SimpleNamespace(type="cpu"))


def main() -> int:
    """Run the command; return 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--docs", action="store_true", help="measure nothing; write the page")
    parser.add_argument("--singles", action="store_true", help="3,000 jobs of one cell, too")
    options = parser.parse_args()
    if options.docs:
        page.write(ROOT, ROOT / STORED)
        return 0
    found = measure(options.singles)
    write_atomic(ROOT / STORED, json.dumps(found, indent=1) + "\n")
    missed = [goal for goal in page.goals(found) if not goal.held]
    print(*(f"missed: {goal.what}: {goal.found}" for goal in missed), sep="\n")
    return int(bool(missed))


if __name__ == "__main__":
    raise SystemExit(main())
