"""A pass of each network on blank images: does it give logits, one for each class?"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

import torch
from torch.nn.modules.dropout import _DropoutNd

from cyclery import models
from cyclery.authoring import watching
from cyclery.common.errors import UserError
from cyclery.data.dataset import Dataset
from cyclery.records.record import ArmSettings

BATCH = 2


def network_problems(wanted: Iterable[tuple[ArmSettings, Dataset]]) -> list[str]:
    """Return a line for each network that gives no logits [B, classes] of its dataset's images."""
    different = {
        json.dumps([arm["model"], arm.get("head"), dataset.name]): (arm, dataset)
        for arm, dataset in wanted
    }
    found = (_problem(*each) for each in different.values())
    return list(dict.fromkeys(filter(None, found)))


def _problem(settings: ArmSettings, dataset: Dataset) -> str | None:
    kind, shape, classes = settings["model"], dataset.shape, dataset.classes
    with watching.undisturbed(), torch.no_grad():
        try:
            net = models.build(kind["name"], kind["settings"], shape, classes, settings.get("head"))
            found = net.train(False)(torch.zeros(BATCH, *shape))
        except UserError:
            return None  # a package that is not there: arms with it are not run
        except Exception as error:
            text = f"{error}".strip().partition("\n")[0]
            return (
                f"{_place(kind['name'], error)}: {type(error).__name__}: {text} (the network "
                f"{kind['name']!r} on images {[BATCH, *shape]})"
            )
    drawing = [module for module in net.modules() if isinstance(module, _DropoutNd)]
    if drawing:
        return (
            f"{_place(kind['name'])}: {drawing[0]} draws from torch's own generator; take "
            "`cyclery.models.layers.Dropout`, which draws from the run's."
        )
    if isinstance(found, torch.Tensor) and found.shape == (BATCH, classes):
        return None
    shown = list(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
    return (
        f"{_place(kind['name'])}: the network {kind['name']!r} must give logits {[BATCH, classes]} "
        f"of images {[BATCH, *shape]}, one for each class (found {shown})."
    )


def _place(name: str, error: Exception | None = None) -> str:
    """Return the innermost line of a network's file that failed, or where its ``build`` begins."""
    for frame in reversed(traceback.extract_tb(error.__traceback__) if error else []):
        file = Path(frame.filename)
        if str(file.parent) in models.__path__ and file.name != "__init__.py":
            return f"{frame.filename}:{frame.lineno}"
    code = sys.modules[f"{models.__name__}.{name}"].build.__code__
    return f"{code.co_filename}:{code.co_firstlineno}"
