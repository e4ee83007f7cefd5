"""Check all values that a run's schedules take, once its layers are merged.

Defaults of a schedule, products, factors above 1 and cool-downs reach values that nobody wrote.
"""

from __future__ import annotations

import json
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cyclery import methods, schedules
from cyclery.common.errors import UserError
from cyclery.common.settings import allowed
from cyclery.config.components import QUANTITIES
from cyclery.records.record import ArmSettings

Batches = NDArray[np.int64]
_OUTSIDE = {"above": np.less_equal, "low": np.less, "high": np.greater, "below": np.greater_equal}
# The bounds of a range test that has not run yet; any two would do.
_BOUNDS = (1e-3, 1.0)


# A graph has few schedules and many arms.
@lru_cache(maxsize=1024)
def _batches(spec: str, epochs: int) -> Batches:
    try:
        found = schedules.epoch_batches(json.loads(spec), epochs)
    except UserError as error:
        text = str(error)
        raise UserError(f"batch{': ' if text.startswith('reaches') else '.'}{text}") from None
    if found.min() < 1:
        raise UserError(
            f"batch: must be at least 1 in every epoch (reaches {found.min()} in epoch "
            f"{found.argmin() + 1} of {epochs}); change its schedule, or clamp it."
        )
    return found


def batches_of(settings: ArmSettings) -> Batches:
    """Return the batch size of every epoch [E]; a UserError where one is none."""
    return _batches(json.dumps(settings["schedules"]["batch"]), settings["epochs"])


def check_columns(settings: ArmSettings, samples: int, batches: Batches, pool: int) -> None:
    """Raise a UserError, which begins with the key, where a quantity leaves its limits.

    Or where the method refuses such a run. ``samples`` make an epoch, in ``batches`` [E]; the pool
    of the first stream has ``pool``.
    """
    method = methods.load(settings["method"]["name"])
    for name, spec in settings["schedules"].items():
        if name == "batch":
            continue
        own = name in method.quantities
        given = method.limits(name) if own else QUANTITIES[name]
        limits = {key: given[key] for key in _OUTSIDE if key in given}
        if "above" not in limits:
            limits = {"low": 0.0, **limits}
        _check(
            f"method.{name}" if own else name,
            json.dumps(spec),
            json.dumps(limits),
            samples,
            batches.tobytes(),
        )
    if method.planned is not methods.USUAL["planned"]:
        clock, steps = schedules.clock_for(batches, samples)
        columns = {
            name: schedules.column(spec, clock, 0, _BOUNDS)
            for name, spec in settings["schedules"].items()
            if name != "batch"
        }
        chosen = method.chosen(settings["method"]["settings"])
        method.planned(chosen, methods.Course.of(pool, columns, batches, steps))


@lru_cache(maxsize=1024)
def _check(key: str, spec: str, limits: str, samples: int, batches: bytes) -> None:
    clock, _ = schedules.clock_for(np.frombuffer(batches, dtype=np.int64), samples)
    updates = clock.updates
    if json.loads(spec)["kind"] == "constant":
        clock = clock.part(0, 1)
    with np.errstate(all="ignore"):
        try:
            values = schedules.column(json.loads(spec), clock, 0, _BOUNDS)
        except UserError as error:
            raise UserError(f"{key}.{error}") from None
        # As a step has them: what is above 0, or below 1, by a hair is not.
        single = values.astype(np.float32)
    within = json.loads(limits)
    outside = ~np.isfinite(single)
    for name, limit in within.items():
        outside |= _OUTSIDE[name](single, np.float32(limit))
    if outside.any():
        update = int(outside.argmax())
        found = f"{values[update]:g}"
        if single[update] != values[update] and f"{single[update]:g}" != found:
            found += f", in single precision {single[update]:g},"
        raise UserError(
            f"{key}: must be {allowed(within)} and finite at every update (reaches {found} at "
            f"update {update + 1} of {updates}); change the values, defaults or factors of "
            "its schedule."
        )
