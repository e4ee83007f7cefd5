"""The flat vector and its optimisers against torch's own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from factories.optim import changing, network
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cyclery.common.errors import UserError
from cyclery.optim import build, names, settings_type
from cyclery.optim.flat import optimiser
from cyclery.optim.flat.parameters import Flat, clip_, grad_norm

STEPS = 20


def batch(step: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(step)
    return torch.randn(6, 3, 8, 8, generator=draw), torch.randint(0, 4, (6,), generator=draw)


def row(**values: float) -> dict[str, Tensor]:
    full = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.0, "weight_decay_norm": 0.0} | values
    return {name: torch.tensor(value) for name, value in full.items()}


def torch_step(other: torch.optim.Optimizer, now: dict[str, float]) -> None:
    """Set the hyper-parameters of two groups (weights, then the rest) and step."""
    for group, decay in zip(other.param_groups, ("weight_decay", "weight_decay_norm"), strict=True):
        group["lr"] = now["lr"]
        group["weight_decay"] = now[decay]
        if "betas" in group:
            group["betas"] = (now["momentum"], group["betas"][1])
        elif "momentum" in group:
            group["momentum"] = now["momentum"]
    other.step()


def groups(net: nn.Module) -> list[dict[str, Any]]:
    weights = [p for p in net.parameters() if p.ndim > 1]
    return [{"params": weights}, {"params": [p for p in net.parameters() if p.ndim <= 1]}]


CASES: dict[str, tuple[str, dict[str, Any], Callable[[Any], torch.optim.Optimizer]]] = {
    "nesterov": ("sgd", {}, lambda g: torch.optim.SGD(g, 0.1, 0.9, nesterov=True)),
    "momentum": ("sgd", {"nesterov": False}, lambda g: torch.optim.SGD(g, 0.1, 0.9)),
    "dampened": (
        "sgd",
        {"nesterov": False, "dampening": 0.3},
        lambda g: torch.optim.SGD(g, 0.1, 0.9, dampening=0.3),
    ),
    "adam": ("adam", {}, lambda g: torch.optim.Adam(g, 0.1)),
    "adam2": (
        "adam",
        {"beta2": 0.9, "eps": 1e-3},
        lambda g: torch.optim.Adam(g, 0.1, (0.9, 0.9), 1e-3),
    ),
    "adamw": ("adamw", {}, lambda g: torch.optim.AdamW(g, 0.1)),
    "rmsprop": ("rmsprop", {}, lambda g: torch.optim.RMSprop(g, 0.1, momentum=0.9)),
    "adagrad": ("adagrad", {}, lambda g: torch.optim.Adagrad(g, 0.1)),
    "adadelta": ("adadelta", {}, lambda g: torch.optim.Adadelta(g, 0.1)),
}


@pytest.mark.parametrize("chunk", [optimiser.CPU_CHUNK, 64])
@pytest.mark.parametrize("case", CASES)
def test_equal_to_torch(case: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimiser, "CPU_CHUNK", chunk)
    name, settings, other = CASES[case]
    net, reference = network(), network()
    flat = Flat(net, channels_last=True)
    ours, theirs = build(name, flat, settings), other(groups(reference))
    for step in range(STEPS):
        # The same gradients for both, of a size as training has.
        draw = torch.Generator().manual_seed(step)
        for name, q in reference.named_parameters():
            q.grad = 0.1 * torch.randn(q.shape, generator=draw)
            flat.views(flat.grad)[name].copy_(q.grad)
        ours.step(row(**changing(step)))
        torch_step(theirs, changing(step))
        for p, q in zip(net.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-6)


def test_training_is_equal_to_torch() -> None:
    name, settings, other = CASES["nesterov"]
    net, reference = network(), network()
    flat = Flat(net)
    ours, theirs = build(name, flat, settings), other(groups(reference))
    for step in range(STEPS):
        now = changing(step) | {"lr": 0.002}
        x, y = batch(step)
        flat.backward(F.cross_entropy(net(x), y))
        ours.step(row(**now))
        theirs.zero_grad()
        F.cross_entropy(reference(x), y).backward()
        torch_step(theirs, now)
    for p, q in zip(net.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-5)


def test_sgdw_is_sgd_after_shrinking() -> None:
    net, reference = network(), network()
    flat = Flat(net)
    ours = build("sgd", flat, {"decay": "decoupled"})
    theirs = torch.optim.SGD(groups(reference), 0.1, 0.9, nesterov=True)
    for step in range(STEPS):
        now = changing(step)
        for name, q in reference.named_parameters():
            q.grad = torch.sin(q.detach() * 7 + step)
            flat.views(flat.grad)[name].copy_(q.grad)
        ours.step(row(**now))
        with torch.no_grad():
            for q in reference.parameters():
                decay = now["weight_decay" if q.ndim > 1 else "weight_decay_norm"]
                q.mul_(1 - now["lr"] * decay)
        torch_step(theirs, now | {"weight_decay": 0.0, "weight_decay_norm": 0.0})
    for p, q in zip(net.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("momentum", "known"), [(0.0, 2 - 0.1 * 0.01 * 2), (0.9, 2 - 1.9 * 0.1 * 0.01 * 2)]
)
def test_one_step_of_decay_alone(momentum: float, known: float) -> None:
    # Known answer: lr 0.1, decay 0.01, weight 2, no gradient; Nesterov's first step is 1.9 times.
    layer = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    nn.init.constant_(layer[0].weight, 2.0)
    before = copy.deepcopy(layer.state_dict())
    flat = Flat(layer)
    build("sgd", flat).step(row(lr=0.1, momentum=momentum, weight_decay=0.01))
    torch.testing.assert_close(layer[0].weight.detach(), torch.full((4, 3), known))
    for name in ("0.bias", "1.weight", "1.bias"):
        assert torch.equal(layer.state_dict()[name], before[name])


def test_decay_of_the_no_decay_group_alone() -> None:
    layer = nn.BatchNorm1d(4)
    flat = Flat(layer)
    assert flat.decay_end == 0
    build("sgd", flat).step(row(lr=0.1, momentum=0.0, weight_decay_norm=0.01))
    torch.testing.assert_close(layer.weight.detach(), torch.full((4,), 0.999))


@pytest.mark.parametrize("name", names())
def test_decays_that_are_promised_to_be_zero_need_no_entry(name: str) -> None:
    finals = []
    for promise in (False, True):
        net = network()
        flat = Flat(net)
        rule = build(name, flat, decay=not promise, decay_norm=not promise)
        flat.grad.copy_(torch.linspace(-1, 1, len(flat)))
        now = row()
        if promise:
            del now["weight_decay"], now["weight_decay_norm"]
        rule.step(now)
        finals.append(flat.data)
    assert torch.equal(*finals)


def test_gradients_are_gathered_anew_and_zero_where_there_is_none() -> None:
    net = network()
    flat = Flat(net, channels_last=True)
    x, y = batch(0)
    for _ in range(2):  # they are not summed up
        flat.backward(F.cross_entropy(net(x), y))
        for name, p in net.named_parameters():
            assert p.grad is not None and p.grad.any()
            assert torch.equal(flat.views(flat.grad)[name], p.grad), name
    weight = dict(net.named_parameters())["0.weight"]
    flat.backward((weight**2).sum())
    for name, gradient in flat.views(flat.grad).items():
        expected = 2 * weight if name == "0.weight" else torch.zeros_like(gradient)
        assert torch.equal(gradient, expected), name


def test_layout_of_the_flat_vector() -> None:
    net = network()
    values = {name: p.detach().clone() for name, p in net.named_parameters()}
    flat = Flat(net, channels_last=True)
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last)
    for name, p in net.named_parameters():
        assert torch.equal(p, values[name])
        start = p.data.storage_offset()
        assert start % 16 == 0 and p.data_ptr() == flat.data[start:].data_ptr()
        gradient = flat.views(flat.grad)[name]
        assert gradient.stride() == p.stride()
        assert gradient.data_ptr() == flat.grad[start:].data_ptr()
        assert (start < flat.decay_end) == (p.ndim > 1)
    used = sum(p.numel() for p in net.parameters())
    assert flat.data.count_nonzero() <= used < len(flat) and len(flat) % 16 == 0
    copies = flat.views(flat.data.clone())
    assert all(torch.equal(copies[name], values[name]) for name in values)
    assert list(copies) == list(flat.params)
    flat.data.zero_()
    assert not any(p.any() for p in net.parameters())


def test_padding_stays_zero() -> None:
    for name in names():
        net = network()
        flat = Flat(net)
        rule = build(name, flat)
        for step in range(3):
            flat.backward(F.cross_entropy(net(batch(step)[0]), batch(step)[1]))
            rule.step(row(**changing(step + 1)))
        mask = torch.ones(len(flat), dtype=torch.bool)
        for view in flat.views(mask).values():
            view.fill_(False)
        assert mask.any() and not flat.data[mask].any()
        assert flat.data.isfinite().all()


def test_channels_last_gradients_are_those_of_torch() -> None:
    net, reference = network().to(memory_format=torch.channels_last), network()
    flat = Flat(net, channels_last=True)
    x, y = batch()
    flat.backward(F.cross_entropy(net(x.contiguous(memory_format=torch.channels_last)), y))
    F.cross_entropy(reference(x), y).backward()
    for name, p in reference.named_parameters():
        torch.testing.assert_close(flat.views(flat.grad)[name], p.grad, rtol=1e-4, atol=1e-6)


def test_frozen_parameters_are_left_alone() -> None:
    net = network()
    net[0].weight.requires_grad_(False)
    before = net[0].weight.clone()
    flat = Flat(net)
    assert "0.weight" not in flat.params
    flat.grad.fill_(1.0)
    build("sgd", flat).step(row(weight_decay=0.1))
    assert torch.equal(net[0].weight, before)


def test_only_float32_parameters() -> None:
    with pytest.raises(ValueError, match=r"found weight \(torch\.float64\), bias"):
        Flat(nn.Linear(2, 2).double())
    with pytest.raises(ValueError, match="found none"):
        Flat(nn.ReLU())


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3, 0.0])
def test_clipping_equals_torch(scale: float) -> None:
    net, reference = network(), network()
    flat = Flat(net)
    for name, q in reference.named_parameters():
        q.grad = scale * torch.randn_like(q)
        flat.views(flat.grad)[name].copy_(q.grad)
    norm = torch.nn.utils.clip_grad_norm_(reference.parameters(), 2.0)
    torch.testing.assert_close(grad_norm(flat), norm)
    clipped = clip_(flat, torch.tensor(2.0))
    assert clipped.shape == () and clipped.dtype == torch.float32
    assert bool(clipped) == bool(norm > 2)
    for name, q in reference.named_parameters():
        torch.testing.assert_close(flat.views(flat.grad)[name], q.grad, rtol=1e-6, atol=1e-9)
    assert grad_norm(flat) <= 2 * (1 + 1e-6)


def test_clipping_takes_a_known_norm() -> None:
    flat = Flat(nn.Linear(2, 2))
    flat.grad.fill_(1.0)
    assert clip_(flat, torch.tensor(1.0), norm=torch.tensor(4.0)) == 1
    torch.testing.assert_close(flat.grad, torch.full_like(flat.grad, 0.25))


@pytest.mark.parametrize("case", sorted({*CASES, *names()}))
def test_restored_state_continues_identically(case: str) -> None:
    name, settings = CASES[case][:2] if case in CASES else (case, {})

    def advance(net: nn.Module, flat: Flat, rule: optimiser.Optimiser, steps: range) -> None:
        for step in steps:
            flat.backward(F.cross_entropy(net(batch(step)[0]), batch(step)[1]))
            rule.step(row(**changing(step)))

    net = network()
    flat = Flat(net)
    rule = build(name, flat, settings)
    advance(net, flat, rule, range(5))
    weights, buffers = flat.data.clone(), copy.deepcopy(net.state_dict())
    saved = {key: value.clone() for key, value in rule.state().items()}
    advance(net, flat, rule, range(5, 10))
    again = network()
    again.load_state_dict(buffers)
    flat_again = Flat(again)
    assert torch.equal(flat_again.data, weights)
    rule_again = build(name, flat_again, settings)
    assert rule_again.state().keys() == saved.keys()
    for key, value in rule_again.state().items():
        value.copy_(saved[key])
    advance(again, flat_again, rule_again, range(5, 10))
    assert torch.equal(flat.data, flat_again.data)


def test_settings_are_documented_and_checked() -> None:
    for kind in map(settings_type, names()):
        assert kind.__doc__ and all(item.metadata["doc"] for item in fields(kind))
    flat = Flat(nn.Linear(2, 2))
    with pytest.raises(UserError, match=r"unknown optimiser 'adamm'\. Did you mean 'adam"):
        build("adamm", flat)
    with pytest.raises(UserError, match=r"dampening: 0\.1 is not allowed with nesterov"):
        build("sgd", flat, {"dampening": 0.1})
    with pytest.raises(UserError, match=r"beta2: must be .* below 1\.0 \(found 1\.0\)"):
        build("adam", flat, {"beta2": 1.0})
    assert build("adam", flat, {"beta2": 0.9}).settings.beta2 == 0.9


class NoSync(TorchDispatchMode):
    """Fail where an operation would read a tensor's value on the host."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.name() not in ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("case", sorted({*CASES, *names()}))
