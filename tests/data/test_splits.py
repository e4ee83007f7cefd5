from __future__ import annotations

import hashlib
import random
from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cyclery.data import splits
from cyclery.data.sizes import apportion

CLASSES = 5
BALANCED = np.tile(np.arange(10), 100)  # 1,000 rows, 100 of each of 10 classes

ROWS = [
    {"validation": 40, "labels": 60},
    {"validation": 7, "labels": 61, "imbalance": {"kind": "long_tail", "ratio": 0.3}},
    {"per_class": 3, "imbalance": {"kind": "long_tail", "ratio": 0.5}},
    {"labels": 20, "imbalance": {"kind": "two_level", "ratio": [3, 1]}},
    {"validation": 20, "per_class": 2},
]
SETTINGS = [
    {**rows, "choose": choose, **more}
    for rows, choose, more in product(
        ROWS,
        ("random", "first"),
        ({}, {"unlabelled": "all"}, {"unlabelled": "rest", "folds": 3, "fold": 1, "share": 2}),
    )
] + [{"validation": 11}, {"unlabelled": "all", "folds": 4, "fold": 0}]


def split(labels, n_train: int, classes: int, wanted: dict, seed: int) -> dict[str, np.ndarray]:
    """The split of rows that stand in their official order."""
    return splits.split(labels, n_train, classes, wanted, seed, np.arange(n_train))


@st.composite
def problems(draw):
    """Draw labels with an official test set or none, and settings that fit them."""
    n_train = draw(st.integers(20, 120))
    n_test = draw(st.sampled_from([0, 13]))
    labels = np.array(
        draw(st.lists(st.integers(0, CLASSES - 1), min_size=n_train, max_size=n_train))
        + [row % CLASSES for row in range(n_test)]
    )
    left = n_train
    wanted: dict = {"test": None}
    if not n_test:
        wanted["test"] = draw(st.integers(1, left - 2))
        left -= wanted["test"]
    wanted["validation"] = draw(st.none() | st.integers(0, left - 1))
    left -= wanted["validation"] or 0
    wanted["labels"] = draw(st.none() | st.integers(1, left))
    wanted["per_class"] = None
    wanted["choose"] = "random"
    if wanted["labels"] is not None:
        wanted["choose"] = draw(st.sampled_from(["random", "first"]))
    wanted["imbalance"] = None
    return labels, n_train, wanted, draw(st.integers(0, 2**40))


@given(problems())
@settings(max_examples=150, deadline=None)
def test_parts_are_disjoint_exact_sorted_and_pure(problem):
    labels, n_train, wanted, seed = problem
    before = labels.copy()
    np.random.seed(0)
    first = split(labels, n_train, CLASSES, wanted, seed)
    state = np.random.get_state()[1].copy()
    np.random.seed(1)
    random.seed(1)
    second = split(labels, n_train, CLASSES, dict(wanted), seed)
    np.random.seed(0)
    np.testing.assert_array_equal(state, np.random.get_state()[1])
    np.testing.assert_array_equal(labels, before)

    assert list(first) == ["train", "validation", "test"]
    everything = np.concatenate(list(first.values()))
    assert len(np.unique(everything)) == len(everything)
    for part, ids in first.items():
        np.testing.assert_array_equal(ids, second[part])
        assert ids.dtype == np.int64
        assert (np.diff(ids) > 0).all()
    official = np.arange(n_train, len(labels))
    if len(official):
        np.testing.assert_array_equal(first["test"], official)
    else:
        assert len(first["test"]) == wanted["test"]
    assert len(first["validation"]) == (wanted["validation"] or 0)
    rest = n_train - len(first["validation"]) - (wanted["test"] or 0)
    assert len(first["train"]) == (rest if wanted["labels"] is None else wanted["labels"])
    assert len(first["train"]) == 0 or max(first["train"].max(), 0) < n_train
    if wanted["choose"] == "first":
        np.testing.assert_array_equal(first["train"], np.arange(wanted["labels"]))


@given(problems())
@settings(max_examples=100, deadline=None)
def test_every_draw_keeps_the_proportions_of_its_pool_to_within_a_row(problem):
    labels, n_train, wanted, seed = problem
    parts = split(labels, n_train, CLASSES, wanted, seed)
    pool = np.arange(n_train)
    order = ["test", "validation", "train"]
    if wanted["choose"] == "first":
        order = ["test", "validation"]
        pool = np.setdiff1d(pool, parts["train"])
    if n_train < len(labels):
        order.remove("test")
    for part in order:
        ids = parts[part]
        share = np.bincount(labels[pool], minlength=CLASSES) * (len(ids) / max(1, len(pool)))
        found = np.bincount(labels[ids], minlength=CLASSES)
        assert (np.abs(found - share) < 1).all()
        pool = np.setdiff1d(pool, ids)


