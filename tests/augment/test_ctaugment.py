"""CTAugment: each op against PIL, draws against their chances, learning against a loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from factories.replay import NoWaiting
from factories.threads import one_thread
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torch import Tensor

from cyclery.augment import Images
from cyclery.augment._ctaugment import (
    BINS,
    COLUMNS,
    DECAY,
    DEPTH,
    CTAugment,
    Policy,
    names_for,
)

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

DIGITS, FASHION, CIFAR, WIDE = (1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 20, 28)
SHAPES = (DIGITS, FASHION, CIFAR, WIDE)
R = Image.Resampling
# In the order of the published code, which is what the second parameter of `rescale` counts.
FILTERS = (R.LANCZOS, R.BICUBIC, R.BILINEAR, R.BOX, R.HAMMING, R.NEAREST)
ENHANCERS = {"brightness": ImageEnhance.Brightness, "colour": ImageEnhance.Color,
             "contrast": ImageEnhance.Contrast, "sharpness": ImageEnhance.Sharpness}  # fmt: skip
BLENDED = {"autocontrast": ImageOps.autocontrast, "equalize": ImageOps.equalize,
           "invert": ImageOps.invert}  # fmt: skip
FILTERED = {"blur": ImageFilter.BLUR, "smooth": ImageFilter.SMOOTH}
CASES = [(shape, name) for shape in SHAPES for name in names_for(shape[0])]


def made(shape: tuple[int, int, int]) -> CTAugment:
    """Return it for images that are normalised to 0..1."""
    return CTAugment(Images(shape, (0.0,) * shape[0], 255), (1.0,) * shape[0])


def noise(count: int, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Return images of several kinds: noise, faint, of two levels, constant, mostly dark."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randint(256, (count, *shape), dtype=torch.uint8, generator=g)
    x[1::5] = x[1::5] // 3 + 40
    x[2::5] = (x[2::5] > 128).to(torch.uint8) * 255
    x[3::5] = 91
    x[4::5] = x[4::5] * (x[4::5] > 200)
    return x


def by_pil(image: Image.Image, name: str, level: float, second: float, centre: Any) -> Image.Image:
    """Return what the ops of google-research/fixmatch make of an image."""
    w, h = image.size
    if name in ENHANCERS:
        return ENHANCERS[name](image).enhance(0.1 + 1.9 * level)
    if name in BLENDED:
        return Image.blend(image, BLENDED[name](image), level)
    if name in FILTERED:
        return Image.blend(image, image.filter(FILTERED[name]), level)
    if name == "posterize":
        return ImageOps.posterize(image, 1 + int(level * 7.999))
    if name == "solarize":
        return ImageOps.solarize(image, int(level * 255.999))
    if name == "rotate":
        return image.rotate(int(np.round((2 * level - 1) * 45)))
    if name in ("shear_x", "shear_y", "translate_x", "translate_y"):
        value, place = (2 * level - 1) * 0.3, {"shear_x": 1, "translate_x": 2, "shear_y": 3,
                                               "translate_y": 5}[name]  # fmt: skip
        matrix = [1, 0, 0, 0, 1, 0]
        matrix[place] = value
        return image.transform(image.size, Image.Transform.AFFINE, matrix)
    if name == "rescale":
        s = level * 0.25
        box = (s * w, s * h, w * (1 - s), h * (1 - s))
        return image.crop(box).resize(image.size, FILTERS[int(second * 5.99)])
    if name == "cutout":
        half = (1 + int(level * min(image.size) * 0.499)) // 2
        row, column = int(centre[0] * h), int(centre[1] * w)
        pixels = np.array(image)
        pixels[max(0, row - half) : row + half, max(0, column - half) : column + half] = 127
        return Image.fromarray(pixels)
    assert name == "identity"
    return image


def images_of(x: Tensor) -> list[Image.Image]:
    arrays = x.movedim(1, -1).numpy()
    return [Image.fromarray(a[..., 0] if a.shape[-1] == 1 else a) for a in arrays]


def levels_of(images: list[Image.Image]) -> Tensor:
    arrays = np.stack([np.asarray(image) for image in images])
    return torch.from_numpy(arrays if arrays.ndim == 4 else arrays[..., None]).movedim(-1, 1)


def changed(net: CTAugment, x: Tensor, policy: Policy) -> Tensor:
    """Return the grey levels that come of grey levels."""
    return (net(x / 255, policy) * 255).round().to(torch.uint8)


def policy_of(names: list[list[str]], level: Tensor, centre: Tensor, net: CTAugment) -> Policy:
    op = torch.tensor([[net.names.index(name) for name in each] for each in names])
    return Policy(op, level.double(), centre.double(), torch.zeros(op.shape[1], dtype=torch.bool))


@pytest.mark.parametrize(("shape", "name"), CASES, ids=lambda value: str(value))
def test_each_op_is_that_of_pil(shape, name):
    net, count = made(shape), 60
    x = noise(count, shape)
    g = torch.Generator().manual_seed(1)
    level = torch.rand(DEPTH, count, 2, generator=g)
    level[0, :5], level[0, 5:10] = 0.0, 1 - 2**-24
    centre = torch.rand(DEPTH + 1, count, 2, generator=g)
    found = changed(net, x, policy_of([[name] * count, ["identity"] * count], level, centre, net))
    given = zip(images_of(x), level[0].double().tolist(), centre[0].tolist(), strict=True)
    expected = levels_of([by_pil(i, name, *each, place) for i, each, place in given])
    assert torch.equal(found, expected)
    # Of up to 255 pixels PIL has no histogram to even out.
    still = shape == DIGITS and name == "equalize"
    assert torch.equal(found, x) == (still or name in ("identity", "translate_x", "translate_y"))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_ops_follow_one_another_and_the_largest_cutout_comes_last(shape):
    net, count = made(shape), 300
    x = noise(count, shape, seed=2)
    u = torch.rand(count, COLUMNS, generator=torch.Generator().manual_seed(4))
    policy = net.policy(u, probes=100)
    assert policy.last.tolist() == [False] * 100 + [True] * 200
    expected = []
    for n, image in enumerate(images_of(x)):
        for d in range(DEPTH):
            name = net.names[int(policy.op[d, n])]
            image = by_pil(image, name, *policy.level[d, n].tolist(), policy.centre[d, n].tolist())
        if policy.last[n]:
            image = by_pil(image, "cutout", 1.0, 0.0, policy.centre[-1, n].tolist())
        expected.append(image)
    assert torch.equal(changed(net, x, policy), levels_of(expected))


def test_normalised_images_stay_normalised():
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    net, plain = CTAugment(Images(CIFAR, mean, 255), std), made(CIFAR)
    u = torch.rand(50, COLUMNS, generator=torch.Generator().manual_seed(0))
    x = noise(50, CIFAR)
    m, s = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]
    found = net((x / 255 - m) / s, net.policy(u, 10)) * s + m
    assert torch.equal((found * 255).round(), changed(plain, x, plain.policy(u, 10)).float())


def test_all_chances_are_even_at_first_and_a_bad_bin_is_left_out():
    net = made(CIFAR)
    chances = net.chances()
    for name, bins in (("rotate", [17, 0]), ("posterize", [8, 0]), ("rescale", [17, 6]),
                       ("identity", [0, 0])):  # fmt: skip
        for parameter, count in enumerate(bins):
            one = chances[net.names.index(name), parameter]
            assert torch.allclose(one[:count], torch.full((count,), 1 / max(count, 1)))
            assert not one[count:].any()
    # As the code has it, with numbers of its own: m + 0.01, over the largest, 0 below 0.80.
    rotate = net.names.index("rotate")
    net.weights[rotate, 0, :4] = torch.tensor([0.5, 0.79, 0.81, 0.9])
    share = np.array([0.5, 0.79, 0.81, 0.9, *[1.0] * 13]) + 0.01
    share /= share.max()
    share[share < 0.8] = 0
    assert (share > 0).sum() == 15
    np.testing.assert_allclose(net.chances()[rotate, 0], share / share.sum(), rtol=1e-6)


def test_bins_are_drawn_by_their_chances_and_values_evenly_within():
    net = made(CIFAR)
    g = torch.Generator().manual_seed(0)
    net.weights.uniform_(0.7, 1.0, generator=g)
    u = torch.rand(40000, COLUMNS, generator=g)
    policy, chances = net.policy(u, probes=20000), net.chances()
    assert 0.2 < (chances[net.there] == 0).float().mean() < 0.7
    for name, parameter, bins in (("rotate", 0, 17), ("posterize", 0, 8), ("rescale", 1, 6)):
        op = net.names.index(name)
        at = policy.op == op
        values = policy.level[..., parameter]
        trained = values[:, 20000:][at[:, 20000:]] * bins
        found = np.bincount(trained.long(), minlength=bins) / len(trained)
        np.testing.assert_allclose(found, chances[op, parameter, :bins], atol=0.02)
        assert not found[chances[op, parameter, :bins].numpy() == 0].any()
        within = np.histogram(trained % 1, 10, (0, 1))[0] / len(trained)
        np.testing.assert_allclose(within, 0.1, atol=0.02)
        # Probes draw all values alike.
        probed = np.histogram(values[:, :20000][at[:, :20000]], 10, (0, 1))[0]
        np.testing.assert_allclose(probed / probed.sum(), 0.1, atol=0.02)
    counts = np.bincount(policy.op.flatten(), minlength=len(net.names)) / policy.op.numel()
    np.testing.assert_allclose(counts, 1 / len(net.names), atol=0.004)


@pytest.mark.parametrize("end", [0.0, 1 - 2**-24])
def test_the_ends_of_the_numbers_are_within_all_ranges(end):
    net = made(CIFAR)
    policy = net.policy(torch.full((4, COLUMNS), end), probes=2)
    assert policy.op.unique().tolist() == [0 if end == 0 else len(net.names) - 1]
    assert ((policy.level >= 0) & (policy.level < 1)).all()
    assert changed(net, noise(4, CIFAR), policy).shape == (4, *CIFAR)


def by_loop(weights: np.ndarray, net: CTAugment, policy: Policy, proximity: Tensor) -> np.ndarray:
    """Return the weights after one probe after another, as the published code updates them."""
    weights = weights.copy()
    for n, w in enumerate(proximity.tolist()):
        for d in range(DEPTH):
            op = int(policy.op[d, n])
            for parameter, bins in enumerate(net.bins[op].tolist()):
                if bins:
                    at = int(float(policy.level[d, n, parameter]) * bins * 0.999)
                    weights[op, parameter, at] = weights[op, parameter, at] * 0.99 + 0.01 * w
    return weights


@pytest.mark.parametrize("count", [1, 64, 400])
def test_weights_move_towards_the_proximity_of_their_probes_one_by_one(count):
    net = made(CIFAR)
    g = torch.Generator().manual_seed(count)
    for _ in range(3):
        before = net.weights.double().numpy().copy()
        policy = net.policy(torch.rand(count + 7, COLUMNS, generator=g), probes=count)
        proximity = torch.rand(count, generator=g)
        net.learn(policy, proximity)
        expected = by_loop(before, net, policy, proximity)
        np.testing.assert_allclose(net.weights.double(), expected, atol=2e-7)
        assert not np.array_equal(expected, before)


def test_a_bin_that_ruins_images_is_no_longer_drawn():
    """Values of rotations above a half are 0 near the label: soon none is drawn."""
    net = made(DIGITS)
    g = torch.Generator().manual_seed(0)
    rotate = net.names.index("rotate")
    for _ in range(150):
        policy = net.policy(torch.rand(64, COLUMNS, generator=g), probes=64)
        bad = ((policy.op == rotate) & (policy.level[..., 0] > 0.5)).any(0)
        net.learn(policy, 1 - bad.float())
    chances = net.chances()[rotate, 0]
    assert chances[:8].min() > 0.05 and not chances[9:].any()
    others = [n for n in range(len(net.names)) if n != rotate]
    assert (net.chances()[others][net.there[others]] > 0).all()


def test_nothing_waits_for_the_device_and_what_is_kept_is_what_was_learnt():
    net = made(CIFAR)
    x, u = torch.rand(6, *CIFAR), torch.rand(6, COLUMNS)
    with NoWaiting():
        policy = net.policy(u, 3)
        assert net(x, policy).dtype == torch.float32
        net.learn(policy, torch.rand(3))
    assert list(net.state_dict()) == ["weights"]
    assert net.weights.shape == (19, 2, BINS) and DECAY == 0.99
    assert made(DIGITS).weights.shape == (18, 2, BINS)
