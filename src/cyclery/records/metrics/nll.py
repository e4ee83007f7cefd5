"""Negative log-likelihood of the right class, the mean over samples."""

from __future__ import annotations

from cyclery.records.metrics._units import EVALUATED, NATS

UNIT = NATS
BETTER = "smaller"
PARTS = (*EVALUATED, "train")
CURVES = EVALUATED
WORDS = {
    "test_nll": "test NLL",
    "val_nll": "validation NLL",
    "train_nll": "NLL on the training samples",
}
