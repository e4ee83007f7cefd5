"""Plans whose arms have parents, and networks that are trained a little."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from cyclery.config.load import load
from cyclery.engine.teachers import Trained
from cyclery.engine.train import Trainer
from cyclery.plan.graph import Plan
from cyclery.plan.model import ArmPlan
from cyclery.plan.project_checks import check
from factories import engine as factory
from factories.project import PAPER, TIER, write

Json = dict[str, Any]

# Of the experiment `teachers`, whose arms are `teacher` and `pool`.
TEACHER = "teachers/teacher"
KD: Json = {"method": "kd"}


def planned(root: Path, arms: Json, change: Json | None = None, **overrides: Any) -> Plan:
    """Return the plan of a project whose experiment `students` has these arms."""
    tier, paper = copy.deepcopy(TIER), copy.deepcopy(PAPER)
    tier.update(shard_by="experiment", **(change or {}))
    tier["base"].update(epochs=2, model={"name": "bn_mlp", "hidden": [16]})
    paper["experiments"] = {
        "teachers": {"title": "-", "tiers": {"smoke": {}}, "arms": {
            "teacher": {"lr": 0.2}, "pool": {"lr": 0.3, "split": {"share": 3}}}},
        "students": {"title": "-", "tiers": {"smoke": {}},
                     "arms": {"alone": {}, **copy.deepcopy(arms)}},
    }  # fmt: skip
    paper["claims"]["C-1"]["comparisons"] = [
        {"experiment": "teachers", "arm": "pool", "against": "teacher"}
    ]
    write(root, tier, paper, {"tier": "smoke", "device": "cpu"})
    return check(load(root, overrides))


def arm(plan: Plan, name: str, experiment: str = "students") -> ArmPlan:
    """Return an arm of a plan."""
    return plan.arm("one", experiment, name)


def student(parent: str, seeds: Any = "same", **more: Any) -> Json:
    """Return an arm that distils from a parent, of the runs that ``seeds`` says."""
    return {**KD, "parents": {"teacher": {"arm": parent, "seeds": seeds}}, **more}


RULES: dict[str, Json] = {
    "same": student(TEACHER),
    "other": student(TEACHER, "other"),
    "nested": student(TEACHER, {"nested": 2}, split={"share": 2}),
    "members": student("teachers/pool", {"members": 3}),
}

CHAIN: Json = {
    "assistant": student(TEACHER, lr=0.15),
    "small": student("assistant", lr=0.12),
    "smallest": student("small", lr=0.11),
    "direct": student(TEACHER, lr=0.12),
    "copy": {"parents": {"reference": "assistant"}},
}


def of(jobs: list[Json], *names: str) -> list[Json]:
    """Return the jobs whose label ends so."""
    found = [job for name in names for job in jobs if job["label"].endswith(name)]
    assert len(found) == len(names)
    return found


@cache
def parent_of(model: str = "wrn", **settings: Any) -> Trained:
    """Return a network that is trained a little: its statistics are not those of a new one."""
    given = {"depth": 10, "width": 1, "dropout": 0.3} if model == "wrn" else None
    if model == "preresnet":
        given = {"depth": 8, "width": 4, "norm": "layer"}
    return factory.trained(
        factory.train(factory.settings(model=model, model_settings=given, seed=5, epochs=2,
                                       **settings))
    )  # fmt: skip


def note_trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the label of every run that is really trained."""
    labels: list[str] = []
    inner = Trainer._run

    def noted(self: Trainer, job: Json, *rest: Any) -> Any:
        labels.append(job["label"].removeprefix("one/"))
        return inner(self, job, *rest)

    monkeypatch.setattr(Trainer, "_run", noted)
    return labels
