"""Runs in stages, whose weights are drawn anew in between."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cyclery.engine.run import Run
from factories import engine as factory

Json = dict[str, Any]
NOISE: Json = {"kind": "symmetric", "rate": 0.4}
RESETS = ("shrink_perturb", "layerwise", "last_block", "full", "none")


def staged(epochs: int = 6, stages: int = 3, more: Json | None = None, **chosen: Any) -> Json:
    """Return settings of a run whose stages have cosines of their own; ``more`` are the run's."""
    given: Json = {
        "lr": {"kind": "repeated", "times": stages, "schedule": {"kind": "cosine", "peak": 0.1}},
        "model_settings": {"hidden": [32, 24, 16]}, **(more or {}),
    }  # fmt: skip
    return factory.settings(
        "reinit", epochs=epochs, method_settings={"stages": stages, **chosen}, **given
    )


def before_stage(stage: int = 1, **given: Any) -> tuple[Run, int]:
    """Return a run before the event that begins a stage, and the update of it."""
    run = factory.run(staged(**given))
    at = sorted(run._events)[stage - 1]
    while int(run.table.steps[: run.epoch].sum()) < at:
        run.train_epoch()
    return run, at


def state_of(run: Run, name: str = "main") -> dict[str, Tensor]:
    """Return a copy of the parameters and buffers of a network."""
    return {key: value.clone() for key, value in run.models[name].state_dict().items()}


def begin_stage(run: Run, at: int) -> dict[str, Tensor]:
    """Begin a stage; return what a network drawn for it has."""
    run._before(at)
    return dict(run.networks.drawn_again(f"init@{at}")["main"].state_dict())


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Return whether two states are equal."""
    return one.keys() == other.keys() and all(torch.equal(v, other[k]) for k, v in one.items())
