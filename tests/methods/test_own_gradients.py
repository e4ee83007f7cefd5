"""Steps that make their gradients themselves, and what is said where these are wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from factories import engine as factory

from cyclery.common.errors import UserError
from cyclery.engine.run import Run
from cyclery.methods import Gradients

Gradient = dict[str, torch.Tensor]


def trained(monkeypatch: pytest.MonkeyPatch, change: Callable[[Gradient], Any]) -> Run:
    """Return a run after an update by autograd's gradients, which ``change`` has changed."""

    def step(inner: Any, models: Any, batch: Any, row: Any, settings: Any, generator: Any) -> Any:
        named = {f"main.{k}": p for k, p in models["main"].named_parameters()}
        loss = F.cross_entropy(models["main"](batch.x), batch.y)
        found = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
        return Gradients(loss.detach(), change(found)), {}

    with monkeypatch.context() as patch:
        factory.use_step(patch, step)
        run = factory.run(factory.settings())
        run.begin_epoch()
        run.step(50)
    return run


def test_gradients_of_its_own_train_as_a_loss_does(monkeypatch: pytest.MonkeyPatch) -> None:
    run = factory.run(factory.settings())
    run.begin_epoch()
    run.step(50)
    own = trained(monkeypatch, lambda found: found)
    assert torch.equal(own.flat.data, run.flat.data) and own.logged == run.logged


def test_what_has_no_gradient_is_moved_by_decay_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = factory.run(factory.settings()).models["main"].head.bias
    run = trained(monkeypatch, lambda found: {"main.head.weight": found["main.head.weight"]})
    assert torch.equal(run.models["main"].head.bias, before)
    assert not torch.equal(run.models["main"].body[1].weight, torch.zeros(32, 64))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda found: {"main.head.wieght": found["main.head.weight"]},
            r"Gradients has 'main.head.wieght', which is no trained parameter. Did you mean "
            r"'main.head.weight'\? Their names are as 'main\.",
        ),
        (
            lambda found: {"main.head.weight": found["main.head.bias"]},
            r"the gradient of 'main.head.weight' must have the shape \[10, 32\] \(found a tensor "
            r"of shape \[10\], float32\)",
        ),
        (lambda found: {}, r"`of` of Gradients must be a dict with one at least \(found {}\)"),
    ],
    ids=["name", "shape", "none"],
)
def test_wrong_gradients_are_refused_at_the_first_step(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[Gradient], Any], said: str
) -> None:
    with pytest.raises(UserError, match=rf"must return \(loss, logs\): {said}"):
        trained(monkeypatch, change)
