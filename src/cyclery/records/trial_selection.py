"""Choose among an arm's tuning trials, by one rule for trainer and report.

Every arm of an experiment tries the same factors on its own values, on seeds that nothing else
uses. The trial with the highest mean validation accuracy at the end of the run is chosen, and the
arm's own runs, on their own seeds, are trained with it. Test figures are never read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TypeGuard

from cyclery.records.evidence import TrialOutcome
from cyclery.records.record import Record, StudiedTrial

# The first seed of tuning: beyond all that runs, parents and range tests can have.
FIRST_SEED = 1_000_000
METRIC = "val_accuracy"


def seeds(count: int) -> tuple[int, ...]:
    """Return the seeds on which trials are trained."""
    return tuple(range(FIRST_SEED, FIRST_SEED + count))


def outcome(records: Sequence[Record | None]) -> TrialOutcome:
    """Return the outcome of a trial's runs: ``val_accuracy`` (mean; None where a run lacks it).

    A trial that diverged for a seed is no setting to recommend, so it has no mean.
    """
    found = [record["final"].get(METRIC) for record in records
             if record and record["kind"] == "run" and record["status"] == "done"]  # fmt: skip
    values = [value for value in found if _finite(value)]
    return {
        "val_accuracy": fmean(values) if values and len(values) == len(records) else None,
        "values": values,
        "diverged": sum(bool(record and record["status"] == "diverged") for record in records),
    }


def _finite(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def best(factors: Sequence[Mapping[str, float]], outcomes: Sequence[TrialOutcome]) -> int:
    """Return the index of the best trial; of equal ones the first.

    Where no trial has a mean, it is the one with the values as declared.
    """
    means = [found["val_accuracy"] for found in outcomes]
    known = [mean for mean in means if mean is not None]
    if known:
        return means.index(max(known))
    return next(i for i, each in enumerate(factors) if set(each.values()) <= {1})


def best_metric(trials: Sequence[StudiedTrial]) -> int | None:
    """Return the trial of a study with the best metric at its end; of equal ones the first.

    None where all diverged.
    """
    known = [(trial["metric"][-1], -k) for k, trial in enumerate(trials)
             if trial["ended"] != "diverged"]  # fmt: skip
    return -max(known)[1] if known else None
