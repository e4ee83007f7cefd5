"""Detection of unknown classes: scores, thresholds and rates against scikit-learn and by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from factories.features import features, measured
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import NearestCentroid

from cyclery import probes
from cyclery.common.errors import UserError
from cyclery.probes import detection
from cyclery.probes._labels import labelled

SIZES = {"train": 60, "unlabelled": 200}


def by_hand(given: probes.Features, deviations: float) -> dict[str, float]:
    """The figures by scikit-learn and by a loop over the samples that are left out."""
    x, y = given.x["train"].astype(float), given.y["train"]
    pool, known = given.x["unlabelled"].astype(float), given.y["unlabelled"] >= 0

    def score(queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
        if len(np.unique(y[rows])) == 1:
            return cosine_similarity(queries, x[rows].mean(0, keepdims=True)).max(axis=1)
        return cosine_similarity(queries, NearestCentroid().fit(x[rows], y[rows]).centroids_).max(1)

    every = np.arange(len(x))
    found = score(pool, every)
    own = score(x, every)
    left_out = np.array([score(x[[i]], np.delete(every, i))[0] for i in every])
    low, lower = (s.mean() - deviations * s.std(ddof=1) for s in (own, left_out))
    fpr, tpr, _ = roc_curve(known, found, drop_intermediate=False)
    return {
        "unlabelled_auroc": roc_auc_score(known, found),
        "unlabelled_fpr_at_95": fpr[tpr >= 0.95].min(),
        "unlabelled_tpr": (found[known] > low).mean(),
        "unlabelled_tnr": (found[~known] <= low).mean(),
        "unlabelled_left_out_tpr": (found[known] > lower).mean(),
        "unlabelled_left_out_tnr": (found[~known] <= lower).mean(),
    }


@pytest.mark.parametrize("deviations", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("apart", [0.3, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_it_agrees_with_scikit_learn(seed: int, apart: float, deviations: float) -> None:
    given = features(SIZES, apart=apart, seed=seed)
    found = measured("detection", given, deviations=deviations)
    assert found == pytest.approx(by_hand(given, deviations), abs=1e-12)
    assert found["unlabelled_auroc"] > 0.5
    # Scores of samples that helped to make the prototypes are too high, and so is their threshold.
    assert found["unlabelled_left_out_tpr"] >= found["unlabelled_tpr"]


def test_a_class_of_one_sample_is_left_out_with_it() -> None:
    given = features(SIZES)
    y = given.y["train"].copy()
    y[np.flatnonzero(y == 2)[1:]] = 1
    alone = replace(given, y={**given.y, "train": y})
    assert measured("detection", alone) == pytest.approx(by_hand(alone, 2.0), abs=1e-12)


def test_prototypes_are_means_of_features_that_are_not_normalised() -> None:
    """A long and a short sample of a class: the mean lies near the long one."""
    x = np.array([[9.0, 0.0], [0.0, 1.0]])
    prototypes = detection._Prototypes(x, np.array([4, 4]))
    assert prototypes.score(np.array([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])) == pytest.approx(
        [9 / 82**0.5, 1 / 82**0.5, 0]
    )
    assert prototypes.score_left_out() == pytest.approx([0, 0])


def test_equal_scores_count_half() -> None:
    known, unknown = np.array([0.9, 0.5, 0.5]), np.array([0.5, 0.1])
    brute = np.mean([(a > b) + (a == b) / 2 for a in known for b in unknown])
    found = detection._auroc(known, unknown)
    assert found == pytest.approx(brute)
    assert found == pytest.approx(roc_auc_score([1, 1, 1, 0, 0], [*known, *unknown]))


@pytest.mark.parametrize("count", [1, 7, 20, 60, 100])
def test_false_positives_where_95_in_a_hundred_are_found(count: int) -> None:
    rng = np.random.default_rng(count)
    known, unknown = rng.integers(0, 30, count) + 5.0, rng.integers(0, 30, 40) + 0.0
    fpr, tpr, _ = roc_curve([1] * count + [0] * 40, [*known, *unknown], drop_intermediate=False)
    # Of all thresholds, brute force.
    rates = [(unknown >= t).mean() for t in known if (known >= t).mean() >= 0.95]
    assert detection._false_positives(known, unknown, 95) == min(rates)
    assert min(rates) == pytest.approx(fpr[tpr >= 0.95].min())


def test_what_a_pool_of_one_kind_cannot_say_is_left_out() -> None:
    given = features(SIZES)
    known = given.y["unlabelled"] >= 0

    def of(rows: np.ndarray) -> set[str]:
        x, y = ({**parts, "unlabelled": parts["unlabelled"][rows]} for parts in (given.x, given.y))
        found = measured("detection", replace(given, x=x, y=y))
        return {name.removeprefix("unlabelled_") for name in found}

    assert of(known) == {"tpr", "left_out_tpr"} and of(~known) == {"tnr", "left_out_tnr"}
    assert len(of(known | True)) == 6


def test_a_few_labels_make_the_prototypes() -> None:
    given = features(SIZES)
    rows = labelled(given.y["train"], 4, given.seed)
    few = replace(
        given,
        x={**given.x, "train": given.x["train"][rows]},
        y={**given.y, "train": given.y["train"][rows]},
    )
    found = measured("detection", given, per_class=4)
    assert found == measured("detection", few) != measured("detection", given)


def test_what_it_cannot_do_without_is_one_message() -> None:
    with pytest.raises(UserError, match=r"^probe detection: .* needs samples of the part unlabel"):
        measured("detection", features({"train": 10}))
    with pytest.raises(UserError, match=r"per_class: must leave 2 .*\(found null, which leaves 1"):
        measured("detection", features({"train": 1, "unlabelled": 5}))
    with pytest.raises(UserError, match=r"^probe\.deviations: must be at least 0"):
        probes.resolve("detection", {"deviations": -1})