@given(
    st.integers(0, 500),
    st.lists(st.fractions(0, 50, max_denominator=40) | st.integers(0, 50), min_size=1, max_size=9),
)
def test_apportioning_is_exact_fair_and_monotone(total, weights):
    shares = apportion(total, weights)
    whole = sum(Fraction(weight) for weight in weights)
    if not whole:
        assert sum(shares) == 0
        return
    assert sum(shares) == total
    for share, weight in zip(shares, weights, strict=True):
        assert abs(share - total * Fraction(weight) / whole) < 1
    falling = apportion(total, sorted(weights, reverse=True))
    assert all(a >= b for a, b in pairwise(falling))


def of(wanted: dict, seed: int = 0, labels: np.ndarray = BALANCED, n_train: int = 1000, classes=10):
    return split(labels, n_train, classes, wanted, seed)


def class_counts(ids: np.ndarray, labels: np.ndarray = BALANCED) -> list[int]:
    return np.bincount(labels[ids], minlength=10).tolist()


# Seeds


def test_seeds_differ_and_parts_do_not_disturb_each_other():
    base = {"test": 100, "validation": 100, "labels": 200}
    one, other = of(base, 1), of(base, 2)
    for part in one:
        assert len(np.intersect1d(one[part], other[part])) < len(one[part])
    more = of({**base, "labels": 400}, 1)
    np.testing.assert_array_equal(more["test"], one["test"])
    np.testing.assert_array_equal(more["validation"], one["validation"])
    assert set(one["train"]) <= set(more["train"])  # with balanced classes the sets are nested


def test_the_draw_is_what_records_were_made_with():
    # A change of these ids means that finished runs no longer say which rows they used.
    parts = of({"test": 5, "validation": 5, "labels": 10}, 7, np.tile(np.arange(5), 8), 40, 5)
    assert {name: ids.tolist() for name, ids in parts.items()} == {
        "train": [0, 1, 3, 4, 6, 12, 14, 20, 27, 33],
        "validation": [2, 15, 24, 36, 38],
        "test": [10, 16, 17, 23, 39],
    }


def test_splits_of_every_kind_are_what_records_were_made_with():
    # A change of the hash means other rows for finished runs, as a change of the ids above.
    labels = np.concatenate([np.arange(400) * 7 % 17 % 10, np.arange(50) % 10])
    found = hashlib.sha256()
    for settings_, n_train in product(SETTINGS, (400, 450)):
        test = {"test": 31} if n_train == 450 else {}
        for seed in (0, 7):
            parts = split(labels, n_train, 10, {**test, **settings_}, seed)
            found.update("".join(f"{name}{ids.tolist()}" for name, ids in parts.items()).encode())
    assert found.hexdigest() == "df1c0b0c329168ed546e524691f0ca956675e3cd5b0a2b50cc294e7f52480d9e"


def test_rows_are_drawn_evenly():
    hits = np.zeros(1000)
    for seed in range(400):
        hits[of({"test": 100, "labels": 200}, seed)["train"]] += 1
    # 80 +- 8 expected of each row; six standard errors over a thousand rows.
    assert hits.min() > 80 - 48 and hits.max() < 80 + 48
    assert abs(hits.reshape(100, 10).sum(0) - 8000).max() == 0


# Class counts


def test_a_total_is_shared_out_over_classes_and_the_odd_rows_are_drawn():
    assert class_counts(of({"test": 100, "labels": 200})["train"]) == [20] * 10
    extra = set()
    for seed in range(30):
        found = class_counts(of({"test": 100, "labels": 203}, seed)["train"])
        assert sorted(found) == [20] * 7 + [21] * 3
        extra |= {c for c in range(10) if found[c] == 21}
    assert extra == set(range(10))


def test_per_class_is_exact_even_where_classes_are_unequal():
    labels = np.repeat(np.arange(10), np.arange(20, 120, 10))
    parts = split(labels, len(labels), 10, {"test": 50, "per_class": 15}, 3)
    assert class_counts(parts["train"], labels) == [15] * 10


def test_null_takes_all_of_the_rest():
    parts = of({"test": 100, "validation": 50, "labels": None})
    assert sum(len(ids) for ids in parts.values()) == 1000
    assert class_counts(parts["train"]) == [85] * 10


