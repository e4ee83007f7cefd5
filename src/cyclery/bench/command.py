"""The command ``cyclery bench``: measure, print and store."""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclery.bench import results
from cyclery.bench.goals import goals
from cyclery.common.errors import UserError
from cyclery.common.files import write_atomic

if TYPE_CHECKING:
    import torch

PUBLISHED = Path("results/published/bench")
MINUTES = 8.0
QUICK_MINUTES = 3.0


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--quick", action="store_true", help="fewer repeats: about 3 minutes")
    parser.add_argument("--rows", action="append", metavar="GLOB", help="only these, as 'step/*'")
    parser.add_argument(
        "--json", type=Path, metavar="FILE",
        help=f"where to store the figures; without --quick and --rows: {PUBLISHED}/<device>.json",
    )  # fmt: skip
    parser.add_argument("--minutes", type=float, help="rows that do not fit in are left out")
    parser.add_argument(
        "--docs", action="store_true",
        help="measure nothing; put what is stored into docs/benchmark.md and its plot",
    )  # fmt: skip


def bench(options: argparse.Namespace) -> int:
    """Run the command; return its exit code, 1 where a row failed."""
    root: Path = options.root
    if options.docs:
        from cyclery.bench.page import write

        write(root, root / PUBLISHED)
        return 0
    # One thread per process: set before numpy and torch start theirs.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    from cyclery.bench.session import Session

    device = _device(options.device)
    minutes = options.minutes or (QUICK_MINUTES if options.quick else MINUTES)
    session = Session(device, 60 * minutes, options.quick)
    names = session.choose(options.rows or ["*"])
    target = options.json
    if target is None and not options.rows and not options.quick:
        target = root / PUBLISHED / f"{slug(session.found['device'])}.json"
    print(results.heading(session.found), "median (quartiles)", "", sep="\n", flush=True)
    for lines in session.measure(names):
        print(*lines, "", sep="\n", flush=True)
        # After every row: a machine that is taken away leaves what was measured.
        if target:
            _store(session.found, target)
    judged = [results.GOAL_HEAD, *results.goal_cells(goals(session.found))]
    print(*results.table("goals", judged, left=4), sep="\n")
    if target:
        print(f"\nstored: {target}")
    return int(bool(session.found["failed"]))


def slug(name: str) -> str:
    """Return a device's name as a file name: ``nvidia-h100-80gb-hbm3``."""
    plain = re.sub(r"\((r|tm|c)\)", "", name.lower())
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def _store(found: dict[str, Any], target: Path) -> None:
    whole = found | {"goals": goals(found)}
    write_atomic(target, json.dumps(whole, indent=1, allow_nan=False) + "\n")


def _device(wanted: str) -> torch.device:
    import torch

    torch.set_num_threads(1)
    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise UserError("--device cuda: torch sees no GPU; measure with --device cpu.")
    if wanted == "cpu" or not there:
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())
