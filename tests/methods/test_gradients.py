"""Gradients that a step makes itself: per example, of second order, and what is wrong with some."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from factories import engine as factory
from factories.threads import one_thread
from torch import Tensor, nn
from torch.nn import functional as F

from cyclery.common.errors import UserError
from cyclery.engine.contract import check_step
from cyclery.methods import Gradients
from cyclery.methods._gradients import by_input, per_example
from cyclery.models.layers import Dropout, use_generator

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

Step = Callable[..., Any]


class Small(nn.Module):
    """Convolutions, a norm of groups, a head, and one frozen layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.GroupNorm(2, 4)
        self.still = nn.Conv2d(4, 4, 1).requires_grad_(False)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.still(self.norm(self.conv(x)).relu())
        return self.head(z.mean((2, 3)))


def cross_entropy(call: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(call(x[None]), y[None])


@pytest.fixture
def network() -> Small:
    torch.manual_seed(0)
    return Small().double()


@pytest.fixture
def samples() -> tuple[Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(1)
    return (
        torch.randn(7, 1, 6, 6, generator=drawn, dtype=torch.float64),
        torch.randint(3, (7,), generator=drawn),
    )


@pytest.mark.parametrize("chunk", [None, 1, 3, 7])
def test_per_example_is_a_loop_of_autograd(
    chunk: int | None, network: Small, samples: tuple[Tensor, Tensor]
) -> None:
    x, y = samples
    found, losses = per_example(network, cross_entropy, x, y, chunk=chunk)
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    assert found.keys() == trained.keys() and not any("still" in name for name in found)
    for i in range(len(x)):
        loss = F.cross_entropy(network(x[i : i + 1]), y[i : i + 1])
        assert losses[i].item() == pytest.approx(loss.item(), rel=1e-12)
        expected = torch.autograd.grad(loss, list(trained.values()))
        for name, gradient in zip(trained, expected, strict=True):
            torch.testing.assert_close(found[name][i], gradient, rtol=1e-6, atol=1e-14)
    assert not losses.requires_grad and all(p.grad is None for p in network.parameters())


def test_the_mean_over_examples_is_the_gradient_of_the_batch(
    network: Small, samples: tuple[Tensor, Tensor]
) -> None:
    x, y = samples
    found, losses = per_example(network, cross_entropy, x, y)
    F.cross_entropy(network(x), y).backward()
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(found[name].mean(0), parameter.grad, rtol=1e-6, atol=1e-14)
    assert losses.mean().item() == pytest.approx(F.cross_entropy(network(x), y).item())


def test_dropout_draws_for_every_example_from_its_own_generator() -> None:
    net = nn.Sequential(nn.Flatten(), Dropout(0.5), nn.Linear(36, 3, bias=False))
    x, y = torch.ones(5, 1, 6, 6), torch.zeros(5, dtype=torch.long)

    def drawn(chunk: int | None) -> Tensor:
        use_generator(net, torch.Generator().manual_seed(1))
        return per_example(net, cross_entropy, x, y, chunk=chunk)[0]["2.weight"]

    first = drawn(None)
    # A weight has a gradient where its input was not dropped, of a share that each drew.
    kept = first[:, 0] != 0
    assert len({tuple(each.tolist()) for each in kept}) == 5 and kept.float().mean() > 0.2
    torch.testing.assert_close(first, drawn(2))


class Normed(nn.Module):
    """A perceptron with batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.body(x)
        return z


@pytest.fixture
def normed() -> Normed:
    torch.manual_seed(0)
    return Normed()


def divergence(net: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    p = torch.linspace(-1, 1, 3).softmax(0).expand(len(x), 3)
    return lambda d: F.kl_div(net(x + d).float().log_softmax(1), p, reduction="batchmean")


@pytest.mark.parametrize("compiled", [False, True])
def test_a_gradient_by_the_input_is_that_of_autograd(compiled: bool, normed: Normed) -> None:
    """It leaves the running statistics, and has no graph; of a compiled network, too."""
    x, d = torch.randn(5, 6), torch.randn(5, 6)
    twin = copy.deepcopy(normed)
    if compiled:
        normed.compile(backend="eager")
    before = {name: value.clone() for name, value in normed.state_dict().items()}
    found = by_input(normed, divergence(normed, x), d)
    assert all(value.equal(before[name]) for name, value in normed.state_dict().items())
    assert not found.requires_grad and not d.requires_grad
    assert all(p.grad is None for p in normed.parameters())
    assert (normed._compiled_call_impl is not None) == compiled
    at = d.clone().requires_grad_()
    [expected] = torch.autograd.grad(divergence(twin, x)(at), at)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("first", [False, True])
def test_a_gradient_by_the_input_leaves_those_of_other_passes(first: bool, normed: Normed) -> None:
    """In bfloat16 as well, where autocast remembers weights that were cast without a graph."""
    x, y, d = torch.randn(5, 6), torch.tensor([0, 1, 2, 0, 1]), torch.randn(5, 6)

    def gradients(inward: bool) -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            if inward and first:
                by_input(normed, divergence(normed, x), d)
            loss = F.cross_entropy(normed(x).float(), y)
            if inward and not first:
                by_input(normed, divergence(normed, x), d)
            loss = loss + F.cross_entropy(normed(x).float(), y)
        return list(torch.autograd.grad(loss, list(normed.parameters())))

    torch.testing.assert_close(gradients(True), gradients(False))


# In a run.


def own_mean(models: Any, batch: Any, row: Any, settings: Any, generator: Any) -> Any:
    """Return the mean of gradients by example of a network without batch norm."""
    found, losses = per_example(models["plain"], cross_entropy, batch.x, batch.y)
    gradients = {f"plain.{name}": value.mean(0) for name, value in found.items()}
    return Gradients(losses.mean(), gradients), {}


def usual(models: Any, batch: Any, row: Any, settings: Any, generator: Any) -> Any:
    return F.cross_entropy(models["plain"](batch.x), batch.y), {}


def plain(settings: Any, made: Any) -> dict[str, nn.Module]:
    return {"plain": nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))}


def predicting(models: Any, x: Tensor, settings: Any) -> Tensor:
    logits: Tensor = models["plain"](x)
    return logits


def trained(monkeypatch: pytest.MonkeyPatch, step: Step, **settings: Any) -> Any:
    factory.use_method(monkeypatch, step=step, modules=plain, predict=predicting)
    return factory.train(factory.settings(epochs=2, **settings))


@pytest.mark.parametrize("more", [{}, {"clip_norm": 0.5}, {"optimiser": "adam", "lr": 0.01}])
def test_a_step_with_gradients_of_its_own_trains_as_the_loss_would(
    more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (trained(monkeypatch, step, **more) for step in (own_mean, usual))
    torch.testing.assert_close(one.flat.data, other.flat.data, rtol=1e-4, atol=1e-5)
    assert one.curve["train_loss"] == pytest.approx(other.curve["train_loss"], rel=1e-4)
    assert one.final()["test_accuracy"] == pytest.approx(other.final()["test_accuracy"], abs=0.02)


def test_a_parameter_without_a_gradient_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that of the step before: of every other step the head has one."""

    def step(models: Any, batch: Any, row: Any, settings: Any, generator: Any) -> Any:
        result, logs = own_mean(models, batch, row, settings, generator)
        kept = {k: v for k, v in result.of.items() if k.startswith("plain.3.")}
        seen.append(models["plain"][1].weight.detach().clone())
        return Gradients(result.loss, kept if len(seen) > 1 else result.of), logs

    seen: list[Tensor] = []
    still = {"momentum": 0.0, "weight_decay": 0.0, "optimiser_settings": {"nesterov": False}}
    trained(monkeypatch, step, **still)
    assert not torch.equal(seen[0], seen[1])
    assert all(torch.equal(seen[1], each) for each in seen[2:])


def test_gradients_of_second_order_keep_no_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient of loss + |gradient|^2 / 2, as a step makes it and as autograd would."""

    def penalised(models: Any, batch: Any, row: Any, settings: Any, generator: Any) -> Any:
        named = dict(models["plain"].named_parameters())
        loss = F.cross_entropy(models["plain"](batch.x), batch.y)
        first = torch.autograd.grad(loss, list(named.values()), create_graph=True)
        whole = loss + sum(g.square().sum() for g in first) / 2
        return loss, whole, named

    def own(*given: Any) -> Any:
        _, whole, named = penalised(*given)
        second = torch.autograd.grad(whole, list(named.values()), create_graph=True)
        return Gradients(whole, {f"plain.{k}": g for k, g in zip(named, second, strict=True)}), {}

    one = trained(monkeypatch, own)
    other = trained(monkeypatch, lambda *given: (penalised(*given)[1], {}))
    assert not one.flat.grad.requires_grad
    torch.testing.assert_close(one.flat.data, other.flat.data, rtol=1e-5, atol=1e-6)


# What is wrong.

PARAMETERS = {"main.head.weight": torch.zeros(3, 2), "main.head.bias": torch.zeros(3)}
GOOD = {"main.head.weight": torch.ones(3, 2)}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Gradients(torch.tensor(1.0), {}), "`of` of Gradients must be a dict with one at least"),
        (Gradients(torch.tensor(1.0), None), "must be a dict with one at least .found None"),  # type: ignore[arg-type]
        (
            Gradients(torch.tensor(1.0), {"main.head.wieght": torch.ones(3, 2)}),
            "Gradients has 'main.head.wieght', .* Did you mean 'main.head.weight'",
        ),
        (
            Gradients(torch.tensor(1.0), {"main.head.weight": torch.ones(5, 3, 2)}),
            r"'main.head.weight' must have the shape \[3, 2\] .found a tensor of shape \[5, 3, 2\]",
        ),
        (Gradients(torch.ones(5), GOOD), r"one number as a tensor.* .found a tensor of shape \[5"),
        (Gradients(1.0, GOOD), "the loss must be one number as a tensor"),  # type: ignore[arg-type]
        (torch.tensor(1.0), "the loss has no gradient"),
    ],
)
def test_what_a_step_returns_wrongly_is_one_message(given: Any, said: str) -> None:
    with pytest.raises(UserError, match=f"the step of 'one' must return .*{said}"):
        check_step("one", (given, {}), PARAMETERS)


def test_right_gradients_pass_and_the_rest_may_be_left_out() -> None:
    check_step(
        "one", (Gradients(torch.tensor(1.0), GOOD), {"share": torch.tensor(0.5)}), PARAMETERS
    )


def test_it_is_said_at_the_first_step_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(models: Any, *rest: Any) -> Any:
        names = dict(models["plain"].named_parameters())
        return Gradients(torch.tensor(0.0), {k: torch.zeros_like(v) for k, v in names.items()}), {}

    with pytest.raises(UserError, match=r"Gradients has '1.weight', which is no trained parameter"):
        trained(monkeypatch, step)


def test_batch_norm_has_no_gradient_of_one_example() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.BatchNorm1d(4), nn.Linear(4, 10))
    before = copy.deepcopy(net.state_dict())
    with pytest.raises((UserError, RuntimeError), match=r"batch norm|BatchNorm|in-place"):
        per_example(net, cross_entropy, torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 2]))
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in before.items())
