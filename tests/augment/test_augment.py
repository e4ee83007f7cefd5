from __future__ import annotations

import json
from dataclasses import asdict, fields
from itertools import product

import pytest
import torch
from cyclery.augment.pipeline import Pipeline
from cyclery.augment.settings import OPS, POLICY_OPS, check, needs_magnitude, randaugment_ops
from torch.utils._python_dispatch import TorchDispatchMode

from cyclery.common.errors import UserError

DIGITS, FASHION, CIFAR, WIDE = (1, 8, 8), (1, 28, 28), (3, 32, 32), (1, 12, 20)
EVERYTHING = [
    {"op": "shift", "size": 2},
    {"op": "flip"},
    {"op": "policy", "form": "uda"},
    {"op": "randaugment"},
    {"op": "cutout", "size": 4, "p": 0.5},
    {"op": "erasing"},
]


def images(batch: int, shape=CIFAR, max_value: int = 255, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, max_value + 1, (batch, *shape), dtype=torch.uint8, generator=generator)


def raw(spec, shape=CIFAR, max_value: int = 255) -> Pipeline:
    """A pipeline whose normalisation gives the pixel values themselves."""
    return Pipeline(spec, shape, [0.0] * shape[0], [1 / max_value] * shape[0], max_value)


def one_op(name: str, sign: int, shape=CIFAR) -> float:
    """The uniform number that makes RandAugment choose this op and sign."""
    ops = randaugment_ops(shape[0])
    return (2 * ops.index(name) + (sign < 0) + 0.5) / (2 * len(ops))


def randaugment(x, name, magnitude, sign=1, max_value=255):
    pipeline = raw([{"op": "randaugment", "n": 1}], x.shape[1:], max_value)
    u = torch.full((len(x), 1), one_op(name, sign, x.shape[1:]))
    return pipeline(x, u, torch.tensor(float(magnitude)))


