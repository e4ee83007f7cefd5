"""Pools of a split: levels of a hierarchy, open sets and imbalance, as drawn and as planned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from factories.data import DIGITS, replace
from hypothesis import given, settings
from hypothesis import strategies as st

from cyclery.data.splits import counts, split

CLASSES = 6
# Two coarser levels above six classes.
LEVELS = [[0, 0, 1, 1, 2, 2], [0, 0, 0, 0, 1, 1]]
Wanted = dict[str, Any]


def of(wanted: Wanted, seed: int = 0, each: int = 100) -> dict[str, np.ndarray]:
    return split(np.tile(np.arange(CLASSES), each), each * CLASSES, CLASSES, wanted, seed)


def planned(labels: np.ndarray, wanted: Wanted) -> dict[str, int]:
    per_class = tuple(np.bincount(labels, minlength=CLASSES).tolist())
    return counts(
        replace(DIGITS, train=len(labels), classes=CLASSES, class_counts=per_class), wanted
    )


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, Wanted, int]:
    """Draw labels of six classes and settings that ask for pools of every kind."""
    each = draw(st.lists(st.integers(30, 60), min_size=CLASSES, max_size=CLASSES))
    order = np.random.default_rng(draw(st.integers(0, 99))).permutation(sum(each))
    labels = np.repeat(np.arange(CLASSES), each)[order]
    wanted: Wanted = {"test": draw(st.integers(1, 12)), "validation": draw(st.integers(0, 12))}
    wanted |= draw(st.sampled_from([{"labels": 8}, {"labels": 11}, {"per_class": 2}]))
    wanted["unlabelled"] = draw(st.sampled_from(["all", "rest"]))
    wanted["choose"] = draw(st.sampled_from(["random", "first"]))
    if draw(st.booleans()):
        wanted["folds"], wanted["fold"] = 3, draw(st.integers(0, 2))
    if draw(st.booleans()):
        coarse = draw(st.lists(st.integers(0, 6), min_size=2, max_size=2))
        wanted |= {"hierarchy": LEVELS, "coarse": coarse}
    if draw(st.booleans()):
        known = draw(st.sampled_from([[0, 2, 4, 5], [5, 2, 1, 0]]))
        pool = draw(st.sampled_from([{}, {"contamination": 0.1}, {"contamination": 0.0}]))
        wanted["open_set"] = {"classes": known, **pool}
        if draw(st.booleans()):
            share = draw(st.sampled_from([0.0, 0.3, 0.5]))
            wanted["open_set"] |= {"pool": draw(st.integers(50, 60)), "contamination": share}
    if "open_set" not in wanted and draw(st.booleans()):
        wanted["unlabelled_pool"] = draw(st.integers(50, 60))
    if draw(st.booleans()) and not wanted.get("open_set", {}).get("pool"):
        wanted["unlabelled_imbalance"] = {"kind": "long_tail", "ratio": 0.5}
    return labels, wanted, draw(st.integers(0, 2**30))


@given(problems())
@settings(max_examples=300, deadline=None)
def test_pools_are_disjoint_pure_and_as_large_as_planned(
    problem: tuple[np.ndarray, Wanted, int],
) -> None:
    labels, wanted, seed = problem
    order = np.arange(len(labels))
    parts = split(labels, len(labels), CLASSES, wanted, seed, order)
    assert planned(labels, {**wanted, "choose": "random"}) == {
        part: len(ids)
        for part, ids in split(
            labels, len(labels), CLASSES, {**wanted, "choose": "random"}, seed
        ).items()
    }
    assert planned(labels, wanted) == {part: len(ids) for part, ids in parts.items()}
    again = split(labels, len(labels), CLASSES, dict(wanted), seed, order)
    known = wanted.get("open_set", {}).get("classes", range(CLASSES))
    held = {*parts["test"], *parts["validation"]}
    assert len(held) == len(parts["test"]) + len(parts["validation"])
    for part, ids in parts.items():
        np.testing.assert_array_equal(ids, again[part])
        assert ids.dtype == np.int64 and (np.diff(ids) > 0).all()
        if part not in ("test", "validation"):
            assert not held & set(ids)
        if not part.startswith("unlabelled"):
            assert set(labels[ids]) <= set(known)
    inside = wanted["unlabelled"] == "all"
    assert len(np.intersect1d(parts["train"], parts["unlabelled"])) == inside * len(parts["train"])


@given(problems())
@settings(max_examples=200, deadline=None)
def test_pools_by_level_are_those_of_their_definition(
    problem: tuple[np.ndarray, Wanted, int],
) -> None:
    labels, wanted, seed = problem
    wanted = {**wanted, "hierarchy": LEVELS, "coarse": [3, 4], "unlabelled": "rest"}
    parts = split(labels, len(labels), CLASSES, wanted, seed, np.arange(len(labels)))
    # The finest level at which a row of these is labelled: by brute force.
    finest = dict.fromkeys(parts["train"].tolist(), 1)
    for level in (2, 3):
        for row in parts[f"labelled.{level}"].tolist():
            finest.setdefault(row, level)
    rows = parts["unlabelled"].tolist() + parts["train"].tolist()
    assert sorted(finest.values()) == [1] * len(parts["train"]) + [2] * 3 + [3] * 4
    for level in (1, 2, 3):
        labelled = {row for row in rows if finest.get(row, 9) <= level}
        if level > 1:
            assert set(parts[f"labelled.{level}"]) == labelled
        assert set(parts[f"unlabelled.{level}"]) == set(rows) - labelled
    np.testing.assert_array_equal(parts["unlabelled.1"], parts["unlabelled"])
    everything = split(
        labels, len(labels), CLASSES, {**wanted, "unlabelled": "all"}, seed, np.arange(len(labels))
    )
    # Labelled rows take the places of others in a pool of a given size.
    sized = "unlabelled_pool" in wanted or "pool" in wanted.get("open_set", {})
    if not sized and wanted.get("open_set", {}).get("contamination") is None:
        for level in (1, 2, 3):
            assert set(everything[f"unlabelled.{level}"]) == set(rows)


def test_coarse_rows_are_shared_out_over_classes_and_leave_the_other_draws_alone() -> None:
    base = {"test": 60, "validation": 60, "labels": 60, "unlabelled": "rest"}
    plain = of(base, 4)
    found = of({**base, "hierarchy": LEVELS, "coarse": [30, 60]}, 4)
    for part in ("train", "validation", "test", "unlabelled"):
        np.testing.assert_array_equal(found[part], plain[part])
    middle = np.setdiff1d(found["labelled.2"], found["train"])
    coarse = np.setdiff1d(found["labelled.3"], found["labelled.2"])
    assert np.bincount(middle % CLASSES).tolist() == [5] * 6
    assert np.bincount(coarse % CLASSES).tolist() == [10] * 6
    # A run without an unlabelled pool has the labelled ones.
    alone = of({**base, "unlabelled": None, "hierarchy": LEVELS, "coarse": [30, 60]}, 4)
    assert list(alone) == ["train", "validation", "test", "labelled.2", "labelled.3"]


# Open sets


@pytest.mark.parametrize("kind", ["all", "rest"])
def test_contamination_is_exact_at_a_constant_size(kind: str) -> None:
    base = {"test": 40, "validation": 20, "labels": 40, "unlabelled": kind}
    pools = {}
    for share, others in ((0, 0), (0.3, 60), (0.5, 100), (0.8, 160), (1, 200)):
        wanted = {
            **base,
            "open_set": {"classes": [0, 2, 3, 5], "pool": 200, "contamination": share},
        }
        if kind == "all" and share == 1:
            continue  # the labelled samples are of known classes
        found = of(wanted, 1)
        classes = found["unlabelled"] % CLASSES
        assert len(classes) == 200 and np.isin(classes, [1, 4]).sum() == others
        # Of each class as many: neither a known nor an unknown one stands out.
        assert np.bincount(classes, minlength=6)[[1, 4]].tolist() == [others // 2] * 2
        for part in ("train", "validation", "test"):
            assert not np.isin(found[part] % CLASSES, [1, 4]).any()
            np.testing.assert_array_equal(found[part], of(base | {
                "open_set": {"classes": [5, 3, 2, 0]}}, 1)[part])  # fmt: skip
        pools[share] = {row for row in found["unlabelled"].tolist() if row % CLASSES in (1, 4)}
    assert pools[0.3] < pools[0.5] < pools[0.8]


def test_without_a_size_the_known_rows_say_how_many_there_are_of_others() -> None:
    base = {"test": 40, "labels": 40, "unlabelled": "rest"}
    opened = {"classes": [0, 1, 2, 3, 4]}
    found = of({**base, "open_set": opened})["unlabelled"]
    assert len(found) == 520 and (found % CLASSES == 5).sum() == 100
    found = of({**base, "open_set": {**opened, "contamination": 0.125}})["unlabelled"]
    assert len(found) == 480 and (found % CLASSES == 5).sum() == 60
    # Halves are rounded up: 0.005 of 420 / 0.995 is 2.11, 0.0059 is 2.49.
    for share, others in ((0.005, 2), (0.0059, 2), (0.006, 3)):
        wanted = {**base, "open_set": {**opened, "contamination": share}}
        assert (of(wanted)["unlabelled"] % CLASSES == 5).sum() == others


def test_an_official_test_set_keeps_the_known_classes_alone() -> None:
    labels = np.concatenate([np.tile(np.arange(6), 50), np.tile(np.arange(6), 10)])
    wanted = {"open_set": {"classes": [1, 4]}, "validation": 10, "per_class": 5}
    found = split(labels, 300, 6, wanted, 0)
    assert (labels[found["test"]] % 3 == 1).all() and len(found["test"]) == 20
    dataset = replace(DIGITS, train=300, test=60, classes=6, class_counts=None)
    assert counts(dataset, wanted) == {part: len(ids) for part, ids in found.items()}


# A pool of a given size


@pytest.mark.parametrize("kind", ["all", "rest"])
def test_a_pool_has_the_size_that_is_asked_for_and_takes_nothing_from_other_parts(
    kind: str,
) -> None:
    base = {"test": 60, "validation": 30, "labels": 60, "unlabelled": kind}
    whole = of(base, 2)
    for size in (90, 240, 450):
        found = of({**base, "unlabelled_pool": size}, 2)
        ids = set(found["unlabelled"].tolist())
        assert len(found["unlabelled"]) == len(ids) == size
        assert ids <= set(whole["unlabelled"].tolist())
        assert (set(found["train"].tolist()) <= ids) == (kind == "all")
        # As many of each class as there can be.
        counted = np.bincount(found["unlabelled"] % CLASSES, minlength=CLASSES)
        assert counted.max() - counted.min() <= 1
        for part in ("train", "validation", "test"):
            np.testing.assert_array_equal(found[part], whole[part])


# Imbalance of the unlabelled samples


def test_a_long_unlabelled_tail_has_its_counts_and_the_order_of_the_labelled_one() -> None:
    tail = {"kind": "long_tail", "ratio": 0.1}
    base = {"test": 60, "validation": 30, "per_class": 20, "imbalance": tail, "unlabelled": "rest"}
    orders = set()
    for seed in range(8):
        found = of({**base, "unlabelled_imbalance": {"kind": "long_tail", "ratio": 0.05}}, seed)
        labelled = np.bincount(found["train"] % CLASSES, minlength=CLASSES)
        pool = np.bincount(found["unlabelled"] % CLASSES, minlength=CLASSES)
        # 100 - 10 - 5 - 20 rows are left of a class for sure.
        assert sorted(pool, reverse=True) == [int(65 * 0.05 ** (k / 5)) for k in range(6)]
        np.testing.assert_array_equal(np.argsort(labelled), np.argsort(pool))
        orders.add(tuple(np.argsort(pool)))
        np.testing.assert_array_equal(found["train"], of(base, seed)["train"])
    assert len(orders) > 4


def test_two_levels_of_unlabelled_samples_share_out_an_open_sets_pool() -> None:
    wanted = {
        "test": 60, "labels": 40, "unlabelled": "rest",
        "open_set": {"classes": [0, 1, 2, 3], "pool": 200, "contamination": 0.4},
        "unlabelled_imbalance": {"kind": "two_level", "ratio": [3, 1]},
    }  # fmt: skip
    found = np.bincount(of(wanted)["unlabelled"] % CLASSES)
    assert sorted(found[:4]) == [15, 15, 45, 45] and found[4:].tolist() == [40, 40]
