"""Reference priors of small models: closed values of the coin, bounds, and what an atom is."""

from __future__ import annotations

from dataclasses import replace
from math import log2

import numpy as np
import pytest
from factories.features import features, measured
from scipy.optimize import minimize_scalar

from cyclery import probes
from cyclery.common.errors import UserError
from cyclery.probes import reference_prior

# n, and of each atom bias and mass: known in closed form of one toss and of two.
COIN = {
    1: ({0.0: 0.5, 1.0: 0.5}, 1.0),
    2: ({0.0: 15 / 34, 0.5: 2 / 17, 1.0: 15 / 34}, log2(17 / 8)),
    3: ({0.0: 0.3947, 0.5: 0.2105, 1.0: 0.3947}, 1.248),
    5: ({0.0: 0.3509, 0.4: 0.1491, 0.6: 0.1491, 1.0: 0.3509}, 1.458),
}


@pytest.mark.parametrize("order", COIN)
def test_the_prior_of_a_coin_is_known(order: int) -> None:
    wanted, bits = COIN[order]
    channel = reference_prior.tosses(order, 21)
    np.testing.assert_allclose(channel.sum(1), 1)
    prior, capacity = reference_prior.optimal(channel, 1e-7, 20_000)
    assert capacity == pytest.approx(bits, abs=1e-5 if order < 3 else 5e-4)
    found = {i / 20: prior[i] for i in reference_prior.atoms(channel, prior)}
    assert found == pytest.approx(wanted, abs=1e-3)
    assert measured("reference_prior", features(), family="coin", models=21, order=order) == {
        "test_atoms": len(wanted), "test_capacity": pytest.approx(bits, abs=5e-4),
    }  # fmt: skip


def test_the_capacity_is_that_of_a_search_and_bounds_every_prior() -> None:
    """Of two coins, whose prior is one number, and of many, which satisfy Kuhn and Tucker."""
    two = reference_prior.tosses(3, 11)[[2, 9]]

    def information(prior: np.ndarray, channel: np.ndarray) -> float:
        q = prior @ channel
        logs = np.where(channel > 0, np.log2(np.where(channel > 0, channel, 1) / q), 0)
        return float((prior[:, None] * channel * logs).sum())

    best = minimize_scalar(lambda p: -information(np.array([p, 1 - p]), two), bounds=(0, 1))
    prior, capacity = reference_prior.optimal(two, 1e-9, 20_000)
    assert capacity == pytest.approx(-best.fun, abs=1e-6)
    assert prior[0] == pytest.approx(best.x, abs=1e-3)
    channel = reference_prior.tosses(4, 31)
    prior, capacity = reference_prior.optimal(channel, 1e-6, 20_000)
    assert information(prior, channel) == pytest.approx(capacity, abs=1e-5)
    rng = np.random.default_rng(0)
    for other in rng.dirichlet(np.full(31, 0.3), size=50):
        assert information(other, channel) < capacity


def test_answers_of_models_are_independent_given_the_model() -> None:
    p = np.array([[0.2, 0.7, 0.4], [0.9, 0.5, 0.1]])
    found = reference_prior.joint(p)
    for y in range(8):
        bits = [(y >> j) & 1 for j in range(3)]
        for k in range(2):
            wanted = np.prod([p[k, j] if b else 1 - p[k, j] for j, b in enumerate(bits)])
            assert wanted == pytest.approx(found[k, y])


def test_models_that_answer_alike_are_one_atom() -> None:
    channel = np.array([[1.0, 0.0], [0.95, 0.05], [0.0, 1.0], [0.5, 0.5]])
    assert reference_prior.atoms(channel, np.array([0.3, 0.25, 0.44, 0.01])) == [2, 0]
    assert reference_prior.atoms(channel, np.array([0.3, 0.2, 0.3, 0.2])) == [0, 2, 3]


def test_linear_models_have_more_atoms_the_more_is_asked() -> None:
    given = features()
    found = [measured("reference_prior", given, order=n, between=[0, 1]) for n in (1, 2, 3, 5)]
    atoms, bits = ([each[name] for each in found] for name in ("test_atoms", "test_capacity"))
    assert atoms[0] == 2 and atoms == sorted(set(atoms))
    assert all(a <= 2**n for a, n in zip(atoms, (1, 2, 3, 5), strict=True))
    # The inputs of a smaller order are some of those of a larger one.
    assert bits == sorted(bits) and all(0 < b <= n for b, n in zip(bits, (1, 2, 3, 5), strict=True))
    other = measured("reference_prior", replace(given, seed=4), order=3, between=[0, 1])
    assert other != found[2] == measured("reference_prior", given, order=3, between=[0, 1])


def test_lengths_are_deviations_of_logits() -> None:
    """So models whose weights are short tell next to nothing."""
    short = measured("reference_prior", features(), lengths=[0.01, 0.02], between=[0, 1])
    assert short["test_capacity"] < 1e-3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"between": [1, 1]}, "between: must be two of the classes, 0 to 4"),
        ({"between": [1, 5]}, "between: must be two of the classes, 0 to 4"),
        ({"between": [0, 1], "lengths": [2, 1]}, "lengths: must be the shortest and the longest"),
    ],
)
def test_settings_that_fit_nothing_are_refused(settings: dict[str, object], message: str) -> None:
    probe = probes.resolve("reference_prior", settings)
    with pytest.raises(UserError, match=message):
        probes.check(probe, {"test": 10}, 5)


def test_more_inputs_than_samples_are_refused() -> None:
    given = features({"test": 10})
    with pytest.raises(UserError, match=r"order: must be at most 4, .*\(found 6\)"):
        measured("reference_prior", given, order=6, between=[0, 1])
