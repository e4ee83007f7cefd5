"""Sketches for few annotations: proxies, unseen classes, and stages of self-training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from factories import engine as factory
from factories import sketches
from factories.cards_self_supervised import CARDS, CLAIMS

from cyclery.common.errors import UserError
from cyclery.engine.hooks import Moment
from cyclery.engine.run import Run

NAME = "annotation-efficient"


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return sketches.planned(tmp_path_factory.mktemp("few"), CARDS[NAME], CLAIMS[NAME])


# Stages.


def staged(plan: Any, arm: str) -> tuple[Run, list[tuple[int, dict[str, torch.Tensor]]]]:
    """Return a run that is done, and its weights before each event and after it."""
    run, seen = sketches.run(plan, arm), []
    honest = run.method.event

    def event(models: Any, moment: Moment, settings: Any) -> None:
        for part in range(2):
            if part:
                honest(models, moment, settings)
            kept = {k: v.clone() for k, v in models["main"].state_dict().items()}
            seen.append((moment.update, kept))

    object.__setattr__(run.method, "event", event)
    try:
        factory.finish(run)
    finally:
        object.__setattr__(run.method, "event", honest)
    return run, seen


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("better", ["human", "pseudo"])
def test_gist_keeps_the_better_of_two_stages_that_begin_alike(
    plan: Any, better: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = iter([0.8, 0.5, 0.8, 0.5] if better == "human" else [0.5, 0.8, 0.5, 0.8])
    asked = []

    def accuracy(moment: Moment, part: str = "validation") -> float:
        asked.append(part)
        return next(figures)

    monkeypatch.setattr(Moment, "accuracy", accuracy)
    run, seen = staged(plan, "gist")
    assert asked == ["validation"] * 4
    assert [update for update, _ in seen[::2]] == [0, 3, 6, 9, run.updates]
    before, after = ([kept for _, kept in seen[part::2]] for part in range(2))
    for stage in (0, 2):
        assert same(after[stage + 1], after[stage]), "the second one begins elsewhere"
        human, pseudo = before[stage + 1], before[stage + 2]
        assert not same(human, pseudo)
        assert same(after[stage + 2], human if better == "human" else pseudo)
    assert same(run.models["main"].state_dict(), after[-1])
    # Epochs have four updates, and stages three.
    assert run.curve["train_human"] == [3 / 4, 2 / 4, 1 / 4]


def test_the_accuracy_of_a_moment_is_that_of_an_evaluation(plan: Any) -> None:
    run = sketches.run(plan, "gist")
    run.train_epoch()
    moment = Moment(run._inside, 4, began=True)
    assert moment.accuracy("validation") == run.evaluate("validation")["accuracy"]
    with pytest.raises(UserError, match="must not choose by the test set"):
        moment.accuracy("test")


def test_rist_draws_a_kind_of_labels_and_fist_mixes_them(plan: Any) -> None:
    rist, fist = (sketches.run(plan, arm, done=True) for arm in ("rist", "fist"))
    assert fist.curve["train_human"] == [0.5] * 3
    first, last = rist.curve["train_human"][0], rist.curve["train_human"][-1]
    assert {first, last} <= {0.0, 1.0}
    drawn = [float(torch.rand((), generator=Moment(rist._inside, at, True).generator("coin")) < 0.5)
             for at in (0, rist.updates // 2)]  # fmt: skip
    assert [first, last] == drawn


def test_images_keep_the_detail_that_they_are_stored_with(plan: Any, tmp_path: Path) -> None:
    record = sketches.trained(tmp_path, plan)["coarse"]
    assert record["settings"]["split"]["resolution"] == {"stored": 4, "input": 16}
    assert record["final"]["test_accuracy"] > 0.1
