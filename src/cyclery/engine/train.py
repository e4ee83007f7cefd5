"""Train jobs: look each up in the run store, train what is missing, return all records.

A job is a plain dict ``{"key", "label", "kind", "settings", "images"}``, for a run also ``"keep"``
and ``"range_runs"``, so a machine without the configuration packages can train it
(``python -m cyclery.engine``). Nothing imports
torch until a run is missing.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclery.engine.machine import device_name, versions
from cyclery.engine.processes import (
    Stopped,
    asked_to_stop,
    in_processes,
    stop_if_asked,
    stopping,
)
from cyclery.engine.progress import Progress
from cyclery.errors import UserError
from cyclery.files import write_atomic
from cyclery.store import Store, file_sha256
from cyclery.text import duration

if TYPE_CHECKING:
    import torch

    from cyclery.engine.run import Data, Run

__all__ = ["Stopped", "Trainer", "write_records"]

log = logging.getLogger(__name__)
# Between two questions whether another process still trains a run.
ASK_AGAIN_SECONDS = 0.2
# Between two words on the terminal about a run that takes long.
LONG_RUN_SECONDS = 30.0
Job = dict[str, Any]
Record = dict[str, Any]


@dataclass
class Trainer:
    """Trains jobs into a store. ``workers`` processes share the jobs on a CPU."""

    store: Store
    manifests: dict[str, Path]
    device: str = "auto"
    workers: int = 1
    resume_seconds: float = 30.0
    commit: str | None = None
    progress_seconds: float = 5.0
    # A moving bar instead of a line every few seconds: for people at a terminal.
    bar: bool = False
    _data: dict[tuple[str, str], Data] = field(default_factory=dict)
    # Read once for every list of jobs: hundreds share a dataset and the bounds of a range test.
    _manifests: dict[str, dict[str, Any]] = field(default_factory=dict)
    _bounds: dict[tuple[str, ...], tuple[float, float]] = field(default_factory=dict)

    # Looking up: no torch.

    def inputs(self, job: Job) -> dict[str, Any]:
        """Return what the job takes from earlier work; a UserError names what is missing."""
        settings = job["settings"]
        found: dict[str, Any] = {"dataset": self._manifest(settings)["content_sha256"]}
        found["parents"] = {}
        for name, key in sorted(settings.get("parents", {}).items()):
            record = self.store.read(key) or {}
            trained = record.get("status") == "done"
            if not record or (trained and record.get("checkpoint_sha256") is None):
                raise UserError(
                    f"{job['label']}: its parent {name!r} (run {key}) has no finished checkpoint "
                    "in the run store; train it first."
                )
            # A parent that diverged has no weights, so its children are not trained.
            checkpoint = record["checkpoint_sha256"] if trained else None
            found["parents"][name] = {"key": key, "sha256": checkpoint}
        found["range"] = self._range(job) if job.get("range_runs") else None
        return found

    def _manifest(self, settings: dict[str, Any]) -> dict[str, Any]:
        name = settings["dataset"]["name"]
        path = self.manifests[name]
        if name not in self._manifests:
            try:
                manifest = json.loads(path.read_bytes())
            except (OSError, ValueError) as error:
                raise UserError(
                    f"{path}: cannot be read ({error}); run `cyclery prepare {name}`."
                ) from None
            if not isinstance(manifest, dict) or "content_sha256" not in manifest:
                raise UserError(f"{path}: is damaged; delete it and run `cyclery prepare {name}`.")
            self._manifests[name] = manifest
        if self._manifests[name].get("identity") != settings["dataset"]["identity"]:
            raise UserError(
                f"{path}: was prepared from other files or by another version; "
                f"delete it and run `cyclery prepare {name}`."
            )
        return self._manifests[name]

    def _range(self, job: Job) -> dict[str, Any]:
        from cyclery import lrrange

        sweeps = tuple(job["range_runs"])
        if sweeps not in self._bounds:
            records = [self.store.read(key) for key in sweeps]
            missing = [key for key, record in zip(sweeps, records, strict=True) if record is None]
            if missing:
                raise UserError(
                    f"{job['label']}: its learning-rate range test (run {missing[0]}) is not in "
                    "the run store; run it first."
                )
            combined = lrrange.combine([record["bounds"] for record in records if record])
            self._bounds[sweeps] = float(combined["base"]), float(combined["max"])
        base, high = self._bounds[sweeps]
        return {"key": job["settings"]["range"], "base": base, "max": high}

    def finished(self, job: Job, inputs: dict[str, Any] | None = None) -> Record | None:
        """Return the job's record if it is whole and made from the inputs that there are now."""
        record = self.store.read(job["key"])
        if record is None or record["inputs"] != (inputs or self.inputs(job)):
            return None
        if job.get("keep") and record["status"] == "done":
            checkpoint = self.store.checkpoint(job["key"])
            if not checkpoint.exists() or record.get("checkpoint_sha256") is None:
                return None
        return record

    # Training.

    def train(self, jobs: list[Job], sources: Iterable[Job] = ()) -> list[Record]:
        """Return the records of all jobs, in order, training those that are missing.

        ``sources`` are the parents and range tests of jobs, which others train. One is trained
        here only where the run store has lost what a missing job takes from it.
        """
        self._manifests.clear()
        self._bounds.clear()
        others = {job["key"]: job for job in sources}
        unknown = {key for key, job in others.items() if not self._holds(job, weights=False)}
        records: dict[str, Record] = {}
        missing: dict[str, Job] = {}
        for ready in _rounds(jobs):
            # What needs a missing run is looked at again once that run is there.
            open_ends = unknown | missing.keys()
            found = {j["key"]: None if needs(j) & open_ends else self.finished(j) for j in ready}
            records |= {key: record for key, record in found.items() if record is not None}
            missing |= {job["key"]: job for job in ready if job["key"] not in records}
        log.info(
            "%d runs: %d in the store, %d to train",
            len(records) + len(missing),
            len(records),
            len(missing),
        )
        if missing:
            lost = self._lost(missing.values(), others)
            if lost:
                log.info("%d more that they need are lost from the store: trained again", len(lost))
            with stopping():
                self._train_missing(list(_rounds([*lost, *missing.values()])), records)
        return [records[job["key"]] for job in jobs]

    def _lost(self, missing: Iterable[Job], others: dict[str, Job]) -> list[Job]:
        """Return which sources of missing jobs, and of each other, must be trained again."""
        lost: dict[str, Job] = {}
        left = list(missing)
        while left:
            for key in needs(left.pop()) & others.keys() - lost.keys():
                if not self._holds(others[key]):
                    lost[key] = others[key]
                    left.append(others[key])
        return list(lost.values())

    def _holds(self, job: Job, weights: bool = True) -> bool:
        """Say whether the run store holds what others take from a job: record, and ``weights``."""
        record = self.store.read(job["key"])
        if record is None or job["kind"] == "range" or record["status"] != "done":
            return record is not None
        kept = record.get("checkpoint_sha256") is not None
        return kept and (not weights or self.store.checkpoint(job["key"]).exists())

    def _train_missing(self, rounds: list[list[Job]], records: dict[str, Record]) -> None:
        device = self._device()
        every = [job for jobs in rounds for job in jobs]
        # Read once, before processes share the memory.
        for job in every:
            self.data(job["settings"], device)
        images = sum(job["images"] for job in every)
        with Progress(len(every), images, self.progress_seconds, self.bar) as progress:
            for jobs in rounds:
                # Runs that another process is training come last, and are waited for.
                for wait in (False, True):
                    waiting = []
                    for job, record in self._train_all(jobs, wait, device):
                        if record is None:
                            waiting.append(job)
                        else:
                            records[job["key"]] = record
                            progress.done(job, record)
                    jobs = waiting

    def _train_all(
        self, jobs: list[Job], wait: bool, device: torch.device
    ) -> Iterator[tuple[Job, Record | None]]:
        """Train jobs that need nothing of one another; yields each when it is done."""
        # A single job goes to a process too: a process that has computed cannot fork safely.
        if jobs and self.workers > 1 and device.type == "cpu":
            yield from in_processes(lambda job: self.train_one(job, wait), jobs, self.workers)
        else:
            for job in jobs:
                yield job, self.train_one(job, wait)

    def train_one(self, job: Job, wait: bool) -> Record | None:
        """Train one job under its lock; None where another process has it and ``wait`` is off."""
        stop_if_asked()
        with self._hold(job["key"], wait) as held:
            if not held:
                return None
            inputs = self.inputs(job)
            record = self.finished(job, inputs)
            if record is not None:
                return record
            started = datetime.now(UTC).isoformat(timespec="seconds")
            device = self._device()
            data = self.data(job["settings"], device)
            if any(parent["sha256"] is None for parent in inputs["parents"].values()):
                record = _never_trained(job)
            elif job["kind"] == "range":
                record = self._sweep(job, data, device)
            else:
                record = self._run(job, data, device, inputs)
            record |= {
                "schema": 1,
                "kind": job["kind"],
                "settings": job["settings"],
                "inputs": inputs,
                "images_per_second": record["images"] / max(record["seconds"], 1e-9),
                "device": device_name(device),
                "versions": versions(),
                "commit": self.commit,
                "started": started,
            }
            return self.store.write(job["key"], record)

    @contextlib.contextmanager
    def _hold(self, key: str, wait: bool) -> Iterator[bool]:
        """Hold a run's lock; waits for it by asking again, so that a signal can end the waiting."""
        while True:
            with self.store.lock(key, wait=False) as held:
                if held or not wait:
                    yield held
                    return
            stop_if_asked()
            time.sleep(ASK_AGAIN_SECONDS)

    def _sweep(self, job: Job, data: Data, device: torch.device) -> Record:
        from cyclery.engine.sweep import sweep

        began = time.monotonic()
        found = sweep(job["settings"], data, device, stop_if_asked)
        return {"status": "done", **found, "seconds": time.monotonic() - began}

    def _run(self, job: Job, data: Data, device: torch.device, inputs: dict[str, Any]) -> Record:
        from cyclery.engine.checkpoint import load_weights, read_state, save_state, save_weights
        from cyclery.engine.run import Diverged, Run

        settings, bounds, weights = job["settings"], None, None
        if inputs["range"]:
            bounds = (inputs["range"]["base"], inputs["range"]["max"])
        if settings.get("init"):
            parent = inputs["parents"][settings["init"]]
            weights = load_weights(self.store.checkpoint(parent["key"]), parent["sha256"])
        run = Run(settings, data, device, bounds, weights)
        # What the state is made from and by; a resume point of anything else is not used.
        made = [job["key"], inputs, device.type, versions()["torch"]]
        stamp = sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()
        resume, spent = self.store.resume(job["key"]), 0.0
        if point := read_state(resume, stamp, self.store):
            run.load_state(point.state, point.epoch, point.curve)
            spent = point.seconds
            log.info("%s: resumed after epoch %d", job["label"], point.epoch)
        began = saved = said = time.monotonic()
        outcome: Record = {"status": "done", "diverged_step": None, "final": {}}
        try:
            while not run.finished:
                run.train_epoch()
                run.evaluate_on_the_way()
                now = time.monotonic()
                # The log of the job has every epoch; people see a long run move.
                aloud = not run.finished and now - said >= LONG_RUN_SECONDS
                said = now if aloud else said
                log.log(
                    logging.INFO if aloud else logging.DEBUG,
                    "%s",
                    _epoch(job, run, spent + now - began),
                )
                if asked_to_stop() or (not run.finished and now - saved >= self.resume_seconds):
                    save_state(run, resume, stamp, spent + now - began)
                    saved = now
                stop_if_asked()
            outcome["final"] = run.final()
        except Diverged as diverged:
            outcome |= {"status": "diverged", "diverged_step": diverged.update}
            log.warning("%s: diverged at update %d", job["label"], diverged.update)
        outcome["seconds"] = spent + time.monotonic() - began
        if job.get("keep") and outcome["status"] == "done":
            path = self.store.checkpoint(job["key"])
            save_weights(run.weights(), path)
            outcome["checkpoint_sha256"] = file_sha256(path)
        log.debug("%s: %s in %.1f s", job["label"], outcome["status"], outcome["seconds"])
        seen = {"images": run.images, "updates": int(run.update)}
        return outcome | {"curve": run.curve, **seen}

    def _device(self) -> torch.device:
        import torch

        wanted = self.device
        if wanted == "auto":
            wanted = "cuda" if torch.cuda.is_available() else "cpu"
        if wanted == "cuda" and not torch.cuda.is_available():
            raise UserError(
                "device: cuda is configured, but torch sees no GPU; set `device: cpu`, or install "
                "a build of torch for this GPU"
            )
        if wanted == "cpu":
            # Processes are forked later, and a pool of threads does not survive that.
            torch.set_num_threads(1)
        return torch.device(wanted)

    def data(self, settings: dict[str, Any], device: torch.device) -> Data:
        """Return the dataset on the device, reading it once; its file is re-made where absent."""
        from cyclery.data.prepare import load_or_remake
        from cyclery.engine.run import Data

        name = (settings["dataset"]["name"], str(device))
        if name not in self._data:
            import torch

            manifest, arrays = load_or_remake(self.manifests[name[0]])
            images, labels = (torch.as_tensor(arrays[key]) for key in ("images", "labels"))
            self._data[name] = Data(images, labels.long(), manifest).to(device)
        return self._data[name]


