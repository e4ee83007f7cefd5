"""Sketches for small data: gradients of gradients, and a head of the angle."""

from __future__ import annotations

import importlib
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from factories import sketches
from factories.cards_self_supervised import CARDS, CLAIMS
from sklearn.metrics import balanced_accuracy_score
from torch import Tensor, nn

from cyclery.engine.hooks import Moment


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("small")
    return sketches.planned(root, CARDS["small-data"], CLAIMS["small-data"])


def sketch(name: str) -> Any:
    return importlib.import_module(f"cyclery.methods.{name}")


class Smooth(nn.Module):
    """A small network without kinks, float64."""

    def __init__(self, inputs: int, outputs: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(inputs, 5), nn.Tanh()).double()
        self.head = nn.Linear(5, outputs).double()

    def features(self, x: Tensor) -> Tensor:
        found: Tensor = self.body(x)
        return found

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.features(x))
        return found


def drawn(count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 1, 2, 2, dtype=torch.float64, generator=generator)
    return x, torch.randint(3, (count,), generator=generator)


# The sketches make float32 of logits, so that steps may run in bfloat16.
@pytest.fixture
def _double(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "float", Tensor.double)


def by_differences(function: Any, parameters: list[Tensor], step: float = 1e-5) -> Tensor:
    """Return the derivative [..., P] of a function of parameters, by central differences."""
    columns = []
    for entry in (parameter.detach().view(-1) for parameter in parameters):
        for at, value in enumerate(entry.tolist()):
            ends = []
            for moved in (value + step, value - step):
                entry[at] = moved
                ends.append(function().detach())
            entry[at] = value
            columns.append((ends[0] - ends[1]) / (2 * step))
    return torch.stack(columns, -1)


def flat(tensors: Any) -> Tensor:
    return torch.cat([each.reshape(-1) for each in tensors])


@pytest.mark.usefixtures("_double")
def test_the_penalty_is_trained_through_second_order() -> None:
    net, (x, y) = Smooth(4, 3, 0), drawn(7, 1)
    batch, row = SimpleNamespace(x=x, y=y), {"weight": torch.tensor(3.0, dtype=torch.float64)}

    def penalty() -> Tensor:
        found: Tensor = sketch("grad_l2").step({"main": net}, batch, row, None, None)[1]["penalty"]
        return found

    each = []
    for image, label in zip(x, y, strict=True):

        def loss(pixels: Tensor = image, label: Tensor = label) -> Tensor:
            return F.cross_entropy(net(pixels[None]), label[None])

        each.append(by_differences(loss, [image]).square().sum())
    assert float(penalty().detach()) == pytest.approx(float(torch.stack(each).mean()), rel=1e-6)
    parameters = [net.body[1].weight, net.head.weight]
    exact = flat(torch.autograd.grad(penalty(), parameters))
    torch.testing.assert_close(exact, by_differences(penalty, parameters), atol=1e-7, rtol=1e-5)


def test_a_head_is_a_function_of_the_angle_alone(plan: Any) -> None:
    head: Any = sketches.run(plan, "tailed").models["main"].head
    x = torch.stack([head.weight[0] * 3, -head.weight[0], head.weight[0] * 0.1]).detach()
    logits = head(x)[:, 0].tolist()
    scale = 1 + math.log(2)
    assert logits == pytest.approx([scale, -scale, scale], rel=1e-5)


def test_balanced_accuracy_is_a_figure_of_every_arm(plan: Any) -> None:
    run = sketches.run(plan, "smooth", done=True)
    logits = Moment(run._inside).outputs(run.models["main"], run.ids["test"])
    expected = balanced_accuracy_score(run.data.labels[run.ids["test"]], logits.argmax(1))
    assert run.final()["test_balanced_accuracy"] == pytest.approx(expected, abs=1e-6)
