"""Sizes of a split's parts, from its settings alone.

Planning checks every split with `counts`, long before the data is there; `cyclery.data.splits`
draws the rows with the same checks. Neither numpy nor torch is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from cyclery.common.errors import UserError
from cyclery.data.dataset import Dataset
from cyclery.data.split_settings import Split, parse


@dataclass(frozen=True)
class Sizes:
    """Rows of each part, and how many of `test` are drawn from the training set."""

    train: int
    validation: int
    test: int
    drawn_test: int


def apportion(total: int, weights: Sequence[float | Fraction]) -> list[int]:
    """Share `total` out in proportion to `weights` by largest remainder; the sum is exact.

    Ties go to the earlier weight, so falling weights give falling (or equal) numbers. No number is
    above its exact share rounded up.
    """
    exact = [Fraction(weight) for weight in weights]
    whole = sum(exact)
    if not whole:
        return [0] * len(exact)
    quotas = [total * weight / whole for weight in exact]
    shares = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(exact)), key=lambda k: shares[k] - quotas[k])
    for k in by_remainder[: total - sum(shares)]:
        shares[k] += 1
    return shares


def class_targets(split: Split, classes: int) -> list[int] | None:
    """Return the training rows that settings ask of each class, largest class first.

    None where they ask for a total only. Which class comes at which place is drawn per seed.
    """
    if split.imbalance is None:
        return None if split.per_class is None else [split.per_class] * classes
    weights = split.imbalance.weights(classes)
    if split.labels is not None:
        return apportion(split.labels, weights)
    # Rounded down as is usual, but never to a class that is not there at all; the small term keeps
    # a product such as 0.1 * 0.1 * 5000 from falling below its whole number.
    return [max(1, int((split.per_class or 0) * weight + 1e-9)) for weight in weights]


def sizes(split: Split, n_train: int, n_test: int, classes: int) -> Sizes:
    """Return the rows of each part; a UserError where more is asked than there is.

    Args:
        split: Checked settings.
        n_train: Rows of the official training set.
        n_test: Rows of the official test set, 0 where there is none.
        classes: Number of classes.
    """
    if n_test and split.test is not None:
        raise UserError(
            f"split.test: must be null, for the dataset has an official test set of {n_test} rows "
            f"(found {split.test})."
        )
    if not n_test and split.test is None:
        raise UserError(
            f"split.test: must be below {n_train}, the rows of the dataset, which has no official "
            "test set (found null)."
        )
    drawn, validation = split.test or 0, split.validation
    for key, asked, left in (
        ("test", drawn, n_train),
        ("validation", validation, n_train - drawn),
    ):
        if asked > left:
            raise UserError(
                f"split.{key}: must be at most {left}, the training rows that are left for it "
                f"(found {asked})."
            )
    left = n_train - drawn - validation
    targets = class_targets(split, classes)
    train = sum(targets) if targets is not None else split.labels
    key, found = _asked(split, classes)
    if split.unlabelled == "rest" and train in (None, left):
        raise UserError(
            f"split.unlabelled: must be all, or `{key}` fewer than the {left} training rows, for "
            "without these no row is left (found 'rest')."
        )
    if left == 0 or (train is not None and train > left):
        raise UserError(
            f"split.{key}: must ask for at most {left} of {n_train} training rows, which "
            f"split.test ({drawn}) and split.validation ({validation}) leave (found {found})."
        )
    rows = left if train is None else train
    rows -= len(range(split.fold or 0, rows, split.folds)) if split.folds else 0
    if rows == 0:
        raise UserError(
            f"split.folds: must be null where one row is all there is (found {split.folds})."
        )
    return Sizes(rows, validation, n_test or drawn, drawn)


def _asked(split: Split, classes: int) -> tuple[str, str]:
    """Return the key that says how many training rows there are, and its value, for a message."""
    if split.per_class is None:
        everything = "null, all that are left"
        key, found = "labels", everything if split.labels is None else str(split.labels)
    else:
        total = sum(class_targets(split, classes) or [])
        key, found = "per_class", f"{split.per_class}, which is {total} rows in {classes} classes"
    return key, found + (f", imbalance {split.imbalance}" if split.imbalance else "")


def short_of_class(split: Split, classes: int, need: int, have: int) -> UserError:
    """Return the error for a class that has fewer rows than the settings ask of it."""
    key, found = _asked(split, classes)
    return UserError(
        f"split.{key}: must take at most {have} rows of one class, those that test and validation "
        f"leave, but takes {need} (found {found})."
    )


def counts(dataset: Dataset, settings: Mapping[str, Any]) -> dict[str, int]:
    """Return the rows of ``train``, ``validation`` and ``test`` without the data, for planning.

    Raises:
        UserError: settings that are not allowed, or that ask for more than there is. A class that
            is short only by the rounding of a draw is found when the rows are drawn.
    """
    split = parse(settings)
    found = sizes(split, dataset.train, dataset.test, dataset.classes)
    targets = class_targets(split, dataset.classes)
    if dataset.place is not None and split.choose == "first" and targets is None:
        raise UserError(
            "split.choose is 'first', but the images of a folder come class by class, so the first "
            "ones are of one class; take 'random', or split.per_class."
        )
    if targets is not None:
        left = [_most_left(split, dataset, n) for n in dataset.train_class_counts]
        # An imbalance puts its largest class anywhere, equal shares take from the smallest class.
        have = max(left) if split.imbalance is not None else min(left)
        if max(targets) > have:
            raise short_of_class(split, dataset.classes, max(targets), have)
    return {"train": found.train, "validation": found.validation, "test": found.test}


def _most_left(split: Split, dataset: Dataset, rows: int) -> int:
    """Return the most rows of a class (of `rows`) that the draws before the training rows leave."""
    if split.choose == "first":
        return rows  # these come before the draws
    test, validation = split.test or 0, split.validation
    left = rows - test * rows // dataset.train
    # The class lost at least its share rounded down, at most one more.
    return left - validation * max(0, left - 1) // max(1, dataset.train - test)
