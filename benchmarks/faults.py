"""Inject the faults of the tests' fault suite, round after round, and say what they cost.

    python benchmarks/faults.py                # three rounds of some minutes each
    python benchmarks/faults.py --quick        # one round of the quick ones, nothing stored
    python benchmarks/faults.py --docs         # put what is stored into docs/faults.md

A round is ``pytest -m fault`` with a seed of its own, which draws the moments of the kills. What
the tests note of themselves (tests/factories/fault.py) is added up by fault and stored in
results/published/faults/faults.json. A test that fails counts for nothing but its failure.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from cyclery.common.errors import UserError
from cyclery.common.files import write_atomic
from cyclery.common.formatting import between

Json = dict[str, Any]

ROOT = Path(__file__).resolve().parents[1]
STORED = Path("results/published/faults/faults.json")
PAGE = Path("docs/faults.md")
COMMAND = "python benchmarks/faults.py"
BEGIN = f"<!-- measured: written by `{COMMAND} --docs` -->"
END = "<!-- end of measured -->"


# Injecting.


def inject(seed: int, *options: str) -> Json:
    """Run one round of the suite; return how it went and what its tests noted."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "junit.xml"
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-m", "fault", f"--junitxml={report}",
             # The newer form has no properties of a test.
             "-o", "junit_family=xunit1", *options],
            cwd=ROOT, env={**os.environ, "CYCLERY_FAULT_SEED": str(seed)}, check=False,
        )  # fmt: skip
        text = report.read_text(encoding="utf-8") if report.exists() else "<testsuites/>"
    found = read_round(text)
    if done.returncode and not found["failed"]:
        found["failed"] = [f"pytest ended with code {done.returncode}"]
    return {"seed": seed, "seconds": round(time.monotonic() - began), **found}


def read_round(text: str) -> Json:
    """Return tests, failures, reasons of skipped ones and notes from pytest's JUnit report."""
    found: Json = {"tests": 0, "failed": [], "skipped": [], "notes": []}
    for case in ElementTree.fromstring(text).iter("testcase"):
        name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
        found["tests"] += 1
        if case.find("failure") is not None or case.find("error") is not None:
            found["failed"].append(name)
        elif (skipped := case.find("skipped")) is not None:
            found["skipped"].append(f"{name}: {skipped.get('message')}")
        else:
            said = {one.get("name"): one.get("value") or "" for one in case.iter("property")}
            if "fault" in said:
                numbers = {key: int(said[key]) for key in ("injected", "lost") if key in said}
                found["notes"].append({**said, **numbers})
    return found


def added(rounds: Iterable[Json]) -> list[Json]:
    """Return the notes of all rounds by fault, with the number of rounds in which it was shown."""
    faults: dict[str, Json] = {}
    for number, one in enumerate(rounds):
        for said in one["notes"]:
            empty: Json = {
                "fault": said["fault"],
                "injected": 0,
                "lost": None,
                "outcomes": [],
                "in": [],
            }
            fault = faults.setdefault(said["fault"], empty)
            fault["injected"] += said["injected"]
            if "lost" in said:
                fault["lost"] = (fault["lost"] or 0) + said["lost"]
            fault["outcomes"] = list(dict.fromkeys([*fault["outcomes"], said["outcome"]]))
            fault["in"] = sorted({*fault["in"], number + 1})
    return [faults[name] for name in sorted(faults, key=str.casefold)]


def measure(rounds: int, seed: int, *options: str) -> Json:
    """Inject the faults so many times; return what is stored."""
    import torch

    from cyclery.engine.machine import device_name, versions

    done = [inject(seed + number, *options) for number in range(rounds)]
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device_name(torch.device("cpu")),
        "cores": os.cpu_count(),
        "versions": {**versions(), "snakemake": importlib.metadata.version("snakemake")},
        "rounds": [{key: one[key] for key in one if key != "notes"} for one in done],
        "faults": added(done),
    }


# The page.


def read(stored: Path) -> Json:
    """Return what is stored."""
    if not stored.is_file():
        raise UserError(f"{stored}: no faults are stored; run `{COMMAND}` first.")
    found: Json = json.loads(stored.read_bytes())
    return found


def filled(text: str, found: Json) -> str:
    """Return the page with the table between its two marks."""
    return between(text, BEGIN, END, section(found), PAGE)


def section(found: Json) -> str:
    """Return rounds and faults as Markdown."""
    rounds, faults = found["rounds"], found["faults"]
    passed = sum(not one["failed"] for one in rounds)
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    total, lost = (sum(fault[key] or 0 for fault in faults) for key in ("injected", "lost"))
    kills = sum(fault["injected"] for fault in faults if fault["fault"].startswith("kill -9"))
    lines = [
        f"{found['made'][:10]}, {found['device']}, {found['cores']} cores; {versions}.",
        "",
        f"**{passed} of {len(rounds)} rounds passed: {total:,} faults, of which {kills:,} are "
        f"kills; {lost:,} finished runs or files had to be made again.**",
        "",
        "| round | seed | tests | skipped | seconds | outcome |",
        "| ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for number, one in enumerate(rounds, 1):
        outcome = "; ".join(["**failed**", *map(_cell, one["failed"])])
        cells = (number, one["seed"], one["tests"], len(one["skipped"]), one["seconds"],
                 outcome if one["failed"] else "passed")  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += ["", "| fault | times injected | lost | outcome |", "| --- | ---: | ---: | --- |"]
    for fault in faults:
        outcome = "; ".join(fault["outcomes"])
        if len(fault["in"]) < len(rounds):
            outcome += f" (shown in round {', '.join(map(str, fault['in']))} alone)"
        lost = "-" if fault["lost"] is None else fault["lost"]
        cells = (_cell(fault["fault"]), fault["injected"], lost, _cell(outcome))
        lines.append(f"| {' | '.join(map(str, cells))} |")
    if skipped := sorted({_cell(text) for one in rounds for text in one["skipped"]}):
        lines += ["", "Skipped on this machine:", "", *(f"- {text}" for text in skipped)]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Return a text as one cell of a table."""
    return " ".join(text.replace("|", r"\|").split())


def main() -> int:
    """Run the command; return 1 where a round failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="how often all faults are injected")
    parser.add_argument("--seed", type=int, default=1, help="of the first round; others follow")
    parser.add_argument("--quick", action="store_true", help="one quick round; nothing stored")
    parser.add_argument("--docs", action="store_true", help="inject nothing; write the page")
    options = parser.parse_args()
    if options.docs:
        page = ROOT / PAGE
        write_atomic(page, filled(page.read_text(encoding="utf-8"), read(ROOT / STORED)))
        return 0
    if options.quick:
        found = measure(1, options.seed, "-m", "fault and not slow")
    else:
        found = measure(options.rounds, options.seed)
        write_atomic(ROOT / STORED, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    print(section(found))
    return int(any(one["failed"] for one in found["rounds"]))


if __name__ == "__main__":
    raise SystemExit(main())
