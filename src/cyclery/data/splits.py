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
from cyclery.data.sizes import apportion, class_targets, counts, short_of_class, sizes
from cyclery.data.split_settings import Split, parse

__all__ = ["counts", "split"]

Ids = NDArray[np.int64]


def split(
    labels: ArrayLike, n_train: int, classes: int, settings: Mapping[str, Any], seed: int
) -> dict[str, Ids]:
    """Return the ids of the ``train``, ``validation`` and ``test`` rows, ascending and disjoint.

    With ``unlabelled``, the pool of rows whose labels are not used, where settings ask for one.

    Args:
        labels: The label of every row [N]: official training rows, then official test rows.
        n_train: Number of official training rows; the rest is the test set where there is a rest.
        classes: Number of classes.
        settings: The ``split`` part of a run's settings, see `cyclery.data.split_settings`.
        seed: The run's seed; the same for all arms that are compared.

    Raises:
        UserError: settings that are not allowed, or that ask for more than there is.
    """
    every = np.asarray(labels, dtype=np.int64)
    if every.ndim != 1 or not 0 < n_train <= len(every):
        raise UserError(f"labels of shape {every.shape} cannot have {n_train} training rows.")
    wanted = parse(settings)
    size = sizes(wanted, n_train, len(every) - n_train, classes)
    rows = _Rows(every[:n_train], classes, seed // wanted.share)
    train = rows.first(wanted) if wanted.choose == "first" else None
    test = rows.draw("test", size.drawn_test)
    validation = rows.draw("validation", size.validation)
    if train is None:
        train = rows.random(wanted)
    if size.drawn_test == 0:
        test = np.arange(n_train, len(every), dtype=np.int64)
    if wanted.folds is not None:
        train = train[rows.folds(train, wanted.folds) != wanted.fold]
    parts = {"train": train, "validation": validation, "test": test}
    if wanted.unlabelled is not None:
        free = np.flatnonzero(rows.free)
        parts["unlabelled"] = (
            free if wanted.unlabelled == "rest" else np.union1d(free, train).astype(np.int64)
        )
    return parts


class _Rows:
    """The official training rows that no part has taken yet."""

    def __init__(self, labels: Ids, classes: int, seed: int) -> None:
        self.labels = labels
        self.classes = classes
        self.seed = seed
        self.free = np.ones(len(labels), dtype=np.bool_)

    def draw(self, purpose: str, total: int) -> Ids:
        """Take `total` rows, each class in proportion to its free rows."""
        order = self._class_order(purpose)
        free = np.bincount(self.labels[self.free], minlength=self.classes)
        # Equal remainders go to the classes that are first in an order drawn per seed.
        quotas = apportion(total, free[order].tolist())
        return self._take(self._by_class(order, quotas), self._ranks(purpose))

    def first(self, wanted: Split) -> Ids:
        """Take the first rows of the set, or of each class where classes have their numbers."""
        targets = class_targets(wanted, self.classes)
        if targets is None:
            ids = np.arange(wanted.labels or 0, dtype=np.int64)
            self.free[ids] = False
            return ids
        per_class = self._by_class(self._class_order("imbalance"), targets)
        return self._take(per_class, np.arange(len(self.labels)), wanted)

    def random(self, wanted: Split) -> Ids:
        """Take the training rows by drawing them."""
        targets = class_targets(wanted, self.classes)
        if targets is not None:
            per_class = self._by_class(self._class_order("imbalance"), targets)
            return self._take(per_class, self._ranks("train"), wanted)
        free = int(self.free.sum())
        return self.draw("train", free if wanted.labels is None else wanted.labels)

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
