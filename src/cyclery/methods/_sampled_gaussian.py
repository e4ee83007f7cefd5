"""What noisy sums over Poisson samples spend, the noise that keeps a budget, and the last update.

An update draws each sample with probability q and publishes a sum of vectors of norm at most 1 with
noise of deviation sigma: the Poisson-sampled Gaussian mechanism, for two data sets that differ by
one sample (added or removed). Accountants are those of ``dp-accounting``:

- ``rdp``: Renyi divergences (I. Mironov et al., arXiv 1908.10530, section 3.3) add up, and become
  epsilon by proposition 12 of C. Canonne et al. (arXiv 2004.00010), the improved conversion, not by
  RDP + log(1 / delta) / (order - 1). De et al. (2022) account like this;
- ``pld``: privacy loss distributions, tighter and slower.

Both are upper bounds. Floating point numbers are taken for real ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Literal

Accountant = Literal["rdp", "pld"]
# How many updates have which rate and which noise.
Spent = tuple[tuple[float, float, int], ...]
# Those of dp-accounting from 2 on, for below some diverge, slowly, and serve only an epsilon that
# is beyond all use.
ORDERS = (*(order / 10 for order in range(20, 110)), *range(11, 64), 128, 256, 512, 1024)
# A few to begin a search with.
ROUGH = (2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 26, 32, 48, 63, 128)
# Calibrated noise is a multiple of this.
STEP = 1e-4


def counted(rates: Iterable[float], noises: Iterable[float]) -> Spent:
    """Return how many updates have which rate and noise, in the order of their first.

    Noise counts in single precision, as a step has it.
    """
    import numpy as np

    found: dict[tuple[float, float], int] = {}
    for rate, noise in zip(rates, np.asarray(list(noises), np.float32).tolist(), strict=True):
        found[rate, noise] = found.get((rate, noise), 0) + 1
    return tuple((rate, noise, times) for (rate, noise), times in found.items())


@lru_cache(maxsize=4096)
def epsilon(spent: Spent, delta: float, accountant: Accountant) -> float:
    """Return the epsilon at ``delta`` of updates: infinite where one has no noise."""
    if any(times and noise <= 0 for _, noise, times in spent):
        return math.inf
    return float(_composed(_maker(accountant, ORDERS), spent).get_epsilon(delta))


@lru_cache(maxsize=512)
def calibrated(
    rates: tuple[tuple[float, int], ...], target: float, delta: float, accountant: Accountant
) -> float:
    """Return the least noise, up to ``STEP``, with which updates spend no more than ``target``.

    ``rates`` says how many updates have which rate.
    """
    from dp_accounting import ExplicitBracketInterval, calibrate_dp_mechanism

    def solved(make: Callable[[], Any], bracket: Any = None) -> float:
        def event(noise: float) -> Any:
            return _event((rate, noise, times) for rate, times in rates)

        return float(calibrate_dp_mechanism(make, event, target, delta, bracket, tol=STEP / 2))

    if accountant == "pld":
        # Tighter, so that it needs no more noise than the other.
        most = calibrated(rates, target, delta, "rdp")
        noise = solved(_maker(accountant, ()), ExplicitBracketInterval(most / 2, most))
    else:
        rough = solved(_maker(accountant, ROUGH))
        spent = tuple((rate, rough, times) for rate, times in rates)
        made = _composed(_maker(accountant, ROUGH), spent)
        _, best = made.get_epsilon_and_optimal_order(delta)
        # More orders can only lower what is spent, so less noise does.
        near = [order for order in ORDERS if best / 1.5 <= order <= best * 1.5]
        noise = solved(_maker(accountant, near), ExplicitBracketInterval(rough / 2, rough))
    steps = math.ceil(noise / STEP)
    while _spends(steps * STEP, rates, delta, accountant) > target:
        steps += 1
    return round(steps * STEP, 4)


def last_within(
    rates: Sequence[float],
    noises: Sequence[float],
    target: float,
    delta: float,
    accountant: Accountant,
) -> int:
    """Return how many of the updates, from the first on, spend no more than ``target`` together."""

    def fits(updates: int) -> bool:
        return epsilon(counted(rates[:updates], noises[:updates]), delta, accountant) <= target

    if fits(len(rates)):
        return len(rates)
    low, high = 0, len(rates)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _spends(
    noise: float,
    rates: tuple[tuple[float, int], ...],
    delta: float,
    accountant: Accountant,
) -> float:
    """Return the epsilon of so many updates of each rate with one noise, in single precision."""
    [(_, single, _)] = counted([0.0], [noise])
    return epsilon(tuple((rate, single, times) for rate, times in rates), delta, accountant)


def _event(spent: Iterable[tuple[float, float, int]]) -> Any:
    """Return what ``dp-accounting`` calls the event of all these updates."""
    from dp_accounting import (
        ComposedDpEvent,
        GaussianDpEvent,
        PoissonSampledDpEvent,
        SelfComposedDpEvent,
    )

    return ComposedDpEvent([
        SelfComposedDpEvent(PoissonSampledDpEvent(rate, GaussianDpEvent(noise)), times)
        for rate, noise, times in spent
    ])  # fmt: skip


def _maker(accountant: Accountant, orders: Sequence[float]) -> Callable[[], Any]:
    """Return what makes a new accountant."""
    if accountant == "pld":
        from dp_accounting.pld import PLDAccountant

        return PLDAccountant
    from dp_accounting.rdp import RdpAccountant

    return lambda: RdpAccountant(orders)


def _composed(make: Callable[[], Any], spent: Spent) -> Any:
    return make().compose(_event(each for each in spent if each[2]))
