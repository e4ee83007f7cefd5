"""Classification metrics of a set of samples, computed on the device."""

from __future__ import annotations

from typing import Any, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cyclery.records.record import Figure

BINS = 15


class Figures(TypedDict):
    """Figures of one network on one part of a split."""

    accuracy: float
    balanced_accuracy: float
    nll: float
    ece: float
    class_accuracy: list[float | None]


def figures(logits: Tensor, y: Tensor) -> Figures:
    """Return the figures of logits [N, K] and labels [N], as ``named`` has them."""
    return named(measure(logits, y).numpy(force=True))


def measure(logits: Tensor, y: Tensor) -> Tensor:
    """Return the figures as one float64 vector [4 + 2 K], without reading the device.

    Accuracy, balanced accuracy, NLL (nats), calibration error; right answers and samples of every
    class. Balanced accuracy is the mean over the classes that occur. The calibration error is the
    expected one over 15 bins of equal width of the top probability (Guo et al. 2017).
    """
    logits = logits.double()
    confidence, predicted = logits.softmax(1).max(1)
    correct = (predicted == y).double()
    # Sums over a one-hot table: counting by index is not deterministic on every device.
    of_class = (y[:, None] == torch.arange(logits.shape[1], device=y.device)).double()
    hits, count = correct @ of_class, of_class.sum(0)
    known = (hits / count.clamp(min=1)).sum() / (count > 0).sum()
    nll = F.cross_entropy(logits, y)
    four = torch.stack([correct.mean(), known, nll, calibration_error(confidence, correct)])
    return torch.cat([four, hits, count])


def fidelity(logits: Tensor, answer: Tensor) -> Tensor:
    """Return how well logits [N, K] copy a teacher's log-probabilities [N, K], float64 [2].

    The share of samples whose likeliest class is the same, and the mean of KL(teacher || network)
    in nats, both at temperature 1 (Stanton et al. 2021, arXiv 2106.05945).
    """
    logits, answer = logits.double(), answer.double()
    agreement = (logits.argmax(1) == answer.argmax(1)).double().mean()
    divergence = F.kl_div(logits.log_softmax(1), answer, reduction="batchmean", log_target=True)
    return torch.stack([agreement, divergence])


def named(vector: np.ndarray[Any, Any]) -> Figures:
    """Return the figures of ``measure`` by name; a class without samples has no accuracy."""
    hits, count = np.split(vector[4:], 2)
    accuracy, balanced, nll, ece = vector[:4].tolist()
    return {
        "accuracy": accuracy,
        "balanced_accuracy": balanced,
        "nll": nll,
        "ece": ece,
        "class_accuracy": [
            h / n if n else None for h, n in zip(hits.tolist(), count.tolist(), strict=True)
        ],
    }


def prefixed(figures: Figures, prefix: str) -> dict[str, Figure]:
    """Return figures by their names in a record, such as ``test_accuracy``."""
    return {
        f"{prefix}accuracy": figures["accuracy"],
        f"{prefix}balanced_accuracy": figures["balanced_accuracy"],
        f"{prefix}nll": figures["nll"],
        f"{prefix}ece": figures["ece"],
        f"{prefix}class_accuracy": figures["class_accuracy"],
    }


def calibration_error(confidence: Tensor, correct: Tensor) -> Tensor:
    """Return the expected calibration error of top probabilities [N] and hits [N] (0 or 1)."""
    edges = torch.linspace(0, 1, BINS + 1, dtype=confidence.dtype, device=confidence.device)
    # Bins are open below and closed above, as in the reference implementation.
    index = torch.bucketize(confidence, edges[1:-1])
    in_bin = index[:, None] == torch.arange(BINS, device=index.device)
    gap = (confidence - correct.to(confidence.dtype)) @ in_bin.to(confidence.dtype)
    return gap.abs().sum() / len(confidence)
