"""What a metric is measured in, and how large a margin may be in that.

Two metrics are compared only where they have one scale. A margin that no effect can pass decides
nothing, so it is at most a tenth of what the metric can span, or of what separates a guess from
certainty where there is no end to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from cyclery.config.comparisons import Comparison
from cyclery.records.metrics import is_accuracy


class Scale(NamedTuple):
    """What a metric is measured in.

    ``widest`` is the largest margin of an equivalence or a non-inferiority, None where no number
    of that scale is large or small by itself. ``span`` is the largest difference that there can be.
    """

    words: str
    widest: float | None
    span: float | None = None


POINTS = Scale("percentage points", 10, 100)
SHARE = Scale("a share", 0.1, 1)
# Guessing among ten classes costs 2.3 nats more than knowing.
NATS = Scale("nats", 0.25)
# A tenth of the way from -1 to 1.
CORRELATION = Scale("a correlation", 0.2)
# Half a decade is a factor of 3.2 in a learning rate.
BOUND = Scale("decades of a learning rate", 0.5)
DEVIATION = Scale("decades between two rates", 0.5)
_ENDS = {
    "nll": NATS,
    "kl": NATS,
    "ece": SHARE,
    "mask_rate": SHARE,
    "loss": Scale("the loss of a method", None),
    "seconds": Scale("seconds", None),
    "log10_base": BOUND,
    "log10_max": BOUND,
    "range_deviation": DEVIATION,
}


def scale(metric: str) -> Scale:
    """Return what a metric is measured in; the name must be one that a claim may have."""
    if metric.startswith("log:"):
        # A difference of 0.25 is a factor of 1.28.
        return Scale(f"the logarithm of {scale(metric.removeprefix('log:')).words}", 0.25)
    if is_accuracy(metric):
        return POINTS
    name = metric.partition("@")[0]
    return next(found for end, found in _ENDS.items() if name.endswith(end))


def check_scales(comparison: Comparison, where: str) -> Iterator[str]:
    """Yield what is wrong with the scales of a comparison whose metrics are known ones."""
    for index, one in enumerate(comparison.differences()):
        other = one.against_metric
        if other and scale(other) != scale(one.metric):
            # The second difference of an interaction takes this over from the first.
            if not index:
                yield (
                    f"{where}.against_metric: {other!r} is in {scale(other).words}, {one.metric!r} "
                    f"in {scale(one.metric).words}; compare what has one unit."
                )
        elif index and scale(one.metric) != scale(comparison.metric):
            yield (
                f"{where}.interaction.metric: {one.metric!r} has another unit than "
                f"{comparison.metric!r} ({scale(one.metric).words}, not "
                f"{scale(comparison.metric).words}); take metrics of one unit in both."
            )
    yield from _check_margin(comparison, where)


def _check_margin(comparison: Comparison, where: str) -> Iterator[str]:
    ours = CORRELATION if comparison.rank_correlation else scale(comparison.metric)
    test, margin = comparison.test, comparison.margin
    if test == "superiority":
        if ours.span is not None and margin >= ours.span:
            yield (
                f"{where}.margin: must be below {ours.span:g}, the largest difference in "
                f"{ours.words} (found {margin:g})."
            )
    elif ours.widest is None:
        yield (
            f"{where}.margin: {ours.words} have no size that is small by itself, so nothing bounds "
            f"the margin of the test {test!r}; take 'log:{comparison.metric}', whose margin is a "
            "ratio."
        )
    elif margin > ours.widest:
        yield (
            f"{where}.margin: must be at most {ours.widest:g} for the test {test!r} in "
            f"{ours.words}, or it could hardly fail (found {margin:g})."
        )
