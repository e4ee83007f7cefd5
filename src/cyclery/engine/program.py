"""Which runs can train as one stacked program, as far as their settings say."""

from __future__ import annotations

import json
from hashlib import sha256

import numpy as np
from torch import Tensor, nn

from cyclery import methods
from cyclery.engine.made import layout
from cyclery.engine.stackable import Stackable
from cyclery.models import Shape
from cyclery.records.record import RunSettings


def may_stack(settings: RunSettings, shape: Shape, classes: int) -> bool:
    """Return whether runs with such settings may be stacked on a CPU, if their method can be."""
    plain = settings["precision"] == "fp32" and settings["threads"] == 1
    if not plain or settings["compile"] or not methods.load(settings["method"]["name"]).capture:
        return False
    # Convolutions gain nothing by it: theirs is the arithmetic.
    return all(len(x) < 4 for x in layout(settings, shape, classes).shapes.values())


def program(run: Stackable) -> str | None:
    """Return what runs must have in common to train as one; None where a run trains by itself."""
    chosen = run.settings
    if run.device.type != "cpu" or not may_stack(chosen, run.data.shape, run.data.classes):
        return None
    same = {
        "shapes": {k: [*v.shape] for k, v in run.live().items()},
        "teachers": {k: [f"{m}", *([*x.shape] for x in m.state_dict().values())]
                     for k, m in run.networks.teachers.items()},
        "attributes": attributes(run),
        "quantities": run.table.names,
        "decays": decays(run),
        "images": [id(run.data.images)],
        "streams": {k: repr(v) for k, v in run.streams.items()},
        **{k: chosen.get(k) for k in ("method", "model", "head", "optimiser", "augment", "strong",
                                      "views", "mu", "frozen", "rates", "ema_buffers")},
    }  # fmt: skip
    return json.dumps(same, sort_keys=True)


def attributes(run: Stackable) -> dict[str, str]:
    """Return what modules hold besides parameters and buffers, such as what a hook put there.

    One record of a step serves all runs, so they must have it in common.
    """
    usual, found = vars(nn.Module()).keys(), {}
    for name, model in sorted(run.models.items()):
        for inner, module in model.named_modules():
            for key in sorted(vars(module).keys() - usual):
                value = vars(module)[key]
                if isinstance(value, Tensor):
                    value = value.detach().numpy()
                if isinstance(value, np.ndarray):
                    found[f"{name}.{inner}.{key}"] = sha256(value.tobytes()).hexdigest()
                elif isinstance(value, bool | int | float | str | tuple | list | dict):
                    found[f"{name}.{inner}.{key}"] = repr(value)
    return found


def decays(run: Stackable) -> tuple[bool, bool]:
    """Return whether weights ever decay, and whether biases and norms do."""
    weights, norms = (run.table.columns[f"weight_decay{end}"] for end in ("", "_norm"))
    return bool(weights.any()), bool(norms.any())
