"""Mean entropy, in an epoch, of the distribution over which second view belongs to a first one."""

from __future__ import annotations

from cyclery.records.metrics._units import NATS

UNIT = NATS
BETTER = None
CURVES = ("train",)
WORDS = {"train_contrastive_entropy": "entropy of the contrastive distribution"}
