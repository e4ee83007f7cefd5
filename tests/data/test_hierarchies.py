"""Hierarchies of classes are trees, and those of the datasets are the tables that they are from."""

from __future__ import annotations

from collections import Counter

import pytest
from factories.data import CIFAR100, DIGITS, FASHION_MNIST

from cyclery.data.hierarchies import check_hierarchy


def test_cifar100_has_twenty_superclasses_of_five_and_eight_groups_of_them():
    twenty, eight = CIFAR100.hierarchies["superclasses"]
    assert Counter(twenty) == dict.fromkeys(range(20), 5)
    # HIERMATCH's groups of superclasses, numbered as the dataset numbers these.
    groups = [{3, 5, 6}, {9}, {10}, {8, 11, 12, 14, 16}, {7, 13, 15}, {2, 4, 17}, {0, 1}, {18, 19}]
    assert [{c for c, g in zip(twenty, eight, strict=True) if g == n} for n in range(8)] == groups
    # Fine classes of the alphabetical order by number: beaver, dolphin, otter, seal and whale are
    # aquatic mammals; lawn mower, rocket, streetcar, tank and tractor are vehicles 2.
    assert [fine for fine, group in enumerate(twenty) if group == 0] == [4, 30, 55, 72, 95]
    assert [fine for fine, group in enumerate(twenty) if group == 19] == [41, 69, 81, 85, 89]


def test_ten_classes_have_three_groups():
    (kind,), (shape,) = FASHION_MNIST.hierarchies["kind"], DIGITS.hierarchies["shape"]
    assert [[c for c in range(10) if kind[c] == g] for g in range(3)] == [
        [0, 2, 4, 6], [1, 3], [5, 7, 8, 9],
    ]  # fmt: skip
    assert [[c for c in range(10) if shape[c] == g] for g in range(3)] == [
        [0, 6, 8, 9], [1, 4, 7], [2, 3, 5],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ([], "x: must have a level"),
        ([[0, 1, 1]], r"x\[0\]: must have a number for each of 4 classes \(found 3\)"),
        ([[0, 2, 2, 0]], r"x\[0\]: must number its groups from 0 without a gap \(found \[0, 2\]\)"),
        ([[1, 2, 2, 1]], r"without a gap \(found \[1, 2\]\)"),
        ([[0, 1, 2, 3]], r"x\[0\]: must have fewer groups than the 4 of the finer level"),
        ([[0, 0, 1, 1], [1, 1, 0, 0]], r"x\[1\]: must have fewer groups than the 2"),
        (
            [[0, 0, 1, 2], [0, 1, 1, 1]],
            r"x\[1\]: is no tree; classes 0 and 1 are both in group 0 of the finer level, but here "
            r"in 0 and 1",
        ),
    ],
)
def test_a_hierarchy_that_is_no_tree_is_told(levels, message):
    with pytest.raises(ValueError, match=message):
        check_hierarchy(levels, 4, "x")


def test_a_level_may_merge_whole_groups():
    check_hierarchy([[0, 0, 1, 2], [1, 1, 0, 0], [0, 0, 0, 0]], 4, "x")
