"""Images at other resolutions, against torch's own antialiased interpolation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cyclery.data import resolution
from cyclery.data.resolution import resized

IMAGES = torch.randint(
    0, 256, (20, 3, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)
)


def theirs(images: torch.Tensor, side: int) -> torch.Tensor:
    return F.interpolate(
        images.double(), size=(side, side), mode="bilinear", align_corners=False, antialias=True
    )


@pytest.mark.parametrize("stored", [1, 3, 7, 10, 14, 27])
def test_reducing_is_torchs_antialiased_filter_rounded(stored: int) -> None:
    found = resized(IMAGES, stored, stored)
    assert found.shape == (20, 3, stored, stored) and found.dtype == torch.uint8
    assert (found.double() - theirs(IMAGES, stored)).abs().max() < 0.5 + 1e-9


@pytest.mark.parametrize("input", [29, 32, 40, 56, 84])
def test_enlarging_is_bilinear(input: int) -> None:
    found = resized(IMAGES, 28, input).double()
    plain = F.interpolate(
        IMAGES.double(), size=(input, input), mode="bilinear", align_corners=False
    )
    assert (found - plain).abs().max() < 0.5 + 1e-9


def test_the_detail_is_that_of_the_stored_side() -> None:
    small = resized(IMAGES, 7, 7)
    torch.testing.assert_close(resized(IMAGES, 7, 28), resized(small, 7, 28), rtol=0, atol=0)
    # Nothing above half a cycle in a stored pixel is left of a fine checkerboard, but at the
    # rim, where the filter is cut off.
    board = (torch.arange(28)[:, None] + torch.arange(28)) % 2 * 200
    found = resized(board.to(torch.uint8).expand(1, 1, 28, 28), 14, 28)
    assert (found[..., 4:-4, 4:-4] == 100).all()


def test_own_sides_are_the_images_themselves() -> None:
    assert resized(IMAGES, 28, 28) is IMAGES


def test_bits_depend_on_neither_chunks_nor_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = resized(IMAGES, 10, 33)
    monkeypatch.setattr(resolution, "CHUNK", 7)
    threads = torch.get_num_threads()
    torch.set_num_threads(2 if threads == 1 else 1)
    try:
        assert torch.equal(resized(IMAGES, 10, 33), whole)
    finally:
        torch.set_num_threads(threads)


def test_white_stays_white_and_black_black() -> None:
    for value in (0, 255):
        flat = torch.full((1, 1, 28, 28), value, dtype=torch.uint8)
        assert (resized(flat, 9, 31) == value).all()
