"""Runs, batches and heads of HIERMATCH on digits."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from cyclery.engine.run import Run
from cyclery.engine.stream import Batch
from factories import engine as factory

Json = dict[str, Any]
CORES = ("mixmatch", "fixmatch")
POOLS = ("shared", "levels")
# Three groups of the digits by shape, and two above these.
TWO = [[0, 1, 2, 2, 1, 2, 0, 1, 0, 0]]
THREE = [*TWO, [0, 1, 1, 1, 1, 1, 0, 1, 0, 0]]


def settings(
    core: str = "fixmatch", pools: str = "shared", hierarchy: Any = TWO, **changes: Any
) -> Json:
    """Return resolved settings of a few labels, of which some are coarse with ``pools: levels``."""
    chosen = {"core": core, "pools": pools, "levels": 1 + len(hierarchy or ())}
    chosen |= changes.pop("chosen", {})
    split: Json = {"labels": None, "per_class": 4, "unlabelled": "all"}
    if hierarchy:
        split["hierarchy"] = hierarchy
        split["coarse"] = [40] * len(hierarchy) if pools == "levels" else None
    split |= changes.pop("split", {})
    given = {"mu": 2, "batch": 20, "epoch_images": 100, "weight": 1.0, "ema_decay": 0.9,
             "model_settings": {"hidden": [32, 32]}, **changes}  # fmt: skip
    return factory.settings("hiermatch", method_settings=chosen, split=split, **given)


def one_step(run: Run) -> tuple[Batch, Tensor, dict[str, Tensor], torch.Generator]:
    """Make a step without an update: its batch, loss and logs, and a generator as it had it."""
    run.begin_epoch()
    batch = run._batch(run.table.batches[0], None)
    drawn = torch.Generator()
    drawn.set_state(run.generators["method"].get_state())
    row = run.table.row(run.update)
    loss, logs = run.method.step(
        run.models, batch, row, run.method_settings, run.generators["method"]
    )
    loss.backward()
    return batch, loss.detach(), logs, drawn


def twins(given: Json) -> tuple[Run, Run]:
    """Return two runs that are the same, to step with one and to compute with the other."""
    return factory.run(given), factory.run(copy.deepcopy(given))
