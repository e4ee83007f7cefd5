"""Time a step of distillation against a step of the student and a pass of its teacher.

    python benchmarks/distillation.py [--device cuda] [--json distillation.json]

A frozen teacher should cost one pass without gradients. In turns, in one process: an epoch of the
student with its teacher, one of the student alone, and as many passes of the teacher. The ratio is
the median over the turns of the first to the sum of the other two; the goal is 1.25.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch

from cyclery.bench import cases, turns
from cyclery.bench.cases import (
    CLASSES,
    CNN_16,
    CNN_32,
    RESNET_18,
    WRN_10_1,
    WRN_28_2,
    Case,
    Net,
    Variant,
)
from cyclery.bench.contenders import synthetic
from cyclery.engine.arithmetic import autocast
from cyclery.engine.cuda import Graphs, own_stream
from cyclery.engine.machine import device_name, versions
from cyclery.engine.run import Run
from cyclery.engine.teachers import Trained

GOAL, SECONDS = 1.25, 25.0
PAIRS = {
    "cpu": [(WRN_10_1, CNN_16), (CNN_16, replace(CNN_16, settings={"width": 8}))],
    "cuda": [(RESNET_18, CNN_32), (WRN_28_2, CNN_32), (RESNET_18, WRN_28_2)],
}


def contenders(
    case: Case, variant: Variant, teacher: Net, device: torch.device
) -> dict[str, Callable[[], Any]]:
    """Return what trains an epoch with the teacher and without, and what passes it through."""
    data = synthetic(case, device)
    plain = case.settings(variant, 0)
    model = {"name": teacher.name, "settings": teacher.settings}
    parent = Run({**plain, "model": model}, data, device)
    taught = json.loads(json.dumps(plain))
    taught["method"] = {"name": "kd", "settings": {}}
    taught["schedules"] |= {"temperature": 4.0, "soft": 0.9}
    parents = {"teacher": [Trained(parent.settings, parent.weights(), CLASSES)]}
    place = own_stream(device)
    recorder = Graphs() if variant.capture else None
    with place():
        both = Run(taught, data, device, parents=parents, recorder=recorder)
        both.prepare()
        alone = Run(plain, data, device, recorder=Graphs() if variant.capture else None)
        alone.prepare()
    x = torch.rand(case.batch, *teacher.shape, device=device)
    x = x.contiguous(memory_format=both.networks.format)
    net = both.models["teacher"]

    def look() -> None:
        with autocast(both.settings, device):
            net(x)

    passes = look
    if variant.capture:
        with place():
            look()
            passes, _ = Graphs()(look, [])

    def finished(function: Callable[[], Any]) -> Callable[[], None]:
        def call() -> None:
            with place():
                function()
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        return call

    def answers() -> None:
        for _ in range(case.steps):
            passes()

    return {
        "with its teacher": finished(both.train_epoch),
        "student alone": finished(alone.train_epoch),
        "teacher's passes": finished(answers),
    }


def measure(device: torch.device) -> Iterator[dict[str, Any]]:
    """Yield the figures of every pair of networks."""
    steps = 100 if device.type == "cuda" else 20
    variant = cases.captured(1)[0] if device.type == "cuda" else cases.EAGER
    for teacher, student in PAIRS[device.type]:
        case = Case("distillation", student, 64, steps, (variant,))
        trains = contenders(case, variant, replace(teacher, shape=student.shape), device)
        for train in trains.values():
            train()
        taken = turns.take(trains, SECONDS)
        both, alone, passes = taken.values()
        ratios = [
            before / (own + other)
            for before, own, other in zip(turns.around(both), alone, passes, strict=True)
        ]
        yield {
            "teacher": teacher.title, "student": student.title, "variant": variant.name,
            "milliseconds": {
                name: 1e3 * statistics.median(own) / steps for name, own in taken.items()
            },
            "ratio": turns.spread(ratios), "goal": GOAL,
        }  # fmt: skip


def main() -> None:
    """Measure, print and, where asked, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(options.device)
    found = []
    for row in measure(device):
        found.append(row)
        times = ", ".join(f"{name} {ms:.2f} ms" for name, ms in row["milliseconds"].items())
        spread = row["ratio"]
        print(
            f"{row['student']} from {row['teacher']} ({row['variant']}): {times}; ratio "
            f"{spread['median']:.2f} ({spread['low']:.2f} to {spread['high']:.2f}), goal {GOAL}"
        )
    if options.json:
        made = {"device": device_name(device), "versions": versions(), "rows": found}
        options.json.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
