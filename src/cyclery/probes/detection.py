"""Detection of unknown classes in an unlabelled pool, by similarity to the classes' prototypes.

OpenCoS (J. Park et al., arXiv 2107.08943, and its program): the prototype of a class is the mean of
the features of its labelled samples, not normalised, and the score of a sample is its largest
cosine with a prototype. Samples that score above mean - ``deviations`` x deviation are taken for
known ones, mean and deviation (with divisor n - 1) being those of the labelled samples' own scores.
Their prototypes are made of them, so these scores are too high; the figures ``left_out`` have the
threshold of scores for which a sample was left out of the prototype of its class, or the class left
out where it has no other sample.

Known is positive: TPR is the share of known samples taken for known, TNR that of unknown ones taken
for unknown. Without known, or unknown, samples in the pool, what needs them is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cyclery.common.errors import UserError
from cyclery.probes._labels import PER_CLASS, check_per_class, labelled

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cyclery.probes import Features


@dataclass(frozen=True)
class Settings:
    """How well known and unknown classes of the unlabelled pool are told apart, by cosine."""

    deviations: float = field(
        default=2.0,
        metadata={
            "doc": "deviations of the labelled samples' scores by which the threshold is below "
            "their mean",
            "low": 0,
        },
    )
    per_class: int | None = field(default=None, metadata=PER_CLASS)


def needs(settings: Settings) -> tuple[str, ...]:
    """Return train and the unlabelled pool."""
    return ("train", "unlabelled")


def unknown(settings: Settings) -> bool:
    """Return True: it detects unknown classes."""
    return True


def figures(settings: Settings) -> tuple[str, ...]:
    """Return AUROC, the share of unknown samples above a threshold, and rates at the threshold."""
    rates = ("tpr", "tnr", "left_out_tpr", "left_out_tnr")
    return tuple(f"unlabelled_{name}" for name in ("auroc", "fpr_at_95", *rates))


def check(settings: Settings, rows: Mapping[str, int], classes: int) -> None:
    """Refuse more labels than there are, and a deviation of one score."""
    if check_per_class(settings.per_class, rows, classes) < 2:
        raise UserError(
            "per_class: must leave 2 labelled samples or more, for their scores have a deviation "
            f"(found {1 if settings.per_class else 'null'}, which leaves 1)."
        )


def measure(settings: Settings, features: Features) -> dict[str, float]:
    """Return the figures of the pool."""
    import numpy as np

    rows = labelled(features.y["train"], settings.per_class, features.seed)
    x, y = features.x["train"][rows].astype(np.float64), features.y["train"][rows]
    prototypes = _Prototypes(x, y)
    score = prototypes.score(features.x["unlabelled"].astype(np.float64))
    known = features.y["unlabelled"] >= 0
    found = {}
    if known.any() and not known.all():
        found["auroc"] = _auroc(score[known], score[~known])
        found["fpr_at_95"] = _false_positives(score[known], score[~known], 95)
    for prefix, own in (("", prototypes.score(x)), ("left_out_", prototypes.score_left_out())):
        taken = score > own.mean() - settings.deviations * own.std(ddof=1)
        if known.any():
            found[f"{prefix}tpr"] = float(taken[known].mean())
        if not known.all():
            found[f"{prefix}tnr"] = float((~taken[~known]).mean())
    return {f"unlabelled_{name}": value for name, value in found.items()}


class _Prototypes:
    """The sum of the features of each class that occurs among labelled samples [N, D]."""

    def __init__(self, x: NDArray[np.float64], y: NDArray[np.int64]) -> None:
        import numpy as np

        self.x = x
        # The place of each sample's class among those that occur.
        _, self.place, self.count = np.unique(y, return_inverse=True, return_counts=True)
        self.sum = np.zeros((len(self.count), x.shape[1]))
        np.add.at(self.sum, self.place, x)

    def score(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the largest cosine [Q] of vectors [Q, D] with a prototype."""
        # The cosine with a sum is that with the mean.
        largest: NDArray[np.float64] = (_directions(x) @ _directions(self.sum).T).max(axis=1)
        return largest

    def score_left_out(self) -> NDArray[np.float64]:
        """Return the scores [N] of the labelled samples, each left out of its own prototype."""
        import numpy as np

        direction = _directions(self.x)
        cosine = direction @ _directions(self.sum).T
        others = _directions(self.sum[self.place] - self.x)
        own = np.where(self.count[self.place] > 1, (direction * others).sum(axis=1), -1.0)
        cosine[np.arange(len(own)), self.place] = own
        largest: NDArray[np.float64] = cosine.max(axis=1)
        return largest


def _directions(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return vectors divided by their lengths; one of length 0 stays so."""
    import numpy as np

    length = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(length == 0, 1, length)


def _auroc(known: NDArray[np.float64], unknown: NDArray[np.float64]) -> float:
    """Return the share of pairs whose known sample has the larger score; equal ones count half."""
    import numpy as np

    unknown = np.sort(unknown)
    below = np.searchsorted(unknown, known, "left") + np.searchsorted(unknown, known, "right")
    return float(below.sum()) / (2 * len(known) * len(unknown))


def _false_positives(
    known: NDArray[np.float64], unknown: NDArray[np.float64], percent: int
) -> float:
    """Return the share of unknown samples that score at least what so many known ones reach.

    That is the largest score which ``percent`` of the known samples, or more, reach.
    """
    import numpy as np

    reach = -(-percent * len(known) // 100)
    return float((unknown >= np.sort(known)[len(known) - reach]).mean())
