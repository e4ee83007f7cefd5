"""Units of metrics, and the largest margin that each allows.

A margin that no effect can pass decides nothing, so it is at most a tenth of what the metric can
span, or of what separates a guess from certainty where there is no end to it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple


class Unit(NamedTuple):
    """What a metric is measured in; two metrics are compared only where they have one unit.

    ``widest`` is the largest margin of an equivalence or a non-inferiority, None where no number
    of that unit is large or small by itself. ``span`` is the largest difference that there can be.
    """

    words: str
    widest: float | None
    span: float | None = None


# Which values are better; None where neither are.
Better = Literal["larger", "smaller"] | None

POINTS = Unit("percentage points", 10, 100)
SHARE = Unit("a share", 0.1, 1)
# Guessing among ten classes costs 2.3 nats more than knowing.
NATS = Unit("nats", 0.25)
# A tenth of the bit that an answer of two can tell.
BITS = Unit("bits", 0.1)
# A tenth of the way from -1 to 1.
CORRELATION = Unit("a correlation", 0.2)
SECONDS = Unit("seconds", None)
LOSS = Unit("the loss of a method", None)
# Half a decade is a factor of 3.2 in a learning rate.
BOUND = Unit("decades of a learning rate", 0.5)
PENALTY = Unit("an l2 penalty", None)
EPSILON = Unit("epsilon", None)
NOISE = Unit("a noise multiplier", None)
COUNT = Unit("a number", None)
DEVIATION = Unit("decades between two rates", 0.5)

# Where figures are taken: of the network that is evaluated, and, where weights are averaged, of the
# trained one.
EVALUATED = ("test", "val", "raw_test", "raw_val")
# Where a run is compared with its teacher.
TAUGHT = ("test", "val", "train")


def chance(classes: int) -> float:
    """Return the accuracy of a guess among so many classes, in percentage points."""
    return 100 / classes


def half(classes: int) -> float:
    """Return what a score that knows nothing does at telling two kinds apart, in points."""
    return 50.0


def nothing(classes: int) -> float:
    """Return none at all."""
    return 0.0
