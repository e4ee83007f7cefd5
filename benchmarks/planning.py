"""Time `snakemake -n` for a graph of many cells, and the repeat of a finished one.

    python benchmarks/planning.py [cells]

Prints wall seconds and peak memory of the whole process tree. The goal is 3,000 cells within 20 s
and 300 MB.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BLOCKS = 10


def project(folder: Path, cells: int) -> None:
    """Write a project whose one experiment has this many cells, one per job."""
    for name in ("Snakefile", "workflow", "profiles"):
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, folder / name)
    arms = {f"arm{i}": {"lr": 0.001 * (i + 1)} for i in range(cells // BLOCKS)}
    tier = {
        "title": "many cells",
        "seeds": 5 * BLOCKS,
        "cells_per_job": 1,
        "base": {
            "dataset": "digits",
            "split": {"test": 600, "validation": 200, "labels": 200},
            "model": "bn_mlp",
            "lr": 0.1,
            "batch": 50,
            "epochs": 41,
        },
    }
    paper = {
        "title": "Many cells",
        "authors": "-",
        "year": 2026,
        "summary": "-",
        "experiments": {"grid": {"title": "grid", "tiers": {"smoke": {}}, "arms": arms}},
        "claims": {"M-1": {"statement": "-", "not_run": {"all": "a benchmark"}}},
    }
    # JSON is YAML, and written faster.
    for path, data in (
        ("config/config.yaml", {"tier": "smoke"}),
        ("config/tiers/smoke.yaml", tier),
        ("config/papers/many.yaml", paper),
    ):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(data))


def main() -> None:
    """Run the benchmark and print one line of JSON."""
    cells = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project(folder, cells)
        began = time.perf_counter()
        command = [sys.executable, "-m", "snakemake", "-n", "--quiet", "all", "--", "many"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(json.dumps({"cells": cells, "seconds": round(seconds, 2), "peak_mb": round(peak)}))


if __name__ == "__main__":
    main()
