"""Progress file of a running job, which ``cyclery status`` reads.

A job writes ``<results>/<tier>/progress/<job>.json`` at most every ``EVERY`` seconds and removes it
at its end; a job that failed leaves its error there. A killed job cannot remove its file, which
grows stale. ``cyclery status`` judges by that age alone: process ids of another host tell nothing
here.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from typing import Any

# Between two writes. Nothing is synced to the disk: a lost update is followed by another.
EVERY = 2.0
# A job whose file is older than this, in seconds, is called lost. Network file systems may show a
# file a minute late, and compiling a network can keep a process busy for a while.
STALE = 90.0
SCHEMA = 1

# State of a run, as workers write it to shared memory.
WAITING, RUNNING, OVER = 0.0, 1.0, 2.0


def progress_file(folder: Path, job: str) -> Path:
    """Return the progress file of a job, which is named as ``records/clr.staged/L0-0000``."""
    return folder / "progress" / f"{job}.json"


@dataclass
class ProgressFile:
    """Writes the progress of a job's runs to its file. Without a path it writes nothing.

    The numbers that change lie in memory that is shared with forked workers, so a worker only
    stores a few floats at the end of an epoch and the first process writes the one file.
    """

    path: Path | None
    job: str = ""
    # Runs of the job that need no training.
    ready: int = 0
    _jobs: list[dict[str, Any]] = field(default_factory=list, init=False)
    _place: dict[str, int] = field(default_factory=dict, init=False)
    _shared: Any = field(default=None, init=False)
    _diverged: int = field(default=0, init=False)
    _began: float = field(default_factory=lambda: time.monotonic(), init=False)
    _started: float = field(default_factory=time.time, init=False)
    _written: float = field(default=-math.inf, init=False)
    _writes: int = field(default=0, init=False)
    _lock: Any = field(default_factory=threading.Lock, init=False)

    def expect(self, jobs: Sequence[Mapping[str, Any]]) -> None:
        """Add runs to those to train; call it before workers are forked."""
        if self.path is None:
            return
        known = self._shared[:] if self._shared is not None else []
        self._jobs += [dict(job) for job in jobs if job["key"] not in self._place]
        self._place = {job["key"]: i for i, job in enumerate(self._jobs)}
        shared = RawArray("d", 3 * len(self._jobs))
        shared[: len(known)] = known
        self._shared = shared

    def running(self, key: str, share: float = 0.0, resumed: bool = False) -> None:
        """Mark a run as in training, with the share of its epochs that is done.

        ``resumed``: that share is from an earlier process and says nothing about speed.
        """
        place = self._place.get(key)
        if place is not None:
            self._shared[3 * place : 3 * place + 2] = [RUNNING, share]
            if resumed:
                self._shared[3 * place + 2] = share

    def done(self, key: str, diverged: bool) -> None:
        """Mark a run as finished."""
        place = self._place.get(key)
        if place is not None:
            self._shared[3 * place : 3 * place + 2] = [OVER, 1.0]
            self._diverged += diverged

    def failed(self, key: str) -> None:
        """Mark a run as failed: it is neither in training nor done."""
        place = self._place.get(key)
        if place is not None:
            self._shared[3 * place : 3 * place + 2] = [WAITING, 0.0]

    def write(self, now: bool = False, **last: Any) -> None:
        """Write the file, but not more often than every ``EVERY`` seconds unless ``now``.

        A full disk or a lost folder must not end training, so errors of writing are ignored.
        """
        if self.path is None:
            return
        with self._lock:
            time_now = time.monotonic()
            if not now and time_now - self._written < EVERY:
                return
            self._written = time_now
            self._writes += 1
            temporary = self.path.with_name(f".{self.path.name}.part")
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                temporary.write_text(json.dumps({**self.content(), **last}, sort_keys=True))
                temporary.replace(self.path)
            except OSError:
                with contextlib.suppress(OSError):
                    temporary.unlink()

    def content(self) -> dict[str, Any]:
        """Return the content of the file; ``images`` are all that pass the network in training."""
        states = self._shared[:] if self._shared is not None else []
        pairs = list(zip(self._jobs, states[::3], states[1::3], strict=True))
        seen = sum(job["images"] * share for job, _, share in pairs)
        before = sum(job["images"] * x for job, x in zip(self._jobs, states[2::3], strict=True))
        elapsed = time.monotonic() - self._began
        rate = (seen - before) / elapsed if elapsed > 0 else 0.0
        total = sum(job["images"] for job, _, _ in pairs)
        return {
            "schema": SCHEMA, "job": self.job, "state": "running", "error": None,
            "host": platform.node(), "pid": os.getpid(),
            "slurm_job": os.environ.get("SLURM_JOB_ID"),
            "started": self._started, "time": time.time(), "beat": self._writes, "every": EVERY,
            "ready": self.ready, "total": len(pairs), "diverged": self._diverged,
            "done": sum(state == OVER for _, state, _ in pairs),
            "seconds": elapsed, "images": seen, "images_total": total, "images_per_second": rate,
            "left": (total - seen) / rate if rate > 0 else None,
            "running": [
                {"key": job["key"], "label": job["label"], "share": share,
                 "epochs": job["settings"].get("epochs")}
                for job, state, share in pairs if state == RUNNING
            ],
        }  # fmt: skip

    @contextlib.contextmanager
    def lifetime(self) -> Iterator[None]:
        """Keep the file while the job runs; then remove it, or leave the error of a failure."""
        self.write(now=True)
        try:
            yield
        except Exception as error:
            if self._asked_to_stop(error):
                self._remove()
            else:
                self.write(now=True, state="failed", error=f"{error}" or type(error).__name__)
            raise
        except BaseException:
            self._remove()
            raise
        self._remove()

    @staticmethod
    def _asked_to_stop(error: Exception) -> bool:
        from cyclery.common.signals import Stopped

        return isinstance(error, Stopped)

    def _remove(self) -> None:
        if self.path is not None:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def in_background(self) -> Iterator[None]:
        """Write from a thread meanwhile, for a process that computes, however long an epoch takes.

        The thread has ended when this returns, because a process with threads cannot fork safely.
        """
        if self.path is None:
            yield
            return
        over = threading.Event()

        def update() -> None:
            while not over.wait(EVERY / 4):
                self.write()

        thread = threading.Thread(target=update, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
