"""How people say things."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Return a time in the unit that reads best: ``0.3 s``, ``12 min``, ``3.5 h``, ``2.0 days``."""
    for limit, size, unit in ((90, 1, "s"), (5400, 60, "min"), (129_600, 3600, "h")):
        if seconds < limit:
            value = seconds / size
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{seconds / 86_400:.1f} days"
