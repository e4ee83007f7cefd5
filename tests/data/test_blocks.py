"""Blocks of each class in the order of the files, and retraining on validation samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from factories.data import KNOWN

from cyclery.common.errors import UserError
from cyclery.data import sizes
from cyclery.data.split_settings import parse
from cyclery.data.splits import split

Json = dict[str, Any]
CLASSES, TEST = 4, 40
BLOCKS: Json = {"choose": "blocks", "per_class": 6, "validation": 4 * CLASSES, "share": 3}


def rows(seed: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return labels in canonical order, test rows last, and the position of each in its file."""
    rng = np.random.default_rng(seed)
    train = np.sort(rng.permutation(np.repeat(np.arange(CLASSES), [40, 41, 42, 45])))
    labels = np.concatenate([train, rng.integers(CLASSES, size=TEST)])
    return labels, rng.permutation(len(train))


def by_hand(
    labels: np.ndarray[Any, Any], order: np.ndarray[Any, Any], i: int
) -> tuple[set[int], set[int]]:
    """Walk the training set in the order of its file, as the benchmark's code does."""
    train, validation = set(), set()
    seen = [0] * CLASSES
    for position in range(len(order)):
        [row] = np.flatnonzero(order == position)
        at = seen[labels[row]]
        seen[labels[row]] += 1
        if 10 * i <= at < 10 * i + 6:
            train.add(int(row))
        elif 10 * i + 6 <= at < 10 * i + 10:
            validation.add(int(row))
    return train, validation


@pytest.mark.parametrize("seed", range(0, 12, 2))
def test_blocks_are_those_of_a_walk_through_the_file(seed: int) -> None:
    labels, order = rows()
    parts = split(labels, len(order), CLASSES, BLOCKS, seed, order)
    train, validation = by_hand(labels, order, seed // 3)
    assert set(parts["train"].tolist()) == train and len(train) == 24
    assert set(parts["validation"].tolist()) == validation and len(validation) == 16
    assert parts["test"].tolist() == list(range(len(order), len(labels)))


def test_no_two_blocks_share_a_sample() -> None:
    labels, order = rows()
    found = [split(labels, len(order), CLASSES, BLOCKS, 3 * i, order) for i in range(4)]
    ids = [row for each in found for part in ("train", "validation") for row in each[part]]
    assert len(ids) == len(set(ids)) == 4 * 40


def test_a_block_that_there_is_not() -> None:
    labels, order = rows()
    with pytest.raises(UserError, match=r"blocks 4 takes the samples 40 to 49 .* only 40; run few"):
        split(labels, len(order), CLASSES, BLOCKS, 12, order)


@pytest.mark.parametrize("given", [BLOCKS, {"per_class": 5, "validation": 22, "test": None}])
def test_retraining_takes_the_validation_samples_too(given: Json) -> None:
    labels, order = rows()
    apart = split(labels, len(order), CLASSES, given, 2, order)
    parts = split(labels, len(order), CLASSES, {**given, "retrain": True}, 2, order)
    assert parts["validation"].size == 0
    assert set(parts["train"]) == {*apart["train"], *apart["validation"]}
    assert len(parts["train"]) == len(apart["train"]) + len(apart["validation"])
    assert parts["test"].tolist() == apart["test"].tolist()
    counts = np.bincount(labels[:-TEST]).tolist()
    planned = sizes.sizes(parse({**given, "retrain": True}), counts, TEST)
    assert (planned.train, planned.validation) == (len(parts["train"]), 0)


def test_the_rest_has_no_sample_that_is_trained_on() -> None:
    labels, order = rows()
    given = {**BLOCKS, "retrain": True, "unlabelled": "rest"}
    parts = split(labels, len(order), CLASSES, given, 1, order)
    assert not set(parts["unlabelled"]) & set(parts["train"])
    assert len(parts["unlabelled"]) == len(order) - 40


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({**BLOCKS, "per_class": None}, "choose: must be random where .* `blocks` takes so many"),
        ({**BLOCKS, "test": 5}, "test: must be null where `choose` is blocks"),
        ({**BLOCKS, "imbalance": {"kind": "long_tail", "ratio": 0.1}}, "imbalance: must be null"),
        ({"retrain": True}, "retrain: must be false without `validation`"),
        (
            {"retrain": True, "validation": 5, "folds": 2, "fold": 0},
            "retrain: must be false beside `folds`",
        ),
    ],
)
def test_settings_that_are_not_allowed(given: Json, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse(given)


def test_validation_is_as_many_of_every_class() -> None:
    labels, order = rows()
    with pytest.raises(UserError, match="validation: must be a multiple of 4, the classes"):
        split(labels, len(order), CLASSES, {**BLOCKS, "validation": 17}, 0, order)


def test_a_source_without_an_order_has_no_blocks() -> None:
    labels, order = rows()
    with pytest.raises(UserError, match=r"no official order \(found 'blocks'\)"):
        split(labels, len(order), CLASSES, BLOCKS, 0)


def test_too_few_samples_for_the_seeds_are_seen_beforehand() -> None:
    mnist = KNOWN["fashion-mnist"]
    given = {"choose": "blocks", "per_class": 30, "validation": 200, "share": 10}
    sizes.check_blocks(mnist, given, 1200)
    with pytest.raises(UserError, match=r"blocks takes 121 x 50 samples .* 1201 seeds, 10 to a bl"):
        sizes.check_blocks(mnist, given, 1201)