def test_a_step_never_waits_for_the_host(case: str) -> None:
    name, settings = CASES[case][:2] if case in CASES else (case, {})
    flat = Flat(network())
    rule, now, bound = build(name, flat, settings), row(**changing(1)), torch.tensor(1.0)
    with pytest.raises(AssertionError), NoSync():
        bound.item()
    with NoSync():
        flat.backward(sum(p.square().sum() for p in flat.params.values()))
        clip_(flat, bound)
        rule.step(now)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("case", CASES)
def test_steps_can_be_captured(case: str) -> None:
    name, settings, _ = CASES[case]
    flats = [Flat(network().cuda(), channels_last=True) for _ in range(2)]
    rules = [build(name, flat, settings) for flat in flats]
    source = torch.linspace(-1, 1, len(flats[0]), device="cuda")
    bound = torch.ones((), device="cuda")
    now = {key: value.cuda() for key, value in row().items()}

    def step(which: int) -> None:
        flats[which].grad.copy_(source)
        clip_(flats[which], bound)
        rules[which].step(now)

    state = rules[1].state() | {"weights": flats[1].data}
    before = {key: value.clone() for key, value in state.items()}
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        step(1)
    torch.cuda.synchronize()
    with torch.cuda.graph(graph, stream=stream):
        step(1)
    for key, value in state.items():
        value.copy_(before[key])
    for index in range(5):
        for key, number in changing(index).items():
            now[key].fill_(number)
        step(0)
        graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(flats[0].data, flats[1].data)
