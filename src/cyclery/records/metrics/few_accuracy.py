"""Mean test accuracy of the rarest third of the classes by training samples.

Where three does not divide their number, a larger third comes first.
"""

from __future__ import annotations

from cyclery.records.metrics._by_class import of_group, third
from cyclery.records.metrics._reading import Record
from cyclery.records.metrics._units import POINTS, chance

UNIT = POINTS
BETTER = "larger"
WORDS = {"few_accuracy": "accuracy of rare classes"}
worst = chance


def read(record: Record) -> float | None:
    """Return it; None without figures by class."""
    return of_group(record, third(2))
