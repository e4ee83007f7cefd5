"""What is behind a run's weights (its budget), and what all its ancestors took."""

from __future__ import annotations

from collections.abc import Iterable

from cyclery.evidence.contracts import Records
from cyclery.records import budgets
from cyclery.records.budgets import Ancestors, Measure


def _parents(key: str, records: Records, which: Ancestors) -> Iterable[str]:
    """Return the runs that a run descends from directly, as far as they count."""
    settings = records[key]["settings"]
    parents: dict[str, list[str]] = settings.get("parents", {})
    if which == "started":
        return parents.get(settings["init"] or "", [])
    return [each for keys in parents.values() for each in keys] if which == "all" else []


def budget(
    key: str, records: Records, measure: Measure = "images", ancestors: Ancestors = "started"
) -> float | None:
    """Return what a run took of a measure, with its ancestors; None where a record is not there.

    As ``cyclery.plan.model.ArmPlan.spent``, from the records.
    """
    own = budgets.spent(records[key], measure) if key in records else None
    before = ancestors_spent(key, records, measure, ancestors)
    return None if own is None or before is None else own + before


def ancestors_spent(
    key: str, records: Records, measure: Measure, which: Ancestors = "all"
) -> float | None:
    """Return what the ancestors of a run took of a measure, each run once.

    Of a run without any 0; None where the record of one is not there.
    """
    seen: set[str] = set()
    left = [key]
    while left:
        if (each := left.pop()) not in records:
            return None
        fresh = set(_parents(each, records, which)) - seen
        seen |= fresh
        left += sorted(fresh)
    counts = [budgets.spent(records[each], measure) for each in seen]
    return None if None in counts else float(sum(count or 0 for count in counts))
