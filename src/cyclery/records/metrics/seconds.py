"""Time that training a run took."""

from __future__ import annotations

from cyclery.records.metrics._reading import Record, number
from cyclery.records.metrics._units import SECONDS

UNIT = SECONDS
BETTER = "smaller"


def read(record: Record) -> float | None:
    """Return the record's own number."""
    return number(record.get("seconds"))
