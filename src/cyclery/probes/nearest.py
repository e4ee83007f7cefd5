"""Weighted nearest neighbours: what most of the similar training samples are, without any fit.

Z. Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination (arXiv
1805.01978, section 3.4), as lightly and solo-learn monitor with it: with features of length 1, the
k training samples of the largest cosine vote for their classes with weight exp(cos / T). Equal
scores go to the lowest class, equal cosines at the k-th place to the first samples. One thread
takes about 7 seconds for 60,000 training and 10,000 test samples of 128 features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cyclery.common.errors import UserError
from cyclery.probes._labels import PER_CLASS, accuracy, check_per_class, labelled

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cyclery.probes import Features

# Cosines held at a time: 64 MiB.
HELD = 2**24


@dataclass(frozen=True)
class Settings:
    """Votes of the most similar training samples, by cosine."""

    k: int = field(default=200, metadata={"doc": "training samples that vote", "low": 1})
    temperature: float = field(
        default=0.1, metadata={"doc": "T of the weight exp(cos / T) of a vote", "above": 0}
    )
    per_class: int | None = field(default=None, metadata=PER_CLASS)


def needs(settings: Settings) -> tuple[str, ...]:
    """Return train and test."""
    return ("train", "test")


def figures(settings: Settings) -> tuple[str, ...]:
    """Return accuracies."""
    return ("test_accuracy", "val_accuracy")


def check(settings: Settings, rows: Mapping[str, int], classes: int) -> None:
    """Refuse more labels than there are, and more neighbours than labels."""
    labels = check_per_class(settings.per_class, rows, classes)
    if settings.k > labels:
        beside = "" if settings.per_class is None else f" beside per_class {settings.per_class}"
        raise UserError(
            f"k: must be at most {labels}{beside}, for so many training samples can vote (found "
            f"{settings.k})."
        )


def measure(settings: Settings, features: Features) -> dict[str, float]:
    """Return the accuracy on test, and on validation where there is some."""
    rows = labelled(features.y["train"], settings.per_class, features.seed)
    bank, labels = _directions(features.x["train"][rows]), features.y["train"][rows]
    found = {}
    for part, name in (("validation", "val"), ("test", "test")):
        if len(features.x.get(part, ())):
            queries = _directions(features.x[part])
            predicted = _vote(queries, bank, labels, features.classes, settings)
            found[f"{name}_accuracy"] = accuracy(predicted, features.y[part])
    return found


def _directions(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return vectors divided by their lengths; one of length 0 stays so."""
    import numpy as np

    length = np.linalg.norm(x, axis=1, keepdims=True)
    length[length == 0] = 1
    directions: NDArray[np.float32] = x / length
    return directions


def _vote(
    queries: NDArray[np.float32],
    bank: NDArray[np.float32],
    labels: NDArray[np.int64],
    classes: int,
    settings: Settings,
) -> NDArray[np.int64]:
    """Return the class [Q] of each query [Q, D] by the votes of the bank [N, D]."""
    import numpy as np

    at_once = max(1, HELD // len(bank))
    predicted = []
    for start in range(0, len(queries), at_once):
        cosine = queries[start : start + at_once] @ bank.T
        near = _largest(cosine, settings.k)
        value = np.take_along_axis(cosine, near, axis=1).astype(np.float64)
        # Divided by the largest weight of the query, which changes no order and cannot overflow.
        weight = np.exp((value - value.max(axis=1, keepdims=True)) / settings.temperature)
        cell = labels[near] + classes * np.arange(len(near))[:, None]
        score = np.bincount(cell.ravel(), weight.ravel(), classes * len(near))
        predicted.append(score.reshape(-1, classes).argmax(axis=1))
    return np.concatenate(predicted)


def _largest(values: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Return the columns [Q, k], ascending, of the k largest of each row; of equal ones the first.

    Partitioning values and comparing is faster than partitioning their places.
    """
    import numpy as np

    lowest = np.partition(values, -k, axis=1)[:, -k, None]
    kept = values >= lowest
    surplus = kept.sum(axis=1) - k
    for row in np.flatnonzero(surplus):
        equal = np.flatnonzero(values[row] == lowest[row])
        kept[row, equal[-surplus[row] :]] = False
    return np.nonzero(kept)[1].reshape(-1, k)
