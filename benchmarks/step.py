"""Time the engine's step on one CPU thread against a training loop written by hand.

    python benchmarks/step.py [--json step.json]

Both train the same network on the same digits with the same batch, shift and hyper-parameters;
the loop is what one would write without this package: ``torch.optim.SGD`` with two groups, the
cosine's value put into them before each step, the augmentation in plain torch. They take turns,
so that a machine's mood hits both, and the ratio is the median over the turns. The goal is 1.15.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch
import torch.nn.functional as F
from torch import Tensor

from cyclery import models
from cyclery.data.prepare import open_prepared, prepare
from cyclery.engine.run import Data, Run

GOAL = 1.15
SAMPLES, BATCH, PEAK, DECAY, EPOCHS = 1280, 64, 0.1, 5e-4, 10_000
CASES = {
    "BN-MLP 64-128-128-10": {"name": "bn_mlp", "settings": {"hidden": [128, 128]}},
    "small CNN, width 16": {"name": "small_cnn", "settings": {"width": 16}},
}


def engine(data: Data, model: dict[str, Any]) -> Callable[[], None]:
    """Return a function that trains an epoch with the engine."""
    run = Run(
        {
            "method": {"name": "supervised", "settings": {"label_smoothing": 0.0}},
            "split": {"test": 300, "validation": 100, "labels": SAMPLES},
            "model": model,
            "optimiser": {"name": "sgd", "settings": {"nesterov": True}},
            "schedules": {
                "lr": {"kind": "cosine", "peak": PEAK},
                "momentum": 0.9,
                "weight_decay": DECAY,
                "weight_decay_norm": 0.0,
                "temperature": 1.0,
                "batch": BATCH,
            },
            "augment": [{"op": "shift", "size": 1}],
            "strong": [],
            "mu": None,
            "epoch_images": None,
            "compile": False,
            "epochs": EPOCHS,
            "precision": "fp32",
            "threads": 1,
            "evaluations": 1,
            "seed": 0,
        },
        data,
        torch.device("cpu"),
    )
    return run.train_epoch


def by_hand(data: Data, model: dict[str, Any]) -> Callable[[], None]:
    """Return a function that trains an epoch with a loop of its own."""
    manifest = data.manifest
    net = models.build(model["name"], model["settings"], tuple(manifest["shape"]), 10).train()
    weights = [p for p in net.parameters() if p.ndim > 1]
    rest = [p for p in net.parameters() if p.ndim <= 1]
    optimiser = torch.optim.SGD(
        [{"params": weights, "weight_decay": DECAY}, {"params": rest, "weight_decay": 0.0}],
        lr=PEAK,
        momentum=0.9,
        nesterov=True,
    )
    images, labels = data.images[:SAMPLES], data.labels[:SAMPLES]
    mean = torch.tensor(manifest["mean"]).view(-1, 1, 1)
    std = torch.tensor(manifest["std"]).view(-1, 1, 1)
    updates = EPOCHS * (SAMPLES // BATCH)
    losses: list[float] = []

    def rates() -> Iterator[float]:
        for update in range(updates):
            yield PEAK * (1 + math.cos(math.pi * update / updates)) / 2

    rate = rates()

    def epoch() -> None:
        total = torch.zeros(())
        for ids in torch.randperm(SAMPLES).split(BATCH):
            x = shift(images[ids], 1).float()
            x = (x / manifest["max_value"] - mean) / std
            loss = F.cross_entropy(net(x), labels[ids])
            optimiser.zero_grad()
            loss.backward()
            lr = next(rate)
            for group in optimiser.param_groups:
                group["lr"] = lr
            optimiser.step()
            total += loss.detach()
        losses.append(total.item() * BATCH / SAMPLES)

    return epoch


def shift(images: Tensor, size: int) -> Tensor:
    """Move each image [B, C, H, W] by up to ``size`` pixels each way; zeros come in."""
    batch, channels, height, width = images.shape
    padded = F.pad(images, (size, size, size, size))
    dy, dx = torch.randint(0, 2 * size + 1, (2, batch, 1))
    rows = (dy + torch.arange(height))[:, None, :, None]
    cols = (dx + torch.arange(width))[:, None, None, :]
    which = torch.arange(batch)[:, None, None, None]
    return padded[which, torch.arange(channels)[:, None, None], rows, cols]


def seconds(epoch: Callable[[], None], epochs: int) -> float:
    """Return the time of an epoch."""
    began = time.perf_counter()
    for _ in range(epochs):
        epoch()
    return (time.perf_counter() - began) / epochs


def compare(data: Data, model: dict[str, Any], turns: int, epochs: int) -> dict[str, Any]:
    """Return microseconds per step of both, and the median ratio of their turns."""
    torch.manual_seed(0)
    ours, theirs = engine(data, model), by_hand(data, model)
    for warm in (ours, theirs):
        seconds(warm, epochs)
    # The loop before and after each turn of the engine: what drifts slowly cancels out.
    plain = [seconds(theirs, epochs)]
    made: list[float] = []
    for _ in range(turns):
        made.append(seconds(ours, epochs))
        plain.append(seconds(theirs, epochs))
    ratios = [2 * m / (a + b) for m, a, b in zip(made, plain, plain[1:], strict=False)]
    step = 1e6 / (SAMPLES // BATCH)
    return {
        "engine_us": statistics.median(made) * step,
        "loop_us": statistics.median(plain) * step,
        "ratio": statistics.median(ratios),
        "ratios": [round(ratio, 4) for ratio in sorted(ratios)],
    }


def main() -> int:
    """Print a table, and JSON where asked; the exit code says whether the goal is met."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=21)
    parser.add_argument("--epochs", type=int, default=10, help="of 20 steps, in each turn")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare("digits", folder, folder / "digits.json")
        manifest, arrays = open_prepared(folder / "digits.json")
    images, labels = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"])
    data = Data(images, labels, manifest)
    print(f"one thread, batch {BATCH}, torch {torch.__version__}, {options.turns} turns")
    print(f"{'network':24}{'engine, us':>12}{'loop, us':>12}{'ratio':>8}")
    found = {}
    for label, model in CASES.items():
        found[label] = compare(data, model, options.turns, options.epochs)
        one = found[label]
        print(f"{label:24}{one['engine_us']:12.0f}{one['loop_us']:12.0f}{one['ratio']:8.3f}")
    result = {"goal": GOAL, "torch": str(torch.__version__), "cases": found}
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    return int(any(one["ratio"] > GOAL for one in found.values()))


if __name__ == "__main__":
    raise SystemExit(main())
