"""Recall at k is what a search for the nearest others finds, and NMI what its definition says."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from math import log

import numpy as np
import pytest
from factories.features import features, measured
from sklearn.neighbors import NearestNeighbors

from cyclery import probes
from cyclery.common.errors import UserError
from cyclery.probes import retrieval


def by_search(x: np.ndarray, y: np.ndarray, k: int) -> float:
    """Recall at k by scikit-learn, in which each sample is its own nearest."""
    _, near = NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(x).kneighbors(x)
    others = [[j for j in row if j != i][:k] for i, row in enumerate(near)]
    return float(np.mean([y[i] in y[row] for i, row in enumerate(others)]))


def test_it_finds_what_a_search_finds() -> None:
    given = features()
    found = measured("retrieval", given, k=[1, 2, 4, 79])
    parts = (("test", "test"), ("validation", "val"))
    assert found == {
        f"{name}_recall_at_{k}": by_search(given.x[part].astype(float), given.y[part], k)
        for part, name in parts for k in (1, 2, 4, 79)
    }  # fmt: skip
    assert found["test_recall_at_1"] < found["test_recall_at_2"] < found["test_recall_at_4"]


def test_features_are_taken_as_they_are() -> None:
    """Far from the origin, and of other lengths, where cosines would find others."""
    given = features()
    x = given.x["test"] * np.linspace(0.5, 2, 120, dtype=np.float32)[:, None]
    longer = replace(given, x={"test": x}, y={"test": given.y["test"]})
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    assert by_search(x.astype(float), given.y["test"], 1) != by_search(unit, given.y["test"], 1)
    found = measured("retrieval", longer)
    assert found == {"test_recall_at_1": by_search(x.astype(float), given.y["test"], 1)}
    far = replace(longer, x={"test": x + np.float32(100)})
    assert measured("retrieval", far) == found


def test_classes_need_not_be_those_of_training() -> None:
    given = features()
    other = replace(given, y={part: y + 70 for part, y in given.y.items()})
    assert measured("retrieval", other, nmi=True) == measured("retrieval", given, nmi=True)


def test_unseen_classes_are_told_apart_by_their_own_labels() -> None:
    given = features()
    x, y = given.x["test"], given.y["test"]
    pool = np.where(y >= 2, -1, y)
    known = replace(given, x={**given.x, "unlabelled": x}, y={**given.y, "unlabelled": pool},
                    own={"unlabelled": y})  # fmt: skip
    found = measured("retrieval", known, unseen=True)
    assert found.keys() == {f"{part}_recall_at_1" for part in ("test", "val", "unlabelled")}
    rows = y >= 2
    assert found["unlabelled_recall_at_1"] == by_search(x[rows].astype(float), y[rows], 1)
    nobody = replace(known, y={**given.y, "unlabelled": y})
    assert measured("retrieval", nobody, unseen=True) == measured("retrieval", given)


@pytest.mark.parametrize("held", [1, 500])
def test_how_much_is_held_changes_nothing(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    given = features()
    whole = measured("retrieval", given, k=[1, 8])
    monkeypatch.setattr(retrieval, "HELD", held)
    assert measured("retrieval", given, k=[1, 8]) == whole


def recall(x: list[float], y: list[int], k: int) -> float:
    """Recall of a few points on a line."""
    points = np.array(x, np.float32)[:, None]
    given = probes.Features({"test": points}, {"test": np.array(y)}, 2, 0)
    return measured("retrieval", given, k=[k])[f"test_recall_at_{k}"]


def test_small_cases_by_hand() -> None:
    # Each looks at the other three; the sample of class 7 is alone and never found.
    assert recall([0, 1, 2.5, 9], [3, 3, 3, 7], 1) == 0.75
    assert recall([0, 1, 2.5, 9], [3, 3, 3, 7], 3) == 0.75
    # From 1, both sides are as near: the first sample counts.
    assert recall([1, 0, 2], [5, 5, 6], 1) == pytest.approx(2 / 3)
    assert recall([1, 2, 0], [5, 6, 5], 1) == pytest.approx(1 / 3)
    # Of equal points none is nearer than the first.
    assert recall([4, 4, 4, 4], [0, 1, 0, 1], 1) == pytest.approx(1 / 4)


def test_nmi_is_one_for_clusters_that_are_classes_and_none_for_collapsed_ones() -> None:
    apart = measured("retrieval", features(apart=20), nmi=True)
    assert apart["test_nmi"] == pytest.approx(1) and apart["test_recall_at_1"] == 1
    given = features()
    flat = replace(given, x={part: np.zeros_like(x) for part, x in given.x.items()})
    assert measured("retrieval", flat, nmi=True)["test_nmi"] == 0
    assert "test_nmi" not in measured("retrieval", given)


def test_nmi_is_information_over_the_mean_entropy() -> None:
    """Two blobs, which k-means separates, of three samples, one of which has the other class."""
    x = np.array([[0], [1], [2], [50], [51], [52]], np.float32)
    y = np.array([0, 0, 1, 1, 1, 1])
    found = retrieval._nmi(x.astype(float), y, 0)
    pairs = list(zip(y.tolist(), [0, 0, 0, 1, 1, 1], strict=True))

    def entropy(values: list[object]) -> float:
        return -sum(n / 6 * log(n / 6) for n in Counter(values).values())

    both, first, second = entropy(pairs), entropy(y.tolist()), log(2)
    assert found == pytest.approx((first + second - both) / ((first + second) / 2))


def test_clusters_depend_on_the_seed_alone() -> None:
    given = features(apart=0.2)
    found = measured("retrieval", given, nmi=True)
    np.random.seed(5)
    assert measured("retrieval", given, nmi=True) == found
    others = {measured("retrieval", replace(given, seed=s), nmi=True)["test_nmi"] for s in range(5)}
    assert len(others) > 1
    assert measured("retrieval", replace(given, seed=2**32 + given.seed), nmi=True) == found


def test_more_neighbours_than_others_are_one_message() -> None:
    with pytest.raises(UserError, match=r"^probe retrieval\.k: must be at most 79, the other"):
        measured("retrieval", features(), k=[1, 80])
    with pytest.raises(UserError, match=r"^r\.k\[1\]: must be at least 1 \(found 0\)\.$"):
        probes.resolve("retrieval", {"k": [1, 0]}, "r")
    assert probes.figures(probes.resolve("retrieval", {"k": [4, 1, 4], "nmi": True})) == (
        "test_recall_at_4", "test_recall_at_1", "test_nmi",
        "val_recall_at_4", "val_recall_at_1", "val_nmi",
    )  # fmt: skip
