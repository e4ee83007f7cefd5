"""Mutual information, in an epoch, of the member of an ensemble and an answer of it."""

from __future__ import annotations

from cyclery.records.metrics._units import NATS

UNIT = NATS
BETTER = None
CURVES = ("train",)
WORDS = {"train_information": "information of members and answers"}
