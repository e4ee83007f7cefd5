"""Kullback-Leibler divergence of the network's answers from the teacher's, or the reference's."""

from __future__ import annotations

from cyclery.records.metrics._units import NATS, TAUGHT

UNIT = NATS
BETTER = "smaller"
PARTS = TAUGHT
NEEDS_TEACHER = True
WORDS = {
    "test_kl": "KL divergence from the teacher",
    "train_kl": "KL divergence from the teacher in training",
}
