"""How many rows a split has, from the numbers in its settings alone.

Planning checks every split with `counts`, long before the data is there; `cyclery.data.splits`
draws the rows with the same checks. Neither numpy nor torch is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any

from cyclery.common.errors import UserError, choices, nearest
from cyclery.data.dataset import Dataset

CHOICES = ("random", "first")
IMBALANCES = ("two_level", "long_tail")
POOLS = ("all", "rest")


@dataclass(frozen=True)
class Imbalance:
    """Unequal classes.

    ``two_level``: half of the classes get ``ratio[0]`` shares, the others ``ratio[1]``.
    ``long_tail``: class k of K gets ``ratio[0]`` ** (k / (K - 1)) times what class 0 gets.
    """

    kind: str
    ratio: tuple[float, ...]


@dataclass(frozen=True)
class SplitSettings:
    """Which rows are trained on, validated on and tested on; null (None) means what is said here.

    Attributes:
        test: Test rows, drawn per seed; null where the dataset has an official test set.
        validation: Validation rows, drawn per seed from the training set; null means none.
        labels: Training rows in total; null means all of the rest.
        per_class: Training rows of each class, instead of `labels`; under a long tail, those of
            the largest class.
        choose: ``random`` draws the training rows per seed, with each class in proportion;
            ``first`` takes the first ones of the training set, the same for all seeds.
        imbalance: Unequal classes, drawn per seed; null keeps the dataset's own proportions.
        unlabelled: The pool of unlabelled rows: ``all`` of the training set but test and
            validation rows, the labelled ones among them, or the ``rest`` without those.
        share: Seeds in a row that share a split, which is drawn for seed // share.
        folds: Parts that the training rows are divided into, each class evenly; null divides none.
        fold: The part that is left out of training, from 0.
    """

    test: int | None = None
    validation: int | None = None
    labels: int | None = None
    per_class: int | None = None
    choose: str = "random"
    imbalance: Imbalance | None = None
    unlabelled: str | None = None
    share: int = 1
    folds: int | None = None
    fold: int | None = None


@dataclass(frozen=True)
class Sizes:
    """Rows of each part, and how many of `test` are drawn from the training set."""

    train: int
    validation: int
    test: int
    drawn_test: int


def parse(settings: Mapping[str, Any]) -> SplitSettings:
    """Return checked settings; a UserError names the key, the value and what is allowed."""
    allowed = [field.name for field in fields(SplitSettings)]
    for key in settings:
        if key not in allowed:
            raise UserError(
                f"unknown key split.{key}; known: {choices(allowed)}.{nearest(key, allowed)}"
            )
    choose, unlabelled = settings.get("choose", "random"), settings.get("unlabelled")
    if choose not in CHOICES:
        raise UserError(
            f"split.choose is {choose!r}; known: {choices(CHOICES)}.{nearest(choose, CHOICES)}"
        )
    if unlabelled not in (None, *POOLS):
        raise UserError(
            f"split.unlabelled is {unlabelled!r}; known: null, {choices(POOLS)}."
            f"{nearest(unlabelled, POOLS)}"
        )
    split = SplitSettings(
        test=_number(settings, "test", 1),
        validation=_number(settings, "validation", 0),
        labels=_number(settings, "labels", 1),
        per_class=_number(settings, "per_class", 1),
        choose=choose,
        imbalance=_imbalance(settings.get("imbalance")),
        unlabelled=unlabelled,
        share=_number(settings, "share", 1) or 1,
        folds=_number(settings, "folds", 2),
        fold=_number(settings, "fold", 0),
    )
    _check_combination(split)
    return split


def _number(settings: Mapping[str, Any], key: str, least: int) -> int | None:
    """Return a whole number of at least `least`, or None."""
    value = settings.get(key)
    if value is not None and (
        isinstance(value, bool) or not isinstance(value, int) or value < least
    ):
        raise UserError(f"split.{key} is {value!r}; allowed: null or a whole number >= {least}.")
    return value


def _imbalance(value: object) -> Imbalance | None:
    """Return the checked imbalance settings."""
    if value is None:
        return None
    if not isinstance(value, Mapping) or set(value) != {"kind", "ratio"}:
        raise UserError(f"split.imbalance is {value!r}; allowed: null or the keys kind and ratio.")
    kind, ratio = value["kind"], value["ratio"]
    if kind not in IMBALANCES:
        raise UserError(
            f"split.imbalance.kind is {kind!r}; known: {choices(IMBALANCES)}."
            f"{nearest(kind, IMBALANCES)}"
        )
    shares = tuple(ratio) if isinstance(ratio, Sequence) else (ratio,)
    if not all(isinstance(x, int | float) and not isinstance(x, bool) for x in shares):
        shares = ()
    if kind == "two_level" and not (len(shares) == 2 and all(0 < x < 1e9 for x in shares)):
        raise UserError(
            f"split.imbalance.ratio is {ratio!r}; two_level takes two numbers above 0, as [5, 3]."
        )
    if kind == "long_tail" and not (len(shares) == 1 and 0 < shares[0] <= 1):
        raise UserError(
            f"split.imbalance.ratio is {ratio!r}; long_tail takes one number above 0 and up to 1."
        )
    return Imbalance(kind, shares)


def _check_combination(split: SplitSettings) -> None:
    """Refuse settings that contradict each other or leave the number of training rows open."""
    if (split.folds is None) != (split.fold is None) or (split.fold or 0) >= (split.folds or 1):
        raise UserError(
            f"split.fold is {split.fold} and split.folds is {split.folds}; allowed: both null, or "
            "a fold from 0 to folds - 1."
        )
    if split.labels is not None and split.per_class is not None:
        raise UserError(
            f"split.labels is {split.labels} and split.per_class is {split.per_class}; "
            "one of them must be null."
        )
    if split.labels is None and split.per_class is None:
        if split.choose == "first":
            raise UserError(
                "split.choose is 'first', which takes the first split.labels rows, or the first "
                "split.per_class of each class; both are null."
            )
        if split.imbalance is not None:
            raise UserError(
                f"split.imbalance is {split.imbalance.kind}, which shares out split.labels rows; "
                "it is null."
            )
    two_level = split.imbalance is not None and split.imbalance.kind == "two_level"
    if two_level and split.per_class is not None:
        raise UserError(
            f"split.per_class is {split.per_class}, but two_level imbalance shares out "
            "split.labels; give that instead."
        )


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


def class_targets(split: SplitSettings, classes: int) -> list[int] | None:
    """Return the training rows that settings ask of each class, largest class first.

    None where they ask for a total only. Which class comes at which place is drawn per seed.
    """
    if split.imbalance is None:
        return None if split.per_class is None else [split.per_class] * classes
    ratio = split.imbalance.ratio
    if split.imbalance.kind == "two_level":
        heads = classes // 2
        weights = [ratio[0]] * heads + [ratio[1]] * (classes - heads)
        if ratio[0] < ratio[1]:
            weights.reverse()
    else:
        weights = [ratio[0] ** (k / max(1, classes - 1)) for k in range(classes)]
    if split.labels is not None:
        return apportion(split.labels, weights)
    # Rounded down as is usual, but never to a class that is not there at all; the small term keeps
    # a product such as 0.1 * 0.1 * 5000 from falling below its whole number.
    return [max(1, int((split.per_class or 0) * weight + 1e-9)) for weight in weights]


def sizes(split: SplitSettings, n_train: int, n_test: int, classes: int) -> Sizes:
    """Return the rows of each part; a UserError where more is asked than there is.

    Args:
        split: Checked settings.
        n_train: Rows of the official training set.
        n_test: Rows of the official test set, 0 where there is none.
        classes: Number of classes.
    """
    if n_test and split.test is not None:
        raise UserError(
            f"split.test is {split.test}, but the dataset has an official test set of {n_test} "
            "rows; the only value allowed is null."
        )
    if not n_test and split.test is None:
        raise UserError(
            f"split.test is null, but the dataset has no official test set; say how many of its "
            f"{n_train} rows to test on."
        )
    drawn, validation = split.test or 0, split.validation or 0
    there = f"of {n_train} training rows"
    for key, asked in (("test", drawn), ("validation", validation)):
        left = n_train - (drawn if key == "validation" else 0)
        if asked > left:
            raise UserError(f"split.{key} is {asked}, but only {left} {there} are there for it.")
    left = n_train - drawn - validation
    targets = class_targets(split, classes)
    train = sum(targets) if targets is not None else split.labels
    if split.unlabelled == "rest" and train in (None, left):
        raise UserError(
            f"split.unlabelled is 'rest', but {asked_for(split, classes)}, so no row is left "
            "without a label; lower it, or take 'all'."
        )
    if left == 0 or (train is not None and train > left):
        raise UserError(
            f"{asked_for(split, classes)}, but only {left} {there} are left after "
            f"split.test ({drawn}) and split.validation ({validation})."
        )
    rows = left if train is None else train
    rows -= len(range(split.fold or 0, rows, split.folds)) if split.folds else 0
    if rows == 0:
        raise UserError(f"split.folds is {split.folds}, but one row is all there is to divide.")
    return Sizes(rows, validation, n_test or drawn, drawn)


def asked_for(split: SplitSettings, classes: int) -> str:
    """Return the settings that say how many training rows there are, for a message."""
    if split.per_class is None:
        value = "null (all of the rest)" if split.labels is None else str(split.labels)
        text = f"split.labels is {value}"
    else:
        targets = class_targets(split, classes) or []
        text = f"split.per_class is {split.per_class} ({sum(targets)} rows in {classes} classes)"
    if split.imbalance is not None:
        ratio = ":".join(f"{share:g}" for share in split.imbalance.ratio)
        text += f" with {split.imbalance.kind} imbalance {ratio}"
    return text


def short_of_class(split: SplitSettings, classes: int, need: int, have: int) -> UserError:
    """Return the error for a class that has fewer rows than the settings ask of it."""
    return UserError(
        f"{asked_for(split, classes)}, which takes {need} rows of one class, but only {have} are "
        "there besides test and validation rows."
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


def _most_left(split: SplitSettings, dataset: Dataset, rows: int) -> int:
    """Return the most rows of a class (of `rows`) that the draws before the training rows leave."""
    if split.choose == "first":
        return rows  # these come before the draws
    test, validation = split.test or 0, split.validation or 0
    left = rows - test * rows // dataset.train
    # The class lost at least its share rounded down, at most one more.
    return left - validation * max(0, left - 1) // max(1, dataset.train - test)
