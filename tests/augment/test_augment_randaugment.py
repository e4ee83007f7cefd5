"""RandAugment, op for op against torchvision and PIL."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from factories.augment import CIFAR, DIGITS, FASHION, WIDE, images, raw

from cyclery.augment.randaugment import choices_for


def one_op(name: str, sign: int, shape=CIFAR) -> float:
    """The uniform number that makes RandAugment choose this op and sign."""
    ops = choices_for(shape[0])
    return (2 * ops.index(name) + (sign < 0) + 0.5) / (2 * len(ops))


def randaugment(x, name, magnitude, sign=1, max_value=255):
    pipeline = raw([{"op": "randaugment", "n": 1}], x.shape[1:], max_value)
    u = torch.full((len(x), 1), one_op(name, sign, x.shape[1:]))
    return pipeline(x, u, torch.tensor(float(magnitude)))


def reference(name, image, magnitude, sign):
    """What torchvision or PIL makes of one uint8 image [C, H, W] at the same parameters."""
    f = pytest.importorskip("torchvision.transforms.functional")
    strength = magnitude / 10
    factor = 1 + sign * 0.9 * strength
    bilinear = f.InterpolationMode.BILINEAR
    slant = torch.tensor(0.3 * sign * strength).atan().rad2deg().item()
    whole = {"angle": 0.0, "scale": 1.0, "interpolation": bilinear}

    def in_pil(function, *args):
        return f.pil_to_tensor(function(f.to_pil_image(image), *args))

    def affine(shear=(0.0, 0.0), move=(0, 0)):
        return f.affine(image, translate=list(move), shear=list(shear), center=[0, 0], **whole)

    pixels = round(sign * 0.3 * strength * image.shape[-1])
    return {
        "identity": lambda: image,
        "autocontrast": lambda: in_pil(f.autocontrast),
        "brightness": lambda: in_pil(f.adjust_brightness, factor),
        "contrast": lambda: in_pil(f.adjust_contrast, factor),
        "colour": lambda: in_pil(f.adjust_saturation, factor),
        "sharpness": lambda: in_pil(f.adjust_sharpness, factor),
        "posterize": lambda: in_pil(f.posterize, 8 - round(4 * strength)),
        "solarize": lambda: (
            f.invert(image) if strength == 1 else f.solarize(image, 256 * (1 - strength))
        ),
        "rotate": lambda: f.rotate(image, 30.0 * sign * strength, bilinear),
        "shear_x": lambda: affine(shear=(slant, 0.0)),
        "shear_y": lambda: affine(shear=(0.0, slant)),
        "translate_x": lambda: affine(move=(pixels, 0)),
        "translate_y": lambda: affine(move=(0, pixels)),
    }[name]().float()


# In grey levels. PIL cuts its results to whole levels, and rounds the mean that contrast turns
# about; warps are rounded once.
TOLERANCE = {
    "identity": 0,
    "autocontrast": 1.01,
    "brightness": 1.01,
    "contrast": 1.5,
    "colour": 1.5,
    "sharpness": 1.5,
    "posterize": 0,
    "solarize": 0,
    "rotate": 0.51,
    "shear_x": 0.51,
    "shear_y": 0.51,
    "translate_x": 0.01,
    "translate_y": 0.01,
}


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("magnitude", [2.5, 5, 10])
@pytest.mark.parametrize("shape", [(1, 40, 40), (3, 40, 40)], ids=["grey", "colour"])
def test_every_op_equals_its_counterpart(shape, magnitude, sign):
    x = images(3, shape)
    x[1] = x[1] // 3 + 40  # Low contrast: something to stretch, nothing to clip.
    for name in choices_for(shape[0]):
        if name == "autocontrast" and magnitude < 10:
            continue  # Blended in by the magnitude: a test of its own.
        out = randaugment(x, name, magnitude, sign)
        for image, made in zip(x, out, strict=True):
            gap = (made - reference(name, image, magnitude, sign)).abs().max()
            assert gap <= TOLERANCE[name], (name, gap)


def test_autocontrast_is_blended_in_by_the_magnitude():
    x = images(4) // 2 + 30
    full = randaugment(x, "autocontrast", 10)
    torch.testing.assert_close(randaugment(x, "autocontrast", 4), x.float().lerp(full, 0.4))
    assert torch.equal(full.amin((2, 3)), torch.zeros(4, 3))


def test_autocontrast_leaves_a_flat_image():
    x = torch.full((1, *CIFAR), 77, dtype=torch.uint8)
    assert torch.equal(randaugment(x, "autocontrast", 10), x.float())


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("shape", "max_value"), [(DIGITS, 16), (FASHION, 255), (CIFAR, 255)])
def test_magnitude_0_is_the_identity_of_every_op(shape, max_value, sign):
    x = images(8, shape, max_value)
    for name in choices_for(shape[0]):
        assert torch.equal(randaugment(x, name, 0, sign, max_value), x.float()), name


@pytest.mark.parametrize(("shape", "max_value"), [(DIGITS, 16), (WIDE, 255), (CIFAR, 255)])
def test_every_op_changes_images_and_stays_in_range(shape, max_value):
    x = images(8, shape, max_value) // 2
    for name, sign in product(choices_for(shape[0])[1:], (1, -1)):
        out = randaugment(x, name, 9, sign, max_value)
        assert not torch.equal(out, x.float()), name
        assert out.min() >= 0 and out.max() <= max_value + 1e-3, name


def test_shear_and_rotation_of_oblong_images_count_in_pixels():
    functional = pytest.importorskip("torchvision.transforms.functional")
    x = images(1, (1, 20, 44))
    for name in ("rotate", "shear_x", "shear_y"):
        gap = randaugment(x, name, 6)[0] - reference(name, x[0], 6, 1)
        assert gap.abs().max() <= 0.51, name
    moved = randaugment(x, "translate_y", 10)[0]
    down = functional.affine(x[0], 0.0, [0, 6], 1.0, [0.0, 0.0])
    torch.testing.assert_close(moved, down.float(), atol=1e-2, rtol=0)


def test_rounds_follow_one_another():
    x = images(200)
    u = torch.rand(200, 2, generator=torch.Generator().manual_seed(0))
    # Ops that give whole numbers, so that the intermediate image is exact as uint8.
    chosen = torch.tensor([one_op(name, 1) for name in ("posterize", "solarize", "identity")])
    u = chosen[(u * 3).long()]
    magnitude = torch.tensor(5.0)
    first = raw([{"op": "randaugment", "n": 1}])(x, u[:, :1], magnitude).to(torch.uint8)
    second = raw([{"op": "randaugment", "n": 1}])(first, u[:, 1:], magnitude)
    assert torch.equal(raw([{"op": "randaugment", "n": 2}])(x, u, magnitude), second)


def test_a_fixed_magnitude_replaces_the_schedule():
    x, u = images(50), torch.rand(50, 2, generator=torch.Generator().manual_seed(0))
    fixed, free = raw([{"op": "randaugment", "m": 7}]), raw([{"op": "randaugment"}])
    assert (fixed.needs_magnitude, free.needs_magnitude) == (False, True)
    assert torch.equal(fixed(x, u), free(x, u, torch.tensor(7.0)))
    assert torch.equal(fixed(x, u, torch.tensor(1.0)), fixed(x, u))
    assert torch.equal(free(x, u, torch.tensor(11.0)), free(x, u, torch.tensor(10.0)))


def test_ops_and_signs_are_drawn_evenly():
    count = 2 * len(choices_for(1))
    pipeline = raw([{"op": "randaugment", "n": 1}], FASHION)
    x = images(1, FASHION).expand(count * 10, -1, -1, -1)
    u = (torch.arange(count * 10)[:, None] + 0.5) / (count * 10)
    out = pipeline(x, u, torch.tensor(8.0)).view(count, 10, -1)
    assert torch.equal(out, out[:, :1].expand_as(out))
