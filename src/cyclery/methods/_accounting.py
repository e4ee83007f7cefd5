"""Privacy accounting: what Gaussian mechanisms spend together under (epsilon, delta)."""

from __future__ import annotations

from collections.abc import Iterable


def epsilon(spent: Iterable[tuple[float, int]], delta: float) -> float:
    """Return the epsilon at ``delta`` of Gaussian mechanisms that are all used, 0 without any.

    Each is a noise multiplier (the noise's deviation over the L2 sensitivity) and how often it is
    used. Their Renyi divergences add up (I. Mironov, arXiv 1702.07476), and are converted by the
    bound that dp-accounting has, tighter than RDP + log(1 / delta) / (order - 1).
    """
    from dp_accounting import GaussianDpEvent
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant()
    for multiplier, times in spent:
        if times:
            accountant.compose(GaussianDpEvent(multiplier), times)
    return float(accountant.get_epsilon(delta))
