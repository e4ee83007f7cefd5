"""Figures of a classifier on a set of samples, computed on the device."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

BINS = 15


def figures(logits: Tensor, y: Tensor) -> dict[str, Any]:
    """Return accuracy, balanced accuracy, NLL (nats), calibration error and accuracy per class.

    ``logits`` [N, K] and ``y`` [N]. Balanced accuracy is the mean over the classes that occur.
    The calibration error is the expected one over 15 bins of equal width of the top probability
    (Guo et al. 2017).
    """
    logits = logits.double()
    classes = logits.shape[1]
    confidence, predicted = logits.softmax(1).max(1)
    correct = (predicted == y).double()
    hits = torch.zeros(classes, dtype=torch.float64, device=y.device).index_add_(0, y, correct)
    count = torch.bincount(y, minlength=classes).double()
    per_class = (hits / count).tolist()
    known = (hits / count)[count > 0]
    return {
        "accuracy": float(correct.mean()),
        "balanced_accuracy": float(known.mean()),
        "nll": float(F.cross_entropy(logits, y)),
        "ece": float(calibration_error(confidence, correct)),
        "class_accuracy": [
            v if n else None for v, n in zip(per_class, count.tolist(), strict=True)
        ],
    }


def calibration_error(confidence: Tensor, correct: Tensor) -> Tensor:
    """Return the expected calibration error of top probabilities [N] and hits [N] (0 or 1)."""
    edges = torch.linspace(0, 1, BINS + 1, dtype=confidence.dtype, device=confidence.device)
    # Bins are open below and closed above, as in the reference implementation.
    index = torch.bucketize(confidence, edges[1:-1])
    gap = torch.zeros(BINS, dtype=confidence.dtype, device=confidence.device)
    gap.index_add_(0, index, confidence - correct.to(confidence.dtype))
    return gap.abs().sum() / len(confidence)
