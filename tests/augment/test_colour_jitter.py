"""Colour jitter against torchvision, and against the formulas of the published codes."""

from __future__ import annotations

import colorsys
from itertools import permutations

import pytest
import torch
from factories.augment import CIFAR, DIGITS, FASHION, images, raw

from cyclery.augment import check
from cyclery.common.errors import UserError

NAMES = ("brightness", "contrast", "saturation", "hue")
STRONG = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2}


def jitter(shape=CIFAR, max_value=255, **settings):
    return raw([{"op": "colour_jitter", "p": 1.0, **settings}], shape, max_value)


def uniform(count, seed=0):
    return torch.rand(count, 6, generator=torch.Generator().manual_seed(seed))


def drawn(row, strengths, active) -> list[tuple[str, float]]:
    """The changes that six uniform numbers choose, in order, each with its factor or turn."""
    order = list(permutations(active))[int(row[1] * len(list(permutations(active))))]
    start = {"hue": 0.0}
    return [
        (name, start.get(name, 1.0) + strengths[name] * (2 * row[2 + NAMES.index(name)] - 1))
        for name in order
    ]


@pytest.mark.parametrize(
    ("shape", "max_value", "active"),
    [(CIFAR, 255, NAMES), (FASHION, 255, NAMES[:2]), (DIGITS, 16, NAMES[:2])],
    ids=str,
)
def test_it_equals_torchvision_on_the_same_numbers(shape, max_value, active):
    f = pytest.importorskip("torchvision.transforms.functional")
    change = {
        "brightness": f.adjust_brightness,
        "contrast": f.adjust_contrast,
        "saturation": f.adjust_saturation,
        "hue": f.adjust_hue,
    }
    x, u = images(200, shape, max_value), uniform(200)
    x[0] = 7  # no colour, no contrast
    out = jitter(shape, max_value, **STRONG)(x, u) / max_value
    for image, made, row in zip(x, out, u.double().tolist(), strict=True):
        expected = image.float() / max_value
        for name, value in drawn(row, STRONG, active):
            expected = change[name](expected, value)
        torch.testing.assert_close(made, expected, rtol=0, atol=1e-5)


def in_hsv(image, saturation=1.0, turn=0.0):
    pixels = []
    for pixel in image.flatten(1).T.tolist():
        h, s, v = colorsys.rgb_to_hsv(*pixel)
        pixels.append(colorsys.hsv_to_rgb((h + turn) % 1, min(s * saturation, 1), v))
    return torch.tensor(pixels).T.reshape(image.shape)


@pytest.mark.parametrize("form", ["simclr", "byol"])
def test_the_published_codes_have_other_definitions(form):
    shape = (3, 6, 7)
    x, u = images(60, shape), uniform(60)
    out = jitter(shape, form=form, **STRONG)(x, u) / 255
    for image, made, row in zip(x, out, u.double().tolist(), strict=True):
        expected = image.double() / 255
        for name, value in drawn(row, STRONG, NAMES):
            if name == "brightness":
                expected = expected + (value - 1) if form == "byol" else expected * value
            elif name == "contrast":
                mean = expected.mean((1, 2), keepdim=True)
                expected = (expected - mean) * value + mean
            elif name == "saturation":
                expected = in_hsv(expected, saturation=value)
            else:
                expected = in_hsv(expected, turn=value)
            expected = expected.clamp(0, 1)
        torch.testing.assert_close(made, expected.float(), rtol=0, atol=1e-5)


def test_factors_are_uniform_about_1():
    x = torch.full((101, *FASHION), 100, dtype=torch.uint8)
    u = torch.zeros(101, 6)
    u[:, 2] = torch.linspace(0, 1 - 2**-24, 101)
    out = jitter(FASHION, brightness=0.5, contrast=0)(x, u)[:, 0, 0, 0]
    torch.testing.assert_close(out, torch.linspace(50, 150, 101), rtol=0, atol=1e-4)


def test_every_order_is_drawn_evenly():
    x = (images(1) // 2 + 60).expand(240, -1, -1, -1)
    u = torch.full((240, 6), 0.9)
    u[:, 1] = (torch.arange(240) + 0.5) / 240
    out = jitter(**STRONG, form="byol")(x, u).view(24, 10, -1)
    assert torch.equal(out, out[:, :1].expand_as(out))
    assert len(out[:, 0].unique(dim=0)) > 12  # some changes commute


def test_it_comes_with_its_probability():
    x, u = images(100), uniform(100)
    u[:, 0] = torch.arange(100) / 100
    out = jitter(p=0.3, **STRONG)(x, u)
    same = (out == x).flatten(1).all(1)
    assert same.tolist() == [False] * 30 + [True] * 70
    assert torch.equal(jitter(**STRONG)(x, u)[:30], out[:30])


def test_a_strength_of_0_leaves_its_change_out():
    x, u = images(50), uniform(50)
    u[:, 1] = 0
    only = dict.fromkeys(NAMES, 0.0) | {"contrast": 0.4}
    moved = u.clone()
    moved[:, [2, 4, 5]] = 0.1
    assert torch.equal(jitter(**only)(x, u), jitter(**only)(x, moved))
    # Grey images have two changes, whatever the strengths of the others are.
    grey = images(50, FASHION)
    assert torch.equal(jitter(FASHION)(grey, u), jitter(FASHION, hue=0, saturation=0)(grey, u))


def test_an_image_of_one_pixel():
    x, u = images(20, (3, 1, 1)), uniform(20)
    out = jitter((3, 1, 1), **STRONG)(x, u)
    assert out.isfinite().all() and out.min() >= 0 and out.max() <= 255


@pytest.mark.parametrize(
    ("entry", "shape", "message"),
    [
        ({"hue": 0.6}, CIFAR, r"colour_jitter\.hue: must be at least 0\.0 and at most 0\.5"),
        ({"contrast": -1}, CIFAR, r"contrast: must be at least 0\.0 and at most 1\.0"),
        ({"p": 0}, CIFAR, r"p: must be above 0\.0 and at most 1\.0 \(found 0\)"),
        ({"form": "tf"}, CIFAR, r"form: must be one of byol, simclr, torchvision"),
        (dict.fromkeys(NAMES, 0), CIFAR, "one of brightness, contrast, saturation, hue must be"),
        ({"brightness": 0, "contrast": 0}, DIGITS, "one of brightness, contrast must be above 0"),
        ({}, (2, 8, 8), r"images must have 1 or 3 channels \(found 2\)"),
    ],
)
def test_wrong_settings_are_named(entry, shape, message):
    with pytest.raises(UserError, match=message):
        check([{"op": "colour_jitter", **entry}], shape)
