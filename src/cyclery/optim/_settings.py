"""Field metadata that several optimisers share."""

from __future__ import annotations

from typing import Any

BETA2: dict[str, Any] = {"doc": "decay of the mean squared gradient", "low": 0.0, "below": 1.0}
EPS: dict[str, Any] = {"doc": "added to the denominator", "above": 0.0}
