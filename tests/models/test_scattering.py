"""Wavelet scattering: the numbers of kymatio, what the definition says, and the stem."""

from __future__ import annotations

from math import pi

import pytest
import torch
from factories.network import CIFAR, DIGITS, parameters, small
from torch import Tensor

from cyclery.common.errors import UserError
from cyclery.models import build, check
from cyclery.models.layers import norm_2d
from cyclery.models.layers.scattering import Scattering, ScatteringStem, coefficients

# Of image(side) with J scales: Scattering2D(J=J, shape=(side, side), L=8) of kymatio 0.3.0, numpy
# front end, with numpy 2.4.6 and scipy 1.16.3, in double precision. Sums of the orders 0, 1 and 2,
# the sum of squares, and single coefficients [channel, row, column].
KYMATIO: list[tuple[int, int, tuple[float, float, float], float, dict[tuple[int, ...], float]]] = [
    (8, 1, (7.031595, 6.784379, 0.000000), 3.614223,
     {(0, 0, 0): 0.496749981, (1, 3, 1): 0.067590428,
      (3, 1, 3): 0.043499104, (4, 0, 0): 0.084609154,
      (5, 3, 1): 0.038204367, (6, 2, 2): 0.037457606,
      (8, 0, 0): 0.046909967}),
    (14, 1, (21.274320, 22.298566, 0.000000), 11.112119,
     {(0, 0, 0): 0.496667450, (1, 3, 5): 0.049643262,
      (3, 2, 1): 0.038936177, (4, 5, 6): 0.042867840,
      (5, 1, 4): 0.084478912, (6, 4, 2): 0.059225411,
      (8, 3, 5): 0.043725858}),
    (14, 2, (3.921442, 5.883067, 2.894234), 2.028287,
     {(0, 0, 0): 0.450171599, (1, 0, 2): 0.055033944,
      (5, 0, 1): 0.057996188, (27, 0, 0): 0.002324697,
      (40, 0, 2): 0.004923749, (74, 0, 1): 0.004291307,
      (80, 0, 1): 0.007231920}),
    (28, 2, (22.064622, 33.498052, 16.092959), 11.843758,
     {(0, 0, 0): 0.463302780, (1, 3, 5): 0.056822984,
      (5, 1, 4): 0.064853019, (27, 4, 2): 0.007825017,
      (40, 1, 4): 0.003281590, (74, 5, 6): 0.006220596,
      (80, 2, 1): 0.011178592}),
    (32, 2, (28.757345, 44.104010, 21.067764), 15.456056,
     {(0, 0, 0): 0.462413531, (1, 3, 5): 0.056823873,
      (5, 7, 1): 0.064132774, (27, 1, 7): 0.005952054,
      (40, 0, 0): 0.005455444, (74, 6, 2): 0.005580221,
      (80, 0, 0): 0.005862236}),
    (32, 3, (7.200041, 12.671574, 11.408229), 3.871999,
     {(0, 0, 0): 0.446020404, (1, 3, 1): 0.061613422,
      (5, 3, 1): 0.057680851, (72, 0, 0): 0.002041597,
      (108, 0, 0): 0.002897921, (210, 2, 2): 0.002782674,
      (216, 0, 0): 0.004157230}),
]  # fmt: skip


def image(side: int) -> Tensor:
    i, j = torch.arange(side)[:, None], torch.arange(side)
    return (7 * i + 13 * j + 3 * i * j + 5 * i * i) % 17 / 17


def as_kymatio(found: Tensor, scales: int) -> Tensor:
    """Return coefficients [K, H, W] as kymatio has them, which takes 3.1415 for pi.

    It divides each of its filters by that, and a coefficient of order m has passed m + 1 of them.
    """
    order = torch.full((len(found),), 3)
    order[: 1 + 8 * scales] = 2
    order[0] = 1
    return found.double() * ((pi / 3.1415) ** order)[:, None, None]


