"""Batches, networks and every path of the steps of the semi-supervised methods."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cyclery import methods, models
from cyclery.engine.stream import Batch, Samples
from cyclery.methods import fixmatch, mean_teacher, pseudo_label, vat
from factories import batches

B, MU, K = 5, 3, 4
N = MU * B
PARTS = ("x", "x2", "u1", "u2")

DEFAULTS = {
    fixmatch: {"threshold": 0.5, "weight": 0.7, "temperature": 1.0},
    mean_teacher: {"weight": 0.7},
    pseudo_label: {"threshold": 0.5, "weight": 0.7},
    vat: {"weight": 0.7, "epsilon": 2.0, "entropy_weight": 0.3, "xi": 0.01},
}
# Every path through the three steps.
PATHS: list[tuple[Any, dict[str, Any]]] = [
    (fixmatch, {}),
    (fixmatch, {"target": "soft"}),
    (fixmatch, {"alignment": "average"}),
    (fixmatch, {"labels_from": "ema_eval"}),
    (fixmatch, {"labels_from": "ema_train", "alignment": "average"}),
    *[
        (mean_teacher, {"forward": forward, "items": items, "consistency": consistency})
        for forward in ("joint", "separate")
        for items in ("all", "unlabelled")
        for consistency in ("mse", "kl")
    ],
    (mean_teacher, {"forward": "separate", "statistics": "labelled"}),
    (mean_teacher, {"target": "current"}),
    (mean_teacher, {"target": "current", "forward": "separate", "items": "unlabelled"}),
    (mean_teacher, {"target": "current", "gradient": "both"}),
    (mean_teacher, {"logit_distance": 0.1, "denominator": "all"}),
    (mean_teacher, {"logit_distance": 0.1, "target": "current", "forward": "separate"}),
    (pseudo_label, {}),
    (pseudo_label, {"forward": "joint", "statistics": "all"}),
    (vat, {}),
    (vat, {"divergence": "reverse", "iterations": 2}),
    (vat, {"forward": "joint", "statistics": "all"}),
]
IDS = [
    f"{module.__name__.rpartition('.')[2]} {' '.join(map(str, given.values()))}".strip()
    for module, given in PATHS
]
each_path = pytest.mark.parametrize(("module", "given"), PATHS, ids=IDS)


def row(module: Any, **changes: float) -> dict[str, Tensor]:
    """Return the quantities of an update."""
    return {name: torch.tensor(v) for name, v in {**DEFAULTS[module], **changes}.items()}


class Table(nn.Module):
    """A network that answers each image, which is a number, with a row of its parameter."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        return self.logits[x.flatten().long()]


def made(views: dict[str, Tensor], y: Tensor, hidden: Tensor) -> Batch:
    """Return a batch of these views."""
    unlabelled = Samples((views["u1"], views["u2"]), hidden, torch.arange(len(hidden)))
    return batches.batch((views["x"], views["x2"]), y, unlabelled=unlabelled)


def table_case(seed: int = 0, spread: float = 2.0) -> tuple[Batch, Tensor, dict[str, slice]]:
    """Return a batch whose images are numbers, a logit for each, and where each view's lie."""
    g = torch.Generator().manual_seed(seed)
    ends = dict(zip(PARTS, np.cumsum([B, B, N, N]).tolist(), strict=True))
    rows = {part: slice(end - (B if part[0] == "x" else N), end) for part, end in ends.items()}
    images = torch.arange(float(ends["u2"]))[:, None, None, None]
    y, hidden = torch.randint(K, (B,), generator=g), torch.randint(K, (N,), generator=g)
    batch = made({part: images[place] for part, place in rows.items()}, y, hidden)
    return batch, spread * torch.randn(len(images), K, generator=g), rows


def image_case(seed: int = 0) -> Batch:
    """Return a batch of random images."""
    g = torch.Generator().manual_seed(seed)
    views = {p: torch.randn(B if p[0] == "x" else N, 1, 8, 8, generator=g) for p in PARTS}
    y, hidden = torch.randint(K, (B,), generator=g), torch.randint(K, (N,), generator=g)
    return made(views, y, hidden)


def network(norm: str = "batch", seed: int = 0) -> nn.Module:
    """Return a new small network."""
    torch.manual_seed(seed)
    return models.build("small_cnn", {"width": 4, "norm": norm}, (1, 8, 8), K)


def frozen(net: nn.Module) -> nn.Module:
    """Return a copy that takes no gradient, as the average is."""
    return copy.deepcopy(net).requires_grad_(False)


def all_models(module: Any, settings: Any, net: nn.Module, ema: nn.Module) -> dict[str, nn.Module]:
    """Return the networks that a step of a method takes."""
    own = methods.load(module.__name__.rpartition(".")[2]).modules(settings, batches.made(net, K))
    return {"main": net, "ema": ema, **own}


def step(
    module: Any,
    networks: dict[str, nn.Module],
    batch: Batch,
    given: dict[str, Any] | None = None,
    **changes: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Make one step backward and return its loss and logs."""
    settings = module.Settings(**(given or {}))
    loss, logs = module.step(networks, batch, row(module, **changes), settings, torch.Generator())
    loss.backward()
    return loss.detach(), {name: value.detach() for name, value in logs.items()}


def run_table(
    module: Any, given: dict[str, Any] | None = None, seed: int = 0, **changes: float
) -> tuple[Tensor, dict[str, Tensor], nn.Parameter, Any]:
    """Step on a table and return loss, logs, the table with its gradient, and batch and rows."""
    batch, logits, rows = table_case(seed)
    net, ema = Table(logits), Table(logits.flip(0)).requires_grad_(False)
    settings = module.Settings(**(given or {}))
    networks = all_models(module, settings, net, ema)
    loss, logs = step(module, networks, batch, given, **changes)
    return loss, logs, net.logits, (batch, rows)


def gradients(net: nn.Module) -> dict[str, Tensor | None]:
    """Return the gradient of each parameter."""
    return {name: p.grad for name, p in net.named_parameters()}


def softmax(z: np.ndarray) -> np.ndarray:
    """Return the probabilities of each row, by numpy."""
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def numbers(tensor: Tensor) -> np.ndarray:
    """Return what a tensor holds, for numpy."""
    return tensor.detach().double().numpy()


def buffers_equal(one: nn.Module, other: nn.Module) -> bool:
    """Say whether two networks have the same running statistics."""
    pairs = zip(one.named_buffers(), other.named_buffers(), strict=True)
    return all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) for (_, a), (_, b) in pairs)


def assert_same_gradients(one: nn.Module, other: nn.Module, tolerance: float = 1e-6) -> None:
    """Fail unless each parameter has a gradient, and the same in both networks."""
    found, expected = gradients(one), gradients(other)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert gradient is not None, name
        assert gradient.any(), name
        assert torch.allclose(found[name], gradient, rtol=1e-4, atol=tolerance), name


def seen(net: nn.Module, *passes: Tensor) -> nn.Module:
    """Return a copy of a network that has made these passes in training mode."""
    twin = copy.deepcopy(net)
    with torch.no_grad():
        for x in passes:
            twin(x)
    return twin