def test_first_takes_the_first_rows_whatever_the_seed():
    wanted = {"test": 100, "validation": 50, "labels": 37, "choose": "first"}
    for seed in (0, 1):
        np.testing.assert_array_equal(of(wanted, seed)["train"], np.arange(37))
    assert of(wanted, 0)["test"].tolist() != of(wanted, 1)["test"].tolist()
    each = of({"test": 100, "per_class": 3, "choose": "first"})
    np.testing.assert_array_equal(each["train"], np.arange(30))


@pytest.mark.parametrize("choose", ["random", "first"])
@pytest.mark.parametrize(("ratio", "levels"), [([5, 3], (25, 15)), ([6, 2], (30, 10))])
def test_two_levels_have_their_counts_in_classes_drawn_per_seed(ratio, levels, choose):
    wanted = {
        "test": 100,
        "labels": 200,
        "imbalance": {"kind": "two_level", "ratio": ratio},
        "choose": choose,
    }
    heads = set()
    for seed in range(20):
        found = class_counts(of(wanted, seed)["train"])
        assert sorted(found) == [levels[1]] * 5 + [levels[0]] * 5
        heads.add(tuple(c for c in range(10) if found[c] == levels[0]))
    assert len(heads) > 10
    assert set().union(*heads) == set(range(10))


def test_two_levels_keep_an_odd_total_and_an_odd_number_of_classes():
    imbalance = {"kind": "two_level", "ratio": [2, 1]}
    labels = np.tile(np.arange(5), 40)
    parts = split(labels, 200, 5, {"test": 10, "labels": 70, "imbalance": imbalance}, 0)
    assert sorted(np.bincount(labels[parts["train"]])) == [10, 10, 10, 20, 20]
    assert len(of({"test": 100, "labels": 203, "imbalance": imbalance})["train"]) == 203
    other = {"kind": "two_level", "ratio": [1, 2]}
    parts = split(labels, 200, 5, {"test": 10, "labels": 80, "imbalance": other}, 0)
    assert sorted(np.bincount(labels[parts["train"]])) == [10, 10, 20, 20, 20]


@pytest.mark.parametrize("ratio", [1, 0.1, 0.02, 0.01])
def test_a_long_tail_falls_as_the_formula_says(ratio):
    imbalance = {"kind": "long_tail", "ratio": ratio}
    orders = set()
    for seed in range(10):
        found = class_counts(
            of({"test": 100, "per_class": 90, "imbalance": imbalance}, seed)["train"]
        )
        orders.add(tuple(np.argsort(found, kind="stable")))
        falling = sorted(found, reverse=True)
        assert falling == [max(1, int(90 * ratio ** (k / 9) + 1e-9)) for k in range(10)]
    assert len(orders) == 1 if ratio == 1 else len(orders) > 5


