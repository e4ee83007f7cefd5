"""Evaluate schedules: one float64 value for every update of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cyclery.common.errors import UserError
from cyclery.schedules._clock import Clock, Column
from cyclery.schedules._read import MOST_SAMPLES, check_batch, read, words
from cyclery.schedules._schedule import RANGE_WORDS


def epoch_batches(spec: Any, epochs: int, seed: int = 0) -> NDArray[np.int64]:
    """Return the batch size of each epoch, rounded to whole samples."""
    check_batch(spec, "batch")
    clock = Clock(np.arange(epochs), epochs)
    with np.errstate(all="ignore"):
        found = np.rint(column(spec, clock, seed))
    # Whole numbers have an end, which a schedule may pass.
    outside = ~(np.abs(found) <= MOST_SAMPLES)
    if outside.any():
        epoch = int(outside.argmax())
        raise UserError(
            f"reaches {found[epoch]:g} in epoch {epoch + 1} of {epochs}; a batch has at most "
            f"{MOST_SAMPLES:,} samples"
        )
    return found.astype(np.int64)


def column(
    spec: Any, clock: Clock, seed: int = 0, bounds: tuple[float, float] | None = None
) -> Column:
    """Return the value of a schedule at every update.

    Args:
        spec: a number or ``{"kind": ...}``; a UserError says what is wrong with it.
        clock: the time of every update.
        seed: what the order of a shuffled cycle is drawn with.
        bounds: base and max of the range test, for the words that stand for them.
    """
    if bounds is None and words(spec):
        raise UserError(f"{spec!r:.80}: range.base and range.max need a range test")
    return read(_resolved(spec, bounds)).values(clock, seed)


def _resolved(spec: Any, bounds: tuple[float, float] | None) -> Any:
    """Return ``spec`` with the words of the range test replaced by its bounds."""
    if isinstance(spec, Mapping):
        return {key: _resolved(value, bounds) for key, value in spec.items()}
    if isinstance(spec, list | tuple):
        return [_resolved(value, bounds) for value in spec]
    if bounds is not None and spec in RANGE_WORDS:
        return float(bounds[spec == "range.max"])
    return spec
