"""Linear probe: logistic regression on frozen features, its l2 penalty chosen on validation.

SimCLR (arXiv 2002.05709, appendix B.8) and BYOL (arXiv 2006.07733) evaluate transfer so, by L-BFGS
and without augmentation. With features z of n samples and weights W it minimises

    1/n sum_i -log softmax(W z_i + b)[y_i]  +  l2/2 ||W||^2,

b not penalised: scikit-learn's ``LogisticRegression`` with C = 1 / (l2 n). Of two classes it fits
one logit, w z + b, and penalises w. The 8 penalties of the default on 10,000 x 128 features of 10
classes take 5 to 7 seconds of one thread.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cyclery.common.errors import UserError
from cyclery.probes._labels import PER_CLASS, accuracy, check_per_class, labelled

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cyclery.probes import Features

# Largest entry of the gradient at which L-BFGS stops. Accuracies no longer move below it.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Settings:
    """Logistic regression on frozen features."""

    l2: tuple[float, ...] = field(
        default=(1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0),
        metadata={
            "doc": "penalties on half the squared weights, beside the mean loss; the one of the "
            "highest validation accuracy is taken, of equal ones the largest",
            "low": 1e-12,
            "least": 1,
        },
    )
    standardise: bool = field(
        default=True,
        metadata={
            "doc": "whether each feature is shifted and scaled to mean 0 and deviation 1 over all "
            "training samples, those among them whose labels are not used"
        },
    )
    per_class: int | None = field(default=None, metadata=PER_CLASS)
    retrain: bool = field(
        default=False,
        metadata={
            "doc": "whether the test accuracy is that of a second fit, with the chosen penalty, to "
            "these labels and those of validation"
        },
    )
    max_iter: int = field(
        default=1000,
        metadata={"doc": "iterations of L-BFGS; `converged` is 0 where they are too few", "low": 1},
    )


def needs(settings: Settings) -> tuple[str, ...]:
    """Return train and test, and validation where it chooses or is learnt from."""
    asks = len(settings.l2) > 1 or settings.retrain
    return ("train", "validation", "test") if asks else ("train", "test")


def figures(settings: Settings) -> tuple[str, ...]:
    """Return accuracies, the penalty chosen, and 1 where the fits that are reported converged."""
    return ("test_accuracy", "val_accuracy", "l2", "converged")


def check(settings: Settings, rows: Mapping[str, int], classes: int) -> None:
    """Refuse more labels than there are."""
    check_per_class(settings.per_class, rows, classes)


def measure(settings: Settings, features: Features) -> dict[str, float]:
    """Return the figures of the penalty that does best on validation."""
    import numpy as np

    x, y = _scaled(features, settings.standardise), features.y
    rows = labelled(y["train"], settings.per_class, features.seed)
    chosen = x["train"][rows], y["train"][rows]
    penalties = sorted(settings.l2, reverse=True)
    fits = [_fit(*chosen, l2, settings.max_iter) for l2 in penalties]
    found: dict[str, float] = {}
    best = 0
    if "validation" in x:
        right = [accuracy(model.predict(x["validation"]), y["validation"]) for model, _ in fits]
        best = int(np.argmax(right))  # the first of equal ones, which has the largest penalty
        found["val_accuracy"] = right[best]
    model, converged = fits[best]
    if settings.retrain:
        both = (
            np.concatenate((chosen[0], x["validation"])),
            np.concatenate((chosen[1], y["validation"])),
        )
        model, again = _fit(*both, penalties[best], settings.max_iter)
        converged = converged and again
    found["test_accuracy"] = accuracy(model.predict(x["test"]), y["test"])
    return {**found, "l2": penalties[best], "converged": float(converged)}


def _scaled(features: Features, standardise: bool) -> dict[str, NDArray[np.float64]]:
    """Return the features of all labelled parts in double precision, as L-BFGS ends in."""
    from sklearn.preprocessing import StandardScaler

    parts = [part for part in ("train", "validation", "test") if len(features.x.get(part, ()))]
    x = {part: features.x[part].astype("float64") for part in parts}
    if standardise:
        # It leaves a feature that is constant in training as wide as it is.
        scaler = StandardScaler().fit(x["train"])
        x = {part: scaler.transform(each) for part, each in x.items()}
    return x


def _fit(
    x: NDArray[np.float64], y: NDArray[np.int64], l2: float, max_iter: int
) -> tuple[Any, bool]:
    """Return a fitted model, and whether its fit converged."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    if (y == y[0]).all():
        raise UserError(f"y: must be labels of two classes or more (found only class {y[0]}).")
    # Every fit starts at zero, so that it does not depend on which others are offered.
    model = LogisticRegression(C=1 / (l2 * len(y)), max_iter=max_iter, tol=TOLERANCE)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(x, y)
    for each in said:
        if not issubclass(each.category, ConvergenceWarning):
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    return model, not any(issubclass(each.category, ConvergenceWarning) for each in said)
