"""Solarising against torchvision."""

from __future__ import annotations

import pytest
import torch
from factories.augment import CIFAR, DIGITS, FASHION, images, raw

from cyclery.augment import check
from cyclery.common.errors import UserError


@pytest.mark.parametrize("threshold", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize(("shape", "max_value"), [(CIFAR, 255), (FASHION, 255), (DIGITS, 16)])
def test_it_is_torchvisions(shape, max_value, threshold):
    f = pytest.importorskip("torchvision.transforms.functional")
    x = images(20, shape, max_value)
    out = raw([{"op": "solarise", "p": 1.0, "threshold": threshold}], shape, max_value)(
        x, torch.rand(20, 1)
    )
    expected = f.solarize(x.double() / max_value, threshold) * max_value
    torch.testing.assert_close(out, expected.float(), rtol=0, atol=1e-4)


def test_the_threshold_itself_is_inverted():
    f = pytest.importorskip("torchvision.transforms.functional")
    x = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    out = raw([{"op": "solarise"}], (1, 16, 16))(x, torch.zeros(1, 1))
    assert torch.equal(out, f.solarize(x, 128).float())  # half of 255, among whole levels
    digits = raw([{"op": "solarise"}], (1, 1, 3), 16)
    x = torch.tensor([7, 8, 9], dtype=torch.uint8).view(1, 1, 1, 3)
    assert digits(x, torch.zeros(1, 1)).flatten().tolist() == [7, 8, 7]


def test_it_comes_with_its_probability():
    x, u = images(100), torch.arange(100.0)[:, None] / 100
    out = raw([{"op": "solarise", "p": 0.4, "threshold": 0.0}])(x, u)
    assert torch.equal(out[:40], 255 - x[:40].float())
    assert torch.equal(out[40:], x[40:].float())


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"threshold": 1.1}, r"solarise\.threshold: must be at least 0\.0 and at most 1\.0"),
        ({"p": 0}, r"solarise\.p: must be above 0\.0 and at most 1\.0 \(found 0\)"),
    ],
)
def test_wrong_settings_are_named(entry, message):
    with pytest.raises(UserError, match=message):
        check([{"op": "solarise", **entry}], CIFAR)
