"""Train jobs: reuse finished runs of the run store, train what is missing, return all records.

Jobs are described in ``cyclery.engine.lookup``. Nothing imports torch until a run is missing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cyclery.common.errors import UserError
from cyclery.common.seals import file_sha256
from cyclery.common.signals import Stopped
from cyclery.engine import devices
from cyclery.engine.chunks import chunks
from cyclery.engine.cohort import Admission, Cohort, FixedWidth, Pause, Task
from cyclery.engine.datasets import Datasets
from cyclery.engine.execution import Execution
from cyclery.engine.failures import Diverged, Failure, naming, summary, waits_for
from cyclery.engine.lookup import Lookup, kind, needs, rounds
from cyclery.engine.machine import check_precision, code, facts
from cyclery.engine.outcomes import lost_a_parent, never_trained, unfinished
from cyclery.engine.processes import asked_to_stop, ended, in_processes, stop_if_asked, stopping
from cyclery.engine.progress import Progress, epoch_line
from cyclery.records.job_progress import ProgressFile
from cyclery.records.record import (
    Inputs,
    Job,
    RangeRecord,
    Record,
    RunOutcome,
    RunRecord,
    StudyRecord,
    SweepOutcome,
)
from cyclery.records.run_store import Store

if TYPE_CHECKING:
    import torch

    from cyclery.data.dataset import Dataset
    from cyclery.engine.replay import Recorder
    from cyclery.engine.run import Data
    from cyclery.engine.stack import Stack

__all__ = ["Stopped", "Trainer"]

log = logging.getLogger(__name__)
# Between two questions whether another process still trains a run.
ASK_AGAIN_SECONDS = 0.2
# Between two lines on the terminal about a run that takes long.
LONG_RUN_SECONDS = 30.0


@dataclass
class Trainer:
    """Trains jobs into a store.

    On a CPU ``workers`` processes share the jobs. On a GPU one process trains them side by side, as
    ``execution`` says: ``cohort`` of them, or as many as memory holds. ``dataset`` finds a dataset
    by its name, where its prepared file is lost and must be made again; without it that is an
    error.
    """

    store: Store
    manifests: dict[str, Path]
    execution: Execution = field(default_factory=Execution)
    workers: int = 1
    commit: str | None = None
    progress_seconds: float = 5.0
    # A moving bar instead of a line every few seconds: for people at a terminal.
    bar: bool = False
    # The progress file of the job (`cyclery status` reads it), and its name there.
    progress: Path | None = None
    job: str = ""
    dataset: Callable[[str], Dataset] | None = None
    lookup: Lookup = field(init=False)
    _datasets: Datasets = field(init=False)
    # What is learnt of methods and of memory is kept for all runs of the process.
    _refused: set[str] = field(default_factory=set, init=False)
    _admission: Admission | None = field(default=None, init=False)
    _stack: Stack | None = field(default=None, init=False)  # of a CPU
    _beside: Cohort[Job, Record | Failure | None] | None = field(default=None, init=False)
    _status: ProgressFile = field(default_factory=lambda: ProgressFile(None), init=False)
    # What the last call of `train` trained, by run key.
    trained: dict[str, Record] = field(default_factory=dict, init=False)
    # Runs of it that failed, and those that needed them, by run key.
    failures: dict[str, Failure] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Open the lookup of the same store, and the datasets."""
        self.lookup = Lookup(self.store, self.manifests)
        self._datasets = Datasets(self.manifests, self.dataset)

    def train(self, jobs: list[Job], sources: Iterable[Job] = ()) -> list[Record]:
        """Return the records of all jobs, in order, training those that are missing.

        ``sources`` are the parents and range tests of jobs, which others train. One is trained
        here only where the run store has lost what a missing job takes from it.

        Where runs fail, all others are trained first; the UserError then lists what failed.
        """
        self.trained.clear()
        self.failures.clear()
        others = {job["key"]: job for job in sources}
        records, missing = self.lookup.look_up(jobs, others)
        ready, left = len(records), len(missing)
        log.info("%d runs: %d in the store, %d to train", ready + left, ready, left)
        if missing:
            lost = self.lookup.lost(missing, others)
            self._status = ProgressFile(self.progress, self.job, ready=len(records))
            self._status.expect([*lost, *missing])
            with self._status.lifetime(), stopping(), devices.taken(self.execution) as device:
                check_precision([*lost, *missing], device.type)
                if lost:
                    log.info("%d that they need are lost from the store: trained again", len(lost))
                    self._train_missing(lost, {}, device)
                    # Where these came back with other bytes, all that was made of them follows.
                    records, missing = self.lookup.look_up(jobs, others)
                self._train_missing(missing, records, device)
                if self.failures:
                    runs = {job["key"] for job in (*lost, *missing)}
                    raise UserError(summary([*self.failures.values()], len(runs)))
        elif self.progress is not None:
            # Of a job that was killed after its last run.
            self.progress.unlink(missing_ok=True)
        return [records[job["key"]] for job in jobs]

    def _train_missing(
        self, missing: list[Job], records: dict[str, Record], device: torch.device
    ) -> None:
        # Before processes share the memory; the code as it is now, not hours later.
        with self._status.in_background():
            for job in missing:
                code(job["settings"]["method"]["name"])
                self._datasets.of(job["settings"], device)
        # As a run with other inputs may need training again.
        self._status.expect(missing)
        images = sum(job["images"] for job in missing)
        with Progress(len(missing), images, self.progress_seconds, self.bar) as progress:
            for jobs in rounds(missing):
                jobs = self._able(jobs)
                # Runs that another process is training come last, and are waited for.
                for wait in (False, True):
                    waiting = []
                    for job, record in self._train_all(jobs, wait, device):
                        if record is None:
                            waiting.append(job)
                        elif isinstance(record, Failure):
                            self._failed(record)
                            progress.failed(job)
                        else:
                            records[job["key"]] = self.trained[job["key"]] = record
                            progress.done(job, record)
                            self._status.done(job["key"], record["status"] == "diverged")
                    jobs = waiting

    def _able(self, jobs: list[Job]) -> list[Job]:
        """Return the jobs that need none which failed; the others have failed with it."""
        able = []
        for job in jobs:
            if lost := sorted(needs(job) & self.failures.keys()):
                self._failed(waits_for(job, self.failures[lost[0]].label))
            else:
                able.append(job)
        return able

    def _failed(self, failure: Failure) -> None:
        self.failures[failure.key] = failure
        self._status.failed(failure.key)
        log.warning("%s: failed: %s", failure.label, failure.text)
        if failure.details:
            log.debug("%s: %s", failure.label, failure.details)

    def _train_all(
        self, jobs: list[Job], wait: bool, device: torch.device
    ) -> Iterator[tuple[Job, Record | Failure | None]]:
        """Train jobs that need nothing of one another; yields each when it is done."""
        if device.type == "cuda":
            with self._status.in_background():
                yield from self._side_by_side(jobs, wait, device)
            return
        from cyclery.engine.program import alike
        from cyclery.engine.stack import Stack

        stack = self._stack = self._stack or Stack(self.execution.pack)
        of = self._datasets.of
        shared = chunks(
            jobs, lambda job: alike(job, of(job["settings"], device)), self.workers, stack.width
        )
        if shared and self.workers > 1:
            # A single chunk goes to a process too: one that has computed cannot fork safely.
            done = in_processes(
                lambda each: (*ended(self._packed(each, wait, device, stack)), stack.refusals),
                shared, self.workers, self._status.write,
            )  # fmt: skip
            for _, (found, error, refusals) in done:
                self._refuse(refusals)
                yield from found
                if error is not None:
                    raise error
            return
        with self._status.in_background():
            for chunk in shared:
                yield from self._packed(chunk, wait, device, stack)
                self._refuse(stack.refusals)

    def _refuse(self, refusals: Mapping[str, str]) -> None:
        """Say once of each method why its runs are trained one by one."""
        for method in sorted(refusals.keys() - self._refused):
            log.info(
                "runs of %s cannot be stacked, so they are trained one by one: %s",
                method, refusals[method],
            )  # fmt: skip
        self._refused |= refusals.keys()

    def _packed(
        self, jobs: list[Job], wait: bool, device: torch.device, stack: Stack
    ) -> Iterator[tuple[Job, Record | Failure | None]]:
        """Train jobs that are alike, as one stacked program if they can be."""
        begin = partial(self.train_one, wait=wait, device=device)
        self._beside = Cohort(begin, kind, stack, idle=stack.advance)
        try:
            yield from self._beside.results(jobs)
        finally:
            self._beside = None

    def _side_by_side(
        self, jobs: list[Job], wait: bool, device: torch.device
    ) -> Iterator[tuple[Job, Record | Failure | None]]:
        from cyclery.engine.cuda import FreeMemory, own_stream

        if self._admission is None:
            memory = FreeMemory(device, processes=self.execution.jobs_per_gpu)
            width = self.execution.cohort
            self._admission = FixedWidth(width) if width else memory
        # Determinism is a switch of the whole process, so runs that differ in it are kept apart.
        for choice in (True, False):
            begin = partial(self.train_one, wait=wait, device=device)
            self._beside = Cohort(begin, kind, self._admission, lambda: own_stream(device))
            try:
                alike = [job for job in jobs if job["settings"]["deterministic"] == choice]
                yield from self._beside.results(alike)
            finally:
                self._beside = None

    def train_one(self, job: Job, wait: bool, device: torch.device) -> Task[Record | None]:
        """Train one job under its lock; None where another process has it and ``wait`` is off.

        A RunFailed says what ended this run, and nothing about others.
        """
        while True:
            stop_if_asked()
            # Polled, so that a signal can end the waiting.
            with self.store.lock(job["key"], wait=False) as held:
                if held:
                    record = yield from self._train_held(job, device)
                    return record
            if not wait:
                return None
            until = time.monotonic() + ASK_AGAIN_SECONDS
            while time.monotonic() < until:
                yield Pause.WAIT

    def _train_held(self, job: Job, device: torch.device) -> Task[Record]:
        with naming(job):
            inputs = self.lookup.inputs(job)
            record = self.lookup.finished(job, inputs)
        if record is not None:
            return record
        if "tuned" in inputs:
            # Of a search whose trials all diverged the values as declared stand.
            found = (t["schedules"] for t in job["trials"] if t["factors"] == inputs["tuned"])
            taken = next(found, job["settings"]["schedules"])
            job = {**job, "settings": {**job["settings"], "schedules": taken}}
        self._status.running(job["key"])
        started = datetime.now(UTC).isoformat(timespec="seconds")
        with naming(job):
            data = self._datasets.of(job["settings"], device)
        key = job["key"]
        if job["kind"] == "range":
            sweep = yield from self._sweep(job, data, device)
            made = facts(job, inputs, device, self.commit, started, sweep)
            of_range: RangeRecord = {**sweep, **made, "key": key, "kind": "range", "sha256": ""}
            return self.store.write(key, of_range)
        if job["kind"] == "study":
            from cyclery.engine.study import studied

            study = yield from studied(
                job, inputs, data, device, self.store, self.execution.resume_seconds,
                partial(self._recorder, device), partial(self._status.running, key),
            )  # fmt: skip
            made = facts(job, inputs, device, self.commit, started, study)
            of_study: StudyRecord = {**study, **made, "key": key, "kind": "study", "sha256": ""}
            return self.store.write(key, of_study)
        if lost_a_parent(job, inputs):
            outcome = never_trained()
        else:
            outcome = yield from self._run(job, data, device, inputs)
        made = facts(job, inputs, device, self.commit, started, outcome)
        of_run: RunRecord = {**outcome, **made, "key": key, "kind": "run", "sha256": ""}
        return self.store.write(key, of_run)

    def _recorder(self, device: torch.device) -> Recorder | None:
        if device.type != "cuda" or not self.execution.capture:
            return None
        from cyclery.engine.cuda import Graphs

        return Graphs(self._refused)

    def _sweep(self, job: Job, data: Data, device: torch.device) -> Task[SweepOutcome]:
        from cyclery.engine.sweep import sweep

        began = time.monotonic()
        with naming(job):
            found = yield from sweep(
                job["settings"], data, device, stop_if_asked, self._recorder(device)
            )
        return {**found, "status": "done", "seconds": time.monotonic() - began}

    def _run(self, job: Job, data: Data, device: torch.device, inputs: Inputs) -> Task[RunOutcome]:
        from cyclery.engine import checkpoint
        from cyclery.engine.run import Run

        settings, bounds = job["settings"], None
        if inputs["range"]:
            bounds = (inputs["range"]["base"], inputs["range"]["max"])
        with naming(job):
            parents = checkpoint.trained_parents(self.store, inputs)
            run = Run(settings, data, device, bounds, parents, self._recorder(device), self._stack)
        stamp = checkpoint.stamped(job, inputs, device)
        resume, spent = self.store.resume(job["key"]), 0.0
        if point := checkpoint.read_state(resume, stamp, self.store):
            run.load_state(point.state, point.epoch, point.curve)
            spent = point.seconds
            self._status.running(job["key"], run.epoch / settings["epochs"], resumed=True)
            log.info("%s: resumed after epoch %d", job["label"], point.epoch)
        began = saved = reported = time.monotonic()
        outcome = unfinished(run.curve)
        with naming(job):
            allocated = run.prepare()
        if allocated:
            yield Pause.ALLOCATED
        try:
            while not run.finished:
                with naming(job):
                    yield from run.epoch_steps()
                    yield from run.evaluation_steps()
                self._status.running(job["key"], run.epoch / settings["epochs"])
                if self._beside is not None:
                    outcome["cohort"] = max(outcome["cohort"], self._beside.size)
                if run.evaluated and not allocated:
                    allocated = True
                    yield Pause.ALLOCATED
                now = time.monotonic()
                # The log of the job has every epoch; people see a long run move.
                aloud = not run.finished and now - reported >= LONG_RUN_SECONDS
                reported = now if aloud else reported
                log.log(
                    logging.INFO if aloud else logging.DEBUG,
                    "%s",
                    epoch_line(job, run, spent + now - began),
                )
                due = now - saved >= self.execution.resume_seconds
                if asked_to_stop() or (due and not run.finished):
                    checkpoint.keep_state(
                        run, resume, stamp, spent + now - began - run.waited, asked_to_stop(),
                        job["label"],
                    )  # fmt: skip
                    saved = now
                stop_if_asked()
            with naming(job):
                final = yield from run.final_steps()
                took = time.monotonic()
                if "probes" in settings:
                    final |= run.measuring.probes()
                    outcome["probing_seconds"] = time.monotonic() - took
                outcome["final"] = final
        except Diverged as diverged:
            outcome |= {"status": "diverged", "diverged_step": diverged.update}
            log.warning("%s: diverged at update %d", job["label"], diverged.update)
        probing = outcome.get("probing_seconds", 0.0)
        outcome["seconds"] = spent + time.monotonic() - began - probing - run.waited
        if job.get("keep") and outcome["status"] == "done":
            path = self.store.checkpoint(job["key"])
            checkpoint.save_weights(run.weights(), path)
            outcome["checkpoint_sha256"] = file_sha256(path)
        log.debug("%s: %s in %.1f s", job["label"], outcome["status"], outcome["seconds"])
        outcome["images"] = run.images
        outcome["views"], outcome["forwards"] = run.spent()
        return {**outcome, "updates": int(run.update)}
