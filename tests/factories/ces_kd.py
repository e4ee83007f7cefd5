"""CES-KD/op on made-up samples: whose difficulty is planted, and every path of its step."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclery.methods import ces_kd
from factories.batches import made

B, K, N = 8, 4, 40
EXPERTS = 3
NAMES = [f"expert-{number}" for number in range(1, EXPERTS + 1)]
FOLDS = [f"fold-{fold}" for fold in range(5)]
# Every path through the step.
PATHS = [
    *[{"assignment": a, "unlocking": u} for a, u in product(
        ("curriculum", "random", "reversed"), ("gradual", "static", "easy_first"))],
    {"assignment": "single", "expert": 2}, {"assignment": "mean"}, {"assignment": "all"},
]  # fmt: skip
each_path = pytest.mark.parametrize("given", PATHS, ids=lambda given: " ".join(
    str(value) for value in given.values()))  # fmt: skip


def by_numpy(difficulty: np.ndarray, count: int) -> np.ndarray:
    """Return the strata of the card's independent check."""
    found = np.empty(len(difficulty), dtype=int)
    for stratum, ids in enumerate(np.array_split(np.argsort(difficulty, kind="stable"), count)):
        found[ids] = stratum
    return found


class Planted:
    """What a method begins with: made-up answers of parents, and who was trained on what."""

    def __init__(self, seed: int = 0) -> None:
        g = torch.Generator().manual_seed(seed)
        self.ids = torch.randperm(3 * N, generator=g)[:N]
        self.y = torch.randint(K, (N,), generator=g)
        self.said: dict[str, Tensor] = {}
        self.left: dict[str, Tensor] = {}
        self.seed = 0

    def answers(self, name: str) -> Tensor:
        """Return the log-probabilities that a parent answers."""
        return self.said[name]

    def left_out(self, name: str) -> Tensor:
        """Return which samples a parent was not trained on."""
        return self.left[name]

    def generator(self, purpose: str) -> torch.Generator:
        """Return the generator of a purpose."""
        return torch.Generator().manual_seed(hash((self.seed, len(purpose))) % 2**31)

    def answer(self, name: str, seed: int) -> Tensor:
        """Let a parent answer something."""
        z = 2 * torch.randn(N, K, generator=torch.Generator().manual_seed(seed))
        self.said[name] = z.log_softmax(1)
        return self.said[name]

    def loss(self, name: str) -> np.ndarray:
        """Return the loss of each sample by a parent's answer."""
        return F.nll_loss(self.said[name], self.y, reduction="none").numpy()


def begun(samples: Planted, **given: Any) -> np.ndarray:
    """Return the strata of the samples, and check that nobody else has any."""
    settings = ces_kd.Settings(**given)
    nets = ces_kd.modules(settings, made(nn.Identity(), K, 3 * N))
    memory = nets["curriculum"].get_buffer("strata")
    assert memory.shape == (3 * N,) and not memory.any()
    ces_kd.begin(nets, samples, settings)
    others = torch.ones(3 * N, dtype=torch.bool)
    others[samples.ids] = False
    assert not memory[others].any()
    return memory[samples.ids].numpy()


def folded() -> Planted:
    """Return samples whose difficulty only the network of their own fold knows."""
    samples = Planted()
    fold = torch.randperm(N, generator=torch.Generator().manual_seed(9)) % 5
    for number, name in enumerate(FOLDS):
        samples.answer(name, 20 + number)
        samples.left[name] = fold == number
    return samples
