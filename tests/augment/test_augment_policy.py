from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from cyclery.augment import Pipeline, check, randaugment
from cyclery.augment.policy import OPS, choices_for
from cyclery.common.errors import UserError

DIGITS, FASHION, CIFAR, WIDE, THIN = (1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 20, 28), (1, 2, 40)
FORMS = tuple(OPS)
MEANS, STDS = [0.49139968, 0.48215841, 0.44653091], [0.24703223, 0.24348513, 0.26158784]
ALMOST_1 = 1 - 2**-24
ENHANCERS = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "colour": ImageEnhance.Color,
    "sharpness": ImageEnhance.Sharpness,
}
SIGNED = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # batches this small only wait for their threads
    yield
    torch.set_num_threads(before)


def policy(shape, max_value=255, std=None, **settings) -> Pipeline:
    """A policy on its own; by default normalised to grey levels less the mean's."""
    channels = shape[0]
    spec, std = [{"op": "policy", **settings}], std or [1 / 255] * channels
    return Pipeline(spec, shape, MEANS[:channels], std, max_value)


def levels(out: torch.Tensor) -> torch.Tensor:
    """The grey levels that ``policy`` leaves; the mean's where nothing is seen."""
    return out + 255 * torch.tensor(MEANS[: out.shape[1]])[:, None, None]


def noise(count, shape, max_value=255, seed=0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, max_value + 1, (count, *shape), dtype=torch.uint8, generator=generator)


def kinds(shape) -> torch.Tensor:
    """Images of many kinds: noise, low contrast, two levels, constant, smooth, skewed."""
    x = noise(8, shape)
    down, along = torch.meshgrid(torch.arange(shape[1]), torch.arange(shape[2]), indexing="ij")
    x[1] = x[1] // 3 + 40
    x[2] = (x[2] > 128).to(torch.uint8) * 255
    x[3] = (x[3] > 250).to(torch.uint8) * 90 + 17
    x[4] = 77
    x[5] = torch.tensor([0, 255, 128][: shape[0]], dtype=torch.uint8)[:, None, None]
    x[6] = (7 * along + 3 * down).to(torch.uint8)
    x[7] = (x[7].double() / 255).pow(6).mul(255).to(torch.uint8)
    return x


def uniform(count, columns, seed=0) -> torch.Tensor:
    return torch.rand(count, columns, generator=torch.Generator().manual_seed(seed))


def choice(form: str, channels: int, name: str) -> float:
    """The uniform number that draws this op."""
    names = choices_for(form, channels)
    return (names.index(name) + 0.5) / len(names)


def to_pil(image: torch.Tensor) -> Image.Image:
    """A uint8 image [C, H, W] as both published codes hold it: in colour, opaque."""
    colour = image.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(colour).convert("RGBA")


def from_pil(images: list[Image.Image], channels: int) -> torch.Tensor:
    """Grey levels [B, C, H, W], the mean's where an image is transparent."""
    pixels = torch.from_numpy(np.stack([np.array(image) for image in images])).permute(0, 3, 1, 2)
    mean = 255 * torch.tensor(MEANS[:channels])[:, None, None]
    return torch.where(pixels[:, 3:] == 0, mean, pixels[:, :channels])


def value_of(form: str, name: str, level: float, size: tuple[int, int]) -> float:
    """The published value of an op for the uniform number that draws its level."""
    side = {"translate_x": size[0], "translate_y": size[1], "cutout": min(size)}.get(name, 0)
    if form == "fixmatch_paper":
        if name == "posterize":
            return 4 + int(5 * level)
        most = {"rotate": 30, "shear_x": 0.3, "shear_y": 0.3, "solarize": 256}
        return 0.05 + 0.9 * level if name in ENHANCERS else level * most.get(name, 0.3 * side)
    m = 1 + int(9 * level)
    if name in ENHANCERS:
        return float(m) * 1.8 / 10 + 0.1
    if name in ("shear_x", "shear_y"):
        return float(m) * 0.3 / 10
    if side:  # Meant for sides of 32; else so many pixels fewer, and a hole of even side.
        return (2 if name == "cutout" else 1) * int(m * side / 32)
    whole = int(m * {"rotate": 30, "posterize": 4, "solarize": 256}.get(name, 0) / 10)
    return {"posterize": 4 - whole, "solarize": 256 - whole}.get(name, whole)


