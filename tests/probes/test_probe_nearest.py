"""Nearest neighbours vote as scikit-learn's do with the same weights, whatever fits in memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from factories.features import features, measured
from sklearn.neighbors import KNeighborsClassifier

from cyclery import probes
from cyclery.common.errors import UserError
from cyclery.probes import nearest
from cyclery.probes._labels import labelled


def predicted(given: probes.Features, k: int, temperature: float) -> np.ndarray:
    """The classes of the test samples."""
    settings = nearest.Settings(k=k, temperature=temperature)
    bank, queries = (nearest._directions(given.x[part]) for part in ("train", "test"))
    return nearest._vote(queries, bank, given.y["train"], given.classes, settings)


@pytest.mark.parametrize("temperature", [0.02, 0.07, 0.1, 1.0])
@pytest.mark.parametrize("k", [1, 20, 200, 240])
def test_it_agrees_with_scikit_learn(k: int, temperature: float) -> None:
    given = features()
    judge = KNeighborsClassifier(
        k, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / temperature)
    ).fit(given.x["train"], given.y["train"])
    assert np.array_equal(predicted(given, k, temperature), judge.predict(given.x["test"]))
    found = measured("nearest", given, k=k, temperature=temperature)
    assert found == {
        f"{name}_accuracy": judge.score(given.x[part], given.y[part])
        for part, name in (("test", "test"), ("validation", "val"))
    }


@pytest.mark.parametrize("held", [1, 1000, 240 * 120])
def test_how_much_is_held_changes_nothing(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    given = features()
    whole = predicted(given, 20, 0.1)
    monkeypatch.setattr(nearest, "HELD", held)
    assert np.array_equal(predicted(given, 20, 0.1), whole)


def of(train: list[list[float]], labels: list[int], test: list[list[float]]) -> probes.Features:
    """Features of a few samples."""
    x = {"train": np.array(train, np.float32), "test": np.array(test, np.float32)}
    return probes.Features(x, {"train": np.array(labels), "test": np.zeros(len(test), int)}, 4, 0)


def test_equal_scores_go_to_the_lowest_class_and_equal_cosines_to_the_first() -> None:
    up, down = [0.0, 1.0], [0.0, -1.0]
    assert predicted(of([up, up], [3, 1], [up]), 2, 0.1) == [1]
    # Only the first two of the four equal ones vote.
    assert predicted(of([up, up, up, up], [2, 2, 1, 1], [up]), 2, 0.1) == [2]
    assert predicted(of([down, up, up, up], [0, 3, 3, 1], [up]), 2, 0.1) == [3]
    # Length is no similarity, and no features are as far from all.
    assert predicted(of([[0.0, 9.0], [1.0, 0.1]], [0, 1], [[5.0, 1.0]]), 1, 0.1) == [1]
    assert predicted(of([up, down], [2, 1], [[0.0, 0.0]]), 2, 0.1) == [1]


def test_a_vote_weighs_by_its_cosine() -> None:
    """Two of cosine 0.6 against one of 1: exp(0.4 / T) is 2 at T = 0.4 / ln 2 = 0.577."""
    given = of([[1.0, 0.0], [0.6, 0.8], [0.6, -0.8]], [0, 1, 1], [[1.0, 0.0]])
    assert predicted(given, 3, 0.57) == [0] and predicted(given, 3, 0.585) == [1]


@pytest.mark.parametrize("temperature", [1e-9, 1e-3])
def test_a_small_temperature_leaves_the_nearest(temperature: float) -> None:
    given = features()
    assert np.array_equal(predicted(given, 50, temperature), predicted(given, 1, 0.1))


def test_a_few_labels_vote() -> None:
    given = features({"train": 100, "test": 60})
    rows = labelled(given.y["train"], 4, given.seed)
    few = replace(
        given,
        x={**given.x, "train": given.x["train"][rows]},
        y={**given.y, "train": given.y["train"][rows]},
    )
    assert measured("nearest", given, k=7, per_class=4) == measured("nearest", few, k=7)


def test_more_neighbours_than_labels_are_one_message() -> None:
    given = features({"train": 100, "test": 60})
    with pytest.raises(UserError, match=r"^probe nearest\.k: must be at most 100, for .*found 200"):
        measured("nearest", given)
    with pytest.raises(UserError, match=r"at most 20 beside per_class 4, for .*found 21\)\.$"):
        measured("nearest", given, k=21, per_class=4)
    with pytest.raises(UserError, match="temperature: must be above 0 "):
        probes.resolve("nearest", {"temperature": 0})
