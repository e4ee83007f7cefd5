"""LARS: each variant against its equations, tensor by tensor in float64; and what it promises."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from factories.optim import network
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cyclery.common.errors import UserError
from cyclery.optim import build
from cyclery.optim.flat import optimiser
from cyclery.optim.flat.parameters import Flat, clip_

STEPS = 50
Json = dict[str, Any]
VARIANTS = ["simclr", "byol", "bolts"]
CASES: dict[str, Json] = {
    **{variant: {"variant": variant} for variant in VARIANTS},
    **{f"{variant}, all": {"variant": variant, "adapts": "all", "eta": 0.02}
       for variant in VARIANTS},
    **{f"{variant}, no head": {"variant": variant, "exclude": ["6"], "eta": 0.02}
       for variant in VARIANTS},
    "clipped": {"variant": "bolts", "eta": 0.02, "clip": True},
}  # fmt: skip


def gradients(net: nn.Module, step: int) -> dict[str, Tensor]:
    """Return gradients whose sizes differ between tensors and steps."""
    draw = torch.Generator().manual_seed(step)
    return {
        name: 10.0 ** ((index + step) % 4 - 3) * torch.randn(p.shape, generator=draw)
        for index, (name, p) in enumerate(net.named_parameters())
    }


def changing(step: int) -> dict[str, float]:
    """Return hyper-parameters that change with every step; rate and decays are zero at first."""
    return {
        "lr": 0.3 * (step % 6),
        "momentum": 0.95 - 0.05 * (step % 7),
        "weight_decay": 0.02 * (step % 3),
        "weight_decay_norm": 0.01 * (step % 2),
    }


def row(**values: float) -> dict[str, Tensor]:
    full = {"lr": 0.5, "momentum": 0.9, "weight_decay": 0.0, "weight_decay_norm": 0.0} | values
    return {name: torch.tensor(value) for name, value in full.items()}


def put(flat: Flat, values: dict[str, Tensor]) -> None:
    for name, view in flat.views(flat.grad).items():
        view.copy_(values[name])


class Reference:
    """The equations of the programs, in float64 and one tensor after the other."""

    def __init__(self, net: nn.Module, settings: Json) -> None:
        self.settings = {"eta": 0.001, "adapts": "weights", "exclude": [], "clip": False} | settings
        self.w = {name: p.detach().double() for name, p in net.named_parameters()}
        self.v = {name: torch.zeros_like(w) for name, w in self.w.items()}

    def step(self, found: dict[str, Tensor], now: dict[str, float]) -> None:
        for name, w in self.w.items():
            weight = w.ndim > 1
            decay = now["weight_decay" if weight else "weight_decay_norm"]
            adapted = weight or self.settings["adapts"] == "all"
            adapted &= not any(name.startswith(f"{e}.") for e in self.settings["exclude"])
            d, r = found[name].double(), 1.0
            g = d + decay * w
            if adapted and self.settings["variant"] == "bolts":
                g, r = self.bolts(d, w, decay, now["lr"])
            elif adapted and w.norm() > 0 and g.norm() > 0:
                r = self.settings["eta"] * float(w.norm() / g.norm())
            if self.settings["variant"] == "simclr":
                self.v[name] = now["momentum"] * self.v[name] + now["lr"] * r * g
                self.w[name] = w - self.v[name]
            else:
                self.v[name] = now["momentum"] * self.v[name] + r * g
                self.w[name] = w - now["lr"] * self.v[name]

    def bolts(self, d: Tensor, w: Tensor, decay: float, lr: float) -> tuple[Tensor, float]:
        if not (w.norm() > 0 and d.norm() > 0):
            return d, 1.0
        r = self.settings["eta"] * float(w.norm() / (d.norm() + decay * w.norm() + 1e-8))
        if self.settings["clip"]:
            r = min(r / lr, 1.0) if lr else 1.0
        return d + decay * w, r


def assert_equal(flat: Flat, reference: Reference) -> None:
    for name, p in flat.params.items():
        torch.testing.assert_close(
            p.detach().double(), reference.w[name], rtol=1e-5, atol=1e-5, msg=name
        )


@pytest.mark.parametrize("chunk", [optimiser.CPU_CHUNK, 64])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_equal_to_its_equations(
    case: str, channels_last: bool, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimiser, "CPU_CHUNK", chunk)
    net = network()
    flat, reference = Flat(net, channels_last=channels_last), Reference(net, CASES[case])
    start = flat.data.clone()
    rule = build("lars", flat, CASES[case])
    for step in range(STEPS):
        found = gradients(net, step)
        put(flat, found)
        rule.step(row(**changing(step)))
        reference.step(found, changing(step))
        assert_equal(flat, reference)
    for name, before in flat.views(start).items():  # far more than the tolerance
        assert (flat.params[name] - before).abs().max() > 1e-3, name


def final(settings: Json, rows: Callable[[int], dict[str, float]] = changing) -> Tensor:
    """Return the weights after steps of the same gradients."""
    net = network()
    flat = Flat(net)
    rule = build("lars", flat, settings)
    for step in range(STEPS):
        put(flat, gradients(net, step))
        rule.step(row(**rows(step)))
    return flat.data


def test_where_variants_agree_and_where_they_differ() -> None:
    def constant(step: int) -> dict[str, float]:
        return changing(step) | {"lr": 0.5}

    def without_decay(step: int) -> dict[str, float]:
        return changing(step) | {"weight_decay": 0.0}

    same = {"rtol": 1e-5, "atol": 1e-5}
    simclr, byol, bolts = ({"variant": variant, "eta": 0.02} for variant in VARIANTS)
    torch.testing.assert_close(final(simclr, constant), final(byol, constant), **same)
    torch.testing.assert_close(final(byol, without_decay), final(bolts, without_decay), **same)
    for one, other in ((simclr, byol), (byol, bolts)):
        assert (final(one) - final(other)).abs().max() > 1e-3


def test_known_ratios_of_one_tensor() -> None:
    # |w| = 6, d = 4 w: with a decay of 2, g = 6 w and |d| + b |w| = 24 + 12.
    def moved(scale: float = 4.0, decay: float = 2.0, **settings: Any) -> float:
        layer = nn.Linear(9, 4, bias=False)
        nn.init.constant_(layer.weight, 1.0)
        flat = Flat(layer)
        flat.grad.copy_(scale * flat.data)
        build("lars", flat, settings).step(row(lr=0.5, weight_decay=decay))
        assert (layer.weight == layer.weight[0, 0]).all()
        return 1.0 - layer.weight[0, 0].item()

    for variant in VARIANTS:  # w and d are parallel, so the bound is the norm of the sum
        assert moved(variant=variant) == pytest.approx(0.5 * 0.001 * 6 / 36 * 6, rel=1e-3)
    # A tiny gradient has its full step, but for the 1e-8 of bolts.
    tiny = {"scale": 1e-8 / 6, "decay": 0.0, "eta": 0.1}
    for variant, share in (("simclr", 1.0), ("byol", 1.0), ("bolts", 0.5)):
        assert moved(variant=variant, **tiny) == pytest.approx(0.5 * 0.1 * share, rel=1e-3)
    assert moved(variant="bolts", eta=1.0, clip=True) == pytest.approx(0.5 * 6 / 36 / 0.5 * 6)
    assert moved(variant="bolts", eta=30.0, clip=True) == pytest.approx(0.5 * 1 * 6)


def test_the_scale_of_a_loss_moves_only_what_is_not_adapted() -> None:
    for variant in VARIANTS:
        flats = []
        for scale in (1.0, 256.0):
            net = network()
            flats.append(Flat(net))
            rule = build("lars", flats[-1], {"variant": variant})
            for step in range(3):
                put(flats[-1], {k: scale * g for k, g in gradients(net, step).items()})
                rule.step(row())
        for name, p in flats[0].params.items():
            equal = torch.allclose(p, flats[1].params[name], rtol=1e-5, atol=1e-5)
            assert equal == (p.ndim > 1), name


# Zeros.


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("lr", [0.0, 2.0])
@pytest.mark.parametrize("zero", ["weights", "gradients", "both"])
def test_zero_norms(case: str, lr: float, zero: str) -> None:
    net = network()
    flat = Flat(net)
    if zero != "gradients":
        flat.data.zero_()
    reference, rule = Reference(net, CASES[case]), build("lars", flat, CASES[case])
    for step in range(4):
        now = changing(step) | {"lr": lr, "weight_decay": 0.0 if step == 1 else 0.02}
        found = {k: g * (zero == "weights") for k, g in gradients(net, step).items()}
        put(flat, found)
        rule.step(row(**now))
        reference.step(found, now)
        assert flat.data.isfinite().all() and rule.state()["momentum_buffer"].isfinite().all()
        assert_equal(flat, reference)


@pytest.mark.parametrize(
    ("variant", "decays"), [("simclr", True), ("byol", True), ("bolts", False)]
)
def test_weights_without_a_gradient_decay_by_variant(variant: str, decays: bool) -> None:
    net = network()
    flat = Flat(net)
    before = flat.data.clone()
    build("lars", flat, {"variant": variant}).step(row(weight_decay=0.1))
    weights, rest = slice(flat.decay_end), slice(flat.decay_end, None)
    assert torch.equal(flat.data[rest], before[rest])
    # g = b w, so r g = eta w whatever the decay is.
    expected = before[weights] * (1 - 0.5 * 0.001 if decays else 1)
    torch.testing.assert_close(flat.data[weights], expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_gradient_that_is_not_finite_is_seen(variant: str) -> None:
    net = network()
    flat = Flat(net)
    put(flat, gradients(net, 0))
    flat.views(flat.grad)["3.weight"][0, 0] = math.nan
    build("lars", flat, {"variant": variant}).step(row())
    assert {n for n, p in flat.params.items() if p.isnan().any()} == {"3.weight"}


# What is not adapted.


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_left_out_is_sgd(variant: str) -> None:
    flats = [Flat(network()) for _ in range(2)]
    rules = [
        build("lars", flats[0], {"variant": variant, "exclude": ["0", "3.weight", "6"]}),
        build("sgd", flats[1], {"nesterov": False}),
    ]
    for step in range(STEPS):
        for flat, rule in zip(flats, rules, strict=True):
            put(flat, gradients(network(), step))
            # One rate throughout, since that of simclr enters the momentum.
            rule.step(row(**changing(step) | {"lr": 0.05}))
    if variant == "simclr":
        torch.testing.assert_close(flats[0].data, flats[1].data, rtol=1e-5, atol=1e-6)
    else:
        assert torch.equal(flats[0].data, flats[1].data)


@pytest.mark.parametrize("variant", VARIANTS)
def test_biases_and_norms_are_sgd_beside_adapted_weights(variant: str) -> None:
    sgd = Flat(network())
    rule = build("sgd", sgd, {"nesterov": False})
    for step in range(STEPS):
        put(sgd, gradients(network(), step))
        rule.step(row(**changing(step) | {"lr": 0.05}))
    found = final({"variant": variant}, lambda step: changing(step) | {"lr": 0.05})
    weights, rest = slice(sgd.decay_end), slice(sgd.decay_end, None)
    torch.testing.assert_close(found[rest], sgd.data[rest], rtol=1e-5, atol=1e-6)
    assert (found[weights] - sgd.data[weights]).abs().max() > 1e-2


@pytest.mark.parametrize("adapts", ["weights", "all"])
def test_a_network_without_weights(adapts: str) -> None:
    layer = nn.BatchNorm1d(4)
    flat = Flat(layer)
    build("lars", flat, {"adapts": adapts}).step(row(lr=0.1, weight_decay_norm=0.01))
    known = 1 - 0.1 * (0.01 if adapts == "weights" else 0.001)
    torch.testing.assert_close(layer.weight.detach(), torch.full((4,), known))


def test_settings_that_make_no_sense_are_refused() -> None:
    flat = Flat(network())
    with pytest.raises(UserError, match=r"clip: true is not allowed with variant: byol"):
        build("lars", flat, {"variant": "byol", "clip": True})
    with pytest.raises(UserError, match=r"exclude: no trained parameter is '6\.weigt' .* mean '6"):
        build("lars", flat, {"exclude": ["0", "6.weigt"]})
    with pytest.raises(UserError, match=r"exclude: no trained parameter is '' or in it"):
        build("lars", flat, {"exclude": [""]})
    with pytest.raises(UserError, match=r"eta: must be above 0\.0"):
        build("lars", flat, {"eta": 0.0})
    with pytest.raises(UserError, match="variant: must be one of bolts, byol, simclr"):
        build("lars", flat, {"variant": "you"})


# State, clipping and the device.


@pytest.mark.parametrize("case", CASES)
def test_state_is_one_float32_vector_and_restores_bit_for_bit(case: str) -> None:
    def advance(flat: Flat, rule: optimiser.Optimiser, steps: range) -> None:
        for step in steps:
            put(flat, gradients(network(), step))
            rule.step(row(**changing(step)))

    flat, again = Flat(network()), Flat(network())
    rule = build("lars", flat, CASES[case])
    advance(flat, rule, range(7))
    state = rule.state()
    assert {k: (v.dtype, v.shape) for k, v in state.items()} == {
        "momentum_buffer": (torch.float32, flat.data.shape)
    }
    again.data.copy_(flat.data)
    other = build("lars", again, CASES[case])
    other.state()["momentum_buffer"].copy_(state["momentum_buffer"])
    advance(flat, rule, range(7, STEPS))
    advance(again, other, range(7, STEPS))
    assert torch.equal(flat.data, again.data)


@pytest.mark.parametrize("case", CASES)
def test_after_clipping_as_torch_does(case: str) -> None:
    net = network()
    flat, reference = Flat(net), Reference(net, CASES[case])
    rule = build("lars", flat, CASES[case])
    for step in range(10):
        found = gradients(net, step)
        put(flat, found)
        assert clip_(flat, torch.tensor(0.5))
        params = [nn.Parameter(g) for g in found.values()]
        for p, g in zip(params, found.values(), strict=True):
            p.grad = g
        torch.nn.utils.clip_grad_norm_(params, 0.5)
        rule.step(row(**changing(step)))
        reference.step(found, changing(step))
        assert_equal(flat, reference)


class Operations(TorchDispatchMode):
    """Counts what is dispatched; fails where the host would read a value."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.name() not in ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal")
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("case", CASES)
def test_a_step_is_as_many_operations_for_any_number_of_tensors(case: str) -> None:
    counts = set()
    for depth in (1, 12):
        net = nn.Sequential(*network(), *(nn.Linear(4, 4) for _ in range(depth)))
        flat = Flat(net)
        rule, now = build("lars", flat, CASES[case]), row(**changing(1))
        with Operations() as seen:
            rule.step(now)
        counts.add(seen.count)
    assert len(counts) == 1 and counts.pop() < 40


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("case", CASES)
def test_steps_can_be_captured(case: str) -> None:
    flats = [Flat(network().cuda(), channels_last=True) for _ in range(2)]
    rules = [build("lars", flat, CASES[case]) for flat in flats]
    source = torch.linspace(-1, 1, len(flats[0]), device="cuda")
    now = {key: value.cuda() for key, value in row().items()}

    def step(which: int) -> None:
        flats[which].grad.copy_(source)
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
