"""Features for probes: Gaussian classes whose means lie apart, in parts of given sizes."""

from __future__ import annotations

from typing import Any

import numpy as np

from cyclery import probes

SIZES = {"train": 240, "validation": 80, "test": 120}


def features(
    sizes: dict[str, int] = SIZES, classes: int = 5, width: int = 12, apart: float = 0.6,
    seed: int = 3,
) -> probes.Features:  # fmt: skip
    """Return features of balanced classes; those of a pool have twice as many, half unknown."""
    rng = np.random.default_rng(seed)
    means = apart * rng.normal(size=(2 * classes, width))
    x, y = {}, {}
    for part, size in sizes.items():
        label = rng.permutation(np.arange(size) % (classes * (2 if part == "unlabelled" else 1)))
        x[part] = (means[label] + rng.normal(size=(size, width))).astype(np.float32)
        y[part] = np.where(label < classes, label, -1)
    return probes.Features(x, y, classes, seed)


def measured(name: str, given: probes.Features, **settings: Any) -> dict[str, float]:
    """Return the figures of a probe with these settings."""
    return probes.measure(probes.resolve(name, settings), given)
