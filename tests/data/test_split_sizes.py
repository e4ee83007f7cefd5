"""How many rows a split has, and settings that are refused, alike when planned and when drawn."""

from __future__ import annotations

import numpy as np
import pytest
from factories.data import CIFAR10, CIFAR100, DIGITS, FASHION_MNIST, replace
from hypothesis import given, settings
from hypothesis import strategies as st

from cyclery.common.errors import UserError
from cyclery.data import splits
from cyclery.data.split_settings import parse
from cyclery.data.splits import counts

BALANCED = np.tile(np.arange(10), 100)  # 1,000 rows, 100 of each of 10 classes


def split(labels, n_train: int, classes: int, wanted: dict, seed: int) -> dict[str, np.ndarray]:
    """The split of rows that stand in their official order."""
    return splits.split(labels, n_train, classes, wanted, seed, np.arange(n_train))


def of(wanted: dict) -> dict[str, np.ndarray]:
    return split(BALANCED, 1000, 10, wanted, 0)


# Too much, and settings that make no sense


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"test": 1001}, r"split\.test: must be at most 1000, the training rows .* \(found 1001\)"),
        (
            {"test": 600, "validation": 500},
            r"split\.validation: must be at most 400, .* \(found 500\)",
        ),
        (
            {"test": 600, "validation": 400},
            r"split\.labels: must ask for at most 0 of 1000 .* \(found null, all that are left\)",
        ),
        (
            {"test": 600, "validation": 200, "labels": 201},
            r"split\.labels: must ask for at most 200 of 1000 training rows, which "
            r"split\.test \(600\) and split\.validation \(200\) leave \(found 201\)",
        ),
        (
            {"test": 600, "labels": 401, "choose": "first"},
            r"split\.labels: must ask for at most 400 of 1000 .* \(found 401\)",
        ),
        (
            {"test": 600, "per_class": 41},
            r"split\.per_class: must ask for at most 400 of 1000 .* "
            r"\(found 41, which is 410 rows in 10 classes\)",
        ),
        (
            {"test": 800, "labels": 160, "imbalance": {"kind": "two_level", "ratio": [6, 2]}},
            r"split\.labels: must take at most 20 rows of one class, those that test and "
            r"validation leave, but takes 24 \(found 160, imbalance two_level 6:2\)",
        ),
        (
            {"test": 500, "per_class": 51, "imbalance": {"kind": "long_tail", "ratio": 0.01}},
            r"split\.per_class: must take at most 50 rows of one class, .* but takes 51 "
            r"\(found 51, which is \d+ rows in 10 classes, imbalance long_tail 0\.01\)",
        ),
        (
            {"test": 600, "unlabelled": "rest"},
            r"split\.unlabelled: must be all, or `labels` fewer than the 400 training rows",
        ),
        ({"test": 999, "folds": 2, "fold": 0}, r"split\.folds: must be null where one row is all"),
        ({"test": 998, "folds": 4, "part": 2}, r"split\.part: must be below 2, .* \(found 2\)"),
        (
            {"test": 9, "labels": 33, "folds": 5, "part": "seed"},
            r"split\.part: must be a number unless `folds` \(5\) divides the 33 training rows",
        ),
    ],
)
def test_too_much_is_refused_alike_when_planned_and_when_drawn(wanted, message):
    with pytest.raises(UserError, match=message):
        of(wanted)
    planned = replace(DIGITS, train=1000, class_counts=None)
    with pytest.raises(UserError, match=message):
        counts(planned, wanted)


