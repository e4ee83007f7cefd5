"""Random resized crop against torchvision, on the same rectangles and on its own."""

from __future__ import annotations

import math

import pytest
import torch
from factories.augment import CIFAR, DIGITS, FASHION, WIDE, images, raw
from scipy.stats import ks_2samp, kstest

from cyclery.augment import check
from cyclery.augment._ranges import Rectangles, first_fitting
from cyclery.common.errors import UserError


def crop(x, u, max_value=255, **settings):
    return raw([{"op": "random_resized_crop", **settings}], tuple(x.shape[1:]), max_value)(x, u)


def uniform(count, seed=0):
    return torch.rand(count, 22, generator=torch.Generator().manual_seed(seed))


def rectangle(row, shape, area=(0.08, 1.0), aspect=(3 / 4, 4 / 3)):
    """Top, left, height and width that 22 uniform numbers choose; None where none fits."""
    _, height, width = shape
    for share, turn in zip(row[0:20:2], row[1:20:2], strict=True):
        size = height * width * (area[0] + (area[1] - area[0]) * share)
        # The number counts in height / width.
        ratio = math.exp(math.log(aspect[1]) + turn * math.log(aspect[0] / aspect[1]))
        w, h = round(math.sqrt(size * ratio)), round(math.sqrt(size / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(row[20] * (height - h + 1)), int(row[21] * (width - w + 1)), h, w
    return None


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("shape", "max_value"), [(CIFAR, 255), (FASHION, 255), (DIGITS, 16), (WIDE, 255)], ids=str
)
def test_it_equals_torchvision_on_the_same_rectangles(shape, max_value, interpolation, antialias):
    f = pytest.importorskip("torchvision.transforms.functional")
    how = f.InterpolationMode(interpolation)
    x, u = images(100, shape, max_value), uniform(100)
    made = crop(x, u, max_value, interpolation=interpolation, antialias=antialias) / max_value
    for image, out, row in zip(x, made, u.double().tolist(), strict=True):
        place = rectangle(row, shape)
        assert place
        size = list(shape[1:])
        expected = f.resized_crop(image / max_value, *place, size, how, antialias=antialias)
        torch.testing.assert_close(out, expected.clamp(0, 1), rtol=0, atol=1e-5)


def test_aspects_are_width_over_height():
    f = pytest.importorskip("torchvision.transforms.functional")
    x, u, given = images(50), uniform(50), {"area": (0.1, 0.5), "aspect": (1.0, 3.0)}
    for image, out, row in zip(x, crop(x, u, **given) / 255, u.double().tolist(), strict=True):
        place = rectangle(row, CIFAR, **given)
        assert place and place[3] >= place[2]
        expected = f.resized_crop(image / 255, *place, [32, 32], antialias=True)
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-5)


def test_antialiasing_changes_bicubic_alone():
    x, u = images(20), uniform(20)
    same = [crop(x, u, interpolation="bilinear", antialias=on) for on in (True, False)]
    assert torch.equal(*same)
    first, second = (crop(x, u, interpolation="bicubic", antialias=on) for on in (True, False))
    assert not torch.allclose(first, second, atol=1)


@pytest.mark.parametrize("shape", [CIFAR, DIGITS, WIDE, (3, 1, 1), (1, 1, 5)], ids=str)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_whole_image_stays_as_it_is(shape, interpolation):
    aspect = shape[2] / shape[1]
    x = images(10, shape)
    how = {"interpolation": interpolation, "area": [1, 1], "aspect": [aspect, aspect]}
    assert torch.equal(crop(x, uniform(10), **how), x.float())


@pytest.mark.parametrize(
    ("aspect", "place"),
    [((2, 3), (8, 0, 16, 32)), ((0.25, 0.5), (0, 8, 32, 16))],
    ids=["wide", "narrow"],
)
def test_what_never_fits_leaves_the_middle(aspect, place):
    f = pytest.importorskip("torchvision.transforms.functional")
    transforms = pytest.importorskip("torchvision.transforms")
    x, u = images(5), uniform(5)
    assert tuple(transforms.RandomResizedCrop.get_params(x[0], [0.9, 1.0], aspect)) == place
    made = crop(x, u, area=[0.9, 1.0], aspect=aspect) / 255
    expected = f.resized_crop(x / 255, *place, [32, 32], antialias=True)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-5)


def test_rectangles_have_torchvisions_distribution():
    transforms = pytest.importorskip("torchvision.transforms")
    area, aspect = (0.08, 1.0), (3 / 4, 4 / 3)
    drawn = Rectangles(area, (1 / aspect[1], 1 / aspect[0]), 224 * 224)(uniform(3000)[:, :20])
    # Before anything is asked to fit: uniform and log-uniform, but for whole pixels.
    shares = (drawn.prod(2) / 224**2).flatten().numpy()
    turns = (drawn[..., 1] / drawn[..., 0]).log().flatten().numpy()
    assert kstest(shares, "uniform", (0.08, 0.92)).statistic < 0.01
    reach = math.log(4 / 3)
    assert kstest(turns, "uniform", (-reach, 2 * reach)).statistic < 0.01
    side = torch.tensor([224.0, 224.0], dtype=torch.float64)
    ours = first_fitting(drawn, (drawn <= side).all(2), side)
    torch.manual_seed(0)
    image = torch.empty(3, 224, 224)
    theirs = [transforms.RandomResizedCrop.get_params(image, area, aspect) for _ in range(3000)]
    for axis in (0, 1):
        other = [place[2 + axis] for place in theirs]
        assert ks_2samp(ours[:, axis].numpy(), other).pvalue > 0.01


def test_places_are_uniform_among_those_inside():
    # A ramp shows the first and the last column that an image is made of.
    x = torch.arange(32, dtype=torch.uint8).expand(1, 32, 32)[None].expand(320, -1, -1, -1)
    u = uniform(1).repeat(320, 1)
    u[:, 21] = (torch.arange(320) + 0.5) / 320
    out = crop(x, u, area=[0.25, 0.25], aspect=[1, 1])
    lefts = out[:, 0, 0, 0].long()
    assert torch.equal(lefts, (u[:, 21] * 17).long()) and lefts.max() == 16
    assert torch.equal(out[:, 0, 0, -1].long(), lefts + 15)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"area": [0.5, 0.1]}, r"random_resized_crop\.area: the first number must be at most"),
        ({"area": [0, 1]}, r"area\[0\]: must be above 0\.0 and at most 1\.0"),
        ({"area": [0.1, 1.5]}, r"area\[1\]: must be above 0\.0 and at most 1\.0"),
        ({"aspect": [2, 1]}, r"aspect: the first number must be at most"),
        ({"interpolation": "nearest"}, r"interpolation: must be one of bicubic, bilinear"),
        ({"antialias": 1}, r"antialias: must be true or false"),
    ],
)
def test_wrong_settings_are_named(entry, message):
    with pytest.raises(UserError, match=message):
        check([{"op": "random_resized_crop", **entry}], CIFAR)
