"""Runs with LARS: they learn, from configuration on, resume, replay and leave others alone."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import engine as factory
from factories.jobs import part_jobs
from factories.plan import planned
from factories.replay import Recorder

from cyclery.common.errors import UserError
from cyclery.engine.checkpoint import read_state, save_state
from cyclery.records.run_store import Store

Json = dict[str, Any]
KINDS: dict[str, Json] = {
    "simclr": {"variant": "simclr"},
    "byol": {"variant": "byol"},
    "bolts": {"variant": "bolts"},
    "clipped": {"variant": "bolts", "eta": 0.02, "clip": True},
    "all": {"variant": "bolts", "adapts": "all"},
    "headless": {"variant": "simclr", "exclude": ["main.head"]},
}
WARM = {
    "kind": "staged",
    "stages": [
        {"fraction": 0.1, "schedule": {"kind": "linear", "start": 0.0, "end": 1.0}},
        {"fraction": 0.9, "schedule": {"kind": "cosine", "peak": 1.0}},
    ],
}


def varied(kind: str, **changes: Any) -> Json:
    """Return settings in which all rates, clipping and averaging vary."""
    changes = {"optimiser": "lars", "optimiser_settings": KINDS[kind], **changes}
    return factory.everything("mean_teacher", **changes)


def test_every_kind_learns_from_configuration(tmp_path: Path) -> None:
    """Digits have ten classes; what the optimiser is told reaches it through tier and plan."""

    def change(tier: Json, paper: Json) -> None:
        tier.update(seeds=1)
        tier["base"].update(
            split={"test": 300, "validation": 100, "labels": 1000}, epochs=6, lr=WARM,
            weight_decay=1e-4, evaluations=1,
        )  # fmt: skip
        arms = {k: {"optimiser": {"name": "lars", "eta": 0.02, **v}} for k, v in KINDS.items()}
        paper["experiments"]["main"]["arms"] = arms
        paper["claims"]["C-1"]["comparisons"][0].update(arm="byol", against="simclr")

    plan = planned(tmp_path, change)
    jobs = part_jobs(plan, "one")
    assert len(jobs) == len(KINDS)
    for job, record in zip(jobs, factory.trainer(tmp_path / "runs").train(jobs), strict=True):
        assert record["final"]["test_accuracy"] > 0.9, job["settings"]["optimiser"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_equals_one_that_was_never_stopped(kind: str, tmp_path: Path) -> None:
    settings = varied(kind)
    whole = factory.train(settings)
    run, path = factory.run(settings), tmp_path / "resume.safetensors"
    while not run.finished:
        run.train_epoch()
        run.evaluate_on_the_way()
        save_state(run, path, "stamp", 1.0)
        run = factory.run(settings)
        point = read_state(path, "stamp", Store(tmp_path))
        run.load_state(point.state, point.epoch, point.curve)
    for name, value in whole.state().items():
        assert torch.equal(run.state()[name], value), name
    assert run.final() == whole.final()


@pytest.mark.parametrize("kind", KINDS)
def test_a_replayed_run_equals_an_eager_one(kind: str) -> None:
    settings = varied(kind)
    eager, replayed = factory.train(settings), factory.train(settings, recorder=Recorder())
    for name, value in eager.state().items():
        assert torch.equal(replayed.state()[name], value), name
    assert eager.curve == replayed.curve


def test_the_average_follows_the_weights() -> None:
    run = factory.train(varied("simclr", ema_decay=0.0))
    main, average = (run.models[name].state_dict() for name in ("main", "ema"))
    assert all(torch.equal(average[name], p) for name, p in main.items())


def test_runs_side_by_side_equal_runs_alone(tmp_path: Path) -> None:
    jobs = [factory.job(varied(kind, epochs=2, seed=seed)) for kind in KINDS for seed in (0, 1)]
    jobs.insert(1, factory.job(factory.settings(epochs=2)))

    def trained(root: Path, jobs: list[Any], width: int) -> dict[str, Any]:
        trainer = factory.trainer(root, cohort=width)
        return {j["key"]: r for j, r in trainer._side_by_side(jobs, False, factory.CPU)}

    alone = [trained(tmp_path / job["key"], [job], 1)[job["key"]] for job in jobs]
    found = trained(tmp_path / "beside", jobs, 4)
    assert max(record["cohort"] for record in found.values()) == 4
    for job, record in zip(jobs, alone, strict=True):
        assert factory.figures(found[job["key"]]) == factory.figures(record)


def test_an_excluded_module_that_no_network_has_is_named() -> None:
    settings = copy.deepcopy(varied("headless"))
    settings["optimiser"]["settings"]["exclude"] = ["main.haed"]
    with pytest.raises(UserError, match=r"optimiser\.exclude: .* 'main\.haed'.* main\.head\."):
        factory.run(settings)
