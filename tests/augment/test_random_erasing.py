"""Random erasing against torchvision's definition, and the noise that it fills with."""

from __future__ import annotations

import math

import pytest
import torch
from factories.augment import CIFAR, DIGITS, FASHION, WIDE, images
from scipy.stats import kstest

from cyclery.augment import Pipeline, check
from cyclery.augment._noise import normal
from cyclery.augment._ranges import Rectangles
from cyclery.common.errors import UserError


def erase(x, u, **settings):
    channels = x.shape[1]
    spec = [{"op": "random_erasing", **settings}]
    return Pipeline(spec, tuple(x.shape[1:]), [0.3] * channels, [0.2] * channels, 255)(x, u)


def plain(x):
    return Pipeline([], tuple(x.shape[1:]), [0.3] * x.shape[1], [0.2] * x.shape[1], 255)(x)


def uniform(count, columns=23, seed=0):
    return torch.rand(count, columns, generator=torch.Generator().manual_seed(seed))


def rectangle(row, shape, area=(0.02, 0.33), aspect=(0.3, 3.3)):
    """Top, left, height and width that uniform numbers choose; nothing where none fits."""
    _, height, width = shape
    for share, turn in zip(row[1:21:2], row[2:21:2], strict=True):
        size = height * width * (area[0] + (area[1] - area[0]) * share)
        ratio = aspect[0] * (aspect[1] / aspect[0]) ** turn
        h, w = round(math.sqrt(size * ratio)), round(math.sqrt(size / ratio))
        if h < height and w < width:
            return int(row[21] * (height - h + 1)), int(row[22] * (width - w + 1)), h, w
    return 0, 0, 0, 0


@pytest.mark.parametrize("fill", ["mean", "noise"])
@pytest.mark.parametrize("shape", [CIFAR, FASHION, DIGITS, WIDE, (1, 2, 2)], ids=str)
def test_it_erases_what_torchvision_does(shape, fill):
    f = pytest.importorskip("torchvision.transforms.functional")
    x, u = images(300, shape), uniform(300, 25 if fill == "noise" else 23)
    out, before = erase(x, u, fill=fill), plain(x)
    for image, made, row in zip(before, out, u.double().tolist(), strict=True):
        place = rectangle(row, shape) if row[0] < 0.5 else (0, 0, 0, 0)
        top, left, h, w = place
        value = made[:, top : top + h, left : left + w] if fill == "noise" else 0
        assert torch.equal(made, f.erase(image, *place, value))
        hole = f.erase(torch.zeros(shape), *place, 1.0) > 0
        if fill == "noise":
            assert (made != image)[hole].all()


def test_one_that_does_not_fit_is_drawn_again():
    x, u, wild = images(200), uniform(200), {"area": (0.3, 0.9), "aspect": (0.2, 5.0)}
    u[:, 0] = 0
    erased = (erase(x, u, **wild) == 0).flatten(1).any(1)
    assert erased.tolist() == [rectangle(row, CIFAR, **wild)[2] > 0 for row in u.double().tolist()]
    assert 0.9 < erased.float().mean() < 1  # a first attempt fits in three of ten images
    u[:, 1:21:2], u[:, 2:21:2] = 0.99, 0.99  # none fits
    assert torch.equal(erase(x, u, **wild), plain(x))
    u[:, 19], u[:, 20] = 0.1, 0.5  # but the last one
    assert ((erase(x, u, **wild) == 0).flatten(1).sum(1) > 900).all()


def test_rectangles_are_uniform_in_area_and_log_uniform_in_aspect():
    drawn = Rectangles((0.02, 0.33), (0.3, 3.3), 500 * 500)(uniform(3000)[:, 1:21])
    areas = (drawn.prod(2) / 500**2).flatten().numpy()
    turns = (drawn[..., 0] / drawn[..., 1]).log().flatten().numpy()
    assert kstest(areas, "uniform", (0.02, 0.31)).statistic < 0.01
    assert kstest(turns, "uniform", (math.log(0.3), math.log(11))).statistic < 0.01


def test_it_comes_with_its_probability():
    x, u = images(100), uniform(100)
    u[:, 0] = torch.arange(100) / 100
    for p in (0.3, 1.0):
        erased = (erase(x, u, p=p) != plain(x)).flatten(1).any(1)
        assert torch.equal(erased, u[:, 0] < p)


def test_noise_is_normal_and_of_its_own_everywhere():
    noise = normal(uniform(400, 2), torch.arange(1, 3073))
    assert kstest(noise.flatten().numpy(), "norm").pvalue > 0.01
    # Between neighbours in an image, and between images: 400 x 3072 products, so 5 deviations.
    bound = 5 / math.sqrt(noise.numel())
    assert (noise[:, 1:] * noise[:, :-1]).mean().abs() < bound
    assert (noise[1:] * noise[:-1]).mean().abs() < bound
    assert ((noise**2 - 1)[:, 1:] * (noise**2 - 1)[:, :-1]).mean().abs() < 2 * bound
    for step in (32, 1024):  # the next row, the next channel
        assert (noise[:, step:] * noise[:, :-step]).mean().abs() < 1.5 * bound


def test_noise_is_finite_and_differs_for_neighbouring_numbers():
    step = 2.0**-24
    u = torch.tensor([[0, 0], [0, step], [step, 0], [1 - step, 1 - step]])
    noise = normal(u, torch.arange(1, 10001))
    assert noise.isfinite().all() and noise.abs().max() < 5.8
    correlation = torch.corrcoef(noise) - torch.eye(4)
    assert correlation.abs().max() < 0.05


def test_the_same_numbers_give_the_same_noise_in_any_batch():
    x, u = images(30), uniform(30, 25)
    u[:, 0] = 0
    out = erase(x, u, fill="noise")
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    assert torch.equal(erase(x[order], u[order], fill="noise"), out[order])
    other = u.clone()
    other[:, 23:] = uniform(30, 2, seed=1)
    changed = erase(x, other, fill="noise") != out
    assert torch.equal(changed.any(1), (erase(x, u[:, :23]) == 0).all(1))


@pytest.mark.parametrize(
    ("entry", "shape", "message"),
    [
        ({"area": [0.5, 0.1]}, CIFAR, r"random_erasing\.area: the first number must be at most"),
        ({"aspect": [3, 1]}, CIFAR, r"random_erasing\.aspect: the first number must be at most"),
        ({"aspect": [0, 1]}, CIFAR, r"aspect\[0\]: must be above 0\.0 \(found 0\)"),
        ({"p": 0}, CIFAR, r"p: must be above 0\.0 and at most 1\.0 \(found 0\)"),
        ({"fill": "rand"}, CIFAR, r"fill: must be one of mean, noise"),
        ({}, (3, 1, 5), r"random_erasing: images must be at least 2 pixels each way \(found 1 x 5"),
    ],
)
def test_wrong_settings_are_named(entry, shape, message):
    with pytest.raises(UserError, match=message):
        check([{"op": "random_erasing", **entry}], shape)
