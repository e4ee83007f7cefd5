"""The reference prior of small models, exactly: its information and its atoms, by Blahut-Arimoto.

J. M. Bernardo's reference prior (1979), as Y. Gao et al. take it for networks (Deep Reference
Priors, arXiv 2202.00187): of a pool of models w_k, the prior p_k of the largest mutual information
of model and the answers y^n to n inputs. With q(y^n) = sum_k p_k p(y^n | w_k) it is the fixed point
of

    p_k <- p_k exp(KL(p(y^n | w_k) || q)) / Z

whose log Z and largest KL enclose the capacity (Arimoto 1972, Blahut 1972). That prior is discrete.

``coin`` are coins on an even grid of biases, whose n tosses are counted: an exact experiment, in
which the features play no part. ``linear`` are logistic regressions on standardised features, which
tell two classes apart, as the paper's figure does threes and fives: directions are drawn uniformly,
lengths log-uniformly, and the n inputs from the test samples of both classes, the
same for every n. OWN DEFINITION: pool and inputs; and atoms, which are groups of models with more
than a hundredth of the mass, each model within a total variation of a tenth of the heaviest one, so
that nearly equal models count once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import comb
from typing import TYPE_CHECKING, Literal

from cyclery.common.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cyclery.probes import Features

    Matrix = NDArray[np.float64]

# Mass from which a group of models is an atom, and the total variation within a group.
MASS, ALIKE = 0.01, 0.1


@dataclass(frozen=True)
class Settings:
    """The prior of largest information over a pool of small models."""

    family: Literal["coin", "linear"] = field(
        default="linear",
        metadata={"doc": "coins of every bias, or logistic regressions on the features"},
    )
    order: int = field(
        default=2, metadata={"doc": "tosses, or inputs, n, whose answers are seen", "low": 1,
                             "high": 10}
    )  # fmt: skip
    models: int = field(
        default=256,
        metadata={"doc": "models of the pool; of `coin` the points of the grid", "low": 2},
    )
    between: tuple[int, ...] = field(
        default=(3, 5),
        metadata={"doc": "two classes that `linear` tells apart", "low": 0, "least": 2},
    )
    lengths: tuple[float, ...] = field(
        default=(0.1, 3.0),
        metadata={
            "doc": "of weights of `linear`, the smallest and the largest deviation of a logit that "
            "they make",
            "above": 0.0,
            "least": 2,
        },
    )
    tolerance: float = field(
        default=1e-6, metadata={"doc": "nats by which the capacity is known", "above": 0.0}
    )
    iterations: int = field(
        default=20_000, metadata={"doc": "iterations at most, however well it is known", "low": 1}
    )


def needs(settings: Settings) -> tuple[str, ...]:
    """Return test."""
    return ("test",)


def figures(settings: Settings) -> tuple[str, ...]:
    """Return the number of atoms, and the capacity in bits."""
    return ("test_atoms", "test_capacity")


def check(settings: Settings, rows: Mapping[str, int], classes: int) -> None:
    """Refuse classes that are no two of those there are, and lengths that are no range."""
    two = settings.between
    if settings.family == "linear" and (len(set(two)) != 2 or max(two) >= classes):
        raise UserError(
            f"between: must be two of the classes, 0 to {classes - 1} (found {list(two)})."
        )
    if len(settings.lengths) != 2 or settings.lengths[0] > settings.lengths[1]:
        raise UserError(
            f"lengths: must be the shortest and the longest (found {list(settings.lengths)})."
        )


def measure(settings: Settings, features: Features) -> dict[str, float]:
    """Return the atoms and the capacity of the optimal prior."""
    if settings.family == "coin":
        channel = tosses(settings.order, settings.models)
    else:
        channel = _answers(settings, features)
    prior, bits = optimal(channel, settings.tolerance, settings.iterations)
    return {"test_atoms": float(len(atoms(channel, prior))), "test_capacity": bits}


def tosses(order: int, points: int) -> Matrix:
    """Return p(heads | bias) [points, order + 1] of so many tosses, on an even grid of biases."""
    import numpy as np

    bias, heads = np.linspace(0, 1, points)[:, None], np.arange(order + 1)[None]
    ways = np.array([comb(order, k) for k in range(order + 1)], float)
    found: Matrix = ways * bias**heads * (1 - bias) ** (order - heads)
    return found


def _answers(settings: Settings, features: Features) -> Matrix:
    """Return p(y^n | w) [models, 2^n] of logistic regressions at n test samples of two classes."""
    import numpy as np

    key = hashlib.sha256(f"probe/{features.seed}/reference prior".encode()).digest()
    # Raw output of PCG64, which numpy keeps the same in all its versions, as for labels.
    bits = np.random.PCG64(int.from_bytes(key, "big"))
    x = features.x["test"].astype(float)
    deviation = x.std(0)
    x = (x - x.mean(0)) / np.where(deviation > 0, deviation, 1)
    rows = np.flatnonzero(np.isin(features.y["test"], settings.between))
    if len(rows) < settings.order:
        raise UserError(
            f"order: must be at most {len(rows)}, the test samples of classes "
            f"{list(settings.between)} (found {settings.order})."
        )
    chosen = x[rows[np.argsort(bits.random_raw(len(rows)))[: settings.order]]]
    draws = (bits.random_raw(settings.models * (2 * x.shape[1] + 1)) >> 11) / 2**53
    length, angles = np.split(draws, [settings.models])
    # Box and Muller: normal numbers point into every direction alike.
    radius, turn = angles.reshape(2, settings.models, x.shape[1])
    normal = np.sqrt(-2 * np.log1p(-radius)) * np.cos(2 * np.pi * turn)
    low, high = np.log(settings.lengths)
    scale = np.exp(low + (high - low) * length)[:, None] / np.sqrt(x.shape[1])
    return joint(1 / (1 + np.exp(-(scale * normal) @ chosen.T)))


def joint(p: Matrix) -> Matrix:
    """Return the probabilities [K, 2^n] of all answers of models whose single ones are p [K, n]."""
    import numpy as np

    found = np.ones((len(p), 1))
    for column in p.T:
        found = np.concatenate([found * (1 - column[:, None]), found * column[:, None]], 1)
    return found


def optimal(channel: Matrix, tolerance: float, iterations: int) -> tuple[Matrix, float]:
    """Return the prior [K] of the largest information of models p(y | w) [K, Y], and that in bits.

    It ends when the capacity is known to ``tolerance`` nats, or after so many iterations.
    """
    import numpy as np
    from scipy.special import xlogy

    prior, negative = np.full(len(channel), 1 / len(channel)), xlogy(channel, channel).sum(1)
    # Of answers that no model gives nothing is asked.
    channel = channel[:, channel.max(0) > 0]
    value = 0.0
    for _ in range(iterations):
        divergence = negative - channel @ np.log(prior @ channel)
        top = divergence.max()
        grown = prior * np.exp(divergence - top)
        total = grown.sum()
        value, prior = float(top + np.log(total)), grown / total
        if top - value < tolerance:
            break
    return prior, value / float(np.log(2))


def atoms(channel: Matrix, prior: Matrix) -> list[int]:
    """Return the heaviest model of each group of models that has enough of the mass."""
    import numpy as np

    left, found = prior.copy(), []
    while left.any():
        first = int(left.argmax())
        group = (np.abs(channel - channel[first]).sum(1) / 2 <= ALIKE) & (left > 0)
        if left[group].sum() > MASS:
            found.append(first)
        left[group] = 0
    return found
