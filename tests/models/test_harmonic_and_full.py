"""Harmonic and full convolutions, and what they make of networks."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft
import torch
from factories.network import CIFAR, DIGITS, parameters, small
from torch import nn

from cyclery.common.errors import UserError
from cyclery.models import build, check
from cyclery.models._residual import Block, Bottleneck, WideBlock
from cyclery.models.layers import conv_3x3, norm_2d
from cyclery.models.layers.full import Residual, fill, margin
from cyclery.models.layers.harmonic import HarmonicConv2d, HarmonicFirst, dct_filters

NETWORKS = ["small_cnn", "resnet_b", "resnet50", "wrn"]
SHAPE = (1, 17, 17)


@pytest.mark.parametrize("side", [2, 3, 5, 7])
def test_filters_are_those_of_the_cosine_transform(side: int) -> None:
    waves = scipy.fft.dct(np.eye(side), type=2, axis=0) / 2
    expected = [np.outer(first, second) for first in waves for second in waves]
    expected = [each / np.abs(each).sum() for each in expected]
    torch.testing.assert_close(dct_filters(side), torch.tensor(np.array(expected)).float())


@pytest.mark.parametrize(("side", "stride"), [(3, 1), (3, 2), (7, 2)])
def test_any_plain_convolution_has_harmonic_weights(side: int, stride: int) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(2, 5, side, stride, side // 2, bias=False).double()
    x = torch.randn(3, 2, 9, 9, dtype=torch.float64)
    made = HarmonicConv2d.of(plain).double()
    assert made.bias is None
    # F = W filters, and all frequencies make the filters a basis.
    weights = plain.weight.detach().flatten(2) @ torch.linalg.inv(made.filters)
    with torch.no_grad():
        made.weight.copy_(weights.view_as(made.weight))
    torch.testing.assert_close(made(x), plain(x))
    # So have the two steps, but for the norm between them.
    first = HarmonicFirst(plain, nn.BatchNorm2d(1, eps=0)).double().eval()
    with torch.no_grad():
        first.sum.weight.copy_(weights.view_as(first.sum.weight))
    torch.testing.assert_close(first(x), plain(x))


def test_each_frequency_of_the_image_has_variance_one_before_it_is_weighed() -> None:
    torch.manual_seed(0)
    first = HarmonicFirst(conv_3x3(3, 8), nn.BatchNorm2d(1, eps=1e-9, momentum=0.3))
    assert [name for name, _ in first.named_parameters()] == ["sum.weight"]
    assert (first.norm.momentum, first.norm.eps) == (0.3, 1e-9)
    seen: list[torch.Tensor] = []
    first.sum.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    first(5 + 3 * torch.randn(16, 3, 8, 8))
    assert seen[0].shape == (16, 27, 8, 8)
    torch.testing.assert_close(seen[0].var((0, 2, 3), correction=0), torch.ones(27))
    # The weights of the frequencies start as those of pixels would.
    weight = HarmonicConv2d.of(conv_3x3(64, 128)).weight
    assert weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
    weight = HarmonicFirst(conv_3x3(3, 128), nn.BatchNorm2d(1)).sum.weight
    assert weight.std().item() == pytest.approx((2 / 128) ** 0.5, rel=0.05)


@pytest.mark.parametrize("name", NETWORKS)
def test_all_convolutions_of_more_than_one_pixel_are_harmonic(name: str) -> None:
    plain, made = (small(name, SHAPE, convolution=kind) for kind in ("plain", "harmonic"))

    def sizes(net: nn.Module, kind: type) -> list[tuple[int, ...]]:
        return [m.kernel_size for m in net.modules() if type(m) is kind]

    larger = [size for size in sizes(plain, nn.Conv2d) if size != (1, 1)]
    points = [size for size in sizes(plain, nn.Conv2d) if size == (1, 1)]
    assert sizes(made, HarmonicConv2d) == larger[1:]
    # The one more is the second step of the first convolution.
    assert sizes(made, nn.Conv2d) == [(1, 1), *points]
    assert sum(p.numel() for p in made.parameters()) == sum(p.numel() for p in plain.parameters())
    assert torch.equal(made.head.weight, plain.head.weight)
    assert not [key for key in made.state_dict() if "filters" in key]


@pytest.mark.parametrize("convolution", ["harmonic", "full"])
def test_neither_has_more_weights_than_the_network_of_the_paper(convolution: str) -> None:
    chosen = {"depth": 16, "width": 8, "convolution": convolution}
    assert parameters("wrn", chosen) == 10_961_370
    assert parameters("resnet50", {"convolution": convolution}, (3, 224, 224), 1000) == 25_557_032


@pytest.mark.parametrize("side", [3, 7])
def test_every_weight_of_a_full_convolution_sees_every_pixel(side: int) -> None:
    def seen(padding: int, at: tuple[int, int]) -> torch.Tensor:
        x = torch.zeros(1, 1, 8, 8)
        x[0, 0, at[0], at[1]] = 1
        conv = nn.Conv2d(1, 1, side, padding=padding, bias=False)
        if padding == side - 1:
            conv.padding = (side // 2, side // 2)
            fill(conv)
        conv(x).sum().backward()
        assert conv.weight.grad is not None
        return conv.weight.grad[0, 0]

    for at in [(0, 0), (0, 7), (3, 4), (7, 7)]:
        assert torch.equal(seen(side - 1, at), torch.ones(side, side))
    # A plain one puts one corner of its filters on the corner of the image, and the rest nowhere.
    assert seen(side // 2, (0, 0)).count_nonzero() == (side // 2 + 1) ** 2


def blocks(stride: int, outputs: int) -> dict[str, Residual]:
    return {
        "basic": Block(4, outputs, stride, "batch", True),
        "wide": WideBlock(4, outputs, stride, False, lambda n: norm_2d("batch", n), nn.ReLU, 0.0),
        "bottleneck": Bottleneck(4, outputs // 4, stride, "batch"),
    }


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("kind", "pixels"), [("basic", (2, 3)), ("wide", (2, 3)),
                                              ("bottleneck", (1, 1))])  # fmt: skip
def test_pixels_stay_above_one_another(kind: str, pixels: tuple[int, int], stride: int) -> None:
    """With a filter that copies its middle pixel, the branch copies what the identity does."""
    block = blocks(stride, 4 if stride == 1 else 8)[kind].eval()
    assert margin(block.convolutions()) == pixels[stride - 1]
    fill(block)
    for conv in (m for m in block.modules() if isinstance(m, nn.Conv2d)):
        side = conv.kernel_size[0] // 2
        with torch.no_grad():
            conv.weight.zero_()
            conv.weight[0, 0, side, side] = 1
    # Images without negative values, which ReLU leaves alone; norms do nothing as they start.
    x = torch.rand(2, 4, 9, 9)
    x[:, 1:] = 0
    total = block(x)[:, 0]
    shortcut = getattr(block, block.SHORTCUT)(x)[:, 0]
    assert shortcut.shape == total.shape
    assert shortcut.count_nonzero() == 2 * (9 if stride == 1 else 4) ** 2
    torch.testing.assert_close(total, 2 * shortcut, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "chosen", "sides"),
    [
        # A side n becomes n + 4 in a block, and (n + 1) // 2 + 3 in one that halves.
        ("wrn", {"depth": 10, "width": 1}, [10, 14, 10, 8]),
        ("resnet_b", {"depth": 8, "widths": [4, 4, 8, 16]}, [10, 14, 10, 8]),
        ("small_cnn", {}, [10, 5, 7, 3, 5]),
    ],
)
def test_maps_grow(name: str, chosen: dict, sides: list[int]) -> None:
    net = build(name, {**chosen, "convolution": "full"}, DIGITS, 10)
    found: list[int] = []
    kinds = (Residual, nn.Conv2d, nn.MaxPool2d)
    inner = {id(m) for b in net.modules() if isinstance(b, Residual) for m in b.modules()
             if m is not b}  # fmt: skip
    for module in (m for m in net.modules() if isinstance(m, kinds) and id(m) not in inner):
        module.register_forward_hook(lambda module, given, out: found.append(out.shape[-1]))
    net(torch.randn(2, *DIGITS))
    assert found == sides


def test_the_full_resnet_50_has_a_wider_stem_and_a_pooling_without_overlap() -> None:
    net = small("resnet50", CIFAR, convolution="full")
    stem, _, _, pool = net.body[:4]
    assert (stem.kernel_size, stem.padding, stem.stride) == ((7, 7), (6, 6), (2, 2))
    assert (pool.kernel_size, pool.stride, pool.padding) == (2, 2, 0)
    # 32 pixels: (32 + 12 - 7) // 2 + 1 = 19, pooled 9, and 2 more at each bottleneck.
    assert net.body[:4](torch.randn(2, *CIFAR)).shape[-1] == 9
    assert net.body[:5](torch.randn(2, *CIFAR)).shape[-1] == 11


@pytest.mark.parametrize(
    ("name", "chosen", "message"),
    [
        ("wrn", {"convolution": "harmonic", "scattering": 1},
         r"model wrn\.scattering: a network has one of these changes at a time \(found "
         r"convolution and scattering\); leave out all but one"),
        ("resnet_b", {"convolution": "full", "blocks": "dual_selective_kernel"},
         r"resnet_b\.blocks: .*\(found convolution and blocks\)"),
        ("small_cnn", {"convolution": "harmonic", "norm": "group"},
         r"small_cnn\.convolution: begins with batch norm, so set norm to batch.*found norm group"),
        ("wrn", {"scattering": 2, "norm": "none"}, r"wrn\.scattering: begins with batch norm"),
        ("wrn", {"convolution": "harmonics"}, r"Did you mean 'harmonic'"),
        ("small_cnn", {"scattering": 7}, r"scattering: must be at least 0 and at most 6"),
        ("small_cnn", {"blocks": "plain"}, r"unknown key 'blocks'"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_named(name: str, chosen: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(name, chosen)


@pytest.mark.parametrize("name", NETWORKS)
def test_run_keys_mention_what_came_later_only_where_it_is_not_the_default(name: str) -> None:
    usual = check(name, {}).resolved()
    assert not usual.keys() & {"convolution", "scattering", "blocks"} and "norm" in usual
    said = check(name, {"convolution": "full", "scattering": 0}).resolved()
    assert said == {**usual, "convolution": "full"}
