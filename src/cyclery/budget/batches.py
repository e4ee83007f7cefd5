"""Run batches of seeds through the graph: one call of Snakemake each, which can be stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cyclery.common.errors import UserError
from cyclery.common.files import disk_errors, make_folder
from cyclery.plan.graph import Plan
from cyclery.sharing.state import refuse_locked, snakemake

# Seconds between looks at a batch that runs, and until one that was asked to stop is told again.
TICK, PATIENCE = 1.0, 120.0
# Seconds that a batch takes besides its runs and evidence: Snakemake and the start of its jobs.
OVERHEAD = 15.0
# A batch of runs that others had made says nothing of the next one's pace.
QUICKEST = 0.2


@dataclass
class Pace:
    """How long batches take beside what their runs were estimated at."""

    cores: int
    _took: float = 0.0
    _estimated: float = 0.0

    @property
    def factor(self) -> float:
        """Return the time that batches took over their estimates; 1 before the first."""
        return max(self._took / self._estimated, QUICKEST) if self._estimated else 1.0

    def wall(self, seconds: float) -> float:
        """Return how long a batch of so many seconds of one core should take."""
        return self.factor * self._plain(seconds)

    def room(self, wall: float) -> float:
        """Return the seconds of one core that fit into a time."""
        return max(0.0, (wall / self.factor - OVERHEAD) * self.cores)

    def learn(self, seconds: float, took: float) -> None:
        """Take note of a batch."""
        self._took += took
        self._estimated += self._plain(seconds)

    def _plain(self, seconds: float) -> float:
        return OVERHEAD + seconds / self.cores


def run(
    plan: Plan, papers: Sequence[str], cores: str, more: Sequence[str], log: Path,
    tick: Callable[[], object],
) -> None:  # fmt: skip
    """Make the evidence of papers, with all runs that the allocation asks for.

    Ctrl-C and SIGTERM are handed on once, so that runs save where they are; they end before this
    does.

    Raises:
        UserError: Snakemake is at work already, or a job failed.
    """
    root = plan.project.root
    refuse_locked(root)
    command = snakemake(cores, papers, plan.project.overrides, *more)
    with disk_errors(log):
        make_folder(log.parent)
        stream = log.open("ab")
    with stream:
        begin = stream.tell()
        child = subprocess.Popen(
            command, cwd=root, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            while child.poll() is None:
                tick()
                with suppress(subprocess.TimeoutExpired):
                    child.wait(TICK)
        except BaseException:
            stop(child)
            raise
    if child.returncode:
        with log.open("rb") as said:
            said.seek(begin)
            lines = said.read().decode(errors="replace").splitlines()
        last = [line.strip() for line in lines if "error" in line.lower() and line.strip()][:3]
        raise UserError(
            f"Snakemake failed, {log} says why{': ' if last else ''}{'; '.join(last)}. What is "
            "finished is kept; mend that and run the same command again."
        )


def stop(child: subprocess.Popen[bytes]) -> None:
    """End Snakemake and its jobs as Ctrl-C does, and wait for them."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        if child.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, number)
            until = time.monotonic() + PATIENCE
            with suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, until - time.monotonic()))