@given(st.integers(30, 250), st.floats(0.01, 1), st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_a_long_tail_of_a_total_is_exact_and_monotone(total, ratio, seed):
    labels = np.tile(np.arange(10), 250)
    wanted = {
        "test": 10,
        "labels": total,
        "imbalance": {"kind": "long_tail", "ratio": ratio},
    }
    parts = split(labels, 2500, 10, wanted, seed)
    found = sorted(class_counts(parts["train"], labels), reverse=True)
    weights = np.array([ratio ** (k / 9) for k in range(10)])
    assert sum(found) == total
    assert (np.abs(found - total * weights / weights.sum()) < 1).all()


def test_arms_that_differ_in_ratio_share_the_order_of_their_classes():
    def order(ratio: float) -> np.ndarray:
        imbalance = {"kind": "long_tail", "ratio": ratio}
        found = of({"test": 100, "per_class": 80, "imbalance": imbalance}, 5)["train"]
        return np.argsort(class_counts(found))

    np.testing.assert_array_equal(order(0.1), order(0.05))


# Seeds that share a split, and folds


@pytest.mark.parametrize("share", [1, 2, 5])
@pytest.mark.parametrize("choose", ["random", "first"])
def test_seeds_in_a_row_share_a_split(share, choose):
    wanted = {"test": 100, "validation": 50, "labels": 200, "choose": choose, "folds": 4, "fold": 1}
    alone = [of(wanted, seed) for seed in range(3)]
    for seed in range(3 * share):
        found = of({**wanted, "share": share}, seed)
        for part, ids in found.items():
            np.testing.assert_array_equal(ids, alone[seed // share][part])
    assert alone[0]["test"].tolist() != alone[1]["test"].tolist()


@st.composite
def folded(draw):
    """Draw labels, settings and a number of folds that the training rows can be divided into."""
    labels = np.array(draw(st.lists(st.integers(0, CLASSES - 1), min_size=30, max_size=120)))
    wanted = {"test": draw(st.integers(1, 10)), "validation": draw(st.none() | st.integers(0, 9))}
    wanted["labels"] = draw(st.none() | st.integers(2, 11))
    if wanted["labels"] and draw(st.booleans()):
        wanted["choose"] = "first"
    if wanted["labels"] and draw(st.booleans()):
        wanted["unlabelled"] = draw(st.sampled_from(["all", "rest"]))
    return labels, wanted, draw(st.integers(2, 7)), draw(st.integers(0, 2**20))


@given(folded())
@settings(max_examples=100, deadline=None)
def test_folds_are_disjoint_stratified_and_cover_the_training_rows(problem):
    labels, wanted, folds, seed = problem
    whole = split(labels, len(labels), CLASSES, wanted, seed)
    parts = [
        split(labels, len(labels), CLASSES, {**wanted, "folds": folds, "fold": fold}, seed)
        for fold in range(folds)
    ]
    out = [np.setdiff1d(whole["train"], part["train"]) for part in parts]
    np.testing.assert_array_equal(np.sort(np.concatenate(out)), whole["train"])
    sizes = [len(ids) for ids in out]
    assert max(sizes) - min(sizes) <= 1
    per_class = np.array([np.bincount(labels[ids], minlength=CLASSES) for ids in out])
    for number, ids in enumerate(out):
        # The part that one leaves out is what another trains on alone, and all else is the same.
        if len(ids):
            alone = {**wanted, "folds": folds, "part": number}
            found = split(labels, len(labels), CLASSES, alone, seed)
            np.testing.assert_array_equal(found["train"], ids)
            for name in ("validation", "test"):
                np.testing.assert_array_equal(found[name], whole[name])
    assert (per_class.max(0) - per_class.min(0) <= 1).all()
    for part, left in zip(parts, out, strict=True):
        assert (np.diff(part["train"]) > 0).all() and set(part["train"]) <= set(whole["train"])
        for name in ("validation", "test"):
            np.testing.assert_array_equal(part[name], whole[name])
        # What is left out is seen in no way: it measures what was learnt.
        assert not set(part.get("unlabelled", [])) & {*whole["test"], *whole["validation"], *left}


@pytest.mark.parametrize(("total", "folds"), [(200, 5), (203, 5), (97, 4), (50, 3)])
def test_folds_have_the_sizes_of_scikit_learns(total, folds):
    from sklearn.model_selection import StratifiedKFold

    wanted = {"test": 100, "labels": total}
    train = of(wanted, 3)["train"]
    shuffled = StratifiedKFold(folds, shuffle=True, random_state=0)
    theirs = [train[out] for _, out in shuffled.split(train, BALANCED[train])]
    ours = [
        np.setdiff1d(train, of({**wanted, "folds": folds, "fold": fold}, 3)["train"])
        for fold in range(folds)
    ]
    assert sorted(map(len, ours)) == sorted(map(len, theirs))
    for one, other in zip(*(np.sort([class_counts(ids) for ids in x], 0) for x in (ours, theirs)),
                          strict=True):  # fmt: skip
        np.testing.assert_array_equal(one, other)
    # Drawn anew by every seed, as the rows are.
    wanted |= {"choose": "first", "folds": folds, "fold": 0}
    assert of(wanted, 0)["train"].tolist() != of(wanted, 1)["train"].tolist()


def test_an_arm_with_folds_keeps_the_other_draws():
    wanted = {"test": 100, "validation": 50, "labels": 200, "unlabelled": "rest"}
    plain, left = of(wanted, 1), of({**wanted, "folds": 5, "fold": 2}, 1)
    for part in ("test", "validation", "unlabelled"):
        np.testing.assert_array_equal(plain[part], left[part])
    assert len(left["train"]) == 160


def test_seeds_in_a_row_train_on_one_part_after_another():
    wanted = {"test": 100, "labels": 200, "folds": 5, "part": "seed", "share": 5}
    whole = [of({"test": 100, "labels": 200}, seed) for seed in range(2)]
    for seed in range(10):
        found, number = of(wanted, seed), {**wanted, "part": seed % 5}
        np.testing.assert_array_equal(found["train"], of(number, seed)["train"])
        np.testing.assert_array_equal(found["test"], whole[seed // 5]["test"])
    parts = [of(wanted, seed)["train"] for seed in range(5, 10)]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), whole[1]["train"])
