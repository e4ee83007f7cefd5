"""Helpers that several kinds of schedule share."""

from __future__ import annotations

from cyclery.common.errors import UserError
from cyclery.schedules._clock import Clock, Column
from cyclery.schedules._schedule import Schedule


def check_either(settings: Schedule, first: str, second: str) -> None:
    """Raise a UserError unless exactly one of two keys is given."""
    given = [name for name in (first, second) if getattr(settings, name) is not None]
    if len(given) != 1:
        found = "both" if given else "neither"
        raise UserError(f"{first}: give either `{first}` or `{second}` (found {found}).")


def powers(clock: Clock, gamma: float | None, end: float | None) -> Column:
    """Return gamma^t, where ``end`` may give gamma^T instead."""
    if gamma is not None:
        return gamma**clock.t
    return (end or 0.0) ** (clock.t / clock.updates)


def check_divisor(of: Schedule) -> None:
    """Raise a UserError where a schedule that divides is 0 throughout."""
    if getattr(of, "value", None) == 0:
        raise UserError("of: must be above 0 (found 0).")


def positive(of: Schedule, clock: Clock, seed: int) -> Column:
    """Return the values of a schedule that divides; a UserError where it reaches 0."""
    values = of.values(clock, seed)
    if not (values > 0).all():
        raise UserError(f"of: reaches {values.min():g}; it must stay above 0")
    return values
