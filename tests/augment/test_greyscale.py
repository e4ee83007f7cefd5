"""Greyscale against torchvision."""

from __future__ import annotations

import pytest
import torch
from factories.augment import DIGITS, FASHION, images, raw

from cyclery.augment import check
from cyclery.common.errors import UserError


def test_grey_is_torchvisions():
    f = pytest.importorskip("torchvision.transforms.functional")
    x = images(20)
    out = raw([{"op": "greyscale", "p": 1.0}])(x, torch.rand(20, 1)) / 255
    expected = f.rgb_to_grayscale(x / 255, 3)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)


def test_it_comes_with_its_probability():
    x, u = images(100), torch.arange(100.0)[:, None] / 100
    out = raw([{"op": "greyscale", "p": 0.2}])(x, u)
    same = (out == x).flatten(1).all(1)
    assert same.tolist() == [False] * 20 + [True] * 80
    pixel = raw([{"op": "greyscale"}], (3, 1, 1))(images(2, (3, 1, 1)), torch.zeros(2, 1))
    assert torch.equal(pixel, pixel[:, :1].expand_as(pixel))


@pytest.mark.parametrize("shape", [DIGITS, (2, 8, 8)])
def test_images_without_colour_are_refused(shape):
    message = rf"augment\[0\] greyscale: images must have 3 channels \(found {shape[0]}\)"
    with pytest.raises(UserError, match=message):
        check([{"op": "greyscale"}], shape)
    assert check([{"op": "greyscale"}])


@pytest.mark.parametrize("p", [0, 1.5])
def test_wrong_probabilities_are_named(p):
    with pytest.raises(UserError, match=r"greyscale\.p: must be above 0\.0 and at most 1\.0"):
        check([{"op": "greyscale", "p": p}], FASHION)
