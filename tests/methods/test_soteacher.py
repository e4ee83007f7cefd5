"""SoTeacher's teacher: each term by itself, the memory of soft labels, controls, whole runs."""

from __future__ import annotations

import math
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from factories import engine as factory
from factories.batches import made
from factories.replay import Recorder
from torch import Tensor, nn

from cyclery import methods, models, schedules
from cyclery.engine.run import Run
from cyclery.methods import soteacher

N, K, B = 12, 4, 5
OFF = {"lipschitz_weight": 0.0, "consistency_weight": 0.0}
RATES = {"mean": {"kind": "mean_rate"}, "released": {"kind": "mean_rate", "first": 2}}
NETS = {
    "small_cnn": {"width": 4}, "bn_mlp": {"hidden": [16, 8]}, "wrn": {"depth": 10, "width": 1},
    "stochastic_depth": {"depth": 8},
}  # fmt: skip


def network(name: str = "small_cnn", **given: Any) -> nn.Module:
    """Return a network whose norms are not as they start."""
    g = torch.Generator().manual_seed(1)
    torch.manual_seed(0)
    net = models.build(name, {**NETS[name], **given}, (1, 8, 8), K).double()
    for layer in net.modules():
        if getattr(layer, "running_var", None) is not None:
            layer.weight.data.copy_(torch.randn(layer.weight.shape, generator=g))
            layer.running_var.uniform_(0.01, 3.0, generator=g)
    return net


# The penalty.


def bound(net: nn.Module) -> float:
    """Compute R_lip layer by layer, with torch's norms of matrices and vectors."""
    total = 0.0
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            total += torch.linalg.vector_norm(layer.weight, ord=1).item()
        elif isinstance(layer, nn.Linear):
            total += torch.linalg.matrix_norm(layer.weight, ord=1).item()
        elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            pairs = zip(layer.weight.tolist(), layer.running_var.tolist(), strict=True)
            total += max(abs(gamma) / math.sqrt(var + layer.eps) for gamma, var in pairs)
    return total


@pytest.mark.parametrize("name", NETS)
def test_the_penalty_is_the_sum_of_the_layers_constants(name):
    net = network(name)
    assert soteacher.lipschitz(net).item() == pytest.approx(bound(net), rel=1e-12)
    for layer in net.modules():
        if getattr(layer, "bias", None) is not None:
            layer.bias.data.add_(5.0)
    assert soteacher.lipschitz(net).item() == pytest.approx(bound(net), rel=1e-12)


def test_the_gradient_of_each_constant():
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 2))
    conv, norm, _, linear = net
    norm.weight.data = torch.tensor([1.0, -3.0, 2.0])
    # A gradient through the buffer would be seen, if it took one.
    norm.running_var = torch.tensor([1.0, 4.0, 0.5], requires_grad=True)
    linear.weight.data = torch.tensor([[1.0, -2.0, 0.5], [0.5, 3.0, -1.0]])
    soteacher.lipschitz(net).backward()
    assert torch.equal(conv.weight.grad, conv.weight.sign())
    assert torch.equal(linear.weight.grad, torch.tensor([[0.0, -1.0, 0.0], [0.0, 1.0, 0.0]]))
    # |2| / sqrt(0.5) is larger than |-3| / sqrt(4).
    slope = 1 / math.sqrt(0.5 + norm.eps)
    assert norm.weight.grad.tolist() == pytest.approx([0.0, 0.0, slope])
    assert norm.running_var.grad is None
    assert all(layer.bias.grad is None for layer in (conv, norm, linear))


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_norms_without_running_variance_have_no_term(norm):
    net = network(norm=norm)
    assert soteacher.lipschitz(net).item() == pytest.approx(bound(net), rel=1e-12)
    soteacher.lipschitz(net).backward()
    assert all(m.weight.grad is None for m in net.modules() if isinstance(m, nn.GroupNorm))


def test_a_batch_norm_without_gamma_or_statistics_has_no_term():
    norms = [nn.BatchNorm2d(2, affine=False), nn.BatchNorm2d(2, track_running_stats=False)]
    net = nn.Sequential(nn.Conv2d(1, 2, 3), *norms)
    assert soteacher.lipschitz(net).item() == pytest.approx(net[0].weight.abs().sum().item())


def test_l1_is_over_all_weights_and_no_bias():
    net = network()
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.BatchNorm2d)]
    assert len(layers) == 7
    expected = sum(np.abs(layer.weight.detach().numpy()).sum() for layer in layers)
    assert soteacher.l1(net).item() == pytest.approx(expected, rel=1e-12)


# A step.


