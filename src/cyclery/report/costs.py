"""What arms took in images, passes and ancestors, for tables: each figure where it tells something.

A count of forward passes that is the count of images, and ancestors' images of all views that are
their samples, would be the same column twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cyclery.records.evidence import Arm
from cyclery.report.model import amount


class Cost(NamedTuple):
    """A column of a table of arms, and what stands under the table about it."""

    head: str
    cells: list[str | None]
    note: str = ""

    @property
    def shown(self) -> bool:
        """Whether any arm has it."""
        return any(self.cells)


def passes(arm: Arm) -> float | None:
    """Return the images that passed networks forwards; None where they are those of all views."""
    return None if arm["forwards"] == arm["views"] else arm["forwards"]


def further(arm: Arm) -> tuple[float | None, float | None]:
    """Return ancestors' views and forward passes; None for what is no more than one figure before.

    That is their samples for views, and their views for passes.
    """
    images, views = arm["ancestors_images"], arm["ancestors_views"]
    passed = arm["ancestors_forwards"]
    return (None if views == images else views), (None if passed == views else passed)


def _cells(counts: Sequence[float | None]) -> list[str | None]:
    return [amount(count) if count else None for count in counts]


def columns(arms: Sequence[Arm]) -> list[Cost]:
    """Return what tables of these arms show besides images of all views; none that is empty."""
    return [cost for cost in _columns(arms) if cost.shown]


def _columns(arms: Sequence[Arm]) -> Iterator[Cost]:
    passed = [arm["forwards"] for arm in arms if arm["forwards"] is not None]
    if any(passes(arm) for arm in arms) and len(set(passed)) > 1:
        yield Cost(
            "Forward", _cells([arm["forwards"] for arm in arms]),
            "Forward: images that pass a network forwards, the arm's own or one that it learns "
            "from, in training.",
        )  # fmt: skip
    yield Cost(
        "Ancestors", _cells([arm["ancestors_images"] for arm in arms]),
        "Ancestors: samples that the runs which an arm descends from were trained on, each run "
        "once.",
    )  # fmt: skip
    more = [further(arm) for arm in arms]
    if any(views for views, _ in more):
        yield Cost(
            "Anc. views", _cells([arm["ancestors_views"] for arm in arms]),
            "Anc. views: the images of all views of these runs.",
        )  # fmt: skip
    if any(passed for _, passed in more):
        yield Cost(
            "Anc. forward", _cells([arm["ancestors_forwards"] for arm in arms]),
            "Anc. forward: the forward passes of these runs.",
        )  # fmt: skip


def everywhere(arms: Sequence[Arm]) -> str:
    """Say how many forward passes every arm makes, where that is one number and not its images."""
    counts = {arm["forwards"] for arm in arms if arm["forwards"] is not None}
    if len(counts) == 1 and any(passes(arm) for arm in arms):
        return f"Every arm made {amount(counts.pop())} forward passes a run."
    return ""


def ancestors(arm: Arm) -> str:
    """Say in a few words what an arm's ancestors took; empty where it has none."""
    if not arm["ancestors_images"]:
        return ""
    views, passed = further(arm)
    said = f"ancestors {amount(arm['ancestors_images'])} images"
    said += f", {amount(views)} views" if views else ""
    return said + (f", {amount(passed)} forward passes" if passed else "")


FIGURES = ("views", "forwards", "ancestors_images", "ancestors_views", "ancestors_forwards")
"""Columns of a download, in this order."""


def figures(arm: Arm) -> list[float | None]:
    """Return the figures of a download."""
    return [
        arm["views"], arm["forwards"], arm["ancestors_images"], arm["ancestors_views"],
        arm["ancestors_forwards"],
    ]  # fmt: skip
