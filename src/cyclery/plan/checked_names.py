"""Check names that papers use: what is known, and which metrics arms have."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from cyclery.common.errors import choices, nearest
from cyclery.records import metrics
from cyclery.records.metrics import BEST, selection


def unknown(where: str, name: str, known: Collection[str], kind: str, within: str = "") -> str:
    """Return the message about a name that is not among those known."""
    text = f"{where}: unknown {kind} {name!r}" + (f" in {within!r}" if within else "")
    return f"{text}.{nearest(name, known)} There are: {choices(known)}."


def unusable_metric(
    metric: str, of_range: bool, where: str, prefix: str = "", own: Collection[str] = ()
) -> Iterator[str]:
    """Yield what is wrong with a metric of a trained arm, or of the range test.

    ``own`` are figures that some arms have besides those of every run.
    """
    base, at, fraction = metric.removeprefix("log:").partition("@")
    name, rule = selection(base)
    if rule == BEST:
        yield (
            f"{where}: {metric!r} would choose the checkpoint on the test set; use {name} or "
            f"{name}{next(iter(metrics.RULES))}."
        )
        return
    own = () if of_range else [each for each in own if each.startswith(prefix)]
    if of_range:
        known: Collection[str] = metrics.names("range_names")
    else:
        every = metrics.names("curve_names" if at else "finals")
        known = [*(each for each in every if each.startswith(prefix)), *own]
    if base not in known and name not in own:
        kind = "curve" if at else "metric"
        hint = "" if at or of_range else " Or a curve, as in test_accuracy@0.5."
        yield unknown(where, base, known, kind) + hint
    elif at and not _is_fraction(fraction):
        yield f"{where}: {metric!r} needs a fraction of the run from 0 to 1 after @."


def _is_fraction(text: str) -> bool:
    # Not all that Python takes for a number, such as 0_1.
    return bool(re.fullmatch(r"[0-9]*\.?[0-9]+|[0-9]+\.", text)) and float(text) <= 1
