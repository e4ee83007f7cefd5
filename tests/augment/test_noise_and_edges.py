"""Gaussian noise, and Sobel's edges against convolutions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from factories.augment import CIFAR, DIGITS, FASHION, images, raw

from cyclery.augment import check
from cyclery.common.errors import UserError

SIZES = pytest.mark.parametrize(
    ("shape", "max_value"), [(CIFAR, 255), (FASHION, 255), (DIGITS, 16)]
)


def drawn(count: int) -> torch.Tensor:
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(0))


def test_noise_is_normal_and_independent() -> None:
    # Grey all over, so that nothing is cut.
    x = torch.full((400, *DIGITS), 8, dtype=torch.uint8)
    noise = raw([{"op": "gaussian_noise", "deviation": 0.1, "p": 1.0}], DIGITS, 16)(x, drawn(400))
    noise = (noise - 8).flatten(1)
    assert noise.mean().abs() < 0.03 and noise.std().item() == pytest.approx(1.6, rel=0.02)
    share = (noise.abs() < 1.6).float().mean().item()
    assert share == pytest.approx(0.6827, abs=0.01)
    # Neither pixels of an image nor images have anything in common.
    assert (noise.T.corrcoef() - torch.eye(64)).abs().max() < 0.25
    assert len(noise[:, 0].unique()) > 390


@SIZES
def test_noise_comes_with_its_probability_and_is_cut_to_the_range(shape, max_value) -> None:
    x, u = images(200, shape, max_value), drawn(200)
    out = raw([{"op": "gaussian_noise", "deviation": 1.0, "p": 0.4}], shape, max_value)(x, u)
    same = (out == x.float()).flatten(1).all(1)
    assert torch.equal(same, u[:, 0] >= 0.4)
    assert out.min() == 0 and out.max() == max_value


@SIZES
def test_edges_are_sobels(shape, max_value) -> None:
    x = images(20, shape, max_value)
    out = raw([{"op": "sobel", "p": 1.0}], shape, max_value)(x, torch.zeros(20, 1))
    kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    flat = F.pad(x.float().flatten(0, 1)[:, None], (1, 1, 1, 1), mode="replicate")
    a, b = (F.conv2d(flat, k[None, None]).view(x.shape) for k in (kernel, kernel.T))
    expected = torch.hypot(a, b).div(4).clamp(0, max_value)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-3)


def test_edges_of_a_step_and_of_nothing() -> None:
    x = torch.zeros(1, 1, 4, 6, dtype=torch.uint8)
    x[..., 3:] = 200
    out = raw([{"op": "sobel", "p": 1.0}], (1, 4, 6))(x, torch.zeros(1, 1))
    assert out[0, 0].tolist() == [[0, 0, 200, 200, 0, 0]] * 4


def test_edges_come_with_their_probability() -> None:
    x, u = images(100), torch.arange(100.0)[:, None] / 100
    out = raw([{"op": "sobel", "p": 0.3}])(x, u)
    changed = (out != x.float()).flatten(1).any(1)
    assert torch.equal(changed, u[:, 0] < 0.3)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"op": "gaussian_noise", "deviation": 0}, "deviation: must be above 0"),
        ({"op": "gaussian_noise", "deviation": 2}, r"deviation: must be (at most|.*) 1"),
        ({"op": "sobel", "p": 0}, "p: must be above 0"),
    ],
)
def test_settings_out_of_range_are_refused(entry, message) -> None:
    with pytest.raises(UserError, match=message):
        check([entry], DIGITS)
