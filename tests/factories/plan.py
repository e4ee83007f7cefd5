"""Plans of a small project that a test changes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cyclery.config.load import load
from cyclery.plan.graph import Plan
from cyclery.plan.project_checks import check
from factories.project import PAPER, TIER, arms, write

Json = dict[str, Any]


def planned(
    root: Path, change: Callable[[Json, Json], object] | None = None, **overrides: Any
) -> Plan:
    """Return the plan of the small project once its tier and its paper are changed."""
    tier, paper = copy.deepcopy(TIER), copy.deepcopy(PAPER)
    if change:
        change(tier, paper)
    write(root, tier, paper)
    return check(load(root, overrides))


def keys(plan: Plan, part: str = "one") -> dict[str, list[str]]:
    """Return the run keys of every arm of a part."""
    return {
        arm.id: [arm.key(seed) for seed in range(plan.project.seeds)]
        for arm in (plan.arm(*name) for name in plan.part_arms(part))
    }


def chain(tier: Json, paper: Json) -> None:
    """Add an assistant of the arm `plain`, and a student of the assistant."""
    paper["experiments"]["main"]["arms"] |= {
        "assistant": {"lr": 0.3, "parents": {"teacher": "plain"}, "init": "teacher"},
        "student": {"lr": 0.4, "parents": {"teacher": "assistant"}, "init": "teacher"},
    }


def ranged(tier: Json, paper: Json) -> None:
    """Add a range test, and two arms that ask for what it finds."""
    paper["experiments"]["main"]["range"] = {"low": 0.01, "high": 1, "epochs": 10, "seeds": 2}
    arms(paper)["found"] = {"lr": "range"}
    arms(paper)["half"] = {"lr": {"kind": "constant", "value": "range.max"}}
