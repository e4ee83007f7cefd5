"""What papers declare as deviations holds of our own code, in words and in numbers."""

from __future__ import annotations

from functools import cache
from math import cos, pi
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cyclery import models, schedules
from cyclery.augment import Pipeline
from cyclery.augment.policy import OPS, _code, _paper
from cyclery.augment.randaugment import choices_for
from cyclery.config.load import load
from cyclery.config.models import Paper
from cyclery.models import Shape
from cyclery.plan.graph import Plan

ROOT = Path(__file__).resolve().parents[2]
CIFAR = (3, 32, 32)
SHARED_RECIPE = pytest.mark.parametrize("paper", ["cyclical-focal-loss", "gct"])


@cache
def plan(tier: str) -> Plan:
    return Plan(load(ROOT, {"tier": tier}))


def paper_of(name: str) -> Paper:
    return plan("paper").project.papers[name]


def declared(paper: str) -> str:
    """Return the deviations of a paper as one text."""
    return " ".join(" ".join(paper_of(paper).deviations).split())


def says(paper: str, *phrases: str) -> None:
    text = declared(paper)
    for phrase in phrases:
        assert phrase in text, phrase


def recipe() -> dict[str, dict[str, Any]]:
    """Return the augmentation of the paper tier by op."""
    settings = plan("paper").arm("cyclical-focal-loss", "balanced", "cfl").settings
    return {entry["op"]: entry for entry in settings["augment"]}


def raw(*spec: dict[str, Any], shape: Shape = CIFAR) -> Pipeline:
    """Return a pipeline whose normalisation takes 0.5 off the pixel values."""
    return Pipeline(list(spec), shape, [0.5] * 3, [1 / 255] * 3, 255)


def images(count: int, shape: Shape = CIFAR) -> torch.Tensor:
    """Return dark and bright pixels, but none that are black or white.

    Those autocontrast would leave alone, and without the others solarising twice would.
    """
    generator = torch.Generator().manual_seed(0)
    return torch.randint(5, 251, (count, *shape), dtype=torch.uint8, generator=generator)


@SHARED_RECIPE
def test_randaugment_leaves_as_few_images_unchanged_as_is_said(paper: str) -> None:
    op, ops, small = recipe()["randaugment"], choices_for(3), (3, 8, 8)
    # Every pair of operations and signs once.
    each = (torch.arange(2 * len(ops)) + 0.5) / (2 * len(ops))
    u = torch.cartesian_prod(each, each)
    x = images(len(u), small)
    same = (raw(op, shape=small)(x, u) == raw(shape=small)(x)).flatten(1).all(1)
    unchanged = same.float().mean().item()
    assert unchanged == pytest.approx(1 / len(ops) ** 2)
    says(paper, f"{100 / len(ops) ** 2:.1f} per cent of images pass unchanged", f"{len(ops)} oper")
    assert "identity" in ops and not {"equalize", "invert", "solarize_add"} & set(ops)
    says(paper, "with Equalize, Invert and SolarizeAdd and without identity")
    assert (op["n"], op["m"]) == (2, 9)
    says(paper, "two of 13 operations", "at magnitude 9", "a quarter of images pass unchanged")


@SHARED_RECIPE
def test_randaugment_is_as_strong_as_is_said(paper: str) -> None:
    """A ramp of all levels tells the bits that are kept, one bright column how far images move."""
    ops, m = choices_for(3), recipe()["randaugment"]["m"]

    def one(name: str, x: torch.Tensor) -> torch.Tensor:
        pipeline = raw({"op": "randaugment", "n": 1, "m": m})
        u = torch.full((len(x), 1), (2 * ops.index(name) + 0.5) / (2 * len(ops)))
        return pipeline(x, u) + 127.5

    levels = torch.arange(256, dtype=torch.uint8).repeat(12).view(1, *CIFAR)
    bits = np.log2(len(one("posterize", levels).round().unique()))
    says(paper, f"posterises to 1 bit where ours keeps {bits:.0f}")
    column = torch.zeros(1, *CIFAR, dtype=torch.uint8)
    column[..., 16] = 255
    weights = one("translate_x", column)[0, 0, 16]
    move = abs((weights * torch.arange(32)).sum() / weights.sum() - 16) / 32
    says(paper, f"ours moves by {move:.2f}")


