"""Deviation of the noise on a sum of clipped gradients, over their largest norm: sigma."""

from __future__ import annotations

from cyclery.records.metrics._units import NOISE

UNIT = NOISE
BETTER = None
BY_ENDING = True
WORDS = {"train_noise_multiplier": "noise multiplier"}
