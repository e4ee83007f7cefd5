"""Metrics read off a record."""

from __future__ import annotations

import numpy as np
import pytest
from factories.record import (
    record,
)

from cyclery.records import metrics as metrics_derived


def test_metrics_of_a_record() -> None:
    made = record("k", 0, 0.9, final={
        "test_class_accuracy": [0.9, 0.8, 0.7, 0.6, None], "test_ece": float("inf"),
        "train_class_count": [50, 30, 50, 30, 30], "flag": True,
    })  # fmt: skip
    value = metrics_derived.value
    assert value(made, "test_accuracy") == 0.9
    assert metrics_derived.shown(made, "test_accuracy") == pytest.approx(90)
    assert metrics_derived.shown(made, "test_nll") == 0.2
    assert value(made, "test_ece") is None and value(made, "flag") is None
    assert value(made, "unheard_of") is None and value({}, "test_accuracy") is None
    assert value(made, "seconds") == 2.0
    assert value(made, "log:seconds") == pytest.approx(np.log(2))
    assert value({"seconds": 0}, "log:seconds") is None
    # the last class has no test sample
    assert value(made, "minority_accuracy") == pytest.approx(0.7)
    assert value(made, "many_accuracy") == pytest.approx(0.8)
    assert value(made, "medium_accuracy") == pytest.approx(0.7)
    assert value(made, "few_accuracy") is None
    assert metrics_derived.unit("log:test_accuracy") == ""
    assert metrics_derived.unit("test_accuracy@0.5") == "pp"


@pytest.mark.parametrize(
    ("count", "last"), [(1, 1), (4, 1), (5, 2), (12, 3), (20, 5), (80, 20), (1024, 20)]
)
def test_reporting_rules_of_semi_supervised_papers(count: int, last: int) -> None:
    """Median and mean of the last 20 evaluations, and of no more than their last quarter."""
    values = [((7 * k) % 11) / 100 + k / 2000 for k in range(count)]
    accuracy = {"test_accuracy": values, "raw_test_accuracy": [v / 2 for v in values]}
    made = {"curve": {"eval_epoch": list(range(1, count + 1)), **accuracy}}
    value = metrics_derived.value
    late = values[count - last :]
    assert value(made, "test_accuracy_median20") == pytest.approx(np.median(late))
    assert value(made, "test_accuracy_mean20") == pytest.approx(np.mean(late))
    assert value(made, "raw_test_accuracy_mean20") == pytest.approx(np.mean(late) / 2)
    assert value(made, "test_accuracy_best") == max(values)
    assert value(made, "val_accuracy_median20") is None
    # A value that is missing at the end is missed, one before it is not.
    accuracy["test_accuracy"][-1] = None
    assert value(made, "test_accuracy_median20") is None
    if count > last:
        values[:] = [None, *values[1:-1], 0.5]
        assert value(made, "test_accuracy_median20") is not None


def test_accuracy_of_pseudo_labels_is_that_of_those_used() -> None:
    curve = {"epoch": [1, 2, 3], "train_pseudo_correct": [0.0, 0.1, 0.6],
             "train_mask_rate": [0.0, 0.4, 0.8]}  # fmt: skip
    made = {"settings": {"epochs": 3}, "curve": curve}
    value = metrics_derived.value
    assert value(made, "train_pseudo_accuracy@1") == pytest.approx(0.75)
    assert value(made, "train_pseudo_accuracy@0.67") == pytest.approx(0.25)
    assert value(made, "train_pseudo_accuracy@0.33") is None  # none was used
    assert value({"curve": {"epoch": [1]}}, "train_pseudo_accuracy@1") is None


def test_thirds_of_a_long_tail() -> None:
    count = [int(100 * 0.01 ** (k / 9)) for k in range(10)]
    final = {"train_class_count": count[::-1], "test_class_accuracy": [k / 10 for k in range(10)]}
    made = {"final": final}
    value = metrics_derived.value
    assert value(made, "many_accuracy") == pytest.approx(np.mean([0.9, 0.8, 0.7, 0.6]))
    assert value(made, "medium_accuracy") == pytest.approx(np.mean([0.5, 0.4, 0.3]))
    assert value(made, "few_accuracy") == pytest.approx(np.mean([0.2, 0.1, 0.0]))
    balanced = {"final": {"train_class_count": [5, 5], "test_class_accuracy": [1.0, 0.0]}}
    assert value(balanced, "minority_accuracy") is None
    assert value({"final": {"train_class_count": [5]}}, "minority_accuracy") is None


@pytest.mark.parametrize("first", [0, 1])
def test_curve_at_a_fraction_of_the_run(first: int) -> None:
    """Epochs count from 0 or 1; the last evaluation is the end of the run."""
    made = {
        "settings": {"epochs": 40},
        "curve": {"eval_epoch": [e - 1 + first for e in (10, 20, 30, 40)],
                  "test_accuracy": [0.1, 0.2, 0.3, 0.4],
                  "epoch": [e + first for e in range(40)], "loss": list(range(40))},
    }  # fmt: skip
    value = metrics_derived.value
    assert value(made, "test_accuracy@1") == 0.4
    assert value(made, "test_accuracy@0.36") == 0.1  # 0.25 is nearer than 0.5
    assert value(made, "test_accuracy@0.375") == 0.1  # as near: the earlier
    assert value(made, "test_accuracy@0.9") == 0.4
    assert value(made, "loss@0.5") == 19
    assert value(made, "nothing@0.5") is None
