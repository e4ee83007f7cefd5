"""Sketches for small data: a hyper-gradient, and features of a parent."""

from __future__ import annotations

import copy
import importlib
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
def test_a_hyper_gradient_is_that_of_updates_unrolled_and_of_differences() -> None:
    """At a minimum of the fitted loss it is the derivative of the held-out loss there."""
    module = sketch("auxilearn")
    rate, terms = module.RATE, module.TERMS
    scale = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    w = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    of = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64, requires_grad=True)

    def fitted(w: Tensor, of: Tensor) -> Tensor:
        product = w[0] * w[1] - of[0].sin() * of[1].sin()
        return (scale * (w - of.sin()).square()).sum() / 2 + product.square()

    def held(w: Tensor) -> Tensor:
        return (w - 1).square().sum()

    def after(updates: int) -> Tensor:
        moved = start
        for _ in range(updates):
            leaf = moved.detach().requires_grad_()
            [slope] = torch.autograd.grad(fitted(leaf, of.detach()), leaf)
            moved = leaf.detach() - rate * slope
        return held(moved)

    start = of.detach().sin()
    with torch.no_grad():
        w.copy_(start)
    [found] = module.hyper_gradient(fitted(w, of), held(w), [w], [of])
    # As many updates as there are terms, the one without a factor included.
    expected = by_differences(lambda: after(terms + 1), [of])
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-6)


@pytest.mark.usefixtures("_double")
def test_the_generator_is_reached_through_all_weights(plan: Any) -> None:
    """Its hyper-gradient, on networks, against dense second derivatives by differences."""
    module = sketch("auxilearn")
    nets = {"main": Smooth(4, 3, 0), "net": Smooth(4, 3 * module.FINE, 1)}
    models = {**nets, "fine": nn.Linear(5, 3 * module.FINE).double()}
    weights = [*models["main"].parameters(), *models["fine"].parameters()]
    of = list(models["net"].parameters())
    one, two = drawn(6, 2), drawn(4, 3)
    found = module.hyper_gradient(
        sum(module.losses(models, *one)), module.losses(models, *two)[0], weights, of
    )

    def slopes() -> Tensor:
        return flat(torch.autograd.grad(sum(module.losses(models, *one)), weights))

    outer = module.losses(models, *two)[0]
    first = flat(torch.autograd.grad(outer, weights, materialize_grads=True))
    curved, mixed = by_differences(slopes, weights), by_differences(slopes, of)
    v = first
    for _ in range(module.TERMS):
        v = first + v - module.RATE * curved @ v
    torch.testing.assert_close(flat(found), -module.RATE * v @ mixed, atol=1e-7, rtol=1e-4)


def test_the_generator_moves_at_events_alone_and_held_samples_never_train(plan: Any) -> None:
    run, every = sketches.run(plan, "auxiliary"), sketch("auxilearn").EVERY
    held = run.models["net"].held  # type: ignore[union-attr]
    assert sorted(run.data.labels[held].tolist()) == list(range(10))
    assert set(run.feeds["labelled"].ids.tolist()) == set(run.ids["train"].tolist()) - set(
        held.tolist()
    )
    before = copy.deepcopy(run.models["net"].state_dict())
    moved = []
    honest = run.step

    def step(size: int) -> None:
        now = run.models["net"].state_dict()
        moved.append(not torch.equal(now["body.1.weight"], before["body.1.weight"]))
        before.update(copy.deepcopy(now))
        honest(size)

    run.step = step  # type: ignore[method-assign]
    while not run.finished:
        run.train_epoch()
    assert [i for i, each in enumerate(moved) if each] == list(range(every, run.updates, every))
    assert any(p.any() for p in run.models["momentum"].parameters())


def test_keys_are_a_queue_and_the_negatives(plan: Any) -> None:
    run = sketches.run(plan, "prior")
    queue: Any = run.models["queue"]
    run.begin_epoch()
    made, keys = [], queue.keys.clone()
    for _ in range(4):
        batch = run._batch(20, None)
        nets = copy.deepcopy({n: m for n, m in run.models.items() if n != "queue"})
        loss, _ = sketch("moco").step(run.models, batch, {}, run.method_settings, None)
        q, k = (
            F.normalize(nets[projector](nets[net].features(x))).detach()  # type: ignore[operator]
            for net, projector, x in zip(
                ("main", "ema"), ("projector", "ema.projector"), batch["pairs"].views, strict=True
            )
        )
        expected = []
        for i in range(20):
            wrong = [float(q[i] @ key) for key in keys]
            z = torch.tensor([float(q[i] @ k[i]) - 0.6, *wrong]) / 0.07
            expected.append(-float(z.log_softmax(0)[0]))
        assert float(loss.detach()) == pytest.approx(sum(expected) / 20, rel=1e-4)
        loss.backward()
        made += list(k)
        keys = queue.keys.clone()
    # Of 80 keys the last 64, the 17th in the place of the first one after the end.
    torch.testing.assert_close(keys, torch.stack([*made[64:], *made[16:64]]))


def test_the_parent_stays_and_the_distance_sets_in_after_an_epoch(plan: Any) -> None:
    run = sketches.run(plan, "distilled")
    prior = copy.deepcopy(run.models["prior"].state_dict())
    start = copy.deepcopy(run.models["connector"].state_dict())
    run.train_epoch()
    assert torch.equal(run.models["connector"].state_dict()["0.weight"], start["0.weight"])
    run.train_epoch()
    assert not torch.equal(run.models["connector"].state_dict()["0.weight"], start["0.weight"])
    assert all(torch.equal(v, prior[k]) for k, v in run.models["prior"].state_dict().items())


def test_balanced_accuracy_is_a_figure_of_every_arm(plan: Any) -> None:
    run = sketches.run(plan, "plain", done=True)
    logits = Moment(run._inside).outputs(run.models["main"], run.ids["test"])
    expected = balanced_accuracy_score(run.data.labels[run.ids["test"]], logits.argmax(1))
    assert run.final()["test_balanced_accuracy"] == pytest.approx(expected, abs=1e-6)
