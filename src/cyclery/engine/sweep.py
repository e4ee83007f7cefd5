"""The learning-rate range test (Smith, arXiv 1506.01186, section 3.3).

From fresh weights the learning rate rises along the sweep; held-out accuracy is read at even
distances, and the bounds are read off by ``cyclery.records.range_bounds``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from cyclery.engine.cohort import Pause, Task
from cyclery.engine.replay import Recorder
from cyclery.engine.run import Data, Diverged, Run
from cyclery.records import range_bounds
from cyclery.records.record import RunSettings, Sweep


def sweep(
    settings: RunSettings,
    data: Data,
    device: torch.device,
    stop_if_asked: Callable[[], None] = lambda: None,
    recorder: Recorder | None = None,
) -> Task[Sweep]:
    """Run one sweep and return its curve and its readings.

    The sweep ends early where the loss stops being finite: what was seen until then is read.
    ``stop_if_asked`` is called at every reading; what it raises ends the sweep without a result.
    """
    run = Run(settings, data, device, recorder=recorder)
    sizes = [
        size
        for size, steps in zip(run.table.batches, run.table.steps, strict=True)
        for _ in range(int(steps))
    ]
    if allocated := run.prepare():
        yield Pause.ALLOCATED
    per_epoch = {int(t) for t in np.cumsum(run.table.steps)} | {0}
    every = max(1, len(sizes) // settings["evaluations"])
    lr: list[float] = []
    accuracy: list[float] = []
    loss: list[float] = []
    for update, size in enumerate(sizes):
        if update in per_epoch:
            # Samplers may draw otherwise for another batch.
            run.epoch = int(run.table.clock.epoch[update])
        run._before(update)
        if update in per_epoch:
            run.begin_epoch()
            run.watch()
        yield from run.launch(size)
        done = update + 1
        if done % every == 0:
            stop_if_asked()
            losses = (yield from run.traced(done - every, done))[:, 0]
            try:
                found = yield from run.evaluation("validation")
            except Diverged:
                break
            if not np.isfinite(losses).all():
                break
            lr.append(float(run.table.columns["lr"][update]))
            accuracy.append(found[""]["accuracy"])
            loss.append(float(losses.mean()))
            if not allocated:
                allocated = True
                yield Pause.ALLOCATED
    high = float(run.table.columns["lr"].max())
    classes = data.classes
    readings = range_bounds.readings(lr, loss) if len(lr) > 1 else {}
    return {
        "lr": lr,
        "accuracy": accuracy,
        "loss": loss,
        "bounds": range_bounds.bounds(lr, accuracy, classes, high),
        "readings": {
            name: value if value is not None and math.isfinite(value) else None
            for name, value in readings.items()
        },
        "images": sum(sizes[:done]),
        "views": sum(
            run.method.spent(run.method_settings, size, settings["mu"])[0] for size in sizes[:done]
        ),
        "updates": done,
    }
