"""Figures of a classifier against scikit-learn and a calibration error written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from factories import engine as factory
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss, recall_score

from cyclery.engine.hooks import Moment
from cyclery.engine.metrics import BINS, calibration_error, figures


def expected_calibration_error(confidence, correct):
    """Sort each sample into (0, 1/15], (1/15, 2/15], ... and weigh the gaps by the bins' sizes."""
    bins: dict[int, list[tuple[float, float]]] = {}
    for value, hit in zip(confidence, correct, strict=True):
        bins.setdefault(max(0, math.ceil(value * BINS) - 1), []).append((value, hit))
    total = 0.0
    for members in bins.values():
        mean_confidence = sum(value for value, _ in members) / len(members)
        accuracy = sum(hit for _, hit in members) / len(members)
        total += len(members) / len(confidence) * abs(mean_confidence - accuracy)
    return total


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 80), st.integers(2, 9), st.integers(0, 2**31), st.floats(0.1, 6))
def test_figures_equal_scikit_learns(n, classes, seed, spread):
    generator = np.random.default_rng(seed)
    # The last class never occurs among the labels: it must not count in the balanced accuracy.
    y = generator.integers(0, classes - 1, n)
    logits = spread * generator.normal(size=(n, classes))
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    found = figures(torch.tensor(logits), torch.tensor(y))
    labels = list(range(classes))
    assert found["accuracy"] == pytest.approx(accuracy_score(y, p.argmax(1)))
    assert found["nll"] == pytest.approx(log_loss(y, p, labels=labels))
    recall = recall_score(y, p.argmax(1), labels=labels, average=None, zero_division=0.0)
    present = np.bincount(y, minlength=classes) > 0
    assert found["balanced_accuracy"] == pytest.approx(recall[present].mean())
    assert found["class_accuracy"][-1] is None
    assert [v for v in found["class_accuracy"] if v is not None] == pytest.approx(recall[present])
    assert found["ece"] == pytest.approx(
        expected_calibration_error(p.max(1), p.argmax(1) == y), abs=1e-9
    )


def test_balanced_accuracy_is_scikit_learns_where_all_classes_occur():
    generator = np.random.default_rng(0)
    y, logits = generator.integers(0, 3, 50), generator.normal(size=(50, 3))
    found = figures(torch.tensor(logits), torch.tensor(y))
    expected = balanced_accuracy_score(y, logits.argmax(1))
    assert found["balanced_accuracy"] == pytest.approx(expected)
    assert found["balanced_accuracy"] != pytest.approx(found["accuracy"])


def test_balanced_accuracy_is_a_figure_of_every_run():
    run = factory.train(factory.settings(epochs=2))
    logits = Moment(run._inside).outputs(run.models["main"], run.ids["test"])
    expected = balanced_accuracy_score(run.data.labels[run.ids["test"]], logits.argmax(1))
    assert run.final()["test_balanced_accuracy"] == pytest.approx(expected, abs=1e-6)


def test_calibration_error_at_the_edges_of_bins():
    # 1/3 and 1 are the closed ends of their bins; two samples of one bin may cancel out.
    confidence = torch.tensor([5 / 15, 5 / 15 + 1e-6, 1.0, 0.8, 0.8], dtype=torch.float64)
    correct = torch.tensor([0.0, 1.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    gaps = [5 / 15, 1 - 5 / 15 - 1e-6, 0, abs(1.6 - 1)]
    assert calibration_error(confidence, correct).item() == pytest.approx(sum(gaps) / 5)


def test_perfect_and_overconfident_outputs():
    y = torch.arange(10) % 5
    sure = 50.0 * torch.nn.functional.one_hot(y, 5)
    assert figures(sure, y)["ece"] == pytest.approx(0, abs=1e-9)
    wrong = figures(sure, (y + 1) % 5)
    assert (wrong["accuracy"], wrong["balanced_accuracy"]) == (0, 0)
    assert wrong["ece"] == pytest.approx(1)
    assert wrong["nll"] == pytest.approx(50)
