"""Quarter turns against torch.rot90."""

from __future__ import annotations

import pytest
import torch
from factories.augment import CIFAR, DIGITS, FASHION, WIDE, images, raw

from cyclery.augment import check
from cyclery.common.errors import UserError


@pytest.mark.parametrize(("shape", "max_value"), [(CIFAR, 255), (FASHION, 255), (DIGITS, 16)])
def test_each_quarter_of_the_range_is_a_turn(shape, max_value):
    x, u = images(100, shape, max_value), torch.arange(100.0)[:, None] / 100
    out = raw([{"op": "rotation"}], shape, max_value)(x, u)
    for i, (image, made) in enumerate(zip(x, out, strict=True)):
        assert torch.equal(made, image.rot90(i // 25, (1, 2)).float())


def test_it_is_torchvisions_counter_clockwise_turn():
    f = pytest.importorskip("torchvision.transforms.functional")
    x = images(4)
    out = raw([{"op": "rotation"}])(x, (torch.arange(4)[:, None] + 0.5) / 4)
    for turns, (image, made) in enumerate(zip(x, out, strict=True)):
        assert torch.equal(made, f.rotate(image, 90.0 * turns).float())


def test_turns_of_floats_and_of_one_pixel():
    spec = [{"op": "solarise", "p": 1.0, "threshold": 0.0}, {"op": "rotation"}]
    x = images(1)
    out = raw(spec)(x, torch.tensor([[0.0, 0.3]]))
    assert torch.equal(out, 255 - x.rot90(1, (2, 3)).float())
    pixel = images(3, (3, 1, 1))
    assert torch.equal(raw([{"op": "rotation"}], (3, 1, 1))(pixel, torch.rand(3, 1)), pixel.float())


def test_oblong_images_are_refused():
    message = r"augment\[0\] rotation: images must be square \(found 12 x 20 pixels\)"
    with pytest.raises(UserError, match=message):
        check([{"op": "rotation"}], WIDE)
    assert check([{"op": "rotation"}])