@pytest.mark.parametrize(("side", "scales", "sums", "squares", "single"), KYMATIO)
def test_coefficients_are_those_of_kymatio(
    side: int,
    scales: int,
    sums: tuple[float, float, float],
    squares: float,
    single: dict[tuple[int, ...], float],
) -> None:
    [found] = Scattering(side, side, scales)(image(side)[None, None])
    assert found.shape == (coefficients(scales), side // 2**scales, side // 2**scales)
    found = as_kymatio(found, scales)
    parts = found[:1], found[1 : 1 + 8 * scales], found[1 + 8 * scales :]
    assert [part.sum().item() for part in parts] == pytest.approx(sums, rel=1e-5, abs=1e-9)
    assert found.square().sum().item() == pytest.approx(squares, rel=1e-5)
    for place, value in single.items():
        assert found[place].item() == pytest.approx(value, abs=1e-6), place


def test_the_number_of_maps_of_a_channel() -> None:
    assert [coefficients(scales) for scales in (1, 2, 3)] == [9, 81, 217]
    assert Scattering(32, 32, 2)(torch.rand(2, 3, *CIFAR[1:])).shape == (2, 3 * 81, 8, 8)


def test_channels_and_images_are_apart_and_sides_may_differ() -> None:
    torch.manual_seed(0)
    scattering, x = Scattering(10, 14, 1), torch.rand(2, 3, 10, 14)
    found = scattering(x)
    assert found.shape == (2, 27, 5, 7)
    torch.testing.assert_close(found[1:, 9:18], scattering(x[1:, 1:2]))
    # Of a mirrored image the means are mirrored.
    mirrored = Scattering(14, 10, 1)(x.transpose(2, 3)).transpose(2, 3)
    torch.testing.assert_close(found[:, ::9], mirrored[:, ::9])


def test_a_flat_image_has_its_mean_and_no_waves() -> None:
    [[low, *rest]] = Scattering(16, 16, 2)(torch.full((1, 1, 16, 16), 0.7))
    torch.testing.assert_close(low, torch.full((4, 4), 0.7), rtol=1e-3, atol=1e-4)
    assert max(each.abs().max().item() for each in rest) < 1e-3


def test_a_wave_is_strongest_in_its_own_scale_and_orientation() -> None:
    """psi_0 has the frequency 3 pi / 4 along (cos a, sin a), a = (3 - turn) pi / 8."""
    place = torch.arange(32.0)
    for along, turn in (("rows", 3), ("columns", 7)):
        wave = torch.cos(0.75 * pi * place).expand(32, 32)
        x = wave.T if along == "rows" else wave
        [found] = Scattering(32, 32, 2)(x[None, None])
        assert found[1:17].mean((1, 2)).argmax().item() == turn


def test_a_gradient_reaches_the_image() -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 1, 8, 8, dtype=torch.float64).requires_grad_()
    module = Scattering(8, 8, 1)
    (given,) = torch.autograd.grad(module(x).sum(), x)
    moved = torch.zeros_like(x)
    moved[0, 0, 3, 4] = 1e-2
    with torch.no_grad():
        change = (module(x + moved).sum() - module(x - moved).sum()) / 2e-2
    assert given[0, 0, 3, 4].item() == pytest.approx(change.item(), rel=1e-2)


def test_the_stem_normalises_coefficients_without_weights() -> None:
    torch.manual_seed(0)
    stem = ScatteringStem((3, 14, 14), 8, 1, lambda n: norm_2d("batch", n, 0.3, 1e-9))
    assert sum(p.numel() for p in stem.parameters()) == 27 * 8 * 9 + 2 * 8
    assert (stem[1].momentum, stem[1].eps, stem[1].affine) == (0.3, 1e-9, False)
    seen: list[Tensor] = []
    stem[2].register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    out = stem(torch.rand(16, 3, 14, 14))
    assert out.shape == (16, 8, 7, 7) and out.min() == 0
    torch.testing.assert_close(seen[0].var((0, 2, 3), correction=0), torch.ones(27), rtol=1e-3,
                               atol=1e-3)  # fmt: skip
    # Nothing of the filters is kept with the weights.
    assert [key for key in stem.state_dict() if key.startswith("0.")] == []


