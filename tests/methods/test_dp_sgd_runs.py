"""DP-SGD trained on digits: planned, killed and resumed, packed, captured."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import engine as factory
from factories import small_paper
from factories.replay import Recorder
from factories.threads import one_thread

from cyclery.authoring.try_methods import try_methods
from cyclery.common.errors import UserError
from cyclery.engine.hooks import Measured

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)
Json = dict[str, Any]

BASE: Json = {
    "model": {"name": "dp_mlp", "hidden": [16], "groups": 2}, "lr": 0.5, "momentum": 0,
    "weight_decay": 0, "ema_decay": {"kind": "running_mean", "end": 0.999, "delay": 9},
}  # fmt: skip
ARMS: Json = {
    "private": {**BASE, "method": {"name": "dp_sgd", "views": 2, "epsilon": 4, "chunk": 16}},
    "open": {**BASE, "method": {"name": "dp_sgd", "views": 0, "private": False}},
}
CLAIMS: list[Json] = [
    {"experiment": "main", "arm": "private", "against": {"constant": 5},
     "metric": "train_epsilon", "lower_is_better": True},
    {"experiment": "main", "arm": "open", "against": "private",
     "metric": "test_membership_auroc"},
]  # fmt: skip


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return small_paper.planned(tmp_path_factory.mktemp("dp-sgd"), ARMS, CLAIMS)


def test_a_run_that_is_killed_and_resumed_spends_the_same_epsilon(
    plan: Any, tmp_path: Path
) -> None:
    whole = small_paper.trained(tmp_path / "whole", plan)
    again = small_paper.resumed(tmp_path / "again", plan)
    for arm, record in whole.items():
        assert record["status"] == "done"
        assert factory.figures(record) == factory.figures(again[arm]), arm
    record = again["private"]
    assert 3.99 < record["final"]["train_epsilon"] <= 4
    assert record["final"]["train_noise_multiplier"] > 0.5
    spent = record["curve"]["train_epsilon"]
    assert spent == sorted(set(spent)) and len(spent) == 3
    assert {"raw_test_accuracy", "test_accuracy"} <= record["final"].keys()


def test_a_captured_run_computes_what_an_eager_one_does(plan: Any) -> None:
    for arm in ARMS:
        recorder = Recorder()
        eager = small_paper.run(plan, arm, done=True)
        again = small_paper.run(plan, arm, done=True, recorder=recorder)
        assert recorder.replays >= again.updates
        state = again.state()
        for key, value in eager.state().items():
            assert torch.equal(value, state[key]), (arm, key)


def test_it_keeps_the_rules_of_methods(plan: Any) -> None:
    assert "all are good" in try_methods(plan)


def test_a_budget_that_given_noise_breaks_is_refused_when_planned(tmp_path: Path) -> None:
    arms = copy.deepcopy(ARMS)
    arms["private"]["method"] |= {"noise": 2.0, "calibrate": False, "epsilon": 1}
    with pytest.raises(
        UserError, match=r"method\.epsilon: 1 allows \d updates with this noise, .* makes 15"
    ):
        small_paper.planned(tmp_path, arms, CLAIMS)


def test_the_history_of_what_no_schedule_gives_is_refused(plan: Any) -> None:
    measured = Measured(small_paper.run(plan, "private")._inside, 0, last=False)
    assert len(measured.history("batch")) == 0
    with pytest.raises(UserError, match=r"no quantity 'sigma'; there are batch, .*noise"):
        measured.history("sigma")


def test_more_privacy_costs_accuracy_on_digits() -> None:
    """The easy case that it must win: an epsilon of 8 is above one of a half."""
    accuracy = {}
    for epsilon in (0.5, 8.0):
        given = factory.settings(
            "dp_sgd", epochs=8, model_settings={"hidden": [32], "groups": 2},
            method_settings={"views": 0, "epsilon": epsilon, "delta": 1e-4}, lr=2.0, momentum=0,
            weight_decay=0, batch=128, split={"labels": 1200, "test": 400, "validation": 100},
            ema_decay=BASE["ema_decay"], evaluations=1,
        )  # fmt: skip
        accuracy[epsilon] = factory.train(given).final()["test_accuracy"]
    assert accuracy[8.0] > accuracy[0.5] + 0.1 and accuracy[8.0] > 0.8