def test_an_empty_pipeline_normalises():
    x = images(5)
    mean, std = [0.49, 0.48, 0.45], [0.25, 0.24, 0.26]
    pipeline = Pipeline([], CIFAR, mean, std, 255)
    expected = (x / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    out = pipeline(x)
    assert pipeline.columns == 0 and out.dtype == torch.float32
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(pipeline(x, torch.empty(5, 0)), expected, rtol=1e-6, atol=1e-6)


def test_the_digits_have_their_own_largest_value():
    x = images(4, DIGITS, 16)
    out = Pipeline([], DIGITS, [0.3], [0.4], 16)(x)
    torch.testing.assert_close(out, (x / 16 - 0.3) / 0.4, rtol=1e-6, atol=1e-6)


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


@pytest.mark.parametrize("p", [0.25, 0.5, 1.0])
def test_flip_mirrors_with_its_probability(p):
    u = (torch.arange(100.0)[:, None] + 0.5) / 100
    x = images(100, WIDE)
    out = raw([{"op": "flip", "p": p}], WIDE)(x, u)
    flipped = u[:, 0] < p
    assert torch.equal(out[flipped], x[flipped].flip(3).float())
    assert torch.equal(out[~flipped], x[~flipped].float())


@pytest.mark.parametrize("border", ["zero", "reflect"])
def test_moves_happen_in_the_order_of_the_list(border):
    shift, flip = {"op": "shift", "size": 3, "border": border}, {"op": "flip"}
    x, u = images(64), torch.rand(64, 3, generator=torch.Generator().manual_seed(1))
    moved = raw([shift])(x, u[:, :2]).to(torch.uint8)
    mirrored = raw([flip])(x, u[:, 2:]).to(torch.uint8)
    assert torch.equal(raw([shift, flip])(x, u), raw([flip])(moved, u[:, 2:]))
    assert torch.equal(raw([flip, shift])(x, u.roll(1, 1)), raw([shift])(mirrored, u[:, :2]))
    twice = raw([shift, shift])
    assert torch.equal(twice(x, u[:, [0, 1, 0, 1]]), raw([shift])(moved, u[:, :2]))


def test_each_column_is_named_by_its_op():
    spec = [{"op": "flip"}, {"op": "shift", "size": 1}, {"op": "flip"}, {"op": "cutout", "size": 2}]
    pipeline = raw(spec)
    assert pipeline.names == (
        "flip.0/0", "shift.0/0", "shift.0/1", "flip.1/0", "cutout.0/0", "cutout.0/1"
    )  # fmt: skip
    assert pipeline.columns == len(pipeline.names)
    assert raw([]).names == ()
    # A name stands for what its column does: columns in another order, moved along with them.
    shift, flip = spec[1], spec[0]
    one, other = raw([shift, flip]), raw([flip, shift])
    x, u = images(1), torch.rand(1, 3, generator=torch.Generator().manual_seed(2))
    given = dict(zip(one.names, u.unbind(1), strict=True))
    still = {"shift.0/0": torch.tensor([0.5]), "shift.0/1": torch.tensor([0.5])}
    for pipeline in (one, other):
        row = torch.stack([{**given, **still}[name] for name in pipeline.names], 1)
        mirrored = x.flip(3) if given["flip.0/0"] < 0.5 else x
        assert torch.equal(pipeline(x, row), mirrored.float())


def test_the_ends_of_the_unit_interval_stay_in_range():
    u_max = 1 - 2**-24
    for shape, size in ((DIGITS, 1), (CIFAR, 4), (FASHION, 27)):
        spec = [
            {"op": "shift", "size": size},
            {"op": "flip", "p": 0.001},
            {"op": "policy"},
            {"op": "policy", "form": "uda", "p": 1.0},
            {"op": "randaugment"},
            {"op": "cutout", "size": 2},
            {"op": "erasing", "p": 1.0},
        ]
        pipeline = raw(spec, shape)
        u = torch.tensor([[0.0], [u_max]]).expand(2, pipeline.columns)
        assert pipeline(images(2, shape), u, torch.tensor(10.0)).isfinite().all()


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
    for name in randaugment_ops(shape[0]):
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
    for name in randaugment_ops(shape[0]):
        assert torch.equal(randaugment(x, name, 0, sign, max_value), x.float()), name


@pytest.mark.parametrize(("shape", "max_value"), [(DIGITS, 16), (WIDE, 255), (CIFAR, 255)])
def test_every_op_changes_images_and_stays_in_range(shape, max_value):
    x = images(8, shape, max_value) // 2
    for name, sign in product(randaugment_ops(shape[0])[1:], (1, -1)):
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
    count = 2 * len(randaugment_ops(1))
    pipeline = raw([{"op": "randaugment", "n": 1}], FASHION)
    x = images(1, FASHION).expand(count * 10, -1, -1, -1)
    u = (torch.arange(count * 10)[:, None] + 0.5) / (count * 10)
    out = pipeline(x, u, torch.tensor(8.0)).view(count, 10, -1)
    assert torch.equal(out, out[:, :1].expand_as(out))


@pytest.mark.parametrize(("shape", "max_value"), [(DIGITS, 16), (CIFAR, 255)])
def test_an_image_depends_on_its_own_numbers_alone(shape, max_value):
    pipeline = Pipeline(EVERYTHING, shape, [0.4] * shape[0], [0.3] * shape[0], max_value)
    x = images(32, shape, max_value)
    before = x.clone()
    u = torch.rand(32, pipeline.columns, generator=torch.Generator().manual_seed(0))
    out = pipeline(x, u, torch.tensor(6.0))
    alone = torch.cat([pipeline(x[i : i + 1], u[i : i + 1], torch.tensor(6.0)) for i in range(32)])
    torch.testing.assert_close(out, alone, rtol=1e-5, atol=1e-5)
    assert torch.equal(x, before)
    assert torch.equal(out, pipeline(x, u, torch.tensor(6.0)))


def test_a_run_never_asks_the_host():
    # On the meta device there are no values, so any branch on one, or any read, fails.
    pipeline = Pipeline(EVERYTHING, CIFAR, [0.4] * 3, [0.3] * 3, 255).to("meta")
    x = torch.empty(4, *CIFAR, dtype=torch.uint8, device="meta")
    u = torch.empty(4, pipeline.columns, device="meta")
    assert pipeline(x, u, torch.empty((), device="meta")).shape == x.shape


class Kernels(TorchDispatchMode):
    """Count the calls that compute, views left out."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        views = {"view", "slice", "select", "expand", "unsqueeze", "unbind", "split", "permute",
                 "_unsafe_view", "alias", "split_with_sizes", "empty_like"}  # fmt: skip
        if name not in views:
            self.names.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("spec", "most"),
    [
        ([], 3),
        ([{"op": "flip"}], 8),
        ([{"op": "shift", "size": 1}], 12),
        ([{"op": "shift", "size": 1}, {"op": "flip"}], 13),
        ([{"op": "shift", "size": 1, "border": "reflect"}, {"op": "flip"}], 11),
        ([{"op": "policy"}], 155),
    ],
    ids=["none", "flip", "shift", "both", "reflect", "policy"],
)
def test_light_pipelines_take_few_kernels(spec, most):
    pipeline = raw(spec, DIGITS, 16)
    x, u = images(64, DIGITS, 16), torch.rand(64, pipeline.columns)
    with Kernels() as counted:
        pipeline(x, u)
    assert len(counted.names) <= most, counted.names


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_captured_run_equals_the_cpu():
    pipeline = Pipeline(EVERYTHING, CIFAR, [0.4] * 3, [0.3] * 3, 255)
    x, u, magnitude = images(64), torch.rand(64, pipeline.columns), torch.tensor(5.0)
    expected = pipeline(x, u, magnitude)
    pipeline = pipeline.cuda()
    inputs = [torch.zeros_like(t).cuda() for t in (x, u, magnitude)]
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        pipeline(*inputs)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        out = pipeline(*inputs)
    for target, source in zip(inputs, (x, u, magnitude), strict=True):
        target.copy_(source)
    graph.replay()
    torch.cuda.synchronize()
    # A pixel on a threshold may fall on its other side.
    assert ((out.cpu() - expected).abs() < 1e-3).float().mean() > 0.999


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("form", POLICY_OPS)
@pytest.mark.parametrize("shape", [DIGITS, FASHION, CIFAR], ids=str)
def test_a_captured_policy_equals_the_cpu_bit_for_bit(shape, form):
    x, pipeline = images(448, shape), raw([{"op": "policy", "form": form}], shape)
    x[::3] //= 3
    u = torch.rand(len(x), pipeline.columns, generator=torch.Generator().manual_seed(0))
    expected = pipeline(x, u)
    pipeline = pipeline.cuda()
    inputs = [torch.zeros_like(t).cuda() for t in (x, u)]
    stream = torch.cuda.Stream()
    torch.use_deterministic_algorithms(True)
    try:
        with torch.cuda.stream(stream):
            pipeline(*inputs)
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            out = pipeline(*inputs)
    finally:
        torch.use_deterministic_algorithms(False)
    for target, source in zip(inputs, (x, u), strict=True):
        target.copy_(source)
    graph.replay()
    torch.cuda.synchronize()
    # Whole levels but for the normalisation.
    torch.testing.assert_close(out.cpu(), expected, rtol=1e-6, atol=1e-4)


def test_wrong_calls_are_refused():
    pipeline = raw([{"op": "randaugment", "n": 1}])
    x = images(2)
    with pytest.raises(ValueError, match=r"images must be uint8, found torch\.float32"):
        pipeline(x.float(), torch.rand(2, 1), torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"u must be \(2, 1\), found \(2, 3\)"):
        pipeline(x, torch.rand(2, 3), torch.tensor(1.0))
    with pytest.raises(ValueError, match="found None"):
        pipeline(x, None, torch.tensor(1.0))
    with pytest.raises(ValueError, match="needs a magnitude"):
        pipeline(x, torch.rand(2, 1))


@pytest.mark.parametrize(
    ("mean", "std", "max_value", "message"),
    [
        ([0.5], [0.5], 255, r"one number for each of 3 channels \(found 1 and 1\)"),
        ([0.5] * 3, [0.5, 0.0, 0.5], 255, "std and max_value must be above 0"),
        ([0.5] * 3, [0.5] * 3, 0, "std and max_value must be above 0"),
    ],
)
def test_wrong_statistics_are_named(mean, std, max_value, message):
    with pytest.raises(UserError, match=message):
        Pipeline([], CIFAR, mean, std, max_value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"op": "flip"}, r"augment: must be a list of ops"),
        (["flip"], r"augment\[0\]: must be a mapping with the key 'op' \(found 'flip'\)"),
        ([{"op": "flop"}], r"augment\[0\]: unknown op 'flop'\. Did you mean 'flip'\? Ops: cutout"),
        ([{"op": "flip"}, {"op": "shift"}], r"augment\[1\] shift\.size: missing"),
        ([{"op": "shift", "sise": 1}], r"unknown key 'sise'\. Did you mean 'size'\?"),
        ([{"op": "shift", "size": 0}], r"shift\.size: must be at least 1 \(found 0\)"),
        (
            [{"op": "shift", "size": 1, "border": "mirror"}],
            r"shift\.border: must be one of reflect, zero \(found 'mirror'\)",
        ),
        ([{"op": "shift", "size": 32}], r"below the image's side, 32 pixels \(found 32\)"),
        ([{"op": "flip", "p": 1.5}], r"at least 0\.001 and at most 1\.0 \(found 1\.5\)"),
        ([{"op": "cutout", "size": 33}], r"at most the image's side, 32 pixels \(found 33\)"),
        ([{"op": "cutout", "size": 8, "p": 0}], r"p: must be above 0\.0 and at most 1\.0"),
        ([{"op": "erasing", "area": [0.5, 0.1]}], r"area: the first number must be at most"),
        ([{"op": "erasing", "area": [0.1]}], r"must be a list of 2, each element a number"),
        ([{"op": "erasing", "aspect": [0, 1]}], r"aspect\[0\]: must be above 0\.0 \(found 0\)"),
        ([{"op": "randaugment", "m": 11}], r"at least 0\.0 and at most 10\.0 \(found 11\)"),
        ([{"op": "randaugment", "m": "x"}], r"randaugment\.m: must be a number \(found 'x'\)"),
        ([{"op": "cutout", "size": 4}, {"op": "flip"}], r"augment\[1\]: flip cannot follow cutout"),
    ],
)
def test_wrong_settings_are_named(spec, message):
    with pytest.raises(UserError, match=message):
        check(spec, CIFAR)
    with pytest.raises(UserError, match=message):
        Pipeline(spec, CIFAR, [0.5] * 3, [0.5] * 3, 255)


def test_settings_are_documented_and_survive_json():
    ops = check([*EVERYTHING, {"op": "cutout", "size": 4}])
    assert {type(op) for op in ops} == set(OPS.values())
    assert [op.columns for op in ops] == [2, 1, 12, 2, 3, 5, 2]
    assert needs_magnitude(ops) and not needs_magnitude(ops[:2])
    for op, entry in zip(ops, EVERYTHING, strict=False):
        name = entry["op"]
        assert type(op).__doc__ and all(f.metadata["doc"] for f in fields(op))
        assert check([{"op": name, **json.loads(json.dumps(asdict(op)))}]) == [op]
