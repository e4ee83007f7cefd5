"""Small runs of BYOL on digits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cyclery.engine.run import Run
from factories import engine as factory

Json = dict[str, Any]
HEADS: Json = {"hidden": 32, "output": 16}
SMALL: Json = {"split": {"labels": 60}, "epoch_images": 200, "batch": 20, "epochs": 2}
TARGET, ONLINE = ("ema", "ema.projector"), ("main", "projector", "predictor")
# Two views that no draw makes equal.
VIEWS: tuple[Json, ...] = ({"op": "random_resized_crop", "area": [0.4, 1.0]},)


def settings(seed: int = 0, target: str = "ema", **chosen: Any) -> Json:
    """Return resolved settings; ``more`` among ``chosen`` are those beside the method's own."""
    more = {**SMALL, "strong": VIEWS, **chosen.pop("more", {})}
    if target == "ema":
        more = {"ema_buffers": "own", **more}
    method = {**HEADS, "target": target, **chosen}
    return factory.settings("byol", seed=seed, method_settings=method, **more)


def begun(seed: int = 0, **chosen: Any) -> Run:
    """Return a run before its first update."""
    return factory.begun(settings(seed, **chosen))


def stepped(run: Run, batch: Any) -> Tensor:
    """Return the loss of a step, with its graph."""
    return factory.stepped(run, batch)[0]


def gradients(run: Run, batch: Any) -> dict[str, Tensor]:
    """Return the gradient of each trained parameter that has one."""
    loss = stepped(run, batch)
    found = torch.autograd.grad(loss, list(run.flat.params.values()), allow_unused=True)
    return {k: g for k, g in zip(run.flat.params, found, strict=True) if g is not None}
