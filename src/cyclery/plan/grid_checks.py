"""Check that the two sides of a claim on flatness are measured over one grid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cyclery import schedules
from cyclery.config.contrasts import Flatness
from cyclery.plan.model import ArmPlan

VARIED = ("lr", "weight_decay")


def check_grids(flatness: Flatness, sides: Mapping[str, ArmPlan], where: str) -> Iterator[str]:
    """Yield the points at which two sides have other rates or decays, or that stand twice.

    Of a schedule those are the values that it is declared with, so that a rate and its restarts
    have the same.
    """
    points = {arm: _point(plan) for arm, plan in sides.items()}
    for key, side in (("arms", flatness.arms), ("against", flatness.against)):
        first: dict[str, str] = {}
        for arm in filter(points.__contains__, side):
            if (point := points[arm]) in first:
                yield (
                    f"{where}.flatness.{key}: {first[point]!r} and {arm!r} are one point of the "
                    f"grid ({point}); change one of them."
                )
            first.setdefault(point, arm)
    for arm, other in zip(flatness.arms, flatness.against, strict=True):
        if {arm, other} <= points.keys() and points[arm] != points[other]:
            yield (
                f"{where}.flatness: {arm!r} and {other!r} must be the same point of the grid "
                f"(found {points[arm]}, and {points[other]})."
            )


def _point(arm: ArmPlan) -> str:
    """Return the rates and decays of an arm in words."""
    return ", ".join(f"{name} {_amounts(arm.settings['schedules'].get(name))}" for name in VARIED)


def _amounts(spec: object) -> str:
    return " ".join(f"{value:g}" for _, value in schedules.amounts(spec, "") if value) or "0"
