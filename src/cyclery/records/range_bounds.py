"""Learning-rate bounds from the curves of a range test.

The paper (Cyclical Learning Rates, arXiv 1506.01186, section 3.3) reads both bounds off a plot
by eye; `bounds` is this project's rule for the same. `readings` are what later tools suggest
from the training loss of an exponential sweep, shown next to it and used by nothing.
All are numpy, work on lists too, and take points that are not finite (a run that diverged).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cyclery.records.record import Bounds

Array = NDArray[np.float64]

RISE = 0.1  # part of the rise over chance that starts base, and whose loss ends max
FLOOR = 1e-3  # base is never below this part of the sweep's end
SPREAD = 3.0  # seeds whose bounds differ by more than this factor are flagged

NO_RISE = "accuracy never rose above chance: these bounds are not a reading"
NO_DROP = "no drop seen, raise hi"
ENDED_EARLY = "the sweep ended before hi: max is its last rate"
NOT_FINITE = "accuracy that is not finite was counted as chance"
AT_FLOOR = "accuracy rose before hi / 1000: base is that floor"
NARROW = "no range between rise and drop: base is max / 3"
DIFFER = f"bounds of the seeds differ by more than a factor {SPREAD:g}"


def bounds(lr: ArrayLike, accuracy: ArrayLike, classes: int, hi: float) -> Bounds:
    """Return the usable range of learning rates: ``base``, ``max`` and the ``flags`` to heed.

    Smoothed by a centred median of 5; ``base`` is the first rate at which a tenth of the rise
    over chance is reached, at least hi/1000; ``max`` is the last rate before accuracy falls by a
    tenth of the rise below its running maximum (only falls after ``base`` count), or at which a
    sweep that was cut short ended, or ``hi``.

    Args:
        lr: learning rate at each evaluation, rising.
        accuracy: held-out accuracy there, 0..1.
        classes: number of classes K; chance is 1 / K.
        hi: learning rate at the end of the sweep.
    """
    lr, accuracy = _pair(lr, accuracy)
    flags: list[str] = []
    chance = 1 / classes
    if not np.isfinite(accuracy).all():
        flags.append(NOT_FINITE)
        accuracy = np.where(np.isfinite(accuracy), accuracy, chance)
    smooth = median_of_5(accuracy)
    rise = float(smooth.max() - chance) if len(smooth) else 0.0
    # Less than twice chance, or five points over it with few classes, is what noise reaches.
    if rise <= min(chance, 0.05):
        return {"base": FLOOR * hi, "max": float(hi), "flags": [*flags, NO_RISE]}
    first = int(np.argmax(smooth >= chance + RISE * rise))
    base = float(lr[first])
    peak = np.maximum.accumulate(smooth)
    fallen = np.flatnonzero(smooth[first:] < peak[first:] - RISE * rise) + first
    if len(fallen):
        top = float(lr[fallen[0] - 1])
    elif _ended_early(lr, hi):
        top = float(lr[-1])
        flags.append(ENDED_EARLY)
    else:
        top = float(hi)
        flags.append(NO_DROP)
    if base < FLOOR * hi:
        base = FLOOR * hi
        flags.append(AT_FLOOR)
    if base >= top:
        base = top / 3
        flags.append(NARROW)
    return {"base": base, "max": top, "flags": flags}


def combine(found: Sequence[Bounds]) -> Bounds:
    """Return one range from those of several seeds: geometric means and all flags."""
    if not found:
        raise ValueError("no bounds to combine")
    flags = list(dict.fromkeys(flag for one in found for flag in one["flags"]))
    base, base_spread = _mean([one["base"] for one in found])
    top, top_spread = _mean([one["max"] for one in found])
    apart = max(base_spread, top_spread) > np.log10(SPREAD)
    return {"base": base, "max": top, "flags": [*flags, DIFFER] if apart else flags}


def _mean(values: Sequence[float]) -> tuple[float, float]:
    """Return the geometric mean of some bounds, and largest minus smallest in log10."""
    logs = np.log10(values)
    spread = float(logs.max() - logs.min())
    # A single seed's bound stays exactly what it was.
    return (float(10 ** logs.mean()) if spread else float(values[0])), spread


def readings(lr: ArrayLike, loss: ArrayLike) -> dict[str, float | None]:
    """Return the learning rates that other tools would suggest, by name.

    ``steepest``, ``valley``, ``minimum_10`` and ``slide`` are fastai's `steep` (where smoothed loss
    falls fastest per log learning rate), `valley` (middle of its longest fall), `minimum` (the
    smallest one's rate, divided by 10) and `slide` (left of the last steep change of the gradient);
    ``lr_finder_steepest`` is torch-lr-finder's: where smoothed loss falls fastest per point.

    ``loss`` is the raw training loss at each ``lr`` of a sweep, best an exponential one. Each
    tool's own smoothing, early stop and skipping of ends are applied. None where the curve is
    too short for a reading.
    """
    lr, loss = _pair(lr, loss)
    n = len(lr)
    smooth = ema(loss, 0.98, correct=True)
    x, y = _finite(*_kept(lr, smooth, n // 10, 5, stop=4.0))
    found = {
        "steepest": _at(x, steep(x, y)),
        "valley": _at(x, valley(y)),
        "minimum_10": _at(x, int(np.argmin(y)) if len(y) else None, 0.1),
        "slide": _at(x, slide(y)),
    }
    x, y = _finite(*_kept(lr, ema(loss, 0.95), 10, 5, stop=5.0))
    found["lr_finder_steepest"] = _at(x, steepest_by_index(y))
    return found


def ema(values: ArrayLike, beta: float, *, correct: bool = False) -> Array:
    """Smooth by beta * previous + (1 - beta) * value.

    With ``correct`` it starts at zero and is divided by 1 - beta^t (fastai, beta 0.98); without,
    it starts at the first value (torch-lr-finder, beta 0.95).
    """
    values = np.asarray(values, dtype=np.float64)
    smooth = np.empty_like(values)
    state = 0.0 if correct or not len(values) else float(values[0])
    for i, value in enumerate(values):
        state = beta * state + (1 - beta) * float(value)
        smooth[i] = state / (1 - beta ** (i + 1)) if correct else state
    return smooth


def median_of_5(values: ArrayLike) -> Array:
    """Return the centred median of 5; of fewer points at the two ends."""
    values = np.asarray(values, dtype=np.float64)
    return np.array([np.median(values[max(0, i - 2) : i + 3]) for i in range(len(values))])


def steep(lr: ArrayLike, loss: ArrayLike) -> int | None:
    """Return the index where the loss falls fastest per log learning rate (fastai)."""
    x, y = _pair(lr, loss)
    if len(y) < 2:
        return None
    # float32, as the tool computes: of equal slopes, rounding chooses.
    with np.errstate(all="ignore"):
        slopes = np.diff(y.astype(np.float32)) / np.diff(np.log(x.astype(np.float32)))
    return int(np.argmin(np.where(np.isfinite(slopes), slopes, np.inf)))


def steepest_by_index(loss: ArrayLike) -> int | None:
    """Return the index of the smallest gradient over the points (torch-lr-finder)."""
    y = np.asarray(loss, dtype=np.float64)
    return int(np.argmin(np.gradient(y))) if len(y) > 1 else None


def valley(loss: ArrayLike) -> int | None:
    """Return the index that lies in the longest strictly falling subsequence (fastai).

    With the subsequence's end e and length n, the start is taken as e - n, and the index is
    start + int(n/3) + int(n/6).
    """
    y = np.asarray(loss, dtype=np.float64)
    if not len(y):
        return None
    longest = np.ones(len(y), dtype=np.int64)
    for i in range(1, len(y)):
        above = longest[:i][y[:i] > y[i]]
        longest[i] = 1 + (above.max() if len(above) else 0)
    end = int(np.argmax(longest))
    # A curve that never falls has its end at the first point, whose start the tool takes as 0.
    start = end - int(longest[end]) if end else 0
    third = (end - start) / 3
    return max(0, start + int(third) + int(third / 2))


def slide(loss: ArrayLike, apart: int = 15, threshold: float = 0.005) -> int | None:
    """Return the left index of the last pair of steep gradient differences (fastai).

    A pair of points ``apart`` moves left from the end while their gradients differ by more than
    ``threshold``; the index is that of the last such pair, or of the first pair if none.
    """
    y = np.asarray(loss, dtype=np.float64)
    if len(y) <= apart:
        return None
    gradient = np.gradient(y)
    differ = np.abs(gradient[apart:] - gradient[:-apart]) > threshold
    left = len(differ) - 1
    while left > 0 and differ[left] and differ[left - 1]:
        left -= 1
    return left


def _ended_early(lr: Array, hi: float) -> bool:
    """Say whether more than one evaluation is missing between the last rate and ``hi``."""
    ratio = float(lr[-1] / lr[-2]) if len(lr) > 1 else 1.0
    return float(lr[-1]) * ratio**2 < hi


def _pair(lr: ArrayLike, values: ArrayLike) -> tuple[Array, Array]:
    """Return both as arrays without the points whose learning rate is 0 or not finite."""
    x, y = np.asarray(lr, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"need one value per learning rate, found shapes {x.shape} and {y.shape}")
    known = np.isfinite(x) & (x > 0)
    return x[known], y[known]


def _kept(
    lr: Array, smooth: Array, skip_start: int, skip_end: int, stop: float
) -> tuple[Array, Array]:
    """Return the points up to the first above ``stop`` times the best so far, less both ends."""
    best = np.minimum.accumulate(np.where(np.isnan(smooth), np.inf, smooth))
    beyond = np.flatnonzero(smooth > stop * best)
    # The tool records the point at which it stops.
    last = int(beyond[0]) + 1 if len(beyond) else len(smooth)
    stop_at = max(skip_start, last - skip_end)
    return lr[skip_start:stop_at], smooth[skip_start:stop_at]


def _finite(lr: Array, values: Array) -> tuple[Array, Array]:
    """Return the points before the first value that is not finite."""
    bad = np.flatnonzero(~np.isfinite(values))
    last = int(bad[0]) if len(bad) else len(values)
    return lr[:last], values[:last]


def _at(lr: Array, index: int | None, factor: float = 1.0) -> float | None:
    return None if index is None else float(lr[index]) * factor
