"""Work that is killed at random moments and begun again until it is done, and what that cost."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from factories import engine as factory
from factories import train_jobs

Json = dict[str, Any]
Process = TypeVar("Process")


def jobs(epochs: int = 40) -> list[Json]:
    """Return a run with dropout, a parent and its child, and a range test."""
    parent = factory.job(factory.everything("supervised", epochs=epochs), keep=True)
    settings = factory.everything("cyclical_focal", epochs=epochs)
    settings |= {"init": "start", "init_share": 1.0, "parents": {"start": [parent["key"]]}}
    sweep = {"kind": "linear", "start": 0.0, "end": 3.0}
    return [
        factory.job(factory.settings(lr=sweep, evaluations=10), kind="range"),
        factory.job(factory.settings(model="wrn", epochs=epochs // 4), keep=True),
        parent,
        factory.job(settings, keep=True),
    ]


def jobs_with_draws(epochs: int = 20) -> list[Json]:
    """Return runs that draw in their steps, as packs: MixMatch, and who asks teachers of parts."""
    few: Json = {"batch": 20, "epoch_images": 200, "mu": 1}
    split: Json = {"labels": 60, "unlabelled": "all"}
    dropout = {"hidden": [32], "dropout": 0.2}
    found = [
        factory.job(factory.settings(
            "mixmatch", seed=seed, epochs=epochs + seed, model_settings=dropout, split=split, **few
        ), keep=True)
        for seed in range(3)
    ]  # fmt: skip
    learnt = {"prediction_view": "ctaugment", "threshold": 0.2}
    found.append(factory.job(factory.settings(
        "fixmatch", epochs=epochs // 4, method_settings=learnt, split=split, **few
    ), keep=True))  # fmt: skip
    part = {"labels": 60, "folds": 3, "part": "seed", "share": 3}
    teachers = [
        factory.job(factory.settings(seed=seed, epochs=epochs, split=part, batch=10), keep=True)
        for seed in range(3)
    ]
    votes = {"queries": 60, "threshold": 1.0, "answer_noise": 0.3}
    for seed in range(2):
        settings = factory.settings(
            "private_mixmatch", seed=seed, epochs=epochs, method_settings=votes,
            split={**split, "unlabelled": "rest"}, **few,
        )  # fmt: skip
        settings["parents"] = {"teachers": [job["key"] for job in teachers]}
        found.append(factory.job(settings, keep=True))
    return teachers + found


def results(root: Path, wanted: list[Json]) -> list[tuple[Json, Any, bytes | None]]:
    """Return what must be the same, checkpoints' bytes included."""
    trainer = factory.trainer(root)
    found = []
    for job in wanted:
        record = trainer.lookup.finished(job)
        assert record is not None
        bounds = record.get("bounds")
        weights = trainer.store.checkpoint(job["key"])
        content = weights.read_bytes() if job["keep"] else None
        found.append((factory.figures(record), bounds, content))
    return found


def undisturbed(
    root: Path, wanted: list[Json]
) -> tuple[list[tuple[Json, Any, bytes | None]], float]:
    """Return the results of jobs, and the seconds they took."""
    began = time.monotonic()
    factory.trainer(root).train(wanted)
    return results(root, wanted), time.monotonic() - began


def run_command(root: Path, wanted: list[Json], *options: str) -> None:
    """Run the command in this process, which has torch already."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "jobs.json").write_text(json.dumps(wanted))
    sys.argv = ["train_jobs", str(root / "jobs.json"), "--store", str(root / "store"),
                "--data", str(factory.manifest().parent), "--device", "cpu", *options]  # fmt: skip
    sys.exit(train_jobs.main())


def resume_points(store: Path) -> set[str]:
    """Return the keys of runs that have been begun and saved, and are not finished."""
    return {path.parent.name for path in store.glob("*/*/resume.safetensors")}


def _stat(pid: int | str) -> list[str]:
    """Return state, parent and group of a process; nothing where it has ended."""
    with suppress(OSError):
        found = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return found if found[0] not in "ZX" else []
    return []


def running(pid: int | str) -> bool:
    """Say whether a process runs; one that has ended and is not waited for does not."""
    return bool(_stat(pid))


def group(leader: int) -> list[int]:
    """Return the running processes of a process group."""
    pids = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal())
    return [pid for pid in pids if _stat(pid)[2:3] == [str(leader)]]


@dataclass
class Toll:
    """What kills hit, and what they cost."""

    kills: int = 0
    # Kills after which there was an unfinished run's state, and some finished run.
    halfway: int = 0
    later: int = 0
    # Finished runs whose record is gone or another: they were trained again.
    lost: int = 0

    def __add__(self, other: Toll) -> Toll:
        """Return both together."""
        names = ("kills", "halfway", "later", "lost")
        return Toll(*(getattr(self, name) + getattr(other, name) for name in names))


def finished(store: Path) -> dict[Path, tuple[int, int]]:
    """Return the files of records as they are: every record is written as a file of its own."""
    found = {}
    for path in store.glob("*/*/record.json"):
        stat = path.stat()
        found[path] = stat.st_ino, stat.st_mtime_ns
    return found


def changed(store: Path, before: dict[Path, tuple[int, int]]) -> int:
    """Return how many of the finished runs before are gone or were trained again."""
    after = finished(store)
    return sum(after.get(path) != stat for path, stat in before.items())


def harassed(
    begin: Callable[[], Process],
    end: Callable[[Process, float | None], int | None],
    store: Path,
    moment: Callable[[], float],
    kills: int,
) -> Toll:
    """Begin, kill and begin again until the work is done; after so many kills it may go on.

    Args:
        begin: starts the work.
        end: waits so many seconds, for ever if None; returns the exit code, or kills.
        store: the run store.
        moment: draws the seconds after which work is killed.
        kills: how often it is killed at most.
    """
    toll = Toll()
    while True:
        before = finished(store)
        code = end(begin(), moment() if toll.kills < kills else None)
        toll.lost += changed(store, before)
        if code is not None:
            assert code == 0
            return toll
        toll += Toll(1, bool(resume_points(store)), bool(finished(store)))


def again_and_again(attempt: Callable[[int], Toll], kills: int) -> Toll:
    """Do work from nothing until it has been killed so often; an attempt is told what is left."""
    toll = Toll()
    while toll.kills < kills:
        toll += attempt(kills - toll.kills)
    return toll


def within(draws: Random, seconds: float) -> Callable[[], float]:
    """Return what draws a moment from the first ``seconds``."""
    return lambda: draws.uniform(0, seconds)


def end_fork(process: BaseProcess, seconds: float | None) -> int | None:
    """Wait for a forked process, or kill it."""
    process.join(120 if seconds is None else seconds)
    code = process.exitcode
    process.kill()
    process.join()
    assert code is not None or seconds is not None, "it does not end"
    return code


def end_command(process: subprocess.Popen[str], seconds: float | None) -> int | None:
    """Wait for a command, or kill it."""
    try:
        _, errors = process.communicate(timeout=120 if seconds is None else seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        assert seconds is not None, "it does not end"
        return None
    assert process.returncode == 0, errors
    return process.returncode
