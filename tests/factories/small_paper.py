"""Arms on digits as a paper has them: planned, run, killed and begun again, with their parents."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cyclery.config.load import load
from cyclery.engine.run import Run
from cyclery.engine.stream import Data
from cyclery.plan.graph import Plan
from cyclery.plan.project_checks import check
from factories import engine as factory
from factories.jobs import part_jobs
from factories.project import TIER, write

Json = dict[str, Any]

WEAK: list[Json] = [{"op": "shift", "size": 1}]
STRONG: list[Json] = [{"op": "cutout", "size": 3}]
BASE: Json = {"augment": WEAK, "strong": STRONG, "epochs": 3, "evaluations": 3, "batch": 20,
              "split": {"test": 200, "validation": 100, "per_class": 10},
              "model": {"name": "bn_mlp", "hidden": [32]}}  # fmt: skip


def planned(root: Path, arms: Json, comparisons: list[Json] | None = None, **base: Any) -> Plan:
    """Return the plan of a paper with these arms, on digits."""
    tier = copy.deepcopy(TIER)
    tier |= {"seeds": 1, "base": {**tier["base"], **copy.deepcopy(BASE), **base}}
    first = next(iter(arms))
    claim = {"statement": "-", "comparisons": comparisons or [
        {"experiment": "main", "arm": first, "against": {"constant": 0}, "metric": "seconds",
         "lower_is_better": True}
    ]}  # fmt: skip
    paper = {
        "title": "-",
        "authors": "-",
        "year": 2026,
        "summary": "-",
        "claims": {"C-1": claim},
        "experiments": {"main": {"title": "-", "tiers": {"smoke": {}}, "arms": arms}},
    }
    write(root, tier, paper, {"tier": "smoke", "device": "cpu"})
    return check(load(root, {}))


def jobs(plan: Plan) -> list[Json]:
    """Return the jobs of all runs of a plan, parents first."""
    return part_jobs(plan, "one.main")


def trained(root: Path, plan: Plan, **how: Any) -> dict[str, Json]:
    """Return the records of all runs by the names of their arms."""
    wanted = jobs(plan)
    records = factory.trainer(root, **how).train(wanted)
    names = [job["label"].rpartition("/")[2].partition(" ")[0] for job in wanted]
    return dict(zip(names, records, strict=True))


def run(plan: Plan, arm: str, done: bool = False, **how: Any) -> Run:
    """Return a run of an arm, new or done; those that it learns from are trained."""
    wanted = {job["key"]: job for job in jobs(plan)}

    def made(key: str, done: bool, **how: Any) -> Run:
        settings = wanted[key]["settings"]
        parents = {name: [factory.trained(made(each, True)) for each in keys]
                   for name, keys in settings["parents"].items()}  # fmt: skip
        data = factory.data().at(settings["split"].get("resolution"))
        found = Run(settings, data, factory.CPU, parents=parents, **how)
        if done:
            factory.finish(found)
        return found

    return made(plan.arm("one", "main", arm).key(0), done, **how)


def assert_no_hidden_label_trains(plan: Plan, arm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail unless a run, and those that it learns from, are the same with other hidden labels."""
    weights = run(plan, arm, done=True).weights()
    honest = Data.trained_on

    def misled(data: Data, settings: Any, seed: int, ids: Any) -> Data:
        found = honest(data, settings, seed, ids)
        shown = torch.cat([torch.from_numpy(ids[p]) for p in ("train", "validation", "test")])
        # Which are of unknown classes decides what is drawn, and is measured.
        hidden = found.labels >= 0
        hidden[shown] = False
        assert hidden.any()
        others = (found.labels + 1).remainder(found.manifest["classes"])
        # The dataset itself is shared by all runs.
        return replace(found, labels=torch.where(hidden, others, found.labels))

    monkeypatch.setattr(Data, "trained_on", misled)
    for name, value in run(plan, arm, done=True).weights().items():
        assert torch.equal(value, weights[name]), name


class Killed(BaseException):
    """Ends a process in a test that must go on."""


@contextmanager
def killed_after(epochs: int) -> Iterator[None]:
    """Inside, training ends abruptly after so many epochs of a run: only files are left of it."""
    inner = Run.epoch_steps

    def steps(run: Run) -> Any:
        if run.epoch >= epochs:
            raise Killed
        yield from inner(run)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "epoch_steps", steps)
        yield


def resumed(root: Path, plan: Plan) -> dict[str, Json]:
    """Return the records of runs that were killed in every epoch but the first, and begun again."""
    for job in jobs(plan):
        for epochs in range(1, job["settings"]["epochs"]):
            with killed_after(epochs), pytest.raises(Killed):
                factory.trainer(root, resume_seconds=0.0).train([job])
        factory.trainer(root, resume_seconds=0.0).train([job])
    return trained(root, plan)
