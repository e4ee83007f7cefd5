"""The linear probe minimises what it says, and chooses its penalty as it says."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from factories.features import features, measured
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score

from cyclery import probes
from cyclery.common.errors import UserError
from cyclery.probes import linear
from cyclery.probes._labels import labelled

L2 = linear.Settings().l2


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("l2", [1e-4, 1e-2, 1.0])
def test_the_fit_is_the_minimum_of_the_objective(classes: int, l2: float) -> None:
    """Where its gradient vanishes, for the objective is strictly convex in W."""
    given = features(classes=classes)
    x, y = given.x["train"].astype(np.float64), given.y["train"]
    model, converged = linear._fit(x, y, l2, 1000)
    assert converged
    w, b = model.coef_, model.intercept_
    logits = x @ w.T + b
    if classes == 2:  # one logit, against one that is always zero
        error = (1 / (1 + np.exp(-logits)) - y[:, None]) / len(x)
    else:
        error = (softmax(logits, axis=1) - np.eye(classes)[y]) / len(x)
    assert np.abs(error.T @ x + l2 * w).max() < 2 * linear.TOLERANCE
    assert np.abs(error.sum(axis=0)).max() < 2 * linear.TOLERANCE


def test_the_objective_has_no_smaller_value_nearby() -> None:
    given = features()
    x, y = given.x["train"].astype(np.float64), given.y["train"]
    model, _ = linear._fit(x, y, 0.01, 1000)

    def objective(w: np.ndarray, b: np.ndarray) -> float:
        loss = -log_softmax(x @ w.T + b, axis=1)[np.arange(len(y)), y].mean()
        return float(loss + 0.01 / 2 * np.square(w).sum())

    least, rng = objective(model.coef_, model.intercept_), np.random.default_rng(0)
    for size in (1e-2, 1e-1, 1.0):
        w, b = (v + size * rng.normal(size=v.shape) for v in (model.coef_, model.intercept_))
        assert objective(w, b) > least


def by_hand(given: probes.Features, l2: float) -> LogisticRegression:
    """The fit to standardised training features."""
    x = given.x["train"].astype(np.float64)
    scaled = (x - x.mean(0)) / x.std(0)
    return LogisticRegression(C=1 / (l2 * len(x)), tol=1e-6, max_iter=1000).fit(
        scaled, given.y["train"]
    )


def test_validation_chooses_the_penalty_and_test_is_looked_at_once() -> None:
    given = features()
    x = {part: each.astype(np.float64) for part, each in given.x.items()}
    x = {part: (each - x["train"].mean(0)) / x["train"].std(0) for part, each in x.items()}
    models = {l2: by_hand(given, l2) for l2 in L2}
    val = {l2: m.score(x["validation"], given.y["validation"]) for l2, m in models.items()}
    best = max(l2 for l2 in L2 if val[l2] == max(val.values()))
    found = measured("linear", given)
    assert found == {
        "test_accuracy": models[best].score(x["test"], given.y["test"]),
        "val_accuracy": val[best], "l2": best, "converged": 1.0,
    }  # fmt: skip
    assert min(val.values()) < val[best], "the penalty makes no difference here"
    # Other test labels, or other penalties that do worse, change nothing of what is chosen.
    other = replace(given, y={**given.y, "test": given.y["test"][::-1]})
    assert measured("linear", other)["l2"] == best
    assert measured("linear", given, l2=[best]) == found


def test_of_equal_ones_the_largest_penalty_is_taken() -> None:
    given = features(apart=20)
    found = measured("linear", given, l2=[1e-3, 1e-1, 1e-2])
    assert found["val_accuracy"] == 1 and found["l2"] == 0.1


def test_standardised_features_have_no_unit() -> None:
    given = features()
    scale = np.geomspace(1e-3, 1e3, 12, dtype=np.float32)
    other = replace(given, x={part: x * scale + 5 * scale for part, x in given.x.items()})
    assert measured("linear", other) == measured("linear", given)
    raw = {"standardise": False, "l2": [1e-2]}
    assert measured("linear", other, **raw) != measured("linear", given, **raw)


def test_a_feature_that_is_constant_in_training_stays_small() -> None:
    given = features()
    dead = {part: np.c_[x, np.full(len(x), 0.1)].astype(np.float32) for part, x in given.x.items()}
    dead["test"][::2, -1] = 0.3
    found = measured("linear", replace(given, x=dead))
    assert found == measured("linear", given)


def test_it_is_fitted_again_with_validation() -> None:
    given = features()
    plain, again = measured("linear", given), measured("linear", given, retrain=True)
    assert (again["val_accuracy"], again["l2"]) == (plain["val_accuracy"], plain["l2"])
    x = {part: each.astype(np.float64) for part, each in given.x.items()}
    x = {part: (each - x["train"].mean(0)) / x["train"].std(0) for part, each in x.items()}
    both = np.r_[x["train"], x["validation"]], np.r_[given.y["train"], given.y["validation"]]
    model = LogisticRegression(C=1 / (plain["l2"] * 320), tol=1e-6, max_iter=1000).fit(*both)
    assert again["test_accuracy"] == accuracy_score(given.y["test"], model.predict(x["test"]))


def test_a_few_labels_are_those_drawn() -> None:
    given = features()
    rows = labelled(given.y["train"], 4, given.seed)
    mean, deviation = given.x["train"].mean(0), given.x["train"].std(0)
    scaled = {part: (x - mean) / deviation for part, x in given.x.items()}
    few = replace(
        given,
        x={**scaled, "train": scaled["train"][rows]},
        y={**given.y, "train": given.y["train"][rows]},
    )
    found = measured("linear", given, per_class=4)
    # All training samples, not the few, say what is standard.
    assert found == measured("linear", few, standardise=False)
    assert found["test_accuracy"] < measured("linear", given)["test_accuracy"]


def test_too_few_iterations_are_a_figure_and_no_warning() -> None:
    found = measured("linear", features(), l2=[1e-4], max_iter=2)
    assert found["converged"] == 0.0 and found["test_accuracy"] > 0.2
    found = measured("linear", features(), l2=[1e-4], max_iter=2, retrain=True)
    assert found["converged"] == 0.0


def test_another_warning_of_a_fit_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def warn(self: object, *_: object) -> None:
        import warnings

        warnings.warn("of another kind", RuntimeWarning, stacklevel=1)

    monkeypatch.setattr(LogisticRegression, "fit", warn)
    with pytest.raises(RuntimeWarning, match="of another kind"):
        linear._fit(np.zeros((2, 1)), np.array([0, 1]), 1.0, 10)


def test_one_penalty_needs_no_validation() -> None:
    given = features({"train": 50, "test": 20})
    found = measured("linear", given, l2=[0.1])
    assert found.keys() == {"test_accuracy", "l2", "converged"}
    for settings in ({}, {"l2": [0.1], "retrain": True}):
        with pytest.raises(UserError, match="needs samples of the part validation, of which"):
            measured("linear", given, **settings)


def test_labels_that_are_missing_are_one_message() -> None:
    given = features()
    one = replace(given, y={**given.y, "train": np.full(240, 3)})
    with pytest.raises(UserError, match=re.escape("linear.y: must be labels of two classes")):
        measured("linear", one)
    with pytest.raises(UserError, match=re.escape("linear.per_class: must be at most 48, for")):
        measured("linear", given, per_class=49)
    rare = given.y["train"].copy()
    rare[np.flatnonzero(rare == 2)[3:]] = 1
    with pytest.raises(UserError, match=r"at most 3, for .* 3 samples of class 2 \(found 4\)"):
        measured("linear", replace(given, y={**given.y, "train": rare}), per_class=4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"l2": []}, "linear.l2: must have at least 1 element (found [])"),
        ({"l2": [0]}, "linear.l2[0]: must be at least 1e-12 (found 0)"),
        ({"per_class": 0}, "linear.per_class: must be at least 1 (found 0)"),
        ({"max_iter": 0}, "linear.max_iter: must be at least 1 (found 0)"),
        ({"c": 1}, "unknown key 'c'"),
    ],
)
def test_wrong_settings_are_one_message(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as found:
        probes.resolve("linear", settings, "probes.linear")
    assert message in str(found.value) and str(found.value).count("\n") == 0