@SHARED_RECIPE
def test_erasing_fills_with_the_mean_and_the_crop_is_a_shift(paper: str) -> None:
    op = recipe()["erasing"]
    pipeline, x = raw({**op, "p": 1.0}), images(50)
    u = torch.rand(len(x), pipeline.columns, generator=torch.Generator().manual_seed(2))
    out = pipeline(x, u)
    erased = out != raw()(x)
    assert erased.flatten(1).any(1).all() and (out[erased] == 0).all()
    says(paper, "Random erasing fills with the mean pixel, the official `pixel` with noise")
    assert recipe()["shift"]["size"] == 4
    says(paper, "random resized crop", "is a shift by up to 4 pixels")


@SHARED_RECIPE
def test_the_cosine_begins_after_the_warm_up(paper: str) -> None:
    spec = plan("paper").arm("cyclical-focal-loss", "balanced", "cfl").settings["schedules"]["lr"]
    epochs, steps = 200, 10
    clock, _ = schedules.clock_for(np.full(epochs, 10), 10 * steps)
    rate = schedules.column(spec, clock) / spec["peak"]
    warm = int(spec["warmup_epochs"]) * steps
    assert clock.updates == epochs * steps and rate[warm] == pytest.approx(1, abs=1e-6)
    unshifted = (1 + cos(pi * 3 / 200)) / 2
    assert rate[warm] > unshifted
    half = warm + (len(rate) - warm) // 2
    assert rate[half] == pytest.approx(0.5, abs=1e-2) and rate[warm + 1] < rate[warm]
    says(paper, "timm does not shift it", "it holds the rate through an epoch")


def test_the_strong_view_has_the_ranges_of_the_paper() -> None:
    [policy] = [
        entry
        for entry in plan("paper").arm("fixmatch", "cifar10-40", "fixmatch").settings["strong"]
        if entry["op"] == "policy"
    ]
    assert policy["form"] == "fixmatch_paper"
    printed, code = _paper(CIFAR), [_code(CIFAR, level) for level in range(1, 10)]
    assert set(printed) <= set(OPS["fixmatch_paper"])
    low, reach = printed["brightness"]
    factors = [level["brightness"][0] for level in code]
    bits = [int(level["posterize"][0]) for level in code]
    says("fixmatch", f"factors of {low} to {low + reach:.2f} and 4 to 8 bits")
    says(
        "fixmatch", f"{min(factors):.2f} to {max(factors):.2f} and {max(bits)} to {min(bits)} bits"
    )
    assert printed["posterize"] == (4, 5)
    coded = plan("desk").arm("fixmatch", "strong", "code").settings["strong"][0]
    assert coded["form"] == "fixmatch_code"


@pytest.mark.parametrize(("paper", "arm"), [("fixmatch", "fixmatch"), ("mean-teacher", "pi")])
def test_convolutions_of_stride_two_are_padded_all_round(paper: str, arm: str) -> None:
    model = plan("paper").arm(paper, "cifar10-250", arm).settings["model"]
    with torch.device("meta"):
        net = models.build(model["name"], model["settings"], CIFAR, 10)
    strided = [
        m for m in net.modules()
        if isinstance(m, nn.Conv2d) and m.stride == (2, 2) and m.kernel_size == (3, 3)
    ]  # fmt: skip
    assert len(strided) == 2 and {m.padding for m in strided} == {(1, 1)}
    says(paper, "a pixel of padding on every side", "below and to the right alone")


def test_the_ramp_of_mean_teacher_moves_with_every_update() -> None:
    for tier in ("smoke", "desk", "paper"):
        name = "cifar10-250" if tier == "paper" else "few-labels"
        weight = (
            plan(tier).arm("mean-teacher", name, "mean-teacher").settings["schedules"]["weight"]
        )
        assert weight["kind"] == "ramp" and weight.get("clock", "update") == "update"
    says("mean-teacher", "moves with every update", "PyTorch code holds it through an epoch")


def test_the_recipe_of_soteacher_is_that_of_its_code() -> None:
    base = paper_of("soteacher").base
    assert base.weight_decay == base.weight_decay_norm == 5e-4
    for experiment, arm in (("wrn-teachers", "soteacher"), ("wrn-16-2", "standard")):
        settings = plan("paper").arm("soteacher", experiment, arm).settings
        assert not settings["optimiser"]["settings"]["nesterov"]
        values = [
            settings["schedules"][key]["value"] for key in ("weight_decay", "weight_decay_norm")
        ]
        assert values == [5e-4, 5e-4]
    says("soteacher", "as in the official `train_teacher.py` and `train_student.py`")
    [recipe_text] = [each for each in paper_of("soteacher").deviations if "Weight decay" in each]
    assert "memory" not in recipe_text
