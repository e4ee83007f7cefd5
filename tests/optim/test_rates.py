"""Rates by parameter against torch's parameter groups, and rules of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from factories.optim import changing, network
from torch import nn

from cyclery.optim import build, names
from cyclery.optim.flat.parameters import Flat
from cyclery.optim.flat.rated import Rated

STEPS = 20
# A change is rounded before it is multiplied, so that tenfold rates have errors of ten roundings.
RATES = {"0.weight": 10.0, "0.bias": 10.0, "3.weight": 0.1}

CASES: dict[str, tuple[str, dict[str, Any], Callable[[Any], torch.optim.Optimizer]]] = {
    "nesterov": ("sgd", {}, lambda g: torch.optim.SGD(g, 0.1, 0.9, nesterov=True)),
    "momentum": ("sgd", {"nesterov": False}, lambda g: torch.optim.SGD(g, 0.1, 0.9)),
    "adam": ("adam", {}, lambda g: torch.optim.Adam(g, 0.1)),
    "adamw": ("adamw", {}, lambda g: torch.optim.AdamW(g, 0.1)),
    "rmsprop": ("rmsprop", {}, lambda g: torch.optim.RMSprop(g, 0.1, momentum=0.9)),
    "adagrad": ("adagrad", {}, lambda g: torch.optim.Adagrad(g, 0.1)),
    "adadelta": ("adadelta", {}, lambda g: torch.optim.Adadelta(g, 0.1)),
}
OURS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (rule, settings) for name, (rule, settings, _) in CASES.items()},
    "decoupled": ("sgd", {"decay": "decoupled"}),
    "simclr": ("lars", {"eta": 0.1}),
    "byol": ("lars", {"variant": "byol", "eta": 0.1}),
    "bolts": ("lars", {"variant": "bolts", "eta": 0.1, "adapts": "all"}),
}


def row(now: dict[str, float], factor: float = 1.0) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(v) for name, v in {**now, "lr": now["lr"] * factor}.items()}


def give(step: int, flat: Flat, only: str | None = None) -> dict[str, torch.Tensor]:
    """Put the gradients of a step, the same for all, into a vector; return them."""
    draw = torch.Generator().manual_seed(step)
    shapes = {name: p.shape for name, p in network().named_parameters()}
    found = {name: 0.1 * torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    for name, view in flat.views(flat.grad).items():
        view.copy_(found[only or name])
    return found


@pytest.mark.parametrize("case", CASES)
def test_rates_are_those_of_parameter_groups(case: str) -> None:
    name, settings, make = CASES[case]
    net, reference = network(), network()
    flat, theirs = Flat(net), dict(reference.named_parameters())
    rule = build(name, flat, settings, rates=RATES)
    groups = [{"params": [p], "name": key} for key, p in theirs.items()]
    other = make(groups)
    for step in range(STEPS):
        now, gradients = changing(step, lr=0.002), give(step, flat)
        for group in other.param_groups:
            key = group["name"]
            theirs[key].grad = gradients[key].clone()
            group["lr"] = now["lr"] * RATES.get(key, 1.0)
            decay = "weight_decay" if theirs[key].ndim > 1 else "weight_decay_norm"
            group["weight_decay"] = now[decay]
            if "betas" in group:
                group["betas"] = (now["momentum"], group["betas"][1])
            elif "momentum" in group:
                group["momentum"] = now["momentum"]
        rule.step(row(now))
        other.step()
        for key, p in net.named_parameters():
            torch.testing.assert_close(p, theirs[key], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", OURS)
def test_every_rule_treats_a_part_as_one_of_its_own_with_another_rate(case: str) -> None:
    """LARS too, whose momentum may hold the rate: each parameter has a rule, with its own rate."""
    name, settings = OURS[case]
    net = network()
    flat = Flat(net)
    rule = build(name, flat, settings, rates=RATES)
    alone = {}
    for key, p in network().named_parameters():
        single = nn.Module()
        single.p = nn.Parameter(p.detach().clone())
        own = Flat(single)
        alone[key] = (single, own, build(name, own, settings))
    for step in range(STEPS):
        now = changing(step, lr=0.002)
        give(step, flat)
        rule.step(row(now))
        for key, (_, own, theirs) in alone.items():
            give(step, own, key)
            theirs.step(row(now, RATES.get(key, 1.0)))
    for key, p in net.named_parameters():
        torch.testing.assert_close(p, alone[key][0].p, rtol=1e-5, atol=1e-5)
    assert {each for each, _ in OURS.values()} == set(names())


@pytest.mark.parametrize("case", OURS)
def test_parameters_of_the_usual_rate_are_the_same_to_the_bit(case: str) -> None:
    name, settings = OURS[case]
    rated, plain = network(), network()
    flats = Flat(rated), Flat(plain)
    rules = build(name, flats[0], settings, rates=RATES), build(name, flats[1], settings)
    for step in range(STEPS):
        for flat, rule in zip(flats, rules, strict=True):
            give(step, flat)
            rule.step(row(changing(step, lr=0.002)))
    found, expected = (flat.views(flat.data) for flat in flats)
    for key, value in found.items():
        assert torch.equal(value, expected[key]) == (key not in RATES), key


@pytest.mark.parametrize("rates", [{}, RATES])
@pytest.mark.parametrize("case", ["sgd", "adam", "lars"])
def test_bounds_are_those_of_torch_and_of_no_other_part(case: str, rates: dict[str, float]) -> None:
    bounded, plain = network(), network()
    flats, bound = (Flat(bounded), Flat(plain)), 0.05
    names = ["0.weight", "3.bias"]
    rules = (
        build(case, flats[0], {}, rates=rates, clip_values=dict.fromkeys(names, bound)),
        build(case, flats[1], {}, rates=rates),
    )
    clipped = 0
    for step in range(STEPS):
        for flat, rule in zip(flats, rules, strict=True):
            gradients = give(step, flat)
            if flat is flats[1]:
                held = [flat.params[name] for name in names]
                for parameter, name in zip(held, names, strict=True):
                    parameter.grad = flat.views(flat.grad)[name]
                    clipped += int((gradients[name].abs() > bound).sum())
                torch.nn.utils.clip_grad_value_(held, bound)
            rule.step(row(changing(step, lr=0.002)))
    assert torch.equal(flats[0].data, flats[1].data) and clipped > 10
    assert rules[0].state().keys() == rules[1].state().keys()


def test_what_has_no_rates_costs_nothing_and_the_state_is_the_rules_own() -> None:
    flat = Flat(network())
    assert not isinstance(build("sgd", flat, rates={}), Rated)
    rated = build("adam", flat, rates=RATES)
    assert rated.state().keys() == build("adam", flat).state().keys()
    give(0, flat)
    rated.step(row(changing(0, lr=0.002)))
    assert rated.state()["mean"].any() and rated.state()["t"] == 1
