"""Share of right answers.

With the end ``_median20`` or ``_mean20`` it is the median or mean of the last 20 evaluations on the
way (FixMatch and MixMatch report the median, PyTorch ports the mean), but never of more than the
last quarter of them, rounded up. ``_best`` is the highest of all, as some libraries report: it
chooses on the test set, so it is for display only and no claim may use it.
"""

from __future__ import annotations

from cyclery.records.metrics._rules import RULES
from cyclery.records.metrics._units import EVALUATED, POINTS, chance

UNIT = POINTS
BETTER = "larger"
PARTS = (*EVALUATED, "train")
CURVES = EVALUATED
SUMMARIES = tuple(RULES)
WORDS = {
    "val_accuracy": "validation accuracy",
    "train_accuracy": "accuracy on the training samples",
    "train_vote_accuracy": "share of right answers of the teachers",
    "raw_test_accuracy": "test accuracy without averaging of weights",
    "test_accuracy_median20": "test accuracy, median of the last evaluations",
    "test_accuracy_mean20": "test accuracy, mean of the last evaluations",
    "raw_test_accuracy_mean20": "the same without averaging of weights",
}
worst = chance
