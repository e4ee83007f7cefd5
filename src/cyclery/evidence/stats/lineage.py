"""Training samples behind a run's weights (its budget), and those of all its ancestors."""

from __future__ import annotations

from cyclery.evidence.contracts import Records
from cyclery.records.metrics import value


def _parents(key: str, records: Records) -> dict[str, list[str]]:
    return records[key]["settings"].get("parents", {})


def budget(key: str, records: Records) -> float | None:
    """Return the labelled samples behind a run's weights; None where a record is not there.

    Its own, and those of the run that they start from, and so on; not those of its teachers.
    """
    if key not in records:
        return None
    images = value(records[key], "images")
    starts = _parents(key, records).get(records[key]["settings"]["init"] or "", [])
    if images is None or not starts:
        return images
    before = [budget(start, records) for start in starts]
    known = [count for count in before if count is not None]
    return images + sum(known) if len(known) == len(before) else None


def ancestors_images(key: str, records: Records) -> float | None:
    """Return the labelled samples that all ancestors of a run were trained on, each run once.

    Of a run without any 0; None where the record of one is not there.
    """
    seen: set[str] = set()
    left = [key]
    while left:
        if (each := left.pop()) not in records:
            return None
        fresh = {p for keys in _parents(each, records).values() for p in keys} - seen
        seen |= fresh
        left += sorted(fresh)
    counts = [value(records[each], "images") for each in seen]
    return None if None in counts else float(sum(count or 0 for count in counts))