def test_a_class_that_is_too_small_is_named_with_what_it_has():
    labels = np.array([0] * 90 + [1] * 10)
    with pytest.raises(UserError, match=r"at most 9 rows of one class, .* but takes 10 \("):
        split(labels, 100, 2, {"test": 10, "per_class": 10}, 0)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"test": 9, "label": 3}, r"split: unknown key 'label'\. Did you mean 'labels'\? Allowed:"),
        ({"test": 9, "labels": -3}, r"split\.labels: must be at least 1 \(found -3\)"),
        ({"test": 9, "labels": 0}, r"split\.labels: must be at least 1 \(found 0"),
        ({"test": 9, "labels": 2.5}, r"split\.labels: must be a whole number \(found 2\.5\)"),
        ({"test": 9, "labels": True}, r"split\.labels: must be a whole number \(found True\)"),
        (
            {"test": 9, "validation": "3"},
            r"split\.validation: must be a whole number .* the quotes",
        ),
        ({"test": 0}, r"split\.test: must be at least 1"),
        ({"labels": 5}, r"split\.test: must be below \d+, the rows of the dataset, which has no"),
        (
            {"test": 9, "labels": 5, "per_class": 2},
            r"split\.labels: must be null beside `per_class` 2 \(found 5\)",
        ),
        ({"test": 9, "folds": 1, "fold": 0}, r"split\.folds: must be at least 2"),
        ({"test": 9, "folds": 5, "fold": -1}, r"split\.fold: must be at least 0 \(found -1\)"),
        ({"test": 9, "folds": 5}, r"split\.fold: must be from 0 to 4 .* \(found null\)"),
        ({"test": 9, "fold": 0}, r"split\.fold: must be null with this `folds` \(found 0\)"),
        ({"test": 9, "folds": 5, "fold": 5}, r"split\.fold: must be from 0 to 4 .* \(found 5\)"),
        ({"test": 9, "part": 0}, r"split\.part: must be null without `folds` \(found 0\)"),
        (
            {"test": 9, "folds": 5, "fold": 0, "part": 1},
            r"split\.part: must be null beside `fold`, .* \(found 1\)",
        ),
        (
            {"test": 9, "folds": 5, "part": 5},
            r"split\.part: must be from 0 to 4 .* or seed \(found 5\)",
        ),
        *[
            ({"test": 9, "folds": 5, "part": wrong}, r"split\.part: must be a whole number from 0")
            for wrong in (-1, True, 1.0, "sed", [1])
        ],
        ({"test": 9, "share": 0}, r"split\.share: must be at least 1"),
        (
            {"test": 9, "choose": "frist"},
            r"split\.choose: must be one of blocks, first, random .* Did you mean 'first'\?",
        ),
        ({"test": 9, "choose": "first"}, r"split\.choose: must be random where `labels` and"),
        ({"test": 9, "imbalance": "two_level"}, r"split\.imbalance: must be keys and values with"),
        (
            {"test": 9, "imbalance": {"kind": "x", "ratio": 1}},
            r"split\.imbalance: must be keys and values with `kind`: long_tail or two_level",
        ),
        (
            {"test": 9, "imbalance": {"kind": "long_tail", "ratio": 0.1}},
            r"split\.imbalance: must be null where `labels` and `per_class` are",
        ),
        (
            {"test": 9, "per_class": 5, "imbalance": {"kind": "two_level", "ratio": [5, 3]}},
            r"split\.per_class: must be null with a two_level imbalance",
        ),
        *[
            (
                {"test": 9, "labels": 5, "imbalance": {"kind": kind, "ratio": ratio}},
                r"split\.imbalance\.ratio(\[1\])?: must be",
            )
            for kind, ratio in [
                ("two_level", 5),
                ("two_level", [5, 0]),
                ("two_level", [5, 3, 1]),
                ("two_level", [5, float("inf")]),
                ("two_level", "53"),
                ("long_tail", 0),
                ("long_tail", 1.5),
                ("long_tail", [0.1, 0.1]),
                ("long_tail", float("nan")),
                ("long_tail", True),
            ]
        ],
    ],
)
def test_settings_that_are_not_allowed_are_named(wanted, message):
    with pytest.raises(UserError, match=message):
        of(wanted)
    with pytest.raises(UserError, match=message):
        counts(DIGITS, wanted)


def test_an_official_test_set_is_not_cut():
    with pytest.raises(
        UserError, match=r"split\.test: must be null, for the dataset has an official"
    ):
        split(BALANCED, 900, 10, {"test": 5}, 0)
    with pytest.raises(UserError, match="cannot have 1001 training rows"):
        split(BALANCED, 1001, 10, {"test": 5}, 0)


# Planning


@pytest.mark.parametrize(
    ("dataset", "wanted", "expected"),
    [
        (DIGITS, {"test": 600, "validation": 200, "labels": 200}, (200, 200, 600)),
        (DIGITS, {"test": 600}, (1197, 0, 600)),
        (FASHION_MNIST, {"validation": 5000}, (55_000, 5000, 10_000)),
        (DIGITS, {"test": 600, "labels": 203, "folds": 5, "fold": 2, "share": 3}, (162, 0, 600)),
        (DIGITS, {"test": 600, "labels": 203, "folds": 5, "fold": 3}, (163, 0, 600)),
        (DIGITS, {"test": 600, "labels": 203, "folds": 5, "part": 2}, (41, 0, 600)),
        (DIGITS, {"test": 600, "labels": 203, "folds": 5, "part": 3}, (40, 0, 600)),
        (DIGITS, {"test": 600, "labels": 200, "folds": 5, "part": "seed"}, (40, 0, 600)),
        (FASHION_MNIST, {"labels": 4000, "choose": "first"}, (4000, 0, 10_000)),
        (CIFAR100, {"per_class": 40}, (4000, 0, 10_000)),
        (
            CIFAR10,
            {"labels": 4000, "imbalance": {"kind": "two_level", "ratio": [5, 3]}},
            (4000, 0, 10_000),
        ),
        (
            CIFAR10,
            {"per_class": 5000, "imbalance": {"kind": "long_tail", "ratio": 0.01}},
            (12_406, 0, 10_000),  # the size of the usual long-tailed CIFAR-10
        ),
    ],
)
def test_sizes_are_known_without_the_data(dataset, wanted, expected):
    assert tuple(counts(dataset, wanted).values()) == expected


@given(
    st.integers(1, 600),
    st.integers(0, 600),
    st.integers(1, 100),
    st.sampled_from(["random", "first"]),
    st.sampled_from([None, 1.0, 0.1]),
    st.integers(0, 5),
)
@settings(max_examples=150, deadline=None)
def test_planning_never_refuses_what_can_be_drawn(test, validation, each, choose, tail, seed):
    labels = np.repeat(np.arange(10), DIGITS.train_class_counts)
    labels = labels[np.random.default_rng(0).permutation(1797)]
    wanted = {
        "test": test,
        "validation": validation,
        "per_class": each,
        "choose": choose,
        "imbalance": None if tail is None else {"kind": "long_tail", "ratio": tail},
    }
    try:
        parts = split(labels, 1797, 10, wanted, seed)
    except UserError:
        return
    assert counts(DIGITS, wanted) == {part: len(ids) for part, ids in parts.items()}


def test_missing_keys_mean_their_defaults():
    assert parse({}) == parse(
        {
            "test": None,
            "validation": None,
            "labels": None,
            "per_class": None,
            "choose": "random",
            "imbalance": None,
        }
    )
