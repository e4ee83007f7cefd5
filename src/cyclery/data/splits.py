"""Splits into training, validation and test rows, a pure function of data and seed.

Every draw is keyed: a row's rank comes from (seed, purpose, row), so a change of one part of the
settings disturbs the other draws as little as it can. Ranks are raw output of PCG64, which numpy
keeps the same in all its versions; the global random state is neither read nor changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cyclery.common.errors import UserError
from cyclery.data.sizes import Pool, apportion, class_targets, counts, short_of_class, sizes
from cyclery.data.split_parts import Asymmetric, restricted
from cyclery.data.split_settings import Split, class_count, parse, resolution

__all__ = ["class_count", "counts", "levels", "resolution", "split", "training_labels"]

Ids = NDArray[np.int64]


def split(
    labels: ArrayLike,
    n_train: int,
    classes: int,
    settings: Mapping[str, Any],
    seed: int,
    order: ArrayLike | None = None,
) -> dict[str, Ids]:
    """Return the ids of the ``train``, ``validation`` and ``test`` rows, ascending and disjoint.

    With ``unlabelled``, the pool of rows whose labels are not used, where settings ask for one.
    With coarse labels also the pools of each level h of the hierarchy, 1 being the classes:
    ``labelled.h`` (h > 1) are the rows labelled at level h or finer, ``unlabelled.h`` the others of
    the unlabelled pool, those with a coarser label among them. ``unlabelled`` is ``unlabelled.1``.

    Args:
        labels: The label of every row [N]: official training rows, then official test rows, then
            outliers of another dataset, -1, where the open set has these.
        n_train: Number of official training rows; the rest is the test set where there is a rest.
        classes: Number of classes.
        settings: The ``split`` part of a run's settings, see `cyclery.data.split_settings`.
        seed: The run's seed; the same for all arms that are compared.
        order: The official position of every training row [n_train], where the source has one.

    Raises:
        UserError: settings that are not allowed, or that ask for more than there is, or for an
            official order that there is not.
    """
    every = np.asarray(labels, dtype=np.int64)
    if every.ndim != 1 or not 0 < n_train <= len(every):
        raise UserError(f"labels of shape {every.shape} cannot have {n_train} training rows.")
    wanted = parse(settings)
    wanted.check_classes(classes)
    numbers = _numbers(wanted, classes)[every]
    official = n_train + np.flatnonzero(numbers[n_train:] >= 0)
    per_class = np.bincount(every[:n_train], minlength=classes)
    size = sizes(wanted, per_class.tolist(), len(official))
    rows = _Rows(numbers[:n_train], class_count(settings, classes), seed // wanted.share)
    train = rows.first(wanted, order) if wanted.choose == "first" else None
    test = rows.draw("test", size.drawn_test)
    if wanted.choose == "blocks":
        train, validation = rows.blocks(wanted, order)
    else:
        validation = rows.draw("validation", wanted.validation)
    if train is None:
        train = rows.random(wanted)
    if size.drawn_test == 0:
        test = official
    if wanted.folds is not None:
        folds = rows.folds(train, wanted.folds)
        part = seed % wanted.folds if wanted.part == "seed" else wanted.part
        train = train[folds != wanted.fold if part is None else folds == part]
    if wanted.retrain:
        train, validation = _joined(train, validation), validation[:0]
    parts = {"train": train, "validation": validation, "test": test}
    coarse = [rows.draw(f"coarse {k}", n) for k, n in enumerate(wanted.coarse or (), 2)]
    if size.drawn is not None:
        drawn = [rows.pool(size.drawn)]
        if size.drawn.others:
            drawn.append(_others(wanted, every, n_train, classes, rows.seed, size.drawn.others))
        if wanted.unlabelled == "all":
            drawn.append(train)
        parts["unlabelled"] = _joined(*drawn, *coarse)
    if wanted.coarse is not None:
        for level in range(2, len(coarse) + 2):
            parts[f"labelled.{level}"] = _joined(train, *coarse[: level - 1])
        for level in range(1, len(coarse) + 2) if size.drawn is not None else ():
            rest = coarse if wanted.unlabelled == "all" else coarse[level - 1 :]
            parts[f"unlabelled.{level}"] = _joined(*drawn, *rest)
    return parts


def training_labels(
    labels: ArrayLike,
    n_train: int,
    classes: int,
    settings: Mapping[str, Any],
    seed: int,
    ids: Mapping[str, Ids],
) -> Ids:
    """Return the label of every row [N] that training and evaluation use.

    With an open set known classes are numbered anew, 0 to K - 1 in ascending order, and rows of
    others have -1. With noise the rows of ``train`` have noisy labels, those of ``validation`` too
    where settings say so, in whatever pools these rows are besides; all others keep theirs. A row
    is wrong or not, and has its wrong label, by seed and row alone: a higher rate keeps the wrong
    labels of a lower one.

    Args:
        labels: The label of every row [N], as `split` takes them.
        n_train: Number of official training rows.
        classes: Number of classes.
        settings: The ``split`` part of a run's settings.
        seed: The run's seed.
        ids: What `split` returns for these.
    """
    wanted = parse(settings)
    wanted.check_classes(classes)
    numbers = _numbers(wanted, classes)
    found = numbers[np.asarray(labels, dtype=np.int64)]
    if wanted.noise is None:
        return found
    count, drawn = class_count(settings, classes), seed // wanted.share
    wrong = _uniform(_stream(drawn, "noise", n_train)) < wanted.noise.rate
    rows = np.zeros(n_train, dtype=np.bool_)
    rows[ids["train"]] = True
    if wanted.noise.validation:
        rows[ids["validation"]] = True
    chosen = np.flatnonzero(rows & wrong)
    if isinstance(wanted.noise, Asymmetric):
        to = np.arange(count)
        for key, other in wanted.noise.map.items():
            to[numbers[int(key)]] = numbers[other]
        found[chosen] = to[found[chosen]]
    else:
        # One of the count - 1 steps that lead to another class.
        steps = _uniform(_stream(drawn, "noisy label", n_train)) * (count - 1)
        found[chosen] = (found[chosen] + 1 + steps[chosen].astype(np.int64)) % count
    return found


def levels(settings: Mapping[str, Any], seed: int | None = None) -> list[list[int]]:
    """Return for each coarser level, finer ones first, the group of every class as it is trained.

    Empty without a hierarchy. One of an open set is that above its known classes. A random order
    is drawn by the run's seed, which only this needs.
    """
    wanted = parse(settings)
    if wanted.hierarchy is None:
        return []
    assert not isinstance(wanted.hierarchy, str), "resolved settings hold the levels themselves"
    classes = len(wanted.hierarchy[0])
    wanted.check_classes(classes)
    found = restricted(wanted.hierarchy, wanted.known(classes))
    if wanted.hierarchy_order == "random":
        assert seed is not None, "a random order is drawn by the seed"
        keys = _stream(seed // wanted.share, "hierarchy", len(found[0]))
        dealt = np.argsort(keys, kind="stable").tolist()
        found = [[level[each] for each in dealt] for level in found]
    return found


def _numbers(wanted: Split, classes: int) -> Ids:
    """Return the number that every class [C + 1] is trained as, -1 where it is unknown.

    The last entry is what -1 finds, the label of an image of another dataset.
    """
    found = np.full(classes + 1, -1, dtype=np.int64)
    known = list(wanted.known(classes))
    found[known] = np.arange(len(known))
    return found


def _unknown(wanted: Split, classes: int) -> Ids:
    """Return numbers of the unknown classes [C], -1 where a class is known."""
    known = _numbers(wanted, classes)[:classes] >= 0
    return np.where(known, -1, np.cumsum(~known) - 1).astype(np.int64)


def _others(wanted: Split, every: Ids, n_train: int, classes: int, seed: int, total: int) -> Ids:
    """Return rows of other classes, or of another dataset, for the unlabelled pool."""
    assert wanted.open_set is not None
    if (there := wanted.open_set.outliers) is None:
        unknown = _unknown(wanted, classes)[every[:n_train]]
        others = _Rows(unknown, classes - len(wanted.known(classes)), seed)
        return others.draw("unlabelled others", total)
    first = len(every) - there["images"]
    if first < n_train or (every[first:] != -1).any():
        raise ValueError(f"the last {there['images']} of {len(every)} rows are no outliers")
    rows = _Rows(np.zeros(there["images"], dtype=np.int64), 1, seed)
    return first + rows.draw("unlabelled outliers", total)


def _joined(*ids: Ids) -> Ids:
    return np.sort(np.concatenate(ids))


class _Rows:
    """The official training rows that no part has taken yet; those labelled -1 are of none."""

    def __init__(self, labels: Ids, classes: int, seed: int) -> None:
        self.labels = labels
        self.classes = classes
        self.seed = seed
        self.free = labels >= 0

    def draw(self, purpose: str, total: int) -> Ids:
        """Take `total` rows, each class in proportion to its free rows."""
        order = self._class_order(purpose)
        free = np.bincount(self.labels[self.free], minlength=self.classes)
        # Equal remainders go to the classes that are first in an order drawn per seed.
        quotas = apportion(total, free[order].tolist())
        return self._take(self._by_class(order, quotas), self._ranks(purpose))

    def first(self, wanted: Split, order: ArrayLike | None) -> Ids:
        """Take the first rows of the set, or of each class where classes have their numbers."""
        places = self._places(wanted, order)
        targets = class_targets(wanted, self.classes)
        if targets is None:
            ids = np.flatnonzero(self.free)
            ids = np.sort(ids[np.argsort(places[ids], kind="stable")][: wanted.labels])
            self.free[ids] = False
            return ids
        per_class = self._by_class(self._class_order("imbalance"), targets)
        return self._take(per_class, places, wanted)

    def blocks(self, wanted: Split, order: ArrayLike | None) -> tuple[Ids, Ids]:
        """Take the training and the validation rows of the seed's block of every class."""
        places = self._places(wanted, order)
        size = wanted.block(self.classes)
        first = self.seed * size
        middle, end = first + (wanted.per_class or 0), first + size
        taken: tuple[list[Ids], list[Ids]] = ([], [])
        for each in range(self.classes):
            ids = np.flatnonzero(self.labels == each)
            if len(ids) < end:
                raise UserError(
                    f"split.choose: blocks {self.seed} takes the samples {first} to {end - 1} of "
                    f"every class, but one has only {len(ids)}; run fewer seeds, or let more share "
                    "a split (`split.share`)."
                )
            ids = ids[np.argsort(places[ids], kind="stable")]
            taken[0].append(ids[first:middle])
            taken[1].append(ids[middle:end])
        train, validation = (_joined(*ids) for ids in taken)
        self.free[train] = self.free[validation] = False
        return train, validation

    def _places(self, wanted: Split, order: ArrayLike | None) -> Ids:
        """Return the official position of every row."""
        if order is None:
            raise UserError(
                "split.choose: must be random, for the source of this dataset has no official "
                f"order (found {wanted.choose!r})."
            )
        places = np.asarray(order, dtype=np.int64)
        if places.shape != self.labels.shape:
            raise ValueError(f"order {places.shape} is not that of {len(self.labels)} rows")
        return places

    def random(self, wanted: Split) -> Ids:
        """Take the training rows by drawing them."""
        targets = class_targets(wanted, self.classes)
        if targets is not None:
            per_class = self._by_class(self._class_order("imbalance"), targets)
            return self._take(per_class, self._ranks("train"), wanted)
        free = int(self.free.sum())
        return self.draw("train", free if wanted.labels is None else wanted.labels)

    def pool(self, size: Pool) -> Ids:
        """Take the rows of known classes that are drawn for the unlabelled pool."""
        if size.targets is None:
            ids = np.flatnonzero(self.free)
            if size.known < len(ids):
                return self.draw("unlabelled", size.known)
            self.free[ids] = False
            return ids
        # As in the labelled rows, so that the same classes are rare in both.
        per_class = self._by_class(self._class_order("imbalance"), size.targets)
        return self._take(per_class, self._ranks("unlabelled"))

    def folds(self, ids: Ids, count: int) -> Ids:
        """Return the fold of each of these rows; each class has the same number in every fold.

        But for one: where its rows cannot be divided, the next class goes on with the next fold.
        """
        order = np.lexsort((self._ranks("folds")[ids], self.labels[ids]))
        found = np.empty(len(ids), dtype=np.int64)
        found[order] = np.arange(len(ids)) % count
        return found

    def _take(self, per_class: Ids, ranks: NDArray[Any], wanted: Split | None = None) -> Ids:
        """Take per_class[c] free rows of each class c, those of the lowest rank."""
        ids = np.flatnonzero(self.free)
        have = np.bincount(self.labels[ids], minlength=self.classes)
        short = np.flatnonzero(have < per_class)
        if wanted is not None and len(short):
            worst = short[0]
            raise short_of_class(wanted, self.classes, int(per_class[worst]), int(have[worst]))
        ids = ids[np.lexsort((ranks[ids], self.labels[ids]))]
        starts = np.cumsum(have) - have
        place = np.arange(len(ids)) - starts[self.labels[ids]]
        taken = np.sort(ids[place < per_class[self.labels[ids]]])
        self.free[taken] = False
        return taken

    def _by_class(self, order: Ids, quotas: list[int]) -> Ids:
        """Return the number of each class, from numbers in the order of `order`."""
        per_class = np.zeros(self.classes, dtype=np.int64)
        per_class[order] = quotas
        return per_class

    def _ranks(self, purpose: str) -> NDArray[np.uint64]:
        """Return a random rank for every row, whether it is free or not."""
        return _stream(self.seed, purpose, len(self.labels))

    def _class_order(self, purpose: str) -> Ids:
        """Return the classes in random order."""
        keys = _stream(self.seed, f"{purpose} classes", self.classes)
        return np.argsort(keys, kind="stable")


def _stream(seed: int, purpose: str, length: int) -> NDArray[np.uint64]:
    """Return 64-bit random numbers that only the seed and the purpose determine."""
    key = hashlib.sha256(f"split/{seed}/{purpose}".encode()).digest()
    raw = np.random.PCG64(int.from_bytes(key, "big")).random_raw(length)
    return np.asarray(raw, dtype=np.uint64)


def _uniform(raw: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return random numbers in [0, 1), multiples of 2^-53."""
    return np.asarray((raw >> np.uint64(11)) * 2.0**-53, dtype=np.float64)
