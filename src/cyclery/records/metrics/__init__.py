"""Metrics of runs, one file each, found by its name.

A metric's file declares

- ``UNIT``: what it is measured in, and so how large a margin may be;
- ``BETTER``: ``"larger"``, ``"smaller"``, or None where neither is;
- where its figures are, at least one of

  - ``PARTS``: evaluation stores ``<part>_<name>`` among a record's final figures, as test_accuracy;
  - ``CURVES``: a record has the curve ``<part>_<name>``, which claims read as
    ``<part>_<name>@<fraction>``; ``curve(record)`` makes it from others where it is not stored;
  - ``read(record)``: a function that returns the figure, or None where a record has none;
  - ``OF_RANGE_TEST = True``: it is a figure of the range test, as an arm of a claim;
  - ``BY_ENDING = True``: methods and probes declare figures whose names end in it, or in it and
    what it is taken at, as ``test_near_recall_at_4``;

- and where that is so: ``WORDS`` (names in the report, where they are not just the parts of the
  name), ``SUMMARIES`` (ends of names that a reporting rule adds), ``NEEDS_TEACHER = True``, and
  ``worst(classes)``, what a run that diverged counts as, in the unit of comparisons; without it the
  pair of such a run is left out.

The docstring says what it is. A name may begin with ``log:`` for the natural logarithm, so that
differences are ratios (of training times, say). Shares of right or equal answers are fractions in
records and percentage points in comparisons.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from math import log
from types import ModuleType
from typing import Any

from cyclery.common.components import Components
from cyclery.common.errors import UserError
from cyclery.records.metrics._by_class import THIRDS
from cyclery.records.metrics._reading import Curve, Record, number, on_curve, stored_curve
from cyclery.records.metrics._rules import BEST, RULES, summary
from cyclery.records.metrics._units import CORRELATION, POINTS, SHARE, Better, Unit

__all__ = [
    "BEST", "CORRELATION", "METRICS", "OWN", "RULES", "SHARE", "THIRDS", "Metric", "Record", "Unit",
    "curve", "declared", "find", "is_accuracy", "names", "number", "scale", "selection", "shown",
    "smaller_is_better", "unit", "value", "words", "worst",
]  # fmt: skip

METRICS = Components(
    "cyclery.records.metrics",
    "metric",
    (("UNIT", "what it is measured in"), ("BETTER", '"larger", "smaller" or None')),
)
# Numbers that a record has besides its figures.
OWN = ("seconds", "images", "views", "forwards", "updates", "images_per_second")


@dataclass(frozen=True)
class Metric:
    """What the file of a metric declares."""

    name: str
    doc: str
    unit: Unit
    better: Better
    parts: tuple[str, ...] = ()
    curves: tuple[str, ...] = ()
    summaries: tuple[str, ...] = ()
    of_range_test: bool = False
    by_ending: bool = False
    needs_teacher: bool = False
    words: Mapping[str, str] | None = None
    read: Callable[[Record], float | None] | None = None
    curve: Callable[[Record], Curve] | None = None
    worst: Callable[[int], float] | None = None

    @property
    def finals(self) -> tuple[str, ...]:
        """Names that a claim may have of it as a figure of a run's end."""
        plain = (self.name,) if self.read else ()
        stored = tuple(f"{part}_{self.name}" for part in self.parts)
        on_way = tuple(
            f"{part}_{self.name}{rule}"
            for part in self.curves for rule in self.summaries if rule != BEST
        )  # fmt: skip
        return (*plain, *stored, *on_way)

    @property
    def curve_names(self) -> tuple[str, ...]:
        """Names that a claim may have of it before `@` and a fraction of the run."""
        return tuple(f"{part}_{self.name}" for part in self.curves)

    @property
    def range_names(self) -> tuple[str, ...]:
        """Names that a claim about a range test may have of it."""
        return (self.name,) if self.of_range_test else ()

    @property
    def names(self) -> tuple[str, ...]:
        """All its names."""
        return tuple(dict.fromkeys((*self.finals, *self.curve_names, *self.range_names)))


@cache
def declared() -> Mapping[str, Metric]:
    """Return all metrics by the names of their files; a UserError names a file that is wrong."""
    found = {name: _metric(name, METRICS.load(name)) for name in METRICS.names()}
    seen: dict[str, str] = {}
    for metric in found.values():
        for each in metric.names:
            if seen.setdefault(each, metric.name) != metric.name:
                raise UserError(
                    f"{METRICS.path(metric.name)}: {each!r} is a name of the metric "
                    f"{seen[each]!r}, too; rename the file."
                )
    return found


