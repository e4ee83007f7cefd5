"""Schedules computed: each kind as a formula on the clock, in float64.

Formulas are those of General Cyclical Training (arXiv 2202.08835 and its code) for
`cycle`, of Cyclical Learning Rates (arXiv 1506.01186, sections 3.1 and 4) for `triangular`, of Mean
Teacher (arXiv 1703.01780 and its code) for `ramp`, `ramp_down` and `running_mean`, of FixMatch
(arXiv 2001.07685, section 2.4) for `cosine_arc`, of SoTeacher (arXiv 2206.06661, its code) for
`epoch_ramp` and `mean_rate`, and of `torch.optim.lr_scheduler` where a kind says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cyclery.common.errors import UserError
from cyclery.schedules.check import MOST_SAMPLES, check_batch, normalise, words
from cyclery.schedules.clock import Clock, Column


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
    return _evaluate(_resolved(normalise(spec), bounds), clock, seed)


def eta(e: ArrayLike, epochs: int, factor: float) -> Column:
    """Return the phase weight of epoch ``e`` of ``epochs``: 1 is easy, 0 is hard; not clamped."""
    e = np.asarray(e, dtype=np.float64)
    if epochs == 1:
        return np.ones_like(e)
    x = factor * e / (epochs - 1)
    rise = (x - 1) / (factor - 1) if factor != 1 else np.zeros_like(e)
    return np.where(factor * e < epochs, 1 - x, rise)


def _resolved(spec: Any, bounds: tuple[float, float] | None) -> Any:
    """Return ``spec`` with the words of the range test replaced by its bounds."""
    if isinstance(spec, Mapping):
        return {key: _resolved(value, bounds) for key, value in spec.items()}
    if isinstance(spec, list):
        return [_resolved(value, bounds) for value in spec]
    if bounds is not None and spec in ("range.base", "range.max"):
        return float(bounds[spec == "range.max"])
    return spec


def _evaluate(spec: float | dict[str, Any], clock: Clock, seed: int) -> Column:
    """Return the values of a schedule that is normalised and resolved."""
    if not isinstance(spec, dict):
        return _constant(clock, seed, value=spec)
    settings = {key: value for key, value in spec.items() if key not in ("kind", "clock")}
    values = FORMULAS[spec["kind"]](clock, seed, **settings)
    if spec.get("clock") == "epoch":
        return values[np.searchsorted(clock.epoch, clock.epoch)]
    return values


def _constant(clock: Clock, seed: int, *, value: float) -> Column:
    return np.full(clock.updates, value, dtype=np.float64)


def _cycle(
    clock: Clock,
    seed: int,
    *,
    easy: float,
    hard: float,
    factor: float,
    order: str,
    clamp: bool,
    cooldown: int,
) -> Column:
    counted = clock.epochs - cooldown
    if counted < 1:
        raise UserError(f"cooldown: {cooldown} leaves none of {clock.epochs} epochs to cycle in")
    e = np.arange(clock.epochs)
    if order == "hard-easy":
        e = counted - 1 - e
    weight = eta(e, counted, factor)
    if clamp:
        weight = weight.clip(0, 1)
    if order == "hard-easy-hard":
        easy, hard = hard, easy
    values = (1 - weight) * hard + weight * easy
    if order == "shuffled":
        values = np.random.default_rng([seed, *b"cycle"]).permutation(values)
    return values[clock.epoch]


WINDOWS: dict[str, Callable[[Column], Column]] = {
    "triangle": lambda x: 1 - x,
    "welch": lambda x: 1 - x**2,
    "hann": lambda x: (1 + np.cos(np.pi * x)) / 2,
}


def _triangular(
    clock: Clock,
    seed: int,
    *,
    low: float,
    high: float,
    window: str,
    mode: str,
    cycles: float | None = None,
    step_epochs: float | None = None,
    gamma: float | None = None,
    end: float | None = None,
) -> Column:
    t = clock.t
    # check() saw to it that exactly one of the two is given.
    step = clock.updates / (2 * cycles) if cycles else (step_epochs or 0) * clock.pace
    cycle = np.floor(1 + t / (2 * step))
    rise = WINDOWS[window](np.minimum(1, np.abs(t / step - 2 * cycle + 1)))
    amplitude = (high - low) * rise
    if mode == "triangular2":
        return low + amplitude / 2 ** (cycle - 1)
    shrink = _powers(clock, gamma, end) if mode != "triangular" else np.ones_like(t)
    if mode == "exp_range_bounds":
        return shrink * (low + amplitude)
    return low + amplitude * shrink


def _powers(clock: Clock, gamma: float | None, end: float | None) -> Column:
    """Return gamma^t, where ``end`` may give gamma^T instead."""
    if gamma is not None:
        return gamma**clock.t
    return (end or 0.0) ** (clock.t / clock.updates)


def _exponential(
    clock: Clock, seed: int, *, start: float, gamma: float | None = None, end: float | None = None
) -> Column:
    return start * _powers(clock, gamma, end)


def _decay(clock: Clock, seed: int, *, high: float, low: float, over: float) -> Column:
    return high - (high - low) * np.minimum(1, clock.t / (over * clock.updates))


def _ramp(clock: Clock, seed: int, *, start: float, end: float, over: float, shape: str) -> Column:
    x = np.minimum(1, clock.t / (over * clock.updates))
    return start + (end - start) * (x if shape == "linear" else np.exp(-5 * (1 - x) ** 2))


CLIMBS: dict[str, Callable[[Column], Column]] = {
    "linear": lambda x: x,
    "cosine": lambda x: np.cos(np.pi / 2 * (1 - x)),
    "circle": lambda x: np.sqrt(1 - (1 - x) ** 2),
    "step": np.ones_like,
}


def _epoch_ramp(
    clock: Clock, seed: int, *, start: float, end: float, wait: int, shape: str
) -> Column:
    if wait >= clock.epochs:
        raise UserError(f"wait: {wait} leaves none of {clock.epochs} epochs to ramp in")
    rise = CLIMBS[shape](np.arange(1, clock.epochs + 1) / clock.epochs)
    rise[:wait] = 0
    return (start + (end - start) * rise)[clock.epoch]


def _ramp_down(clock: Clock, seed: int, *, value: float, over: float) -> Column:
    x = np.minimum(1, (clock.updates - clock.t) / (over * clock.updates))
    return value * np.exp(-12.5 * (1 - x) ** 2)


def _piecewise(clock: Clock, seed: int, *, value: float, drops: list[float], by: float) -> Column:
    # Rounded, because 0.1 * 30 updates is not exactly 3 in floating point.
    milestones = np.sort(np.rint(np.array(drops) * clock.updates))
    return value * by ** np.searchsorted(milestones, clock.t, "right").astype(np.float64)


def _cosine(
    clock: Clock, seed: int, *, peak: float, end: float, warmup_epochs: float, warmup_start: float
) -> Column:
    warm = warmup_epochs * clock.pace
    if warm >= clock.updates:
        raise UserError(
            f"warmup_epochs: {warmup_epochs:g} of {clock.epochs} epochs leave none for the cosine"
        )
    phase = np.maximum(0, clock.t - warm) / (clock.updates - warm)
    values = end + (peak - end) * (1 + np.cos(np.pi * phase)) / 2
    if warm == 0:
        return values
    return np.where(clock.t < warm, warmup_start + (peak - warmup_start) * clock.t / warm, values)


def _cosine_arc(clock: Clock, seed: int, *, peak: float, arc: float) -> Column:
    return peak * np.cos(np.pi * arc * clock.t / clock.updates)


def _one_cycle(
    clock: Clock,
    seed: int,
    *,
    peak: float,
    start_div: float,
    final_div: float,
    warm: float,
    shape: str,
) -> Column:
    t, last, turn = clock.t, clock.updates - 1, warm * clock.updates - 1
    start = peak / start_div
    final = start / final_div
    # A rise of less than one update has no start: the run begins at the peak.
    up = t / turn if turn > 0 else np.ones_like(t)
    turn = max(0.0, turn)
    down = (t - turn) / (last - turn) if last > turn else np.zeros_like(t)
    rising = t <= turn
    origin, target = np.where(rising, start, peak), np.where(rising, peak, final)
    part = np.where(rising, up, down)
    if shape == "cosine":
        return target + (origin - target) * (1 + np.cos(np.pi * part)) / 2
    return origin + (target - origin) * part


def _linear(clock: Clock, seed: int, *, start: float, end: float) -> Column:
    return start + (end - start) * clock.t / clock.updates


def _exp_sweep(clock: Clock, seed: int, *, start: float, end: float) -> Column:
    return start * (end / start) ** (clock.t / max(1, clock.updates - 1))


def _running_mean(clock: Clock, seed: int, *, end: float) -> Column:
    # The initial weights count as the first that are averaged, so the first update weighs 1/2.
    return np.minimum(1 - 1 / (clock.t + 2), end)


def _mean_rate(clock: Clock, seed: int, *, first: float) -> Column:
    # An average that holds nothing yet becomes its first value, however much that counts later.
    return 1 / np.where(clock.epoch == 0, 1.0, clock.epoch + first)


def _staged(clock: Clock, seed: int, *, stages: list[dict[str, Any]]) -> Column:
    ends = np.cumsum([stage["fraction"] for stage in stages])
    edges = [0, *np.rint(ends * clock.updates).astype(int)]
    edges[-1] = clock.updates
    return np.concatenate(
        [
            _evaluate(stage["schedule"], clock.part(start, stop), seed)
            for stage, start, stop in zip(stages, edges, edges[1:], strict=False)
            if stop > start
        ]
    )


def _product(clock: Clock, seed: int, *, of: list[Any]) -> Column:
    # One after the other: all at once would take as many columns as there are factors.
    return reduce(np.multiply, (_evaluate(factor, clock, seed) for factor in of))


def _positive(of: Any, clock: Clock, seed: int) -> Column:
    values = _evaluate(of, clock, seed)
    if not (values > 0).all():
        raise UserError(f"of: {of!r:.80} reaches {values.min():g}; it must stay above 0")
    return values


def _reciprocal(clock: Clock, seed: int, *, of: Any) -> Column:
    return 1 / _positive(of, clock, seed)


def _power_of_two(clock: Clock, seed: int, *, of: Any) -> Column:
    return np.exp2(np.rint(np.log2(_positive(of, clock, seed))))


FORMULAS: dict[str, Callable[..., Column]] = {
    "constant": _constant,
    "cycle": _cycle,
    "triangular": _triangular,
    "exponential": _exponential,
    "decay": _decay,
    "ramp": _ramp,
    "epoch_ramp": _epoch_ramp,
    "ramp_down": _ramp_down,
    "piecewise": _piecewise,
    "cosine": _cosine,
    "cosine_arc": _cosine_arc,
    "one_cycle": _one_cycle,
    "linear": _linear,
    "exp_sweep": _exp_sweep,
    "running_mean": _running_mean,
    "mean_rate": _mean_rate,
    "staged": _staged,
    "product": _product,
    "reciprocal": _reciprocal,
    "power_of_two": _power_of_two,
}
