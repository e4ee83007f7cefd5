"""Gaussian blur against torchvision, and against a convolution with a border of zeros."""

from __future__ import annotations

import pytest
import torch
from factories.augment import CIFAR, DIGITS, FASHION, images, raw
from torch.nn import functional as F

from cyclery.augment import check
from cyclery.augment.gaussian_blur import Settings
from cyclery.common.errors import UserError

WIDE = (3, 12, 20)


def blurred(x, u, max_value=255, **settings):
    spec = [{"op": "gaussian_blur", "p": 1.0, **settings}]
    return raw(spec, tuple(x.shape[1:]), max_value)(x, u) / max_value


def uniform(count):
    return torch.rand(count, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("shape", "max_value", "kernel", "taps"),
    [
        (CIFAR, 255, 0.1, 3),
        (CIFAR, 255, 0.4, 13),
        (FASHION, 255, 0.1, 3),
        (DIGITS, 16, 0.25, 3),
        (DIGITS, 16, 1.0, 9),
        (WIDE, 255, 0.35, 5),
    ],
)
def test_it_is_torchvisions(shape, max_value, kernel, taps):
    f = pytest.importorskip("torchvision.transforms.functional")
    x, u = images(50, shape, max_value), uniform(50)
    out = blurred(x, u, max_value, kernel=kernel)
    for image, made, (_, number) in zip(x, out, u.tolist(), strict=True):
        sigma = 0.1 + 1.9 * number
        expected = f.gaussian_blur(image / max_value, [taps, taps], [sigma, sigma])
        torch.testing.assert_close(made, expected, rtol=0, atol=2e-6)


def test_a_border_of_zeros_is_a_plain_convolution():
    x, u = images(20, WIDE), uniform(20)
    out = blurred(x, u, kernel=0.5, border="zero", sigma=[1.5, 1.5])
    line = torch.exp(-(torch.arange(-3.0, 4.0) ** 2) / (2 * 1.5**2))
    weight = (line[:, None] * line / line.sum() ** 2).expand(3, 1, 7, 7)
    torch.testing.assert_close(out, F.conv2d(x / 255, weight, padding=3, groups=3))


def test_the_kernel_is_a_share_of_the_shorter_side():
    sizes = {(3, 224, 224): 11, (3, 224, 300): 11, CIFAR: 1, FASHION: 1, (1, 40, 40): 2}
    assert {shape: Settings().radius(shape) for shape in sizes} == sizes
    assert Settings(kernel=0.29).radius((1, 200, 200)) == 29


def test_sigma_is_uniform_in_its_range():
    # Of a white pixel in the middle, what stays there is (1 / (1 + 2 exp(-1 / 2 sigma^2)))^2.
    x = torch.zeros(101, 1, 21, 21, dtype=torch.uint8)
    x[:, :, 10, 10] = 255
    u = torch.zeros(101, 2)
    u[:, 1] = torch.linspace(0, 1, 101)
    middle = blurred(x, u, sigma=[0.5, 1.5])[:, 0, 10, 10]
    sigma = torch.linspace(0.5, 1.5, 101)
    expected = 1 / (1 + 2 * torch.exp(-1 / (2 * sigma**2))) ** 2
    torch.testing.assert_close(middle, expected)


def test_it_comes_with_its_probability():
    x, u = images(100), uniform(100)
    u[:, 0] = torch.arange(100) / 100
    out = raw([{"op": "gaussian_blur", "p": 0.5, "sigma": [1.0, 2.0]}])(x, u)
    same = (out == x).flatten(1).all(1)
    assert same.tolist() == [False] * 50 + [True] * 50


def test_a_flat_image_stays_flat():
    x = torch.full((4, *CIFAR), 200, dtype=torch.uint8)
    torch.testing.assert_close(blurred(x, uniform(4), kernel=1.0), x / 255)


@pytest.mark.parametrize(
    ("entry", "shape", "message"),
    [
        ({}, DIGITS, r"kernel: must be at least 2 pixels of the shorter side, 8 pixels \(found"),
        ({"kernel": 1.0}, (1, 1, 1), r"at least 2 pixels of the shorter side, 1 pixels"),
        ({"sigma": [2, 1]}, CIFAR, r"gaussian_blur\.sigma: the first number must be at most"),
        ({"sigma": [0, 1]}, CIFAR, r"gaussian_blur\.sigma\[0\]: must be at least 0\.01"),
        ({"kernel": 1.5}, CIFAR, r"kernel: must be above 0\.0 and at most 1\.0"),
        ({"p": 0}, CIFAR, r"p: must be above 0\.0 and at most 1\.0 \(found 0\)"),
        ({"border": "edge"}, CIFAR, r"border: must be one of reflect, zero"),
    ],
)
def test_wrong_settings_are_named(entry, shape, message):
    with pytest.raises(UserError, match=message):
        check([{"op": "gaussian_blur", **entry}], shape)
