"""OpenCoS' detection against scikit-learn and loops: prototypes, scores, thresholds, labels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import NearestCentroid
from torch import Tensor

from cyclery.methods import _open_set
from cyclery.methods._auroc import auroc

N, D, K = 30, 7, 4


def vectors(seed: int = 0, n: int = N) -> tuple[Tensor, Tensor]:
    """Return vectors [N, D] of lengths that differ, about a centre for each class, and classes."""
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % K
    u = 2 * torch.randn(K, D, generator=g, dtype=torch.float64)[y]
    u += torch.randn(n, D, generator=g, dtype=torch.float64)
    return u * (1 + 4 * torch.rand(n, 1, generator=g, dtype=torch.float64)), y


def test_prototypes_are_the_means_of_vectors_that_are_not_normalised() -> None:
    u, y = vectors()
    centroids = NearestCentroid().fit(u.numpy(), y.numpy()).centroids_
    counts = y.bincount()[:, None]
    np.testing.assert_allclose(_open_set.sums(u, y, K) / counts, centroids, atol=1e-12)
    # Of unit vectors it would be another direction.
    unit = torch.nn.functional.normalize(u)
    other = cosine_similarity(_open_set.sums(unit, y, K), centroids)
    assert np.diag(other).min() < 1 - 1e-3


def test_scores_are_cosines_with_the_prototypes() -> None:
    u, y = vectors()
    far, _ = vectors(seed=1)
    centroids = NearestCentroid().fit(u.numpy(), y.numpy()).centroids_
    found = _open_set.cosines(far, _open_set.sums(u, y, K))
    np.testing.assert_allclose(found, cosine_similarity(far, centroids), atol=1e-12)


def test_a_class_without_a_sample_is_near_nothing() -> None:
    u, y = vectors()
    found = _open_set.cosines(u, _open_set.sums(u, y, K + 1))
    assert (found[:, K] == -math.inf).all() and found[:, :K].isfinite().all()
    assert ((found / 0.1).softmax(1)[:, K] == 0).all()


def test_left_out_scores_are_those_of_a_loop() -> None:
    u, y = vectors()
    found = _open_set.left_out(u, y, K)
    for i in range(N):
        rest = torch.arange(N) != i
        centroids = np.stack([u[rest & (y == c)].mean(0) for c in range(K)])
        expected = cosine_similarity(u[i : i + 1], centroids)[0]
        np.testing.assert_allclose(found[i], expected, atol=1e-12)
    plain = _open_set.cosines(u, _open_set.sums(u, y, K))
    own = torch.arange(N), y
    # What a sample adds to its own prototype can only bring that nearer.
    assert (plain[own] > found[own]).all()
    others = torch.ones(N, K, dtype=torch.bool).index_put(own, torch.tensor(False))
    assert torch.equal(plain[others], found[others])


def test_a_sample_that_is_alone_in_its_class_has_no_prototype_of_it() -> None:
    u, _ = vectors(n=9)
    y, alone = torch.tensor([0, 1, 2, 3, 0, 2, 2, 3, 0]), 1
    found = _open_set.left_out(u, y, K)
    assert found[alone, 1] == -math.inf and found[alone].amax().isfinite()
    # With itself in it, its score is 1, whatever it is.
    plain = _open_set.cosines(u, _open_set.sums(u, y, K))
    assert float(plain[alone, 1]) == pytest.approx(1)


def test_the_threshold_has_the_deviation_of_a_sample() -> None:
    scores = torch.tensor([0.9, 0.7, 0.8], dtype=torch.float64)
    assert float(_open_set.threshold(scores, 2.0)) == pytest.approx(0.8 - 2 * 0.1)
    # The other divisor has 0.8 - 2 * 0.0816.
    assert float(_open_set.threshold(scores, 0.0)) == pytest.approx(0.8)


def test_the_linear_classifier_is_scikit_learns_but_for_the_bias() -> None:
    h, y = vectors()
    weight, bias = _open_set.linear(h, y, K)
    # It does not penalise a bias; a constant feature beside no bias is penalised.
    wide = torch.cat([h, torch.ones(N, 1, dtype=h.dtype)], 1).numpy()
    model = LogisticRegression(
        C=1 / (N * _open_set.PENALTY), fit_intercept=False, tol=1e-10, max_iter=20_000
    ).fit(wide, y.numpy())
    found = (h @ weight.T + bias).softmax(1)
    np.testing.assert_allclose(found, model.predict_proba(wide), atol=1e-4)
    free = LogisticRegression(C=1 / (N * _open_set.PENALTY), tol=1e-10, max_iter=20_000)
    apart = np.abs(found.numpy() - free.fit(h.numpy(), y.numpy()).predict_proba(h.numpy())).max()
    assert 1e-6 < apart < 1e-2


def test_the_linear_classifier_is_at_the_minimum() -> None:
    h, y = vectors()
    weight, bias = (each.requires_grad_() for each in _open_set.linear(h, y, K))
    loss = torch.nn.functional.cross_entropy(h @ weight.T + bias, y)
    loss = loss + 1e-4 / 2 * (weight.square().sum() + bias.square().sum())
    for gradient in torch.autograd.grad(loss, [weight, bias]):
        assert gradient.abs().max() < 1e-7


def test_auroc_is_scikit_learns_ties_included() -> None:
    g = torch.Generator().manual_seed(0)
    score = torch.randint(6, (50,), generator=g).double()
    known = torch.rand(50, generator=g) < 0.4
    expected = roc_auc_score(known, score)
    assert auroc(score[known], score[~known]) == pytest.approx(expected)


def test_rates_are_shares_of_known_and_of_unknown_samples() -> None:
    memory = _open_set.memory(6, 2)
    memory.get_buffer("score").copy_(torch.tensor([0.9, 0.8, 0.3, 0.7, 0.2, 0.0]))
    memory.get_buffer("threshold").copy_(torch.tensor([0.75, 0.25]))
    known = torch.tensor([True, True, True, False, False])
    found = _open_set.rates(memory, torch.arange(5), known)
    assert found == pytest.approx(
        {"tpr": 2 / 3, "tnr": 1.0, "left_out_tpr": 1.0, "left_out_tnr": 0.5}
    )
    assert set(_open_set.rates(memory, torch.arange(3), known[:3])) == {"tpr", "left_out_tpr"}
