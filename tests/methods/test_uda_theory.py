"""Theorem 1 of UDA (section 3 and appendix C), exactly, on graphs small enough for all draws.

Augmentations join samples. A sample is answered where a labelled one can be reached from it. With m
labels drawn independently it is not, with probability sum_i P_i (1 - P_i)^m over the joined parts,
of probability P_i.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components

SAMPLES = 6


def graph(density: float, seed: int) -> np.ndarray:
    """Return which samples an augmentation joins, symmetric, bool [SAMPLES, SAMPLES]."""
    joined = np.random.default_rng(seed).random((SAMPLES, SAMPLES)) < density
    return joined | joined.T | np.eye(SAMPLES, dtype=bool)


def left_out(joined: np.ndarray, weights: list[Fraction], labels: int) -> Fraction:
    """Return the probability that a sample is not reached, over all draws of the labels.

    What is labelled spreads along the edges, one step at a time.
    """
    total = Fraction(0)
    for drawn in product(range(SAMPLES), repeat=labels):
        reached = np.isin(np.arange(SAMPLES), drawn)
        for _ in range(SAMPLES):
            reached = (joined & reached).any(1)
        chance = Fraction(1)
        for sample in drawn:
            chance *= weights[sample]
        total += chance * sum(
            (w for w, found in zip(weights, reached, strict=True) if not found), Fraction(0)
        )
    return total


def formula(joined: np.ndarray, weights: list[Fraction], labels: int) -> Fraction:
    count, part = connected_components(joined)
    sums = [
        sum((w for w, own in zip(weights, part, strict=True) if own == i), Fraction(0))
        for i in range(count)
    ]
    return sum((p * (1 - p) ** labels for p in sums), Fraction(0))


def weightings() -> Iterator[list[Fraction]]:
    yield [Fraction(1, SAMPLES)] * SAMPLES
    yield [Fraction(i + 1, SAMPLES * (SAMPLES + 1) // 2) for i in range(SAMPLES)]


@pytest.mark.parametrize("labels", [1, 2, 4])
@pytest.mark.parametrize("density", [0.0, 0.08, 0.2, 1.0])
def test_the_share_that_no_label_reaches_is_the_theorems(density: float, labels: int) -> None:
    joined = graph(density, seed=labels)
    for weights in weightings():
        assert left_out(joined, weights, labels) == formula(joined, weights, labels)


def test_more_edges_and_more_labels_leave_out_less() -> None:
    even = next(weightings())
    parts = np.kron(np.eye(3, dtype=bool), np.ones((2, 2), dtype=bool))
    halves = np.kron(np.eye(2, dtype=bool), np.ones((3, 3), dtype=bool))
    found = [left_out(each, even, 2) for each in (np.eye(SAMPLES, dtype=bool), parts, halves)]
    assert found == [Fraction(25, 36), Fraction(4, 9), Fraction(1, 4)]
    assert left_out(parts, even, 3) == Fraction(8, 27) < found[1]
