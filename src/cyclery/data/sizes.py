"""Sizes of a split's parts, from its settings alone.

Planning checks every split with `counts`, long before the data is there; `cyclery.data.splits`
draws the rows with the same checks. Neither numpy nor torch is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from cyclery.common.errors import UserError
from cyclery.data.dataset import Dataset
from cyclery.data.split_settings import Split, parse


@dataclass(frozen=True)
class Pool:
    """Rows that are drawn for the unlabelled pool, besides those that have a label.

    ``targets`` are those of each known class, largest first, None where only their total counts.
    """

    known: int
    others: int
    targets: list[int] | None = None


@dataclass(frozen=True)
class Sizes:
    """Rows of each part, and how many of `test` are drawn from the training set.

    ``pools`` are the unlabelled pool, where there is one, and the pools of each level of a
    hierarchy with coarse labels; ``drawn`` says what is drawn for the first of these.
    """

    train: int
    validation: int
    test: int
    drawn_test: int
    pools: dict[str, int] = field(default_factory=dict)
    drawn: Pool | None = None


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


def sizes(split: Split, class_counts: Sequence[int], n_test: int) -> Sizes:
    """Return the rows of each part; a UserError where more is asked than there is.

    Args:
        split: Checked settings.
        class_counts: Rows of the official training set, of each class.
        n_test: Rows of the official test set, of known classes; 0 where there is none.
    """
    split.check_classes(len(class_counts))
    counts = [class_counts[each] for each in split.known(len(class_counts))]
    classes, n_train = len(counts), sum(counts)
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
    # An open set's pool has other rows besides.
    if split.unlabelled == "rest" and train in (None, left) and split.open_set is None:
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
    coarse, free = sum(split.coarse or ()), left - rows
    if coarse > free:
        raise UserError(
            f"split.coarse: must be at most {free} rows in all, which test, validation and "
            f"`{key}` leave (found {coarse})."
        )
    rows = _folded(split, rows)
    if rows == 0:
        raise UserError(
            f"split.folds: must be null where one row is all there is (found {split.folds})."
        )
    if split.retrain:
        rows, validation = rows + validation, 0
    whole = Sizes(rows, validation, n_test or drawn, drawn)
    if split.unlabelled is None:
        return replace(whole, pools=_pools(split, rows, None))
    given = coarse + (rows if split.unlabelled == "all" else 0)
    left_for_it = _Left(given, free - coarse, sum(class_counts) - n_train, counts)
    if split.open_set is not None and (other := split.open_set.outliers):
        whose = f"the dataset {other['dataset']}"
        left_for_it = replace(left_for_it, others=other["images"], whose=whose)
    pool = _pool(split, left_for_it)
    return replace(whole, pools=_pools(split, rows, pool), drawn=pool)


@dataclass(frozen=True)
class _Left:
    """What an unlabelled pool can be made of.

    ``given`` rows are in it with a label, full or coarse; ``free`` ones are of known classes,
    which have ``counts`` rows before anything is drawn, and ``others`` of unknown classes.
    """

    given: int
    free: int
    others: int
    counts: list[int]
    whose: str = "other classes"


def _pool(split: Split, left: _Left) -> Pool:
    """Return what is drawn for the unlabelled pool; a UserError where there is less."""
    key, asked = "unlabelled_pool", split.unlabelled_pool
    share = None
    if split.open_set:
        key, asked, share = "open_set.pool", split.open_set.pool, split.open_set.contamination
    exact = Fraction(str(share or 0))
    known = left.free
    if asked is not None:
        known = asked - _rounded(exact * asked) - left.given
        if not 0 <= known <= left.free:
            beside = "" if share is None else f" with contamination {share:g}"
            raise UserError(
                f"split.{key}: must hold {left.given} to {left.given + left.free} samples "
                f"of known classes, those there are, but holds {known + left.given} (found {asked}"
                f"{beside})."
            )
    targets = None
    if split.unlabelled_imbalance is not None:
        targets = _imbalanced(split, left.counts, None if asked is None else known)
        known = sum(targets)
    if asked is not None:
        others = asked - known - left.given
    elif share is None:
        others = left.others
    else:
        others = _rounded(exact / (1 - exact) * (left.given + known))
    if others > left.others:
        raise UserError(
            f"split.open_set.contamination: must ask for at most {left.others} samples of "
            f"{left.whose}, all there are, but asks for {others} (found {share:g}); lower it, or "
            "set a smaller `pool`."
        )
    if not left.given + known + others:
        raise UserError(
            "split.unlabelled: must be all, or fewer rows labelled, for without these no row is "
            f"left (found {split.unlabelled!r})."
        )
    return Pool(known, others, targets)


def _imbalanced(split: Split, counts: list[int], total: int | None) -> list[int]:
    """Return the unlabelled rows of every known class, largest first, that an imbalance asks for.

    They share out a total, or are as many as there surely are, whatever a seed draws before.
    """
    assert split.unlabelled_imbalance is not None
    surely = _surely_free(split, counts)
    weights = split.unlabelled_imbalance.weights(len(counts))
    if total is None:
        targets = [max(1, int(surely * weight / max(weights) + 1e-9)) for weight in weights]
    else:
        targets = apportion(total, weights)
    if max(targets) > surely:
        raise UserError(
            f"split.unlabelled_imbalance: must take at most {surely} rows of one class, which the "
            f"other parts leave for sure, but takes {max(targets)} (found "
            f"{split.unlabelled_imbalance})."
        )
    return targets


def _surely_free(split: Split, counts: list[int]) -> int:
    """Return the fewest rows of a class that are left for a pool, whatever a seed draws."""
    targets = class_targets(split, len(counts))
    rows, total = list(counts), sum(counts)

    def draw(number: int) -> None:
        nonlocal rows, total
        # A draw takes no more of a class than its share rounded up.
        rows = [n - -(-number * n // total) for n in rows] if total else rows
        total -= number

    def train() -> None:
        nonlocal rows, total
        if targets is not None:
            # An imbalance puts its largest class anywhere.
            rows, total = [max(0, n - max(targets)) for n in rows], total - sum(targets)
        elif split.choose == "first":
            # These may all be of one class.
            taken = split.labels or 0
            rows, total = [max(0, n - taken) for n in rows], total - taken
        else:
            draw(total if split.labels is None else split.labels)

    if split.choose == "blocks":
        size = split.block(len(counts))
        rows, total = [max(0, n - size) for n in rows], total - size * len(rows)
        draw(sum(split.coarse or ()))
        return min(rows)
    if split.choose == "first":
        train()
    draw(split.test or 0)
    draw(split.validation)
    if split.choose != "first":
        train()
    draw(sum(split.coarse or ()))
    return min(rows)


def _folded(split: Split, rows: int) -> int:
    """Return the training rows that folds leave of so many."""
    if split.folds is None:
        return rows
    if split.part == "seed":
        if rows % split.folds:
            raise UserError(
                f"split.part: must be a number unless `folds` ({split.folds}) divides the {rows} "
                "training rows, so that every seed has as many (found 'seed')."
            )
        return rows // split.folds
    if split.part is None:
        return rows - len(range(split.fold or 0, rows, split.folds))
    if split.part >= rows:
        raise UserError(
            f"split.part: must be below {rows}, the training rows, or the part has none "
            f"(found {split.part})."
        )
    return len(range(split.part, rows, split.folds))


def _pools(split: Split, train: int, drawn: Pool | None) -> dict[str, int]:
    """Return the rows of every pool by its name; see `cyclery.data.splits.split`."""
    coarse = split.coarse or ()
    levels = range(1, len(coarse) + 2) if split.coarse is not None else ()
    found = {f"labelled.{level}": train + sum(coarse[: level - 1]) for level in levels[1:]}
    if drawn is None:
        return found
    free, everything = drawn.known + drawn.others, split.unlabelled == "all"
    whole = free + sum(coarse) + (train if everything else 0)
    pools = {
        f"unlabelled.{level}": whole if everything else free + sum(coarse[level - 1 :])
        for level in levels
    }
    return {"unlabelled": whole, **found, **pools}


def _rounded(number: Fraction) -> int:
    """Return a whole number, halves rounded up."""
    return int(number + Fraction(1, 2))


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
    """Return the rows of every part and pool of a split without the data, for planning.

    With an open set the number of test rows of a dataset whose official test set has other numbers
    of each class than these in proportion is an estimate.

    Raises:
        UserError: settings that are not allowed, or that ask for more than there is. A class that
            is short only by the rounding of a draw is found when the rows are drawn.
    """
    split = parse(settings)
    if dataset.place is not None and split.choose != "random":
        raise UserError(
            "split.choose: must be random for a folder of images, which has no official order "
            f"(found {split.choose!r})."
        )
    if split.resolution is not None:
        split.resolution.shape(dataset.shape)
    class_counts = dataset.train_class_counts
    found = sizes(split, class_counts, _test(split, dataset))
    known = [class_counts[each] for each in split.known(dataset.classes)]
    targets = class_targets(split, len(known))
    if targets is not None:
        left = [_most_left(split, sum(known), n) for n in known]
        # An imbalance puts its largest class anywhere, equal shares take from the smallest class.
        have = max(left) if split.imbalance is not None else min(left)
        if max(targets) > have:
            raise short_of_class(split, len(known), max(targets), have)
    return {
        "train": found.train,
        "validation": found.validation,
        "test": found.test,
        **found.pools,
    }


def check_blocks(dataset: Dataset, settings: Mapping[str, Any], seeds: int) -> None:
    """Raise a UserError where a split's blocks do not suffice for so many seeds."""
    split = parse(settings)
    if split.choose != "blocks":
        return
    known = split.known(dataset.classes)
    size, blocks = split.block(len(known)), (seeds - 1) // split.share + 1
    fewest = min(dataset.train_class_counts[each] for each in known)
    if blocks * size > fewest:
        raise UserError(
            f"split.choose: blocks takes {blocks} x {size} samples of every class for {seeds} "
            f"seeds, {split.share} to a block, but one has {fewest}; run fewer seeds, let more "
            "share a split (`split.share`), or take fewer samples."
        )


def _test(split: Split, dataset: Dataset) -> int:
    """Return the official test rows of the known classes."""
    split.check_classes(dataset.classes)
    if split.open_set is None or not dataset.test:
        return dataset.test
    shares = apportion(dataset.test, dataset.train_class_counts)
    return sum(shares[each] for each in split.open_set.classes)


def _most_left(split: Split, n_train: int, rows: int) -> int:
    """Return the most rows of a class (of `rows`) that the draws before the training rows leave."""
    if split.choose != "random":
        return rows  # these come before the draws
    test, validation = split.test or 0, split.validation
    left = rows - test * rows // n_train
    # The class lost at least its share rounded down, at most one more.
    return left - validation * max(0, left - 1) // max(1, n_train - test)