class Head(nn.Module):
    """A linear network on numbers, which answers with logits that its weights decide."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, K)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


def case(ids: list[int], seed: int = 0) -> Any:
    g = torch.Generator().manual_seed(seed)
    x, y = torch.randn(len(ids), 3, generator=g), torch.randint(K, (len(ids),), generator=g)
    return SimpleNamespace(x=x, y=y, ids=torch.tensor(ids))


def filled(seed: int = 5) -> Tensor:
    return torch.randn(N, K, generator=torch.Generator().manual_seed(seed)).softmax(1)


def step(batch: Any, start: Tensor, penalty: str = "lipschitz", **changes: float) -> Any:
    """Make one step backward; return loss, logs, the network and the memory after it."""
    torch.manual_seed(0)
    settings, net = soteacher.Settings(penalty=penalty), Head()
    networks = {"main": net, **soteacher.modules(settings, made(net, K, N))}
    memory = networks["memory"].get_buffer("soft_labels")
    assert not memory.any() and memory.shape == (N, K)
    memory.copy_(start)
    values = {"lipschitz_weight": 0.3, "consistency_weight": 2.0, "mixing_rate": 0.25, **changes}
    row = {name: torch.tensor(value) for name, value in values.items()}
    loss, logs = soteacher.step(networks, batch, row, settings, torch.Generator())
    loss.backward()
    assert memory is networks["memory"].get_buffer("soft_labels")
    assert not memory.requires_grad and memory.grad is None
    return loss.detach(), {k: v.detach() for k, v in logs.items()}, net, memory


def by_hand(batch: Any, targets: Tensor, lipschitz: float, consistency: float) -> Any:
    """Return the loss and the network that has its gradient."""
    torch.manual_seed(0)
    net = Head()
    z = net(batch.x)
    cost = F.mse_loss(z.softmax(1), targets, reduction="sum") / len(batch.y)
    penalty = torch.linalg.matrix_norm(net.linear.weight, ord=1)
    loss = F.cross_entropy(z, batch.y) + lipschitz * penalty + consistency * cost
    loss.backward()
    return loss.detach(), net, cost.item(), z.detach().softmax(1)


def test_the_loss_and_its_gradient_are_the_cards():
    batch, start = case([7, 2, 0, 11, 3]), filled()
    loss, logs, net, memory = step(batch, start)
    expected, twin, cost, p = by_hand(batch, start[batch.ids], 0.3, 2.0)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert logs["consistency"].item() == pytest.approx(cost, rel=1e-6)
    assert logs["loss_ce"].item() == pytest.approx(F.cross_entropy(p.log(), batch.y).item())
    assert logs["lipschitz"].item() == pytest.approx(bound(twin), rel=1e-6)
    assert all(value.shape == () for value in logs.values())
    torch.testing.assert_close(net.linear.weight.grad, twin.linear.weight.grad)
    torch.testing.assert_close(net.linear.bias.grad, twin.linear.bias.grad)
    # Updated afterwards: a quarter of the way, and nothing but these rows.
    moved = start.clone()
    moved[batch.ids] = 0.75 * start[batch.ids] + 0.25 * p
    torch.testing.assert_close(memory, moved)


def test_what_was_never_seen_has_no_part_and_is_remembered_whole():
    batch, start = case([7, 2, 0, 11, 3]), filled()
    start[[2, 11]] = 0.0
    _, logs, net, memory = step(batch, start, lipschitz_weight=0.0)
    torch.manual_seed(0)
    twin = Head()
    p = twin(batch.x).softmax(1)
    known = torch.tensor([0, 2, 4])
    cost = (p - start[batch.ids])[known].square().sum() / B
    (F.cross_entropy(twin(batch.x), batch.y) + 2 * cost).backward()
    assert logs["consistency"].item() == pytest.approx(cost.item(), rel=1e-6)
    torch.testing.assert_close(net.linear.weight.grad, twin.linear.weight.grad)
    torch.testing.assert_close(memory[[2, 11]], p.detach()[[1, 3]])
    torch.testing.assert_close(memory[7], 0.75 * start[7] + 0.25 * p[0].detach())


def test_of_a_sample_that_stands_twice_the_last_place_counts():
    batch, start = case([4, 9, 4, 1, 4, 9]), filled()
    _, logs, _, memory = step(batch, start)
    _, _, cost, p = by_hand(batch, start[batch.ids], 0.3, 2.0)
    assert logs["consistency"].item() == pytest.approx(cost, rel=1e-6)
    moved = start.clone()
    for place in (3, 4, 5):
        sample = batch.ids[place]
        moved[sample] = 0.75 * start[sample] + 0.25 * p[place]
    torch.testing.assert_close(memory, moved)


def test_rows_of_one_sample_are_written_alike_so_that_no_order_matters(monkeypatch):
    """On a GPU any of the writes to one place may be the last."""
    write, written = Tensor.index_copy_, []

    def backwards(memory, dim, ids, rows):
        written.append(ids)
        return write(memory, dim, ids.flip(0), rows.flip(0))

    batch, start = case([4, 9, 4, 1, 4, 9]), filled()
    expected = step(batch, start)[3]
    monkeypatch.setattr(Tensor, "index_copy_", backwards)
    assert torch.equal(step(batch, start)[3], expected)
    assert len(written) == 1


@pytest.mark.parametrize("rate", RATES)
def test_the_memory_is_the_mean_of_the_history(rate):
    epochs, memory = 7, torch.zeros(N, K)
    clock = schedules.Clock(np.arange(epochs), epochs)
    g = torch.Generator().manual_seed(3)
    history = [torch.randn(N, K, generator=g).softmax(1) for _ in range(epochs)]
    for k, t in enumerate(schedules.column(RATES[rate], clock), start=1):
        for ids in torch.randperm(N, generator=g).split(B):
            before, seen = soteacher.remember(
                memory, ids, history[k - 1][ids], torch.tensor(t, dtype=torch.float32)
            )
            assert seen.tolist() == [k > 1] * len(ids)
            assert torch.equal(before.any(1), seen)
        counts = torch.tensor([2.0 if rate == "released" else 1.0] + [1.0] * (k - 1))
        mean = (torch.stack(history[:k]) * counts[:, None, None]).sum(0) / counts.sum()
        torch.testing.assert_close(memory, mean)
        if rate == "mean":
            torch.testing.assert_close(memory, torch.stack(history[:k]).mean(0))


def test_the_controls_shrink_weights_and_the_matched_one_is_of_the_same_size():
    batch, start = case([7, 2, 0, 11, 3]), filled()
    only = {"consistency_weight": 0.0}
    base, _, plain, _ = step(batch, start, **only, lipschitz_weight=0.0)
    own, logs, _, _ = step(batch, start, **only)
    assert "l1" not in logs
    for penalty in ("l1", "l1_matched"):
        loss, logs, net, _ = step(batch, start, penalty, **only)
        weight = net.linear.weight.detach()
        total = weight.abs().sum().item()
        assert logs["l1"].item() == pytest.approx(total, rel=1e-6)
        assert logs["lipschitz"].item() == pytest.approx(bound(net), rel=1e-6)
        scale = 1.0 if penalty == "l1" else bound(net) / total
        assert loss.item() == pytest.approx(base.item() + 0.3 * scale * total, rel=1e-5)
        gradient = plain.linear.weight.grad + 0.3 * scale * weight.sign()
        torch.testing.assert_close(net.linear.weight.grad, gradient)
        torch.testing.assert_close(net.linear.bias.grad, plain.linear.bias.grad)
    assert loss.item() == pytest.approx(own.item(), rel=1e-6)


def test_half_precision_gives_the_gradients_of_full_precision():
    found = []
    for half in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss, _, net, memory = step(case([7, 2, 0, 11, 3]), filled())
        assert loss.dtype == memory.dtype == torch.float32
        found.append(net.linear.weight.grad.flatten())
    assert F.cosine_similarity(*found, dim=0) > 0.99


# Whole runs.


def settings(**changes: Any) -> dict[str, Any]:
    return factory.settings("soteacher", **{"lipschitz_weight": 1e-3, **changes})


def memory_of(run: Run) -> Tensor:
    return run.models["memory"].get_buffer("soft_labels")


def test_both_terms_off_is_supervised_to_the_last_bit():
    plain, off = factory.train(factory.settings(epochs=4)), factory.train(settings(epochs=4, **OFF))
    assert torch.equal(plain.flat.data, off.flat.data)
    assert all(torch.equal(value, off.weights()[name]) for name, value in plain.weights().items())
    assert plain.curve.items() <= off.curve.items()
    assert plain.final() == off.final()
    assert off.curve["train_loss"] == off.curve["train_loss_ce"]
    for name in OFF:
        one = factory.train(settings(epochs=4, **{**OFF, name: 0.5}))
        assert not torch.equal(plain.flat.data, one.flat.data), name


@pytest.mark.parametrize("weight", [3.0, {"kind": "epoch_ramp", "end": 3.0, "wait": 1}])
def test_there_is_no_consistency_in_the_first_epoch(weight):
    plain, run = (
        factory.run(settings(consistency_weight=value, split={"labels": 190}))
        for value in (0.0, weight)
    )
    plain.train_epoch()
    run.train_epoch()
    assert run.curve["train_consistency"] == [0.0]
    assert torch.equal(plain.flat.data, run.flat.data)
    plain.train_epoch()
    run.train_epoch()
    assert run.curve["train_consistency"][1] > 0
    assert not torch.equal(plain.flat.data, run.flat.data)


def test_the_defaults_are_the_cards_schedules():
    table = factory.run(factory.settings("soteacher", epochs=8)).table
    k = table.clock.epoch + 1
    assert table.columns["consistency_weight"] == pytest.approx(np.where(k > 1, k / 8, 0))
    assert table.columns["mixing_rate"] == pytest.approx(1 / k)
    assert set(table.columns["lipschitz_weight"]) == {1e-5}


@pytest.mark.parametrize("changes", [{}, {"batch": 60}, {"epoch_images": 330, "batch": 60}])
@pytest.mark.parametrize("rate", RATES)
def test_each_row_is_that_of_its_sample_whatever_the_order(rate, changes, monkeypatch):
    """With what is left over at the end of an epoch, and with several passes in one, too."""
    seen: list[tuple[list[int], np.ndarray, float]] = []
    remember = soteacher.remember

    def keep(memory, ids, p, t):
        seen.append((ids.tolist(), p.detach().double().numpy(), t.item()))
        return remember(memory, ids, p, t)

    monkeypatch.setattr(soteacher, "remember", keep)
    run = factory.train(settings(mixing_rate=RATES[rate], epochs=4, **changes))
    rows: dict[int, np.ndarray] = {}
    twice = 0
    for ids, p, t in seen:
        twice += len(ids) - len(set(ids))
        new = {
            i: (1 - t) * rows[i] + t * value if i in rows else value
            for i, value in zip(ids, p, strict=True)
        }
        rows |= new
    assert (twice > 0) == ("epoch_images" in changes)
    found = memory_of(run).double().numpy()
    assert found.shape == (len(factory.data().labels), 10)
    for i, row in rows.items():
        assert found[i] == pytest.approx(row, abs=1e-6)
    others = sorted(set(range(len(found))) - rows.keys())
    assert not found[others].any()
    assert rows.keys() <= set(run.ids["train"].tolist())
    if not changes:
        # All samples in every epoch: the mean of four, or with the first counting twice.
        history = defaultdict(list)
        for ids, p, _ in seen:
            for i, value in zip(ids, p, strict=True):
                history[i].append(value)
        counts = [2 if rate == "released" else 1, 1, 1, 1]
        for i, values in history.items():
            assert found[i] == pytest.approx(np.average(values, axis=0, weights=counts), abs=1e-6)


def test_a_resumed_run_has_its_memory():
    given = settings(epochs=4, consistency_weight={"kind": "epoch_ramp", "end": 3.0, "wait": 1})
    whole, half = factory.train(given), factory.run(given)
    for _ in range(2):
        half.train_epoch()
        half.evaluate_on_the_way()
    state, name = half.state(), "buffer.memory.soft_labels"
    assert state[name].any()
    for forgotten in (False, True):
        rest = factory.run(given)
        taken = {**state, name: torch.zeros_like(state[name])} if forgotten else state
        rest.load_state(taken, 2, {key: list(values) for key, values in half.curve.items()})
        factory.finish(rest)
        same = [torch.equal(v, rest.state()[k]) for k, v in whole.state().items()]
        assert all(same) != forgotten
        assert (rest.curve == whole.curve) != forgotten


@pytest.mark.parametrize("penalty", ["lipschitz", "l1", "l1_matched"])
def test_a_replayed_run_equals_an_eager_one(penalty):
    given = settings(
        epochs=3, method_settings={"penalty": penalty}, epoch_images=330, batch=60,
        model="small_cnn", ema_decay=0.9,
    )  # fmt: skip
    eager, replayed = factory.train(given), factory.train(given, recorder=Recorder())
    for name, value in eager.state().items():
        assert torch.equal(value, replayed.state()[name]), name
    assert eager.curve == replayed.curve
    # The memory is neither averaged nor part of the teacher that is kept.
    assert "ema.memory" not in eager.models
    assert not any("soft_labels" in name for name in eager.weights())


def test_it_is_declared_as_the_engine_wants_it():
    method = methods.load("soteacher")
    assert method.quantities == ("lipschitz_weight", "consistency_weight", "mixing_rate")
    assert method.streams(method.chosen({})) == {"labelled": methods.Stream(("weak",))}
    assert method.capture and not method.uses_ema(method.chosen({}))