@pytest.mark.parametrize(
    ("name", "chosen", "maps", "count"),
    [
        # The stem and the first group are gone, and a 3x3 convolution of 9 coefficients is there.
        ("wrn", {"depth": 10, "width": 1}, (64, 4), 77_562 - 9 * 16 - 2 * (2 * 16 + 9 * 256)
         + 9 * 9 * 16 + 2 * 16),
        ("resnet_b", {"depth": 8, "widths": [8, 8, 16, 32]}, (32, 4), 19_810 - 9 * 8 - 2 * 8
         - 2 * (9 * 64 + 2 * 8) + 9 * 9 * 8 + 2 * 8),
        ("small_cnn", {}, (64, 4), 24_058 - 9 * 16 + 9 * 9 * 16),
    ],
)  # fmt: skip
def test_networks_keep_the_resolution_of_the_coefficients(
    name: str, chosen: dict, maps: tuple[int, int], count: int
) -> None:
    assert parameters(name, {**chosen, "scattering": 1}, DIGITS) == count
    net = build(name, {**chosen, "scattering": 1}, DIGITS, 10)
    seen: list[Tensor] = []
    pool = list(net.modules())[-1]
    pool.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    assert net(torch.rand(2, *DIGITS)).shape == (2, 10)
    assert seen[0].shape == (2, maps[0], maps[1], maps[1])


def test_the_printed_sizes() -> None:
    # WRN-16-8: two blocks of 2 + 3 convolutions of 9 * 128^2 and their norms make room.
    assert parameters("wrn", {"depth": 16, "width": 8, "scattering": 2}) == (
        10_961_370 - 9 * 3 * 16 - (2 * 16 + 9 * 16 * 128 + 2 * 128 + 9 * 128**2 + 16 * 128)
        - 2 * (2 * 128 + 9 * 128**2) + 9 * 3 * 81 * 128 + 2 * 128
    )  # fmt: skip
    # ResNet-50: the groups 3 and 4, the first of them without a stride.
    groups = small_count(1024, 256, 6, 512) + small_count(2048, 512, 3, 1024)
    stem = 9 * 3 * 217 * 512 + 2 * 512
    found = parameters("resnet50", {"scattering": 3}, (3, 224, 224), 1000)
    assert found == stem + groups + 2048 * 1000 + 1000
    net = small("resnet50", CIFAR, scattering=2)
    assert [b.shortcut[0].stride for b in net.body[1:8:6]] == [(1, 1), (2, 2)]


def small_count(outputs: int, width: int, depth: int, inputs: int) -> int:
    """Return the parameters of a group of bottlenecks."""
    each = 2 * (outputs * width) + 9 * width**2 + 4 * width + 2 * outputs
    return depth * each + (inputs - outputs) * width + inputs * outputs + 2 * outputs


def test_images_that_are_too_small_are_refused() -> None:
    check("wrn", {"scattering": 2}, (1, 5, 9))
    for name, shape in (("wrn", (1, 4, 9)), ("small_cnn", (1, 8, 4)), ("resnet_b", (1, 4, 4))):
        with pytest.raises(UserError, match="needs images of at least 5 x 5 pixels"):
            check(name, {"scattering": 2}, shape)


def test_under_autocast_it_computes_in_full_precision() -> None:
    scattering, x = Scattering(14, 14, 2), image(14)[None, None]
    with torch.autocast("cpu", torch.bfloat16):
        found = scattering(x)
    assert found.dtype == torch.float32 and torch.equal(found, scattering(x))
