"""Decimals of a figure by its spread."""

from __future__ import annotations

import pytest

from cyclery.report.rounding import decimals


@pytest.mark.parametrize(
    ("spread", "percent", "other"),
    [
        (None, 2, 2), (0.0, 2, 2), (-0.41, 2, 2), (0.41, 2, 2), (0.0996, 2, 2), (0.0994, 3, 3),
        (1.37, 1, 1), (9.96, 1, 0), (13.7, 1, 0), (250.0, 1, 0), (0.0041, 3, 4), (1e-9, 3, 4),
    ],
)  # fmt: skip
def test_two_digits_of_the_spread_are_shown(spread: float | None, percent: int, other: int) -> None:
    assert decimals(spread, percent=True) == percent
    assert decimals(spread, percent=False) == other
