"""Compare two sets of results run by run: what a change of the code left the same, bit for bit.

    python benchmarks/same_figures.py BEFORE AFTER    # two folders results/<tier>

Runs are matched by paper, experiment, arm and seed, not by run key, so that a raised ``VERSION``
does not hide that the numbers stayed. Compared are status, figures, curves, images and updates of
every record, and every claim's verdict; what differs is listed by arm. The exit code is 1 where a
figure differs or a run is in one set alone; ``--expect`` names the arms, as
``paper/experiment/arm``, that a change meant to move (a * stands for any).
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

Json = dict[str, Any]
Run = tuple[str, str, str, int]
# Of runs, then of range tests.
SAME = ("status", "diverged_step", "final", "curve", "images", "views", "updates",
        "lr", "accuracy", "loss", "bounds")  # fmt: skip


def evidence(folder: Path) -> Iterator[Json]:
    """Yield the evidence of every paper of a tier."""
    paths = sorted((folder / "evidence").glob("*.json"))
    whole = [path for path in paths if "." not in path.stem]
    if not whole:
        raise SystemExit(f"{folder}: no evidence there; name a folder results/<tier>.")
    for path in whole:
        yield json.loads(path.read_bytes())


def records(folder: Path) -> dict[str, Json]:
    """Return all records of a tier, range tests among them, by run key."""
    found: dict[str, Json] = {}
    for kind in ("records", "lr-range"):
        for path in sorted((folder / kind).rglob("*.jsonl")):
            with path.open(encoding="utf-8") as lines:
                found |= {record["key"]: record for record in map(json.loads, lines)}
    return found


def runs(folder: Path) -> dict[Run, Json]:
    """Return the record of every run that the tier's tables list, by its name."""
    known = records(folder)
    out = {}
    for found in evidence(folder):
        paper = found["paper"]["id"]
        with (folder / "tables" / f"{paper}.csv").open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                if row["key"] in known:
                    out[paper, row["experiment"], row["arm"], int(row["seed"])] = known[row["key"]]
    return out


def verdicts(folder: Path) -> dict[tuple[str, str], tuple[str, str]]:
    """Return verdict and reason of every claim."""
    return {
        (found["paper"]["id"], claim["id"]): (claim["verdict"], claim["reason"])
        for found in evidence(folder)
        for claim in found["claims"]
    }


def differing(before: Json, after: Json) -> list[str]:
    """Return the names of what is not the same in two records."""
    return [name for name in SAME if before.get(name) != after.get(name)]


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--expect", nargs="*", default=[], metavar="ARM")
    options = parser.parse_args()
    here, there = runs(options.before), runs(options.after)
    moved: dict[str, list[str]] = {}
    for run in sorted(here.keys() | there.keys()):
        arm, seed = "/".join(run[:3]), run[3]
        if run not in there or run not in here:
            what = ["is not in " + ("the second" if run in here else "the first")]
        else:
            what = differing(here[run], there[run])
        if what:
            moved.setdefault(arm, []).append(f"seed {seed}: {', '.join(what)}")
    unexpected = [
        arm for arm in moved if not any(fnmatchcase(arm, pattern) for pattern in options.expect)
    ]
    common = here.keys() & there.keys()
    same = sum(not differing(here[run], there[run]) for run in common)
    print(f"{len(here)} and {len(there)} runs, {len(common)} in both, {same} with the same bits")
    for arm, what in moved.items():
        word = "differs, as expected" if arm not in unexpected else "DIFFERS"
        print(f"{arm} {word}: {'; '.join(what)}")
    old, new = verdicts(options.before), verdicts(options.after)
    changed = [claim for claim in old.keys() & new.keys() if old[claim][0] != new[claim][0]]
    print(f"{len(old)} and {len(new)} claims, {len(changed)} verdicts moved")
    for paper, claim in sorted(changed):
        (was, why), (now, because) = old[paper, claim], new[paper, claim]
        print(f"- {paper} {claim}: {was} -> {now}\n    before: {why}\n    after:  {because}")
    return int(bool(unexpected))


if __name__ == "__main__":
    sys.exit(main())
