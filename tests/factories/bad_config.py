"""Changes of a good configuration, each a mistake, and what is said of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from factories.project import PAPER, TIER, arms, comparison, refused, write

Json = dict[str, Any]
Change = Callable[[Json, Json], object]
# The change, the file, the key, and what else the message says.
Case = tuple[Change, str, str, list[str]]
# Characters of a message that fits a terminal.
MOST = 2000
ONE, SMOKE = "papers/one.yaml", "tiers/smoke.yaml"
FAST, MAIN = "experiments.main.arms.fast", "experiments.main"
PAIR = "claims.C-1.comparisons[0]"
TEACHER = f"{FAST}.parents.teacher"


def main_experiment(paper: Json) -> Json:
    found: Json = paper["experiments"]["main"]
    return found


def fast(**settings: Any) -> Change:
    """Change the settings of the arm `fast`."""
    return lambda tier, paper: arms(paper)["fast"].update(settings)


def base(**settings: Any) -> Change:
    """Change the settings of the tier."""
    return lambda tier, paper: tier["base"].update(settings)


def split(**settings: Any) -> Change:
    """Change the split of the tier."""
    return lambda tier, paper: tier["base"]["split"].update(settings)


def pair(**settings: Any) -> Change:
    """Change the comparison of the claim."""
    return lambda tier, paper: comparison(paper).update(settings)


def experiment(**settings: Any) -> Change:
    """Change the experiment."""
    return lambda tier, paper: main_experiment(paper).update(settings)


def ranged(**settings: Any) -> Change:
    """Give the experiment a range test, and an arm that asks for it."""
    test = {"low": 0.01, "high": 1, "epochs": 10} | settings
    return both(experiment(range=test), fast(lr="range"))


def both(*changes: Change) -> Change:
    """Make several changes."""
    return lambda tier, paper: [change(tier, paper) for change in changes]


def tuned(**factors: list[float]) -> Change:
    """Tune the experiment."""
    return both(lambda tier, paper: tier.update(tuning=True), experiment(tune=factors))


def taught(seeds: Any = None, **settings: Any) -> Change:
    """Let the arm `fast` learn from `plain`, by a rule for its seeds."""
    parent = "plain" if seeds is None else {"arm": "plain", "seeds": seeds}
    return fast(**{"method": "kd", "parents": {"teacher": parent}, **settings})


def kd(**settings: Any) -> Change:
    """Let it do so with these settings of the method."""
    return taught(method={"name": "kd", **settings})


def started(**settings: Any) -> Change:
    """Let the arm `fast` start from `plain`."""
    return fast(**{"parents": {"teacher": "plain"}, "init": "teacher", **settings})


def check_case(case: Case, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Show that a mistake gets one message, which begins with its file and key."""
    change, file, key, wanted = case
    tier, paper = copy.deepcopy(TIER), copy.deepcopy(PAPER)
    change(tier, paper)
    write(root, tier, paper)
    said = refused(root, capsys)
    assert said.startswith(f"cyclery: {root}/config/{file}: {key}"), said
    assert all(part in said for part in wanted), said
    # One message for one mistake; a mistake in the tier is not told of every arm.
    assert len(said.splitlines()) == 1 and len(said) <= MOST
    assert sorted(path.name for path in root.iterdir()) == ["config"]
