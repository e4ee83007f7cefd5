"""Types of a comparison's result, as ``--json`` prints it."""

from __future__ import annotations

from typing import TypedDict

from cyclery.records.claims import Interval, Verdict


class Effect(TypedDict):
    """A comparison of a claim, in short."""

    label: str
    effect: float | None
    ci95: Interval | None
    unit: str
    verdict: Verdict


class Verdicts(TypedDict):
    """The verdict of one set on a claim."""

    verdict: Verdict
    statement: str
    reason: str
    n: int
    effects: list[Effect]


class ClaimRow(TypedDict):
    """A claim that both sets judge."""

    paper: str
    claim: str
    moved: bool
    statements_differ: bool
    a: Verdicts
    b: Verdicts


class ArmRow(TypedDict):
    """An arm that both sets have; the effect is that of B minus A."""

    paper: str
    experiment: str
    arm: str
    test: str
    same_configuration: bool
    n: list[int]
    seeds: list[int]
    mean: list[float | None]
    effect: float | None
    units: int
    identical: list[int]
    compared: int
    left_out: list[str]
    ci95: Interval | None
    ci90: Interval | None
    p: float | None
    p_equal: float | None
    outcome: str


class Only(TypedDict):
    """What one set has and the other lacks."""

    claims: list[str]
    arms: list[str]
    seeds: dict[str, list[int]]


class Sides(TypedDict):
    """What each set has alone."""

    a: Only
    b: Only


class Found(TypedDict):
    """The result of comparing two sets."""

    schema: int
    a: str
    b: str
    metric: str
    unit: str
    margin: float
    claims: list[ClaimRow]
    arms: list[ArmRow]
    differences: list[str]
    only: Sides