def _metric(name: str, module: ModuleType) -> Metric:
    """Return what a file declares; a UserError names the file and what is wrong with it."""
    given: dict[str, Any] = {
        key: getattr(module, key.upper(), ()) for key in ("parts", "curves", "summaries")
    }
    calls: dict[str, Any] = {key: getattr(module, key, None) for key in ("read", "curve", "worst")}
    doc, unit, better = module.__doc__, module.UNIT, module.BETTER
    of_range = bool(getattr(module, "OF_RANGE_TEST", False))
    by_ending = bool(getattr(module, "BY_ENDING", False))
    wrong = None
    if not (doc or "").strip():
        wrong = "has no docstring, which says what the metric is"
    elif not isinstance(unit, Unit):
        wrong = f"UNIT must be one of records/metrics/_units.py (found {unit!r:.80})"
    elif better not in ("larger", "smaller", None):
        wrong = f'BETTER must be "larger", "smaller" or None (found {better!r:.80})'
    elif not (given["parts"] or given["curves"] or calls["read"] or of_range or by_ending):
        wrong = (
            "declares none of PARTS, CURVES, read, OF_RANGE_TEST and BY_ENDING, so it has no figure"
        )
    for key, texts in given.items():
        if not (isinstance(texts, tuple) and all(isinstance(text, str) for text in texts)):
            wrong = f"{key.upper()} must be a tuple of texts (found {texts!r:.80})"
    for key, call in calls.items():
        if call is not None and not callable(call):
            wrong = f"{key} must be a function (found {call!r:.80})"
    if wrong:
        raise UserError(f"{METRICS.path(name)}: {wrong}.")
    return Metric(
        name=name, doc=" ".join(str(doc).split("\n\n")[0].split()), unit=unit, better=better,
        of_range_test=of_range, by_ending=by_ending, words=getattr(module, "WORDS", {}),
        needs_teacher=getattr(module, "NEEDS_TEACHER", False), **given, **calls,
    )  # fmt: skip


@cache
def names(of: str) -> Mapping[str, Metric]:
    """Return metrics by name: ``finals``, ``curve_names``, ``range_names``, or all ``names``."""
    return {name: metric for metric in declared().values() for name in getattr(metric, of)}


@lru_cache(maxsize=4096)
def find(metric: str) -> Metric | None:
    """Return the metric of a name that a claim or a table may have, None where it is of none.

    Of a name that no file declares, as of a quantity that a method logs, the longest file's name
    counts that it ends in: ``train_teacher_accuracy`` is an accuracy, and ``test_recall_at_4`` a
    recall.
    """
    base = selection(metric.removeprefix("log:").partition("@")[0])[0]
    if base in names("names"):
        return names("names")[base]
    base = re.sub(r"_at_\d+$", "", base)
    ends = [name for name in declared() if base == name or base.endswith(f"_{name}")]
    return declared()[max(ends, key=len)] if ends else None


def selection(metric: str) -> tuple[str, str]:
    """Return the curve that a metric summarises and the end of its name that says how, or ''."""
    for end in RULES:
        base = metric.removesuffix(end)
        for found in declared().values() if base != metric else ():
            if end in found.summaries and base.endswith(found.name):
                return base, end
    return metric, ""


def scale(metric: str) -> Unit:
    """Return what a metric is measured in; the name must be one that a claim may have."""
    found = find(metric)
    assert found is not None, metric
    # A difference of 0.25 is a factor of 1.28.
    logarithm = Unit(f"the logarithm of {found.unit.words}", 0.25)
    return logarithm if metric.startswith("log:") else found.unit


def is_accuracy(metric: str) -> bool:
    """Tell whether the metric is a share of right answers, or of equal ones: percentage points."""
    found = None if metric.startswith("log:") else find(metric)
    return found is not None and found.unit == POINTS


def unit(metric: str) -> str:
    """Return ``pp`` or an empty string."""
    return "pp" if is_accuracy(metric) else ""


def smaller_is_better(metric: str) -> bool:
    """Tell whether a comparator chosen by this metric is the one with the smallest value."""
    found = find(metric)
    return found is not None and found.better == "smaller"


def worst(metric: str, classes: int) -> float | None:
    """Return what a run that diverged is worth, in the unit of comparisons, of so many classes.

    None where there is no such value.
    """
    found = None if metric.startswith("log:") else find(metric)
    return found.worst(classes) if found is not None and found.worst is not None else None


def words(metric: str) -> str | None:
    """Return what a metric, without `@`, is called in the report where its file says so."""
    found = find(metric)
    return (found.words or {}).get(metric) if found is not None else None


def value(record: Record, metric: str) -> float | None:
    """Return the metric as the record has it; None where it is missing or not finite."""
    if metric.startswith("log:"):
        inner = value(record, metric.removeprefix("log:"))
        return log(inner) if inner is not None and inner > 0 else None
    if "@" in metric:
        name, _, fraction = metric.partition("@")
        return on_curve(record, curve(record, name), float(fraction))
    name, rule = selection(metric)
    if rule:
        return summary(curve(record, name)[1], rule)
    final = record.get("final") or {}
    if metric in final:
        return number(final[metric])
    if metric in OWN:
        return number(record.get(metric))
    found = declared().get(metric)
    return number(found.read(record)) if found is not None and found.read is not None else None


def shown(record: Record, metric: str) -> float | None:
    """Return the metric in the unit of comparisons: accuracies in percentage points."""
    found = value(record, metric)
    return found * 100 if found is not None and is_accuracy(metric) else found


def curve(record: Record, name: str) -> tuple[list[int], list[Any]]:
    """Return the epochs and values of one curve; empty lists where there is none."""
    found = names("curve_names").get(name)
    if found is not None and found.curve is not None:
        return found.curve(record)
    return stored_curve(record, name)
