"""Start contenders as child processes: several at once, or one timed from process start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cyclery.bench.cases import Case, Net, Variant

Json = dict[str, Any]


def spec(case: Case, variant: Variant, device: object) -> Json:
    """Return what a child makes its contender from."""
    case_json = asdict(case) | {"variants": []}
    return {"case": case_json, "variant": asdict(variant), "device": str(device)}


def read(found: Json) -> tuple[Case, Variant]:
    """Return the case and the variant of a spec; its one variant runs alone in its process."""
    variant = Variant(**found["variant"] | {"processes": False, "width": 1})
    nets = {
        key: net and Net(**net | {"shape": tuple(net["shape"])})
        for key, net in found["case"].items()
        if key in ("net", "teacher")
    }
    return Case(**found["case"] | nets | {"variants": (variant,)}), variant


class Children:
    """Processes that each train one contender, an epoch whenever they are told to.

    Each answers once its first epoch is trained and then after every other: when (monotonic
    seconds, the same clock in all processes) and how much memory it has taken at most (bytes).
    """

    def __init__(self, specs: Sequence[Json]) -> None:
        self._processes = [_start(given) for given in specs]

    def answers(self) -> list[Json]:
        """Return the next answer of each."""
        return [_answer(process) for process in self._processes]

    def train(self) -> None:
        """Train an epoch in each."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        self.answers()

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.communicate()


def _start(given: Json) -> subprocess.Popen[str]:
    source = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [sys.executable, "-m", "cyclery.bench.child", json.dumps(given)],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _answer(process: subprocess.Popen[str]) -> Json:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"a process that trains ended with code {process.wait()}")
    found: Json = json.loads(line)
    return found
