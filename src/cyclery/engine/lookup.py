"""Look up finished runs in the run store, and validate the inputs they were made from.

A job (``records.record.Job``) holds all that training needs. Nothing here imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cyclery.common.errors import UserError
from cyclery.common.files import parse_json, read_regular
from cyclery.common.seals import is_altered
from cyclery.data import outliers
from cyclery.records import trial_selection
from cyclery.records.record import Inputs, Job, ParentInput, RangeInput, Record
from cyclery.records.run_store import Store

if TYPE_CHECKING:
    from cyclery.data.prepare import Manifest

# What of its settings a run's need of memory does not depend on, or has in another form.
_VARIES = ("seed", "epochs", "evaluations", "range", "tuned", "searched", "study", "schedules")


def needs(job: Job) -> set[str]:
    """Return the keys of the runs that this job depends on: parents, range tests, what tunes it."""
    parents = job["settings"].get("parents", {}).values()
    trials = (trial["runs"] for trial in job.get("trials", []))
    study = [job["study_run"]] if "study_run" in job else []
    return {key for keys in (*parents, *trials, study, job.get("range_runs", [])) for key in keys}


def rounds(jobs: list[Job]) -> Iterator[list[Job]]:
    """Yield the jobs in topological order, as rounds of jobs that do not depend on each other."""
    left = {job["key"]: job for job in jobs}
    while left:
        ready = [job for job in left.values() if not needs(job) & left.keys()]
        assert ready, "a run key is a hash over its parents' keys, so there is no circle"
        yield ready
        for job in ready:
            del left[job["key"]]


def kind(job: Job) -> str:
    """Return a name for runs that need the same memory: equal but for seed, lengths, schedules."""
    schedules = job["settings"]["schedules"]
    settings = {name: value for name, value in job["settings"].items() if name not in _VARIES}
    # Keys of parents differ by the seed; how many there are of which network does not.
    settings["parents"] = job.get("parent_models", {})
    settings |= {"kind": job["kind"], "batch": schedules["batch"], "quantities": sorted(schedules)}
    return json.dumps(settings, sort_keys=True)


def _kept(record: Record) -> bool:
    return record["kind"] == "run" and record.get("checkpoint_sha256") is not None


@dataclass
class Lookup:
    """Looks up jobs in the run store, and the manifests of prepared datasets."""

    store: Store
    manifests: dict[str, Path]
    # Read once for every list of jobs: hundreds share a dataset and the bounds of a range test.
    _manifests: dict[str, Manifest] = field(default_factory=dict, init=False)
    _bounds: dict[tuple[str, ...], tuple[float, float]] = field(default_factory=dict, init=False)
    _tuned: dict[tuple[str, ...], dict[str, float]] = field(default_factory=dict, init=False)

    def forget(self) -> None:
        """Clear the cache of manifests and bounds."""
        self._manifests.clear()
        self._bounds.clear()
        self._tuned.clear()

    def inputs(self, job: Job) -> Inputs:
        """Return the inputs of the job; a UserError names what is missing."""
        settings = job["settings"]
        dataset = settings["dataset"]
        found: Inputs = {
            "dataset": self._content(dataset["name"], dataset["identity"]),
            "parents": {
                name: [self._parent(job, name, key) for key in keys]
                for name, keys in sorted(settings.get("parents", {}).items())
            },
            "range": self._range(job) if job.get("range_runs") else None,
        }
        if other := outliers.chosen(settings["split"]):
            found["outliers"] = self._content(other["dataset"], other["identity"])
        if job.get("trials"):
            # Not the trials' figures: a trial repeated with the same outcome changes nothing.
            found["tuned"] = self._chosen(job)
        return found

    def _chosen(self, job: Job) -> dict[str, float]:
        """Return the factors that the job's tuning chose, or the values that its search did."""
        study = job.get("study_run")
        runs = (study,) if study else tuple(key for t in job["trials"] for key in t["runs"])
        if runs not in self._tuned:
            self._tuned[runs] = self._searched(job, study) if study else self._best_trial(job)
        return self._tuned[runs]

    def _searched(self, job: Job, key: str) -> dict[str, float]:
        """Return the values that a study chose."""
        study = self.store.read(key)
        if study is None or study["kind"] != "study":
            raise UserError(
                f"{job['label']}: its search (run {key}) is not in the run store; run it first."
            )
        # Where every trial diverged, the values as declared stand.
        best = study["chosen"]
        return {} if best is None else dict(study["trials"][best]["values"])

    def _best_trial(self, job: Job) -> dict[str, float]:
        """Return the factors of the best of a tuning's trials."""
        trials = job["trials"]
        read = {key: self.store.read(key) for trial in trials for key in trial["runs"]}
        missing = [key for key, record in read.items() if record is None]
        if missing:
            raise UserError(
                f"{job['label']}: its tuning lacks {len(missing)} of {len(read)} runs (run "
                f"{missing[0]}) in the run store; train them first."
            )
        outcomes = [
            trial_selection.outcome([read[key] for key in trial["runs"]]) for trial in trials
        ]
        best = trial_selection.best([trial["factors"] for trial in trials], outcomes)
        return dict(trials[best]["factors"])

    def _parent(self, job: Job, name: str, key: str) -> ParentInput:
        record = self.store.read(key)
        diverged = record is not None and record["status"] == "diverged"
        sha256 = record.get("checkpoint_sha256") if record and record["kind"] == "run" else None
        if sha256 is None and not diverged:
            raise UserError(
                f"{job['label']}: its parent {name!r} (run {key}) has no finished checkpoint "
                "in the run store; train it first."
            )
        # A parent that diverged has no weights, so its children are not trained.
        return {"key": key, "sha256": None if diverged else sha256}

    def _content(self, name: str, identity: str) -> str:
        """Return the hash of what a prepared dataset holds."""
        if name not in self.manifests:
            raise UserError(f"{name}: is not prepared; run `cyclery prepare {name}`.")
        path = self.manifests[name]
        if name not in self._manifests:
            try:
                manifest = parse_json(read_regular(path))
            except (OSError, ValueError) as error:
                raise UserError(
                    f"{path}: cannot be read ({error}); run `cyclery prepare {name}`."
                ) from None
            complete = isinstance(manifest, dict) and "content_sha256" in manifest
            if not complete or is_altered(manifest):
                raise UserError(f"{path}: is damaged; delete it and run `cyclery prepare {name}`.")
            self._manifests[name] = manifest
        if self._manifests[name].get("identity") != identity:
            raise UserError(
                f"{path}: was prepared from other files or by another version; "
                f"delete it and run `cyclery prepare {name}`."
            )
        return str(self._manifests[name]["content_sha256"])

    def _range(self, job: Job) -> RangeInput:
        from cyclery.records import range_bounds

        sweeps = tuple(job["range_runs"])
        if sweeps not in self._bounds:
            read = {key: self.store.read(key) for key in sweeps}
            found = {k: r["bounds"] for k, r in read.items() if r and r["kind"] == "range"}
            missing = [key for key in sweeps if key not in found]
            if missing:
                raise UserError(
                    f"{job['label']}: its learning-rate range test (run {missing[0]}) is not in "
                    "the run store; run it first."
                )
            combined = range_bounds.combine([found[key] for key in sweeps])
            self._bounds[sweeps] = float(combined["base"]), float(combined["max"])
        base, high = self._bounds[sweeps]
        return {"key": job["settings"].get("range"), "base": base, "max": high}

    def finished(self, job: Job, inputs: Inputs | None = None) -> Record | None:
        """Return the job's record if it is complete and made from the present inputs."""
        record = self.store.read(job["key"])
        if record is None or record["inputs"] != (inputs or self.inputs(job)):
            return None
        if job.get("keep") and record["status"] == "done":
            checkpoint = self.store.checkpoint(job["key"])
            if not checkpoint.exists() or not _kept(record):
                return None
        return record

    def holds(self, job: Job, weights: bool = True) -> bool:
        """Return whether the run store holds a job's record and, if asked, its ``weights``."""
        record = self.store.read(job["key"])
        if record is None or job["kind"] != "run" or record["status"] != "done":
            return record is not None
        if not job.get("keep"):
            return True
        return _kept(record) and (not weights or self.store.checkpoint(job["key"]).exists())

    def look_up(
        self, jobs: list[Job], others: dict[str, Job]
    ) -> tuple[dict[str, Record], list[Job]]:
        """Return the valid records of jobs, by run key, and the jobs without one."""
        self.forget()
        unknown = {key for key, job in others.items() if not self.holds(job, weights=False)}
        records: dict[str, Record] = {}
        missing: dict[str, Job] = {}
        for ready in rounds(jobs):
            # What depends on a missing run is checked again once that run exists.
            open_ends = unknown | missing.keys()
            found = {j["key"]: None if needs(j) & open_ends else self.finished(j) for j in ready}
            records |= {key: record for key, record in found.items() if record is not None}
            for key in found.keys() & records.keys():
                self.store.tidy(key)
            missing |= {job["key"]: job for job in ready if job["key"] not in records}
        return records, list(missing.values())

    def lost(self, missing: Iterable[Job], others: dict[str, Job]) -> list[Job]:
        """Return which sources of missing jobs, and of each other, must be trained again."""
        lost: dict[str, Job] = {}
        left = list(missing)
        while left:
            for key in needs(left.pop()) & others.keys() - lost.keys():
                if not self.holds(others[key]):
                    lost[key] = others[key]
                    left.append(others[key])
        return list(lost.values())
