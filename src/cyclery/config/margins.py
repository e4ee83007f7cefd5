"""Check units, directions and margins: compared metrics must share a unit."""

from __future__ import annotations

from collections.abc import Iterator

from cyclery.config.comparisons import Comparison
from cyclery.records.metrics import CORRELATION, SHARE, scale, smaller_is_better


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
    yield from _check_direction(comparison, where)
    yield from _check_margin(comparison, where)


def _check_direction(comparison: Comparison, where: str) -> Iterator[str]:
    """Where smaller values are better a claim says its direction: forgotten, it is reversed."""
    if (
        comparison.kind in ("difference", "ordering")
        and comparison.test != "equivalence"
        and smaller_is_better(comparison.metric)
        and "lower_is_better" not in comparison.model_fields_set
        # Another metric beside it is told of first.
        and (not comparison.against_metric or smaller_is_better(comparison.against_metric))
        and scale(comparison.metric) == scale(comparison.against_metric or comparison.metric)
    ):
        yield (
            f"{where}.lower_is_better: missing; of {comparison.metric!r} smaller values are "
            "better. Say true if the claim is that it is smaller, false if that it is larger."
        )


def _check_margin(comparison: Comparison, where: str) -> Iterator[str]:
    ours = CORRELATION if comparison.rank_correlation else scale(comparison.metric)
    if comparison.flatness and comparison.flatness.by == "share":
        ours = SHARE
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
