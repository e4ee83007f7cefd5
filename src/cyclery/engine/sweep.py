"""The learning-rate range test (L. N. Smith, arXiv 1506.01186, section 3.3).

From fresh weights the learning rate rises along the sweep; held-out accuracy is read at even
distances, and the bounds are read off by ``cyclery.lrrange``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from cyclery import lrrange
from cyclery.engine.run import Data, Run


def sweep(settings: dict[str, Any], data: Data, device: torch.device) -> dict[str, Any]:
    """Run one sweep and return its curve and its readings.

    The sweep ends early where the loss stops being finite: what was seen until then is read.
    """
    run = Run(settings, data, device)
    sizes = [
        size
        for size, steps in zip(run.table.batches, run.table.steps, strict=True)
        for _ in range(int(steps))
    ]
    per_epoch = {int(t) for t in np.cumsum(run.table.steps)} | {0}
    every = max(1, len(sizes) // settings["evaluations"])
    lr, accuracy, loss = [], [], []
    for update, size in enumerate(sizes):
        if update in per_epoch:
            run.stream.begin_epoch()
        run.step(size)
        if (update + 1) % every == 0:
            losses = run.trace(update + 1 - every, update + 1)[:, 0]
            if not np.isfinite(losses).all():
                break
            lr.append(float(run.table.columns["lr"][update]))
            accuracy.append(run.evaluate("validation")["accuracy"])
            loss.append(float(losses.mean()))
    high = float(run.table.columns["lr"].max())
    classes = data.manifest["classes"]
    readings = lrrange.readings(lr, loss) if len(lr) > 1 else {}
    return {
        "lr": lr,
        "accuracy": accuracy,
        "loss": loss,
        "bounds": lrrange.bounds(lr, accuracy, classes, high),
        "readings": {
            name: value if value is not None and math.isfinite(value) else None
            for name, value in readings.items()
        },
        "images": sum(sizes),
        "updates": len(sizes),
    }
