"""Mean test accuracy of the smaller classes.

Those are the classes with fewer training samples than the middle between the smallest and the
largest class: the smaller half of a two-level imbalance.
"""

from __future__ import annotations

import numpy as np

from cyclery.records.metrics._by_class import of_group
from cyclery.records.metrics._reading import Record
from cyclery.records.metrics._units import POINTS, chance

UNIT = POINTS
BETTER = "larger"
WORDS = {"minority_accuracy": "accuracy of the smaller half"}
worst = chance


def read(record: Record) -> float | None:
    """Return it; None where classes have equal sizes, which have no minority."""
    return of_group(record, lambda count: np.flatnonzero(count < (count.min() + count.max()) / 2))