def in_pil(image, form, name, level, sign, centre, channels) -> Image.Image:
    """One op on an image with transparency, with the calls of the published codes."""
    value = value_of(form, name, level, image.size)
    opaque = {
        "autocontrast": ImageOps.autocontrast,
        "equalize": ImageOps.equalize,
        "invert": ImageOps.invert,
        "posterize": partial(ImageOps.posterize, bits=value),
        "solarize": partial(ImageOps.solarize, threshold=value),
    }
    matrix = {
        "shear_x": (1, value * sign, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, value * sign, 1, 0),
        "translate_x": (1, 0, value * sign, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, value * sign),
    }
    if name in opaque:
        return opaque[name](image.convert("RGB")).convert("RGBA")
    if name in ENHANCERS:
        return ENHANCERS[name](image).enhance(value)
    if name in matrix:
        return image.transform(image.size, Image.Transform.AFFINE, matrix[name])
    if name == "rotate":
        return image.rotate(value * sign)
    if name == "cutout" and value:
        (y, x), half = centre, value // 2
        lost = [int(255 * mean) for mean in (MEANS if channels == 3 else MEANS[:1] * 3)]
        first = (max(x - half, 0), max(y - half, 0))
        last = (min(x + half, image.size[0]), min(y + half, image.size[1]))
        image.paste((*lost, 0), first + last)
    return image


def chain(image: torch.Tensor, form: str, row: list[float], rounds: int, p: float) -> Image.Image:
    """All rounds of a policy on a uint8 image, from its uniform numbers."""
    channels, *sides = image.shape
    names, current = choices_for(form, channels), to_pil(image)
    for i in range(rounds):
        op, gate, level, sign = row[4 * i : 4 * i + 4]
        centre = [int(a * b) for a, b in zip(row[4 * rounds + 2 * i :], sides, strict=False)]
        if gate < p:
            turn = 1 if sign <= 0.5 else -1
            name = names[int(op * len(names))]
            current = in_pil(current, form, name, level, turn, centre, channels)
    return current


def draws(form: str, name: str) -> list[tuple[float, float]]:
    """Levels and signs of an op: all that there are, or the ends and some between them."""
    at = {
        "fixmatch_paper": [0.0, 0.123456, 0.5, 0.7890123, ALMOST_1],
        "fixmatch_code": [(m + 0.5) / 9 for m in range(9)],
        "uda": [0.0, 0.4, ALMOST_1],
    }
    signs = [0.25, 0.75] if name in SIGNED else [0.25]
    return [(level, sign) for level in at[form] for sign in signs]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [CIFAR, FASHION, WIDE, DIGITS, THIN], ids=str)
def test_every_op_equals_pil_bit_for_bit(shape, form):
    x, pipeline = kinds(shape), policy(shape, form=form, n=1, p=1.0)
    centres = uniform(len(x), pipeline.columns - 4)
    for name in choices_for(form, shape[0]):
        u = torch.tensor([[choice(form, shape[0], name), 0.0, *draw] for draw in draws(form, name)])
        u = torch.cat((u.repeat_interleave(len(x), 0), centres.repeat(len(u), 1)), 1)
        batch = x.repeat(len(u) // len(x), 1, 1, 1)
        expected = [
            chain(image, form, row, 1, 1.0)
            for image, row in zip(batch, u.double().tolist(), strict=True)
        ]
        gap = (levels(pipeline(batch, u)) - from_pil(expected, shape[0])).abs().amax((1, 2, 3))
        assert gap.max() < 1e-3, (name, u[gap.argmax()])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("shape", "max_value"), [(CIFAR, 255), (FASHION, 255), (DIGITS, 16)])
def test_rounds_equal_a_chain_in_pil(shape, max_value, form):
    count, rounds, p = 200, 3, 0.7
    x = noise(count, shape, max_value)
    x[::3] //= 3
    pipeline = policy(shape, max_value, form=form, n=rounds, p=p)
    u = uniform(count, pipeline.columns)
    scaled = (x.double() * 255 / max_value).round().to(torch.uint8)
    expected = [
        chain(image, form, row, rounds, p)
        for image, row in zip(scaled, u.double().tolist(), strict=True)
    ]
    assert (levels(pipeline(x, u)) - from_pil(expected, shape[0])).abs().max() < 1e-3
    # Uncovered pixels are left in some images, and were made plain again in others.
    clear = sum(np.array(image)[..., 3].min() == 0 for image in expected)
    assert count / 10 < clear < 2 * count / 3


