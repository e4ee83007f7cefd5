"""The labels that a probe learns from, all of training or a few of each class; and its accuracy."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cyclery.common.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Metadata of the field of that name.
PER_CLASS: dict[str, Any] = {
    "doc": "training labels of every class that are used, drawn from the seed, the same for all "
    "probes of a run and all arms with the same split; null uses all",
    "low": 1,
}


def labelled(y: NDArray[np.int64], per_class: int | None, seed: int) -> NDArray[np.int64]:
    """Return the rows to learn from, ascending: all, or so many of every class that occurs.

    Every row has a rank that only the seed decides, and the lowest of a class are taken: fewer
    labels are some of the more, and other classes change nothing. Ranks are raw output of PCG64,
    which numpy keeps the same in all its versions, as in the splits.

    Raises:
        UserError: a class has fewer rows.
    """
    import numpy as np

    if per_class is None:
        return np.arange(len(y))
    key = hashlib.sha256(f"probe/{seed}/labels".encode()).digest()
    ranks = np.random.PCG64(int.from_bytes(key, "big")).random_raw(len(y))
    classes, counts = np.unique(y, return_counts=True)
    if (short := counts < per_class).any():
        raise UserError(
            f"per_class: must be at most {counts.min()}, for the training part has "
            f"{counts[short][0]} samples of class {classes[short][0]} (found {per_class})."
        )
    order = np.lexsort((ranks, y))
    place = np.arange(len(y)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(order[place < per_class])


def check_per_class(per_class: int | None, rows: Mapping[str, int], classes: int) -> int:
    """Return how many labels are used; a UserError where training has too few for ``per_class``."""
    if per_class is None:
        return rows["train"]
    if per_class * classes > rows["train"]:
        raise UserError(
            f"per_class: must be at most {rows['train'] // classes}, for the training part has "
            f"{rows['train']} samples of {classes} classes (found {per_class})."
        )
    return per_class * classes


def accuracy(predicted: NDArray[np.int64], y: NDArray[np.int64]) -> float:
    """Return the share of right answers, a fraction."""
    return float((predicted == y).mean())