def needs(job: Job) -> set[str]:
    """Return the keys of the runs that must be there before this job: parents, range tests."""
    return {*job["settings"].get("parents", {}).values(), *job.get("range_runs", [])}


def _rounds(jobs: list[Job]) -> Iterator[list[Job]]:
    """Yield the jobs in rounds: each needs only rounds before it, and runs that are not listed."""
    left = {job["key"]: job for job in jobs}
    while left:
        ready = [job for job in left.values() if not needs(job) & left.keys()]
        assert ready, "a run key is a hash over its parents' keys, so there is no circle"
        yield ready
        for job in ready:
            del left[job["key"]]


def _never_trained(job: Job) -> Record:
    """Return the outcome of a run whose parent diverged: it diverged before its first update."""
    log.warning("%s: not trained, because its parent diverged", job["label"])
    curve: dict[str, list[float]] = {"epoch": [], "eval_epoch": []}
    return {"status": "diverged", "diverged_step": 0, "final": {}, "curve": curve,
            "images": 0, "updates": 0, "seconds": 0.0}  # fmt: skip


def _epoch(job: Job, run: Run, seconds: float) -> str:
    """Say how far a run is, ``seconds`` after its start."""
    curve, epochs = run.curve, run.settings["epochs"]
    rate = run.images / max(seconds, 1e-9)
    evaluated = ""
    if curve["eval_epoch"] and curve["eval_epoch"][-1] == run.epoch and "val_accuracy" in curve:
        evaluated = f", validation {100 * curve['val_accuracy'][-1]:.2f} %"
    left = duration(seconds * (epochs - run.epoch) / run.epoch)
    return (
        f"{job['label']}: epoch {run.epoch}/{epochs}, loss {curve['train_loss'][-1]:.4f}"
        f"{evaluated}, {rate:.0f} images/s, about {left} left"
    )


def write_records(path: Path, records: list[Record]) -> None:
    """Write a shard's records, one JSON object a line."""
    lines = [json.dumps(record, sort_keys=True, allow_nan=False) for record in records]
    write_atomic(path, "".join(f"{line}\n" for line in lines))
