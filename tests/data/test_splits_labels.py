"""Labels that training uses: noise, known classes, levels of a hierarchy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare
from sklearn.metrics import confusion_matrix

from cyclery.data.splits import class_count, levels, resolution, split, training_labels

CLEAN = np.tile(np.arange(10), 2000)
Wanted = dict[str, Any]


def drawn(wanted: Wanted, seed: int = 0, labels: np.ndarray = CLEAN) -> tuple[Any, np.ndarray]:
    """The parts of a split of ten classes, and the labels of all rows."""
    ids = split(labels, len(labels), 10, wanted, seed)
    return ids, training_labels(labels, len(labels), 10, wanted, seed, ids)


def noisy(rate: float, **more: Any) -> Wanted:
    noise = {"kind": "symmetric", "rate": rate, **more}
    return {"test": 1000, "validation": 1000, "noise": noise}


# Noise


@pytest.mark.parametrize("rate", [0.2, 0.4, 0.9])
def test_symmetric_noise_has_the_confusion_of_its_definition(rate: float) -> None:
    ids, found = drawn(noisy(rate))
    rows = ids["train"]
    expected = np.full((10, 10), rate / 9)
    np.fill_diagonal(expected, 1 - rate)
    confusion = confusion_matrix(CLEAN[rows], found[rows], normalize="true")
    # 1,800 rows of a class: five standard errors.
    bound = 5 * np.sqrt(expected * (1 - expected) / 1800)
    assert (np.abs(confusion - expected) < bound).all()
    counted = confusion_matrix(CLEAN[rows], found[rows])
    off = counted[~np.eye(10, dtype=bool)]
    assert chisquare(off).pvalue > 1e-3


def test_asymmetric_noise_follows_its_map_alone() -> None:
    noise = {"kind": "asymmetric", "rate": 0.4, "map": {9: 1, "3": 5, 5: 3}}
    ids, found = drawn({"test": 1000, "noise": noise})
    rows = ids["train"]
    confusion = confusion_matrix(CLEAN[rows], found[rows], normalize="true")
    for of, to in ((9, 1), (3, 5), (5, 3)):
        assert abs(confusion[of, to] - 0.4) < 5 * np.sqrt(0.24 / 1900)
        assert confusion[of, of] == pytest.approx(1 - confusion[of, to])
        confusion[of] = np.eye(10)[of]
    np.testing.assert_array_equal(confusion, np.eye(10))


def test_noise_is_drawn_by_seed_and_row_alone() -> None:
    _, most = drawn(noisy(0.8), 3)
    wrong = {rate: drawn(noisy(rate), 3)[1] != CLEAN for rate in (0.1, 0.4)}
    assert not (wrong[0.1] & ~wrong[0.4]).any() and not (wrong[0.4] & ~(most != CLEAN)).any()
    np.testing.assert_array_equal(drawn(noisy(0.4), 3)[1][wrong[0.4]], most[wrong[0.4]])
    # Fewer labelled samples keep the wrong labels that they have.
    few, found = drawn({**noisy(0.8), "labels": 500, "unlabelled": "rest"}, 3)
    np.testing.assert_array_equal(found[few["train"]], most[few["train"]])
    assert (most != drawn(noisy(0.8), 4)[1]).mean() > 0.5
    # Runs that share a split share its noise.
    np.testing.assert_array_equal(drawn({**noisy(0.8), "share": 2}, 7)[1], most)
    assert (drawn(noisy(1.0))[1] != CLEAN)[drawn(noisy(1.0))[0]["train"]].all()


def test_only_training_samples_are_noisy_and_validation_where_asked() -> None:
    wanted = {**noisy(0.5), "labels": 4000, "unlabelled": "rest"}
    ids, found = drawn(wanted)
    for part in ("validation", "test", "unlabelled"):
        np.testing.assert_array_equal(found[ids[part]], CLEAN[ids[part]])
    again, both = drawn({**wanted, **noisy(0.5, validation=True)})
    np.testing.assert_array_equal(both[ids["train"]], found[ids["train"]])
    np.testing.assert_array_equal(again["validation"], ids["validation"])
    assert 400 < (both != CLEAN)[ids["validation"]].sum() < 600
    np.testing.assert_array_equal(both[ids["test"]], CLEAN[ids["test"]])


def test_samples_with_a_coarse_label_are_left_alone() -> None:
    halves = [c // 5 for c in range(10)]
    wanted = {**noisy(1.0), "labels": 500, "hierarchy": [halves], "coarse": [500]}
    ids, found = drawn(wanted)
    coarse = np.setdiff1d(ids["labelled.2"], ids["train"])
    assert len(coarse) == 500
    np.testing.assert_array_equal(found[coarse], CLEAN[coarse])


def test_noise_and_parts_leave_each_other_alone() -> None:
    clean, _ = drawn({"test": 1000, "validation": 1000})
    for part, rows in drawn(noisy(0.4))[0].items():
        np.testing.assert_array_equal(rows, clean[part])


# Known classes


def test_known_classes_are_numbered_in_their_order() -> None:
    wanted = {"test": 100, "open_set": {"classes": [7, 2, 4]}, "unlabelled": "all"}
    ids, found = drawn(wanted)
    assert class_count(wanted, 10) == 3 and class_count({"test": 100}, 10) == 10
    numbers = np.array([-1, -1, 0, -1, 1, -1, -1, 2, -1, -1])
    np.testing.assert_array_equal(found, numbers[CLEAN])
    assert set(found[ids["train"]]) == {0, 1, 2} and -1 in found[ids["unlabelled"]]


def test_noise_of_an_open_set_stays_among_the_known_classes() -> None:
    base = {"test": 100, "open_set": {"classes": [7, 2, 4]}}
    ids, found = drawn({**base, "noise": {"kind": "symmetric", "rate": 0.5}})
    clean = drawn(base)[1]
    confusion = confusion_matrix(clean[ids["train"]], found[ids["train"]], normalize="true")
    assert np.abs(confusion - (0.25 + 0.25 * np.eye(3))).max() < 0.06
    ids, found = drawn({**base, "noise": {"kind": "asymmetric", "rate": 1, "map": {7: 2}}})
    rows = ids["train"]
    np.testing.assert_array_equal(found[rows], np.array([0, 1, 0])[clean[rows]])


# Levels


TREE = [[0, 0, 1, 1, 1, 2, 2, 3, 3, 3], [0, 0, 1, 1, 1, 1, 1, 0, 0, 0]]


def test_levels_are_those_that_are_given() -> None:
    assert levels({"test": 1}) == []
    assert levels({"hierarchy": TREE}) == TREE


def test_a_random_order_is_a_tree_of_the_same_sizes_drawn_per_seed() -> None:
    found = [levels({"hierarchy": TREE, "hierarchy_order": "random"}, s) for s in range(30)]
    for fine, coarse in found:
        assert np.bincount(fine).tolist() == np.bincount(TREE[0]).tolist()
        assert np.bincount(coarse).tolist() == np.bincount(TREE[1]).tolist()
        assert len(set(zip(fine, coarse, strict=True))) == 4
    assert len({str(each) for each in found}) == 30
    # Every class is as often in a group as the group is large.
    share = np.mean([np.array(fine) == 3 for fine, _ in found], axis=0)
    assert share.min() > 0 and share.max() < 0.75
    twice = {"hierarchy": TREE, "hierarchy_order": "random", "share": 3}
    assert [levels(twice, s) for s in range(6)] == [found[0]] * 3 + [found[1]] * 3


def test_levels_above_known_classes_are_numbered_anew() -> None:
    wanted = {"hierarchy": TREE, "open_set": {"classes": [9, 2, 3, 8, 5]}}
    # Classes 2, 3, 5, 8, 9 of groups 1, 1, 2, 3, 3, and of 1, 1, 1, 0, 0 above.
    assert levels(wanted) == [[0, 0, 1, 2, 2], [1, 1, 1, 0, 0]]


# Resolution


def test_the_network_sees_the_input_side() -> None:
    assert resolution({"test": 1}, (3, 32, 30)) == (3, 32, 30)
    wanted = {"resolution": {"stored": 14, "input": 56}}
    assert resolution(wanted, (1, 28, 28)) == (1, 56, 56)