@pytest.mark.parametrize("m", [1, 5, 9])
@pytest.mark.parametrize("shape", [CIFAR, FASHION], ids=str)
def test_ops_agree_with_torchvision(shape, m):
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    x, pipeline = kinds(shape), policy(shape, form="uda", n=1, p=1.0)
    factor, pixels = 0.1 + 0.18 * m, int(m * shape[2] / 32)
    straight = {"angle": 0.0, "scale": 1.0, "shear": [0.0, 0.0]}
    exact = {
        "autocontrast": functional.autocontrast,
        "equalize": functional.equalize,
        "invert": functional.invert,
        "posterize": partial(functional.posterize, bits=4 - int(0.4 * m)),
        "solarize": partial(functional.solarize, threshold=256 - int(25.6 * m)),
        "brightness": partial(functional.adjust_brightness, brightness_factor=factor),
        "rotate": partial(functional.rotate, angle=3.0 * m),
        "translate_x": partial(functional.affine, translate=[-pixels, 0], **straight),
        "translate_y": partial(functional.affine, translate=[0, -pixels], **straight),
    }
    rounded = {  # not to whole levels in the same places
        "contrast": partial(functional.adjust_contrast, contrast_factor=factor),
        "colour": partial(functional.adjust_saturation, saturation_factor=factor),
        "sharpness": partial(functional.adjust_sharpness, sharpness_factor=factor),
    }
    for name, function in {**exact, **rounded}.items():
        if name == "colour" and shape[0] == 1:
            continue
        u = torch.tensor([choice("uda", shape[0], name), 0.0, (m - 0.5) / 9, 0.0, 0.0, 0.0])
        out = pipeline(x, u.expand(len(x), -1))
        seen = out.abs().amax(1, keepdim=True) > 1e-3  # torchvision fills with black
        gap = (torch.where(seen, levels(out), 0) - function(x)).abs().max()
        assert gap < (1e-3 if name in exact else 1.001), name


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [CIFAR, FASHION], ids=str)
def test_a_closed_gate_leaves_the_image(shape, form):
    x, pipeline = noise(300, shape), policy(shape, form=form, n=1, p=0.3)
    u = uniform(len(x), pipeline.columns)
    u[:, 1] = (torch.arange(len(x)) + 0.5) / len(x)
    out = levels(pipeline(x, u))
    same = (out - x).abs().amax((1, 2, 3)) < 1e-3
    assert same[90:].all()
    assert same[:90].float().mean() < 0.4  # identity, and ops that find nothing to change
    # Closed in one of two rounds, the other acts alone.
    both = policy(shape, form=form, n=2, p=0.3)
    extra = u[:, 4:]
    closed = u[:, :4].clone()
    closed[:, 1] = 0.9
    for first, second in ((u[:, :4], closed), (closed, u[:, :4])):
        row = torch.cat((first, second, extra, extra), 1)
        torch.testing.assert_close(levels(both(x, row)), out)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [CIFAR, FASHION], ids=str)
def test_ops_and_levels_are_drawn_evenly(shape, form):
    names = choices_for(form, shape[0])
    per_op, per_level = 20, 9
    pipeline = policy(shape, form=form, n=1, p=1.0)
    u = torch.zeros(len(names) * per_op, pipeline.columns)
    u[:, 0] = (torch.arange(len(u)) + 0.5) / len(u)
    u[:, 2], u[:, 4:] = 0.2, 0.5
    x = noise(1, shape) // 5 * 4 + 30
    by_op = pipeline(x.expand(len(u), -1, -1, -1), u).view(len(names), per_op, -1)
    assert torch.equal(by_op, by_op[:, :1].expand_as(by_op))
    assert len(by_op[:, 0].unique(dim=0)) == len(names)
    u = u[:1].repeat(per_level * per_op, 1)
    u[:, 0] = choice(form, shape[0], "brightness")
    u[:, 2] = (torch.arange(len(u)) + 0.5) / len(u)
    by_level = pipeline(x.expand(len(u), -1, -1, -1), u).view(per_level, per_op, -1)
    if form == "fixmatch_paper":
        assert len(by_level.flatten(0, 1).unique(dim=0)) == len(u)
    else:
        assert torch.equal(by_level, by_level[:, :1].expand_as(by_level))
        assert len(by_level[:, 0].unique(dim=0)) == per_level


def test_the_lists_are_the_papers():
    assert [len(choices_for(form, 3)) for form in FORMS] == [14, 14, 15]
    assert [len(choices_for(form, 1)) for form in FORMS] == [13, 13, 14]
    assert set(choices_for("uda", 3)) - set(choices_for("fixmatch_code", 3)) == {"invert", "cutout"}
    assert set(choices_for("fixmatch_code", 3)) - set(choices_for("uda", 3)) == {"identity"}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("shape", "max_value"), [(CIFAR, 255), (DIGITS, 16)])
