"""Measure contenders in turns, so that drift of the machine affects all of them alike.

The first contender is the baseline. It has a turn before and after
every round, so that what drifts slowly cancels out.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

LEAST, MOST = 3, 50  # rounds


def take(
    contenders: Mapping[str, Callable[[], Any]],
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Return how long each turn of each contender took, for rounds of about ``seconds`` in all.

    The first contender has one turn more than there are rounds.
    """
    first, *others = contenders
    taken: dict[str, list[float]] = {name: [] for name in contenders}

    def turn(name: str) -> None:
        began = clock()
        contenders[name]()
        taken[name].append(clock() - began)

    began = clock()
    turn(first)
    rounds = 0
    while rounds < LEAST or (rounds < MOST and (clock() - began) * (1 + 1 / rounds) <= seconds):
        for name in (*others, first):
            turn(name)
        rounds += 1
    return taken


def around(first: list[float]) -> list[float]:
    """Return the first contender's time in each round: the mean of its turns around it."""
    return [(before + after) / 2 for before, after in pairwise(first)]


def ratios(base: list[float], own: list[float], work: float = 1.0) -> list[float]:
    """Return how many times as fast as ``base`` each round was at ``work`` times as much."""
    return [work * before / after for before, after in zip(base, own, strict=True)]


def spread(values: list[float]) -> dict[str, float]:
    """Return the median and the quartiles."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": middle, "low": low, "high": high}
