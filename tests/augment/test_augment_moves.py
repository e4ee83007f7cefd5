"""Ops that move an image or cover a part of it, against their definitions."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from factories.augment import CIFAR, DIGITS, WIDE, images, raw

from cyclery.augment import Pipeline


@pytest.mark.parametrize("shape", [DIGITS, CIFAR, WIDE], ids=str)
def test_shift_is_pad_and_crop_for_every_offset(shape):
    functional = pytest.importorskip("torchvision.transforms.functional")
    size = 2
    offsets = list(product(range(2 * size + 1), repeat=2))
    x = images(len(offsets), shape)
    u = (torch.tensor(offsets) + 0.5) / (2 * size + 1)
    out = raw([{"op": "shift", "size": size}], shape)(x, u)
    for image, moved, (top, left) in zip(x, out, offsets, strict=True):
        expected = functional.crop(functional.pad(image, size), top, left, *shape[1:])
        assert torch.equal(moved, expected.float())


@pytest.mark.parametrize(("shape", "size"), [(DIGITS, 1), (DIGITS, 7), (CIFAR, 4), (WIDE, 11)])
def test_a_reflected_shift_is_pad_and_crop_for_every_offset(shape, size):
    offsets = list(product(range(2 * size + 1), repeat=2))
    x = images(len(offsets), shape)
    u = (torch.tensor(offsets) + 0.5) / (2 * size + 1)
    out = raw([{"op": "shift", "size": size, "border": "reflect"}], shape)(x, u)
    padded = torch.nn.functional.pad(x.float(), [size] * 4, mode="reflect")
    for image, moved, (top, left) in zip(padded, out, offsets, strict=True):
        assert torch.equal(moved, image[:, top : top + shape[1], left : left + shape[2]])


@pytest.mark.parametrize(("shape", "size"), [(DIGITS, 1), (DIGITS, 7), (CIFAR, 4), (WIDE, 11)])
def test_a_symmetric_shift_mirrors_about_the_edge_as_numpy_does(shape, size):
    offsets = list(product(range(2 * size + 1), repeat=2))
    x = images(len(offsets), shape)
    u = (torch.tensor(offsets) + 0.5) / (2 * size + 1)
    out = raw([{"op": "shift", "size": size, "border": "symmetric"}], shape)(x, u)
    for image, moved, (top, left) in zip(x, out, offsets, strict=True):
        padded = np.pad(image.numpy(), ((0, 0), (size, size), (size, size)), mode="symmetric")
        expected = padded[:, top : top + shape[1], left : left + shape[2]]
        assert np.array_equal(moved.numpy(), expected)


@pytest.mark.parametrize("p", [0.25, 0.5, 1.0])
def test_flip_mirrors_with_its_probability(p):
    u = (torch.arange(100.0)[:, None] + 0.5) / 100
    x = images(100, WIDE)
    out = raw([{"op": "flip", "p": p}], WIDE)(x, u)
    flipped = u[:, 0] < p
    assert torch.equal(out[flipped], x[flipped].flip(3).float())
    assert torch.equal(out[~flipped], x[~flipped].float())


@pytest.mark.parametrize("border", ["zero", "reflect", "symmetric"])
def test_moves_happen_in_the_order_of_the_list(border):
    shift, flip = {"op": "shift", "size": 3, "border": border}, {"op": "flip"}
    x, u = images(64), torch.rand(64, 3, generator=torch.Generator().manual_seed(1))
    moved = raw([shift])(x, u[:, :2]).to(torch.uint8)
    mirrored = raw([flip])(x, u[:, 2:]).to(torch.uint8)
    assert torch.equal(raw([shift, flip])(x, u), raw([flip])(moved, u[:, 2:]))
    assert torch.equal(raw([flip, shift])(x, u.roll(1, 1)), raw([shift])(mirrored, u[:, :2]))
    twice = raw([shift, shift])
    assert torch.equal(twice(x, u[:, [0, 1, 0, 1]]), raw([shift])(moved, u[:, :2]))


def holes(spec, shape, u) -> torch.Tensor:
    """Where a pipeline covers white images; the fill is 0 whatever the normalisation."""
    white = torch.full((len(u), *shape), 255, dtype=torch.uint8)
    out = Pipeline(spec, shape, [0.3] * shape[0], [0.2] * shape[0], 255)(white, u)
    assert torch.equal(out == 0, (out == 0)[:, :1].expand_as(out))
    torch.testing.assert_close(out[out != 0], torch.full_like(out[out != 0], 3.5))
    return out[:, 0] == 0


@pytest.mark.parametrize("size", [1, 3, 4])
def test_cutout_covers_a_clipped_square_around_every_pixel(size):
    _, height, width = WIDE
    centres = list(product(range(height), range(width)))
    u = (torch.tensor(centres) + 0.5) / torch.tensor([height, width])
    covered = holes([{"op": "cutout", "size": size}], WIDE, u)
    for (y, x), hole in zip(centres, covered, strict=True):
        expected = torch.zeros(height, width, dtype=torch.bool)
        top, left = y - size // 2, x - size // 2
        expected[max(top, 0) : top + size, max(left, 0) : left + size] = True
        assert torch.equal(hole, expected)


def test_cutout_comes_with_its_probability():
    u = torch.cat((torch.full((100, 2), 0.5), torch.arange(100.0)[:, None] / 100), 1)
    covered = holes([{"op": "cutout", "size": 4, "p": 0.3}], CIFAR, u)
    assert covered.flatten(1).any(1).tolist() == [True] * 30 + [False] * 70


def test_the_mean_pixel_fills_the_hole():
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.2, 0.2]
    pipeline = Pipeline([{"op": "cutout", "size": 32}], CIFAR, mean, std, 255)
    out = pipeline(images(1), torch.full((1, 2), 0.5))
    back = out[0] * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]
    torch.testing.assert_close(back, torch.tensor(mean)[:, None, None].expand(CIFAR))


def test_erasing_covers_a_rectangle_of_its_area_and_aspect():
    u = torch.rand(2000, 5, generator=torch.Generator().manual_seed(0))
    covered = holes([{"op": "erasing", "p": 0.75}], CIFAR, u)
    assert torch.equal(covered.flatten(1).any(1), u[:, 0] < 0.75)
    heights, widths = covered.any(2).sum(1), covered.any(1).sum(1)
    assert torch.equal(covered.flatten(1).sum(1), heights * widths)
    area = (0.02 + 0.31 * u[:, 1]) * 32 * 32
    aspect = 0.3 * (3.3 / 0.3) ** u[:, 2]
    present = u[:, 0] < 0.75
    tall = (area * aspect).sqrt().round().clamp(1, 32)
    wide = (area / aspect).sqrt().round().clamp(1, 32)
    assert torch.equal(heights[present], tall[present].long())
    assert torch.equal(widths[present], wide[present].long())
    first_row = covered.any(2).float().argmax(1)
    assert torch.equal(first_row[present], (u[:, 3] * (33 - tall)).long()[present])


def test_erasing_of_tiny_images_covers_something_and_cuts_what_is_too_long():
    u = torch.rand(500, 5, generator=torch.Generator().manual_seed(0))
    covered = holes([{"op": "erasing", "p": 1.0, "area": [0.001, 1.0]}], DIGITS, u)
    counts = covered.flatten(1).sum(1)
    assert counts.min() >= 1 and counts.max() <= 64
