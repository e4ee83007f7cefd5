"""Check that the arms of a comparison have equal budgets, in the measure that it names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cyclery.common.errors import choices
from cyclery.config.comparisons import Comparison
from cyclery.plan.model import ArmPlan
from cyclery.records.budgets import ANCESTORS, MEASURES


def check_equal(
    comparison: Comparison, sides: Mapping[str, ArmPlan], seeds: range, where: str
) -> Iterator[str]:
    """Yield what the arms of a comparison do not have equal, which they should have."""
    measure, which = comparison.equal, comparison.ancestors
    # Which runs of an ensemble are the same run is not the same in every seed.
    for seed in seeds if which == "all" else seeds[:1]:
        spent = {name: arm.spent(measure, which, seed) for name, arm in sides.items()}
        if len(set(spent.values())) > 1 and not comparison.unequal_budget:
            words = MEASURES[measure]
            shown = ", ".join(_shares(sides, spent, comparison, seed))
            yield (
                f"{where}: the arms {words.do} different numbers of {words.noun} ({shown}); make "
                f"them equal, or choose what else is held equal (`equal`: {choices(MEASURES)}; "
                f"`ancestors`: {choices(ANCESTORS)}; this is {measure}, {which}), or give the "
                "reason as `unequal_budget`."
            )
            return


def _shares(
    sides: Mapping[str, ArmPlan], spent: Mapping[str, int], comparison: Comparison, seed: int
) -> Iterator[str]:
    """Yield what each arm takes, and what of it is its ancestors'."""
    measure, which = comparison.equal, comparison.ancestors
    for name, arm in sides.items():
        before = spent[name] - arm.cost[measure]
        text = f"{name} {spent[name]:,}"
        text += f", of which {before:,} by {ANCESTORS[which]}" if before else ""
        search = arm.searched(measure, seed) if which == "all" else 0
        yield text + (f", and {search:,} in range tests and tuning besides" if search else "")
