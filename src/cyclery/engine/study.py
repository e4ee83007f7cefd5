"""The study of a random search: trials one after another, halved on the way.

A trial is trained on the labelled samples and evaluated on the validation samples after every
epoch; the mean of the last accuracies is its metric. The test samples are taken out of the data
before anything is trained.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import cast

import torch

from cyclery.common.errors import UserError
from cyclery.common.files import parse_json, read_regular, write_atomic
from cyclery.common.seals import is_sealed, seal
from cyclery.engine.checkpoint import keep_state, read_state, stamped, trained_parents
from cyclery.engine.cohort import Pause, Task
from cyclery.engine.failures import Diverged, naming
from cyclery.engine.halving import Ended, Halving
from cyclery.engine.outcomes import lost_a_parent
from cyclery.engine.processes import asked_to_stop, stop_if_asked
from cyclery.engine.replay import Recorder
from cyclery.engine.run import Data, Run
from cyclery.engine.teachers import Trained
from cyclery.records.record import (
    Inputs,
    Job,
    RunSettings,
    SplitChoice,
    StudiedTrial,
    Study,
    StudyOutcome,
)
from cyclery.records.run_store import Store
from cyclery.records.trial_selection import METRIC, best_metric

log = logging.getLogger(__name__)
# What a trial takes, as records count it.
SPENT = ("images", "views", "forwards", "updates")


def metric(accuracies: Sequence[float], last: int) -> float:
    """Return the mean of the last accuracies, of all where there are fewer."""
    return fmean(accuracies[-last:])


@dataclass
class Kept:
    """What a study has done so far, on disk: ended trials, and the state of the one in training.

    ``stamp`` identifies the study and its inputs; what has another is not used.
    """

    store: Store
    key: str
    stamp: str
    label: str
    every: float
    trials: list[StudiedTrial] = field(default_factory=list)
    spent: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPENT, 0))
    seconds: float = 0.0
    _saved: float = field(default_factory=time.monotonic)

    @property
    def path(self) -> Path:
        """The file of the ended trials."""
        return self.store.study(self.key)

    @property
    def _running(self) -> str:
        """What identifies the state of the trial in training."""
        return f"{self.stamp} trial {len(self.trials)}"

    def read(self) -> None:
        """Take up what is there; what was cut or altered is set aside, and made again."""
        try:
            found = parse_json(read_regular(self.path))
            if not is_sealed(found):
                raise ValueError("its content does not match its digest")
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            self.store.set_aside(self.path, f"the ended trials cannot be used ({error})")
            return
        if found["stamp"] != self.stamp:
            log.info("%s: made from other inputs; starting afresh", self.path)
            return
        self.trials, self.spent, self.seconds = found["trials"], found["spent"], found["seconds"]

    def resume(self, run: Run) -> float:
        """Put the state of the trial in training into its run; return the seconds it took."""
        point = read_state(self.store.resume(self.key), self._running, self.store)
        if point is None:
            return 0.0
        run.load_state(point.state, point.epoch, point.curve)
        log.info("%s: trial %d resumed after epoch %d", self.label, len(self.trials), point.epoch)
        return point.seconds

    def save(self, run: Run, seconds: float, needed: bool) -> None:
        """Keep the state of the trial in training, where it is due or ``needed``."""
        now = time.monotonic()
        if needed or (now - self._saved >= self.every and not run.finished):
            path = self.store.resume(self.key)
            keep_state(run, path, self._running, seconds, needed, self.label)
            self._saved = now

    def end(self, trial: StudiedTrial, run: Run, seconds: float) -> None:
        """Add a trial that ended, and keep it."""
        self.trials.append(trial)
        views, forwards = run.spent()
        took = (run.images, views, forwards, int(run.update))
        self.spent = {k: self.spent[k] + n for k, n in zip(SPENT, took, strict=True)}
        self.seconds += seconds
        kept = {"stamp": self.stamp, "trials": self.trials, "spent": self.spent,
                "seconds": self.seconds, "sha256": ""}  # fmt: skip
        try:
            write_atomic(self.path, json.dumps(seal(kept), allow_nan=False) + "\n")
        except UserError as error:
            # Only time can be lost by going on.
            log.warning("%s: ended trials were not kept (%s)", self.label, error.__cause__)
        else:
            # Of the trial that ended; the next one has none.
            self.store.resume(self.key).unlink(missing_ok=True)


def without_test(data: Data, settings: SplitChoice, seed: int) -> Data:
    """Return a dataset with the test samples of a split taken out.

    No split of it has a test part; what reads these images by their ids all the same finds them
    black, and -1 for their labels.
    """
    test = torch.from_numpy(data.split(settings, seed)["test"]).to(data.labels.device)
    return replace(
        data,
        images=data.images.index_fill(0, test, 0),
        labels=data.labels.index_fill(0, test, -1),
        drawn_by=data.labels,
    )


def studied(
    job: Job,
    inputs: Inputs,
    data: Data,
    device: torch.device,
    store: Store,
    every: float,
    recorder: Callable[[], Recorder | None] = lambda: None,
    running: Callable[[float], None] = lambda done: None,
) -> Task[StudyOutcome]:
    """Return the outcome of a job that is a study; goes on where it was left in the store.

    ``every`` so many seconds the trial in training is kept; ``running`` is told which part of the
    study is done.
    """
    if lost_a_parent(job, inputs):
        trials: list[StudiedTrial] = [
            {"values": trial["values"], "epochs": 0, "ended": "diverged", "metric": []}
            for trial in job["settings"]["study"]["trials"]
        ]
        return {"trials": trials, "chosen": None, "status": "done", "seconds": 0.0, "images": 0,
                "views": 0, "forwards": 0, "updates": 0}  # fmt: skip
    kept = Kept(store, job["key"], stamped(job, inputs, device), job["label"], every)
    with naming(job):
        parents = trained_parents(store, inputs)
        found = yield from study(job["settings"], data, device, parents, kept, recorder, running)
    return {**found, "status": "done", "seconds": kept.seconds}


def study(
    settings: RunSettings,
    data: Data,
    device: torch.device,
    parents: Mapping[str, Sequence[Trained]],
    kept: Kept,
    recorder: Callable[[], Recorder | None] = lambda: None,
    running: Callable[[float], None] = lambda done: None,
) -> Task[Study]:
    """Train the trials of a study and choose; goes on where ``kept`` was left.

    A study that is asked to stop keeps its state first.
    """
    data = without_test(data, settings["split"], settings["seed"])
    kept.read()
    chosen = settings["study"]
    halving = Halving(chosen["grace_epochs"], chosen["reduction"])
    for ended in kept.trials:
        halving.begin(ended["metric"])
        halving.end(ended["ended"], ended["metric"][-1] if ended["metric"] else None)
    allocated = False
    plain = cast(RunSettings, {k: v for k, v in settings.items() if k != "study"})
    trials = chosen["trials"]
    for number in range(len(kept.trials), len(trials)):
        own: RunSettings = {**plain, "schedules": trials[number]["schedules"]}
        run = Run(own, data, device, None, parents, recorder())
        took, began = kept.resume(run), time.monotonic()
        if run.prepare() and not allocated:
            allocated = True
            yield Pause.ALLOCATED
        accuracies = run.curve.get(METRIC, [])
        metrics = [metric(accuracies[: k + 1], chosen["last"]) for k in range(len(accuracies))]
        halving.begin(metrics)
        ended_by: Ended = "finished"
        while not run.finished and ended_by == "finished":
            try:
                yield from run.epoch_steps()
                yield from run.evaluation_steps()
            except Diverged as diverged:
                log.debug("%s: trial %d: %s", kept.label, number, diverged)
                ended_by = "diverged"
                break
            metrics.append(metric(run.curve[METRIC], chosen["last"]))
            # At the end there is nothing to stop.
            if halving.prunes(run.epoch, metrics[-1]) and not run.finished:
                ended_by = "pruned"
            running((number + run.epoch / own["epochs"]) / len(trials))
            if not allocated:
                allocated = True
                yield Pause.ALLOCATED
            if ended_by == "finished" and not run.finished:
                kept.save(run, took + time.monotonic() - began - run.waited, asked_to_stop())
                stop_if_asked()
        halving.end(ended_by, metrics[-1] if metrics else None)
        trial: StudiedTrial = {
            "values": trials[number]["values"],
            "epochs": run.epoch,
            "ended": ended_by,
            "metric": metrics,
        }
        kept.end(trial, run, took + time.monotonic() - began - run.waited)
        log.debug("%s: trial %d %s after epoch %d", kept.label, number, ended_by, run.epoch)
        stop_if_asked()
    return {
        "images": kept.spent["images"],
        "views": kept.spent["views"],
        "forwards": kept.spent["forwards"],
        "updates": kept.spent["updates"],
        "trials": kept.trials,
        "chosen": best_metric(kept.trials),
    }