def test_what_is_not_seen_is_zero_once_normalised(shape, max_value, form):
    channels = shape[0]
    pipeline = policy(shape, max_value, STDS[:channels], form=form, n=1, p=1.0)
    names = ("cutout", *SIGNED) if form == "uda" else SIGNED
    white = torch.full((1, *shape), max_value, dtype=torch.uint8)
    bright = ((1 - torch.tensor(MEANS)) / torch.tensor(STDS))[:channels, None, None]
    for name, sign in product(names, (0.25, 0.75)):
        u = torch.full((1, pipeline.columns), 0.5)
        u[:, :4] = torch.tensor([choice(form, channels, name), 0.0, 0.99, sign])
        out = pipeline(white, u)[0]
        empty = (out.abs() < 1e-6).all(0)
        assert 0 < empty.sum() < empty.numel(), name
        torch.testing.assert_close(out, torch.where(empty, 0.0, bright), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_an_image_depends_on_its_own_numbers_alone(form):
    pipeline, x = policy(CIFAR, form=form), noise(60, CIFAR)
    before, u = x.clone(), uniform(60, pipeline.columns)
    out = pipeline(x, u)
    alone = torch.cat([pipeline(x[i : i + 1], u[i : i + 1]) for i in range(len(x))])
    assert torch.equal(out, alone) and torch.equal(x, before)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    assert torch.equal(pipeline(x[order], u[order]), out[order])


def test_a_policy_takes_its_place_among_the_others():
    spec = [{"op": "shift", "size": 4, "border": "reflect"}, {"op": "flip"}, {"op": "policy"}]
    x = noise(50, CIFAR)
    whole = Pipeline([*spec, {"op": "cutout", "size": 16}], CIFAR, MEANS, STDS, 255)
    u = uniform(len(x), whole.columns)
    weak = Pipeline(spec[:2], CIFAR, [0.0] * 3, [1 / 255] * 3, 255)(x, u[:, :3])
    strong = policy(CIFAR, std=STDS)(weak.to(torch.uint8), u[:, 3:11])
    out = whole(x, u)
    hole = (out == 0).all(1, keepdim=True)
    assert (hole.flatten(1).sum(1) >= 64).all()  # a quarter of 16 x 16 at least
    assert torch.equal(out, torch.where(hole, 0.0, strong))


def test_what_follows_a_policy_knows_its_grey_levels():
    x = noise(40, DIGITS, 16)
    spec = [{"op": "policy"}, {"op": "randaugment", "n": 1, "m": 10}, {"op": "policy"}]
    pipeline = Pipeline(spec, DIGITS, MEANS[:1], [1 / 255], 16)
    owners = [name.split("/")[0] for name in pipeline.names]
    assert owners == ["policy.0"] * 8 + ["randaugment.0"] + ["policy.1"] * 8
    u = uniform(len(x), pipeline.columns)
    u[:, [1, 5, 10, 14]] = 0.9  # gates of both policies: closed
    names = randaugment.choices_for(1)
    u[:, 8] = (names.index("solarize") + 0.25) / len(names)  # in full: an invert
    scaled = (x.double() * 255 / 16).round()
    assert (levels(pipeline(x, u)) - (255 - scaled)).abs().max() < 1e-3


def test_a_run_never_asks_the_host():
    # On the meta device there are no values, so any branch on one, or any read, fails.
    for form, shape in product(FORMS, (CIFAR, DIGITS)):
        pipeline = policy(shape, form=form).to("meta")
        x = torch.empty(4, *shape, dtype=torch.uint8, device="meta")
        u = torch.empty(4, pipeline.columns, device="meta")
        assert pipeline(x, u).shape == x.shape


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"form": "uda_paper"},
            r"policy\.form: must be one of fixmatch_code, fixmatch_paper, uda \(found",
        ),
        ({"n": 0}, r"policy\.n: must be at least 1 and at most 16 \(found 0\)"),
        ({"p": 0}, r"policy\.p: must be above 0\.0 and at most 1\.0 \(found 0\)"),
        ({"m": 5}, r"policy: unknown key 'm'"),
    ],
)
def test_wrong_settings_are_named(entry, message):
    with pytest.raises(UserError, match=message):
        check([{"op": "policy", **entry}], CIFAR)


def test_images_of_two_channels_are_refused():
    message = r"augment\[0\] policy: images must have 1 or 3 channels \(found 2\)"
    with pytest.raises(UserError, match=message):
        check([{"op": "policy"}], (2, 8, 8))
    assert not check([{"op": "policy"}])[0].needs_magnitude
