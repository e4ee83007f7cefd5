"""State of all runs and jobs, read from files alone.

The plan says which runs there are, the run store which of them are over, and the jobs' own files
(``records.job_progress``) which are being trained, where and how fast. So it works for jobs of this
machine, of SLURM and of another laboratory alike, wherever the results folder can be seen. No
process is asked: whether a job is alive is judged by the age of its progress file.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cyclery.common.files import parse_json, read_regular
from cyclery.plan.run_list import RunList
from cyclery.records.job_progress import SCHEMA, STALE
from cyclery.records.run_store import Store

Json = dict[str, Any]

STATES = ("done", "diverged", "running", "lost", "failed", "queued")
"""``lost``: its job no longer writes its progress file; ``failed``: its job ended with an error."""

_NUMBERS = ("total", "done", "ready", "diverged", "beat", "seconds", "images", "images_total",
            "images_per_second", "time", "started")  # fmt: skip


@dataclass
class _Update:
    number: float
    since: float


@dataclass
class Watcher:
    """Reads the state of a project repeatedly; its runs are listed once.

    ``clock`` is the wall clock, which is only used for files never seen before: later reads see
    whether a job still updates its file, whatever the clocks of the machines say.
    """

    root: Path
    listed: RunList
    clock: Any = time.time
    steady: Any = time.monotonic
    _seen: dict[Path, _Update] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Find the folders, and the images of every run."""
        results = self.root / self.listed.results
        self.folder = results / self.listed.tier
        self.store = Store(results / "store")
        self.images = {key: n for own in self.listed.parts.values() for key, n in own.items()}

    def read(self) -> Json:
        """Return the state of every part and job, ready for JSON."""
        jobs = [self._job(path) for path in sorted(self.folder.glob("progress/**/[!.]*.json"))]
        shares = {run["key"]: run["share"] for job in jobs if job["state"] == "running"
                  for run in job["running"]}  # fmt: skip
        states = {key: self.store.status(key) or "queued" for key in self.images}
        states |= dict.fromkeys(shares.keys() & states.keys(), "running")
        for job in jobs:
            listed = self.listed.jobs.get(job["job"], [])
            job["planned"] = bool(listed) or not job["job"].startswith("records/")
            # Another job may have finished what a lost one had begun.
            left = [key for key in listed if states[key] == "queued"]
            job["settled"] = bool(listed) and not left
            if job["state"] == "failed":
                states |= dict.fromkeys(left, "failed")
            elif job["state"] == "lost":
                begun = {run["key"] for run in job["running"]}
                states |= dict.fromkeys(begun.intersection(left), "lost")
        jobs = [job for job in jobs if job["state"] == "running" or not job["settled"]]
        rate = sum(job["images_per_second"] for job in jobs if job["state"] == "running")
        parts = [
            self._part(name, list(own), states, shares) for name, own in self.listed.parts.items()
        ]
        if len(parts) > 1:
            parts.append(self._part("all", list(self.images), states, shares))
        total = parts[-1]
        seconds = total["images_left"] / rate if rate > 0 else None
        now = self.clock()
        return {
            "tier": self.listed.tier, "time": now, "parts": parts, "jobs": jobs,
            "images_per_second": rate, "left": seconds,
            "finish": now + seconds if seconds is not None else None,
        }  # fmt: skip

    def _part(
        self, name: str, keys: Iterable[str], states: Mapping[str, str], shares: Mapping[str, float]
    ) -> Json:
        keys = list(keys)
        count = Counter(states[key] for key in keys)
        over = [key for key in keys if states[key] in ("done", "diverged")]
        images = sum(self.images[key] for key in keys)
        seen = float(sum(self.images[key] for key in over))
        seen += sum(self.images[key] * shares.get(key, 0.0) for key in keys
                    if states[key] == "running")  # fmt: skip
        return {"part": name, "runs": len(keys), **{state: count[state] for state in STATES},
                "share": seen / images if images else 1.0,
                "images_left": images - seen}  # fmt: skip

    def _job(self, path: Path) -> Json:
        """Return the content of a progress file, validated, and whether its job is alive.

        ``age``: seconds since its last update. ``ahead``: seconds by which the file's clock is
        ahead of this machine's, where that is more than the age at which a file is stale.
        """
        name = path.relative_to(self.folder / "progress").with_suffix("").as_posix()
        problem = None
        content: Json = {}
        age = 0.0
        try:
            age = self.clock() - path.stat().st_mtime
            content = _checked(parse_json(read_regular(path)))
        except FileNotFoundError:
            # It ended a moment ago.
            return {**_EMPTY, "job": name, "state": "over", "age": 0.0, "settled": True}
        except (OSError, ValueError) as error:
            problem = f"{path}: cannot be read ({error})"
        job = {**_EMPTY, **content, "job": name, "ahead": None}
        seen = self._seen.get(path)
        if seen is None:
            job["ahead"] = -age if age < -STALE else None
            seen = self._seen[path] = _Update(job["beat"], self.steady() - max(age, 0.0))
        elif problem is None and seen.number != job["beat"]:
            seen.number, seen.since = job["beat"], self.steady()
        job["age"] = self.steady() - seen.since
        if job["state"] != "failed":
            job["state"] = "lost" if job["age"] > STALE else "running"
        if problem is not None:
            job["error"] = problem
        if job["left"] is not None:
            job["left"] = max(0.0, job["left"] - job["age"])
        return job


_EMPTY: Json = {
    **dict.fromkeys(_NUMBERS, 0), "host": "an unknown host", "pid": None, "slurm_job": None,
    "error": None, "left": None, "running": [], "state": "running", "ahead": None,
}  # fmt: skip


def _checked(content: Any) -> Json:
    """Return the content of a job's file; ValueError where it is not what a job writes."""
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise ValueError("it is not a file of this version")
    for name in _NUMBERS:
        _number(content.get(name), name)
    if content.get("left") is not None:
        _number(content["left"], "left")
    if content.get("state") not in ("running", "failed"):
        raise ValueError(f"state: {content.get('state')!r:.40}")
    runs = content.get("running")
    if not isinstance(runs, list):
        raise ValueError("running: not a list")
    for run in runs:
        if not isinstance(run, dict) or not isinstance(run.get("key"), str):
            raise ValueError("running: not a list of runs")
        if not 0 <= _number(run.get("share"), "share") <= 1:
            raise ValueError("share: not in 0..1")
    texts = ("host", "slurm_job", "error")
    return {
        **content,
        **{name: None if content.get(name) is None else str(content[name]) for name in texts},
    }


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name}: no finite number")
    return value


def finished(found: Json) -> bool:
    """Say whether nothing is left to run."""
    total = found["parts"][-1]
    return bool(total["done"] + total["diverged"] == total["runs"])
