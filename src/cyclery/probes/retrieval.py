"""Retrieval: whether the nearest other samples of a part are of the class of the query.

ProxyNCA++ (E. W. Teh et al., arXiv 2004.01113, and its program): Recall at k is the share of
samples with one of their own class among the k nearest others, in Euclidean distance between
features as they are, not normalised. Of equal distances the first sample is nearer. With ``nmi``,
the normalised mutual information of classes and k-means clusters, as many as there are classes. The
classes need not be those of training: with ``unseen`` the same is measured among the unlabelled
samples of an open set's unknown classes, which nothing was trained on.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cyclery.common.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cyclery.probes import Features

# Distances held at a time: 64 MiB.
HELD = 2**23


@dataclass(frozen=True)
class Settings:
    """Whether the nearest other samples of a part are of the class of the query."""

    k: tuple[int, ...] = field(
        default=(1,),
        metadata={"doc": "numbers of nearest samples that are looked at", "low": 1, "least": 1},
    )
    nmi: bool = field(
        default=False,
        metadata={"doc": "whether k-means clusters are compared with the classes, too"},
    )
    unseen: bool = field(
        default=False,
        metadata={
            "doc": "whether retrieval is measured among the unlabelled samples of unknown classes, "
            "too, as `unlabelled_recall_at_1`"
        },
    )


def needs(settings: Settings) -> tuple[str, ...]:
    """Return test, and the unlabelled pool where unknown classes are in it."""
    return ("test", "unlabelled") if settings.unseen else ("test",)


def unknown(settings: Settings) -> bool:
    """Return whether it is measured among unknown classes, too."""
    return settings.unseen


def figures(settings: Settings) -> tuple[str, ...]:
    """Return Recall at every k, and NMI where it is asked for."""
    recall = tuple(f"recall_at_{k}" for k in dict.fromkeys(settings.k))
    own = (*recall, "nmi") if settings.nmi else recall
    parts = ("test", "val", *(["unlabelled"] if settings.unseen else []))
    return tuple(f"{part}_{name}" for part in parts for name in own)


def check(settings: Settings, rows: Mapping[str, int], classes: int) -> None:
    """Refuse more neighbours than there are."""
    others = min(rows[part] for part in ("test", "validation") if rows.get(part)) - 1
    if max(settings.k) > others:
        raise UserError(
            f"k: must be at most {others}, the other samples of the smallest of validation and "
            f"test (found {max(settings.k)})."
        )


def measure(settings: Settings, features: Features) -> dict[str, float]:
    """Return the figures of test, and of validation and unknown classes where there are some."""
    found = {}
    parts = {name: (features.x[part], features.y[part])
             for part, name in (("validation", "val"), ("test", "test"))
             if part in features.x}  # fmt: skip
    if settings.unseen:
        unknown = features.y["unlabelled"] < 0
        own = features.own["unlabelled"][unknown]
        parts["unlabelled"] = features.x["unlabelled"][unknown], own
    for name, (given, y) in parts.items():
        if len(given):
            x = given.astype("float64")
            before = _nearer(x, y)
            for k in settings.k:
                found[f"{name}_recall_at_{k}"] = float((before < k).mean())
            if settings.nmi:
                found[f"{name}_nmi"] = _nmi(x, y, features.seed)
    return found


def _nearer(x: NDArray[np.float64], y: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many others [N] are nearer to each sample than the nearest of its class.

    That is N where a sample is the only one of its class.
    """
    import numpy as np

    # Moving all of them changes no distance, and keeps what cancels below small.
    x = x - x.mean(axis=0)
    square = np.square(x).sum(axis=1)
    column = np.arange(len(x))
    found = np.full(len(x), len(x))
    at_once = max(1, HELD // len(x))
    for start in range(0, len(x), at_once):
        rows = column[start : start + at_once]
        # Squared distances but for what is the same in a row.
        distance = square - 2 * (x[rows] @ x.T)
        distance[np.arange(len(rows)), rows] = np.inf
        own = np.where(y[rows, None] == y, distance, np.inf)
        nearest = own.argmin(axis=1)[:, None]
        least = np.take_along_axis(own, nearest, axis=1)
        nearer = (distance < least) | ((distance == least) & (column < nearest))
        alone = np.isinf(least[:, 0])
        found[rows] = np.where(alone, len(x), nearer.sum(axis=1))
    return found


def _nmi(x: NDArray[np.float64], y: NDArray[np.int64], seed: int) -> float:
    """Return the mutual information of classes and clusters over the mean of their entropies."""
    import numpy as np
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import normalized_mutual_info_score

    # Of ten starts the one with the least sum of squares.
    means = KMeans(len(np.unique(y)), n_init=10, random_state=seed % 2**32)
    with warnings.catch_warnings():
        # Collapsed features make fewer clusters, of which the figure tells.
        warnings.simplefilter("ignore", ConvergenceWarning)
        clusters = means.fit_predict(x)
    return float(normalized_mutual_info_score(y, clusters))
