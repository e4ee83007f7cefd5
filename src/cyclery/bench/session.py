"""A benchmark session: choose rows, measure each, and collect the results."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatch
from typing import Any

import torch

from cyclery.bench import cases, measure, results
from cyclery.bench.cases import Case
from cyclery.bench.goals import FIRST_STEP, STEADY_STATE
from cyclery.bench.trace import steady_state
from cyclery.common.errors import UserError
from cyclery.engine.machine import computes_bf16, device_name, versions

log = logging.getLogger(__name__)

SCHEMA = 1
TURNS_SHARE = 0.5  # of the time; the rest is for setting up, for processes and for compiling
COMPILING_SECONDS = 60.0  # of a row that compiles, about
FIRST_STEPS = 3


class Session:
    """Measures rows into ``found``, which is plain JSON at any time."""

    def __init__(self, device: torch.device, seconds: float, quick: bool) -> None:
        self._device, self._seconds = device, seconds
        self._on_gpu = device.type == "cuda"
        every = cases.rows(device.type, cores(), computes_bf16())
        self._cases = {case.row: case for case in every}
        self._unit = TURNS_SHARE * seconds / sum(case.share for case in every)
        found = versions()
        if self._on_gpu:
            found["cuda"] = str(torch.version.cuda)
            found["cudnn"] = str(torch.backends.cudnn.version())
        self.found: dict[str, Any] = {
            "schema": SCHEMA,
            "device": device_name(device),
            "kind": device.type,
            "cores": cores(),
            "versions": found,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "quick": quick,
            "rows": [],
            FIRST_STEP: None,
            STEADY_STATE: [],
            "left_out": {},
            "failed": {},
        }

    def choose(self, globs: Sequence[str]) -> list[str]:
        """Return the names of the rows that a pattern fits, in order; a UserError where none."""
        others = [FIRST_STEP, STEADY_STATE] if self._on_gpu else [FIRST_STEP]
        # What compiles comes last.
        names = [row for row, case in self._cases.items() if not _compiles(case)]
        names += [*others, *(row for row in self._cases if row not in names)]
        chosen = [name for name in names if any(fnmatch(name, glob) for glob in globs)]
        if not chosen:
            raise UserError(f"--rows {' '.join(globs)}: no such row. Rows: {', '.join(names)}.")
        return chosen

    def measure(self, names: Sequence[str]) -> Iterator[list[str]]:
        """Measure rows; yield each as lines of text.

        One that fails does not take the others with it: time on a GPU is dear.
        """
        began = time.monotonic()
        self.found["left_out"] = dict.fromkeys(names, "not reached")
        for name in names:
            left = self._seconds - (time.monotonic() - began)
            if self._cost(name) > left:
                why = f"does not fit into {self._seconds / 60:g} minutes"
                self.found["left_out"][name] = why
                yield [f"{name}: {why}"]
                continue
            try:
                said = self._one(name)
            except Exception as error:
                log.warning("%s failed", name, exc_info=True)
                self.found["failed"][name] = f"{type(error).__name__}: {error}".partition("\n")[0]
                said = [f"{name}: failed: {self.found['failed'][name]}"]
            measure.tidy(self._device)
            del self.found["left_out"][name]
            yield said

    def _cost(self, name: str) -> float:
        """Return the seconds that a row takes at least."""
        if name not in self._cases:
            return 0.0
        case = self._cases[name]
        return self._unit * case.share + COMPILING_SECONDS * _compiles(case)

    def _one(self, name: str) -> list[str]:
        if name == FIRST_STEP:
            return self._first_step()
        if name == STEADY_STATE:
            return self._steady_state()
        case = self._cases[name]
        row = measure.row(case, self._device, self._unit * case.share)
        self.found["rows"].append(row)
        return results.table(row["title"], [results.HEAD, *results.cells(row)])

    def _first_step(self) -> list[str]:
        row, engine = "step/small-cnn-16/64", cases.EAGER
        if self._on_gpu:
            row, [engine] = "step/wrn-28-2/64", cases.captured(1)
        both = (cases.LOOP, engine)
        found = measure.first_step(
            self._cases[row], both, self._device, FIRST_STEPS
        )  # fmt: skip
        self.found[FIRST_STEP] = found
        title = f"from process start to first trained step: {found['title']}"
        return results.table(title, [results.FIRST_STEP_HEAD, *results.first_step_cells(found)])

    def _steady_state(self) -> list[str]:
        rows = ("step/small-cnn/64", "step/wrn-28-2/64", "fixmatch/wrn-28-2/64")
        found = [steady_state(self._cases[row], self._device) for row in rows]
        self.found[STEADY_STATE] = found
        shown = results.steady_state_cells(found)
        return results.table("between two ends of an epoch", [results.STEADY_HEAD, *shown])


def cores() -> int:
    """Return how many cores this process may use."""
    sees = getattr(os, "sched_getaffinity", None)
    return len(sees(0)) if sees else os.cpu_count() or 1


def _compiles(case: Case) -> bool:
    return any(variant.compiled for variant in case.variants)
