"""Which runs can train as one stacked program, as far as their settings say."""

from __future__ import annotations

import json
from dataclasses import is_dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cyclery import methods
from cyclery.engine.lookup import kind
from cyclery.engine.made import layout
from cyclery.engine.stackable import Stackable
from cyclery.engine.stream import Data
from cyclery.models import Shape
from cyclery.records.record import Job, RunSettings


def may_stack(settings: RunSettings, shape: Shape, classes: int) -> bool:
    """Return whether runs with such settings may be stacked on a CPU, if their method can be."""
    plain = settings["precision"] == "fp32" and settings["threads"] == 1
    if not plain or settings["compile"] or not methods.load(settings["method"]["name"]).capture:
        return False
    # Convolutions gain nothing by it: theirs is the arithmetic.
    return all(len(x) < 4 for x in layout(settings, shape, classes).shapes.values())


def alike(job: Job, data: Data) -> str | None:
    """Return what jobs that may train as one have in common; None where a run is alone."""
    settings = job["settings"]
    if job["kind"] != "run" or not may_stack(settings, data.shape, data.classes):
        return None
    # Of one length, so that none goes on without the others.
    return f"{settings['epochs']} {settings['evaluations']} {kind(job)}"


def program(run: Stackable) -> str | None:
    """Return what runs must have in common to train as one; None where a run trains by itself."""
    chosen = run.settings
    if run.device.type != "cpu" or not may_stack(chosen, run.data.shape, run.data.classes):
        return None
    if not all(p.requires_grad for p in run.flat.params.values()):
        # A hook has frozen some of what the optimiser has.
        return None
    same = {
        "shapes": {k: [*v.shape] for k, v in run.live().items()},
        "teachers": {k: [f"{m}", *([*x.shape] for x in m.state_dict().values())]
                     for k, m in run.networks.teachers.items()},
        "parents": {k: [[t.settings["method"], t.settings.get("head"), t.classes] for t in runs]
                    for k, runs in run.parents.items()},
        "attributes": attributes(run),
        "quantities": run.table.names,
        "decays": run.table.decays,
        "images": [id(run.data.images)],
        "streams": {k: repr(v) for k, v in run.streams.items()},
        **{k: chosen.get(k) for k in ("method", "model", "head", "optimiser", "augment", "strong",
                                      "views", "mu", "frozen", "rates", "clip_values",
                                      "ema_buffers")},
    }  # fmt: skip
    return json.dumps(same, sort_keys=True)


def attributes(run: Stackable) -> dict[str, Any]:
    """Return what modules hold besides parameters and buffers, such as what a hook put there.

    One record of a step serves all runs, so they must have it in common.
    """
    usual, found = vars(nn.Module()).keys(), {}
    for name, model in sorted(run.models.items()):
        for inner, module in model.named_modules():
            own = {key: vars(module)[key] for key in vars(module).keys() - usual}
            found[f"{name}.{inner}"] = [module.training, _told(own)]
    return found


def _told(value: Any) -> Any:
    """Return a value as JSON that tells it apart; what cannot be looked into is told by its id."""
    if isinstance(value, Tensor):
        raw = value.detach().contiguous().flatten().view(torch.uint8).numpy()
        return [f"{value.dtype}", [*value.shape], sha256(raw.tobytes()).hexdigest()]
    if isinstance(value, np.ndarray):
        return [f"{value.dtype}", [*value.shape], sha256(value.tobytes()).hexdigest()]
    if isinstance(value, dict):
        return {f"{key!r}": _told(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_told(each) for each in value]
    if isinstance(value, torch.Generator):
        return None
    plain = value is None or isinstance(value, bool | int | float | str) or is_dataclass(value)
    return repr(value) if plain else id(value)
