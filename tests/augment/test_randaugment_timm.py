"""timm's increasing RandAugment, op for op against PIL with the calls that timm makes."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import NormalDist

import numpy as np
import pytest
import torch
from factories.augment import CIFAR, DIGITS, FASHION, images
from PIL import Image, ImageEnhance, ImageOps

from cyclery.augment import Pipeline, check
from cyclery.augment.randaugment_timm import choices_for
from cyclery.common.errors import UserError

MEANS = [0.4914, 0.4822, 0.4465]
WIDE = (3, 20, 28)
GEOMETRIC = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
ENHANCERS = {
    "colour": ImageEnhance.Color,
    "contrast": ImageEnhance.Contrast,
    "brightness": ImageEnhance.Brightness,
    "sharpness": ImageEnhance.Sharpness,
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # batches this small only wait for their threads
    yield
    torch.set_num_threads(before)


def policy(shape, max_value=255, **settings) -> Pipeline:
    """A policy on its own, which leaves its grey levels."""
    spec = [{"op": "randaugment_timm", **settings}]
    channels = shape[0]
    return Pipeline(spec, shape, MEANS[:channels], [1 / 255] * channels, max_value)


def levels(out: torch.Tensor) -> torch.Tensor:
    return out + 255 * torch.tensor(MEANS[: out.shape[1]])[:, None, None]


def magnitude(number: float, m: float, std: float) -> float:
    """The magnitude that a uniform number stands for: the middle of its share of the normal."""
    drawn = NormalDist(m, std).inv_cdf(number + 2.0**-25) if std else m
    return min(max(drawn, 0.0), 10.0)


def in_pil(image: Image.Image, name: str, m: float, sign: int, cubic: bool, fill) -> Image.Image:
    """One op, with the values that timm gives it at a magnitude."""
    level, size = m / 10, image.size
    how = {
        "resample": Image.Resampling.BICUBIC if cubic else Image.Resampling.BILINEAR,
        "fillcolor": fill,
    }
    affine = {
        "shear_x": (1, sign * level * 0.3, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, sign * level * 0.3, 1, 0),
        "translate_x": (1, 0, sign * level * 0.45 * size[0], 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, sign * level * 0.45 * size[1]),
    }
    if name in ENHANCERS:
        return ENHANCERS[name](image).enhance(max(0.1, 1 + sign * level * 0.9))
    if name in affine:
        return image.transform(size, Image.Transform.AFFINE, affine[name], **how)
    table = [min(255, i + int(level * 110)) if i < 128 else i for i in range(256)]
    return {
        "autocontrast": lambda: ImageOps.autocontrast(image),
        "equalize": lambda: ImageOps.equalize(image),
        "invert": lambda: ImageOps.invert(image),
        "rotate": lambda: image.rotate(sign * level * 30, **how),
        # No bits at all, black, which newer versions of PIL refuse.
        "posterize": lambda: image.point(
            [i & 0xFF << (4 + int(level * 4)) for i in range(256)] * 3
        ),
        "solarize": lambda: ImageOps.solarize(image, 256 - min(256, int(level * 256))),
        "solarize_add": lambda: image.point(table * 3),
    }[name]()


def chain(image, row, settings, black=False) -> torch.Tensor:
    """All rounds of a policy on a uint8 image, from its uniform numbers."""
    channels = image.shape[0]
    fill = tuple(0 if black else round(255 * mean) for mean in MEANS)
    fill = fill if channels == 3 else fill[:1] * 3
    names = choices_for(channels)
    current = Image.fromarray(image.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy())
    for op, gate, level, sign, cubic in zip(*[iter(row)] * 5, strict=True):
        if gate < settings["p"]:
            m = magnitude(level, settings["m"], settings["std"])
            turn = -1 if sign > 0.5 else 1
            name = names[int(op * len(names))]
            current = in_pil(current, name, m, turn, cubic >= 0.5, fill)
    return torch.from_numpy(np.array(current)).permute(2, 0, 1)[:channels].float()


def row_for(name, channels, level=0.5, sign=0.0, cubic=0.0) -> list[float]:
    names = choices_for(channels)
    return [(names.index(name) + 0.5) / len(names), 0.0, level, sign, cubic]


def test_the_15_ops_are_those_of_the_increasing_list():
    assert len(choices_for(3)) == 15
    assert set(choices_for(3)) - set(choices_for(1)) == {"colour"}


@pytest.mark.parametrize("m", [0.0, 3.7, 9.0, 10.0])
@pytest.mark.parametrize("shape", [DIGITS, FASHION, CIFAR, WIDE], ids=str)
def test_every_op_equals_pil(shape, m):
    x = images(4, shape)
    x[1] = x[1] // 3 + 40
    x[2] = 77
    x[3] = (x[3] > 128).to(torch.uint8) * 255
    settings = {"m": m, "std": 0.0, "n": 1, "p": 1.0}
    pipeline = policy(shape, **settings)
    for name in choices_for(shape[0]):
        for sign, cubic in ((0.2, 0.2), (0.8, 0.8), (0.2, 0.8)):
            row = row_for(name, shape[0], sign=sign, cubic=cubic)
            made = levels(pipeline(x, torch.tensor(row).expand(len(x), -1)))
            expected = torch.stack([chain(image, row, settings) for image in x])
            gap = (made - expected).abs()
            if name in GEOMETRIC:  # one level, where a sum in float64 falls on a whole number
                assert gap.max() < 1.001 and (gap > 1e-3).float().mean() < 1e-3, name
            else:
                assert gap.max() < 1e-3, name


@pytest.mark.parametrize(("shape", "max_value"), [(CIFAR, 255), (FASHION, 255), (DIGITS, 16)])
def test_rounds_equal_a_chain_in_pil(shape, max_value):
    settings = {"m": 9.0, "std": 0.5, "n": 2, "p": 0.5}
    x = images(150, shape, max_value)
    pipeline = policy(shape, max_value)
    u = torch.rand(len(x), pipeline.columns, generator=torch.Generator().manual_seed(0))
    scaled = (x.double() * 255 / max_value).round().to(torch.uint8)
    expected = torch.stack(
        [
            chain(image, row, settings)
            for image, row in zip(scaled, u.double().tolist(), strict=True)
        ]
    )
    gap = (levels(pipeline(x, u)) - expected).abs().amax((1, 2, 3))
    # An op that follows may make more of the one level.
    assert (gap < 1e-3).float().mean() > 0.98


def test_the_magnitude_is_normal_and_cut():
    # Brightness shows it: on an image of one level, the factor is 1 + 0.09 m.
    x = torch.full((2000, *DIGITS), 100, dtype=torch.uint8)
    u = torch.tensor(row_for("brightness", 1)).repeat(len(x), 1)
    u[:, 2] = (torch.arange(len(x)) + 0.5) / len(x)
    seen = levels(policy(DIGITS, n=1, p=1.0, m=5.0, std=2.0)(x, u))[:, 0, 0, 0]
    factors = [1 + 0.09 * magnitude(v, 5.0, 2.0) for v in u[:, 2].double().tolist()]
    assert all(
        abs(a - int(100 * b + 1e-4)) < 1.001 for a, b in zip(seen.tolist(), factors, strict=True)
    )
    m = (seen / 100 - 1) / 0.09
    assert abs(m.mean() - 5) < 0.1 and abs(m.std() - 2) < 0.1
    assert m.max() <= 10 + 1e-3
    ends = torch.tensor([row_for("brightness", 1, level) for level in (0.0, 1 - 2**-24)])
    wild = levels(policy(DIGITS, n=1, p=1.0, m=5.0, std=100.0)(x[:2], ends))[:, 0, 0, 0]
    torch.testing.assert_close(wild, torch.tensor([100.0, 190.0]))


def test_each_round_is_applied_with_its_probability():
    x = images(1).expand(1000, -1, -1, -1)
    u = torch.tensor(row_for("invert", 3)).repeat(1000, 1)
    u[:, 1] = (torch.arange(1000) + 0.5) / 1000
    inverted = (levels(policy(CIFAR, n=1, p=0.3)(x, u)) - (255 - x.float())).abs().amax((1, 2, 3))
    assert ((inverted < 1e-3) == (u[:, 1] < 0.3)).all()


def test_ops_are_drawn_evenly():
    count = len(choices_for(1))
    u = torch.full((count * 10, 5), 0.2)
    u[:, 0] = (torch.arange(len(u)) + 0.5) / len(u)
    x = (images(1, FASHION) // 5 * 4 + 30).expand(len(u), -1, -1, -1)
    out = policy(FASHION, n=1, p=1.0)(x, u).view(count, 10, -1)
    assert torch.equal(out, out[:, :1].expand_as(out))
    assert len(out[:, 0].unique(dim=0)) == count


@pytest.mark.parametrize("fill", ["mean", "black"])
def test_uncovered_pixels_are_filled(fill):
    white = torch.full((1, *CIFAR), 255, dtype=torch.uint8)
    u = torch.tensor([row_for("translate_x", 3)])
    out = levels(policy(CIFAR, n=1, p=1.0, m=10.0, std=0.0, fill=fill)(white, u))[0]
    wanted = torch.tensor([round(255 * mean) if fill == "mean" else 0 for mean in MEANS]).float()
    # 14.4 pixels come from beyond the right.
    torch.testing.assert_close(out[:, :, 18:], wanted[:, None, None].expand(3, 32, 14))
    torch.testing.assert_close(out[:, :, :17], torch.full((3, 32, 17), 255.0))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"m": 11}, r"randaugment_timm\.m: must be at least 0\.0 and at most 10\.0 \(found 11\)"),
        ({"std": -1}, r"randaugment_timm\.std: must be at least 0\.0"),
        ({"p": 0}, r"randaugment_timm\.p: must be above 0\.0 and at most 1\.0"),
        ({"fill": "grey"}, r"randaugment_timm\.fill: must be one of black, mean"),
    ],
)
def test_wrong_settings_are_named(entry, message):
    with pytest.raises(UserError, match=message):
        check([{"op": "randaugment_timm", **entry}], CIFAR)


def test_images_of_two_channels_are_refused():
    with pytest.raises(UserError, match=r"must have 1 or 3 channels \(found 2\)"):
        check([{"op": "randaugment_timm"}], (2, 8, 8))
