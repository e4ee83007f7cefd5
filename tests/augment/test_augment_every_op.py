"""What holds for every op, whatever it does: each image for itself, and nothing asks the host."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from factories import engine as factory
from factories.augment import CIFAR, DIGITS, FASHION, captured, images

from cyclery import augment
from cyclery.augment import Pipeline, check

# An entry for each op, or several where a setting changes what it calls.
ENTRIES = [
    {"op": "shift", "size": 2},
    {"op": "flip"},
    {"op": "cutout", "size": 4, "p": 0.5},
    {"op": "erasing"},
    {"op": "policy", "form": "uda"},
    {"op": "policy_uda", "ops": ["cutout", "rotate", "equalize"]},
    {"op": "randaugment", "m": 7},
    {"op": "randaugment_timm"},
    {"op": "colour_jitter"},
    {"op": "colour_jitter", "form": "simclr", "hue": 0.2},
    {"op": "colour_jitter", "form": "byol", "brightness": 0.8},
    {"op": "greyscale"},
    {"op": "gaussian_blur", "kernel": 0.3},
    {"op": "gaussian_blur", "kernel": 0.3, "border": "zero"},
    {"op": "solarise", "p": 0.5},
    {"op": "gaussian_noise"},
    {"op": "sobel"},
    {"op": "rotation"},
    {"op": "random_resized_crop"},
    {"op": "random_resized_crop", "interpolation": "bicubic"},
    {"op": "random_resized_crop", "interpolation": "bicubic", "antialias": False},
    {"op": "random_erasing"},
    {"op": "random_erasing", "fill": "noise"},
]
SIMCLR = [
    {"op": "random_resized_crop", "interpolation": "bicubic"},
    {"op": "flip"},
    {"op": "colour_jitter"},
    {"op": "greyscale"},
    {"op": "gaussian_blur"},
    {"op": "solarise"},
]
TIMM = [
    {"op": "random_resized_crop"},
    {"op": "flip"},
    {"op": "randaugment_timm", "fill": "black"},
    {"op": "random_erasing", "fill": "noise", "p": 0.6},
]
SHAPES = [(CIFAR, 255), (FASHION, 255), (DIGITS, 16)]
CASES = [
    pytest.param(entry, shape, most, id=f"{number}-{entry['op']}-{shape[1]}")
    for (number, entry), (shape, most) in product(enumerate(ENTRIES), SHAPES)
    if shape[0] == 3 or entry["op"] != "greyscale"
]


def pipeline_of(spec, shape, max_value=255) -> Pipeline:
    return Pipeline(spec, shape, [0.4] * shape[0], [0.3] * shape[0], max_value)


def uniform(count, columns):
    return torch.rand(count, columns, generator=torch.Generator().manual_seed(0))


def test_no_op_is_left_out():
    assert {entry["op"] for entry in ENTRIES} == set(augment.names())


@pytest.mark.parametrize(("entry", "shape", "max_value"), CASES)
def test_an_image_depends_on_its_own_numbers_alone(entry, shape, max_value):
    pipeline, x = pipeline_of([entry], shape, max_value), images(24, shape, max_value)
    before, u = x.clone(), uniform(24, pipeline.columns)
    out = pipeline(x, u)
    assert torch.equal(x, before) and torch.equal(out, pipeline(x, u))
    alone = torch.cat([pipeline(x[i : i + 1], u[i : i + 1]) for i in range(len(x))])
    torch.testing.assert_close(out, alone, rtol=1e-6, atol=1e-6)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(1))
    other = pipeline(x[order].roll(3, 0), u[order].roll(3, 0))
    torch.testing.assert_close(other, out[order].roll(3, 0), rtol=1e-6, atol=1e-6)
    assert (out != pipeline_of([], shape, max_value)(x)).any()


@pytest.mark.parametrize(("entry", "shape", "max_value"), CASES)
@pytest.mark.parametrize("batch", [3, 17])
def test_batches_of_several_runs_at_once_are_the_same_to_the_bit(entry, shape, max_value, batch):
    """As packs augment: the images of all runs in one call, each with a magnitude of its run."""
    pipeline, x = pipeline_of([entry], shape, max_value), images(7 * batch, shape, max_value)
    given = (x, uniform(len(x), pipeline.columns), torch.arange(7.0).repeat_interleave(batch))
    out = pipeline(*given)
    for width in (1, 2):
        parts = zip(*(each.split(width * batch) for each in given), strict=True)
        found = [pipeline(*(each.clone() for each in part)) for part in parts]
        assert torch.cat(found).equal(out)


@pytest.mark.parametrize(("entry", "shape", "max_value"), CASES)
def test_the_ends_of_the_unit_interval_stay_in_range(entry, shape, max_value):
    pipeline, x = pipeline_of([entry], shape, max_value), images(2, shape, max_value)
    u = torch.tensor([[0.0], [1 - 2**-24]]).expand(2, pipeline.columns)
    out = pipeline(x, u)
    assert out.isfinite().all()
    if check([entry])[0].ON == "pixels":
        levels = out * 0.3 + 0.4
        assert levels.min() > -1e-5 and levels.max() < 1 + 1e-5


@pytest.mark.parametrize(("entry", "shape", "max_value"), CASES)
def test_nothing_asks_the_host_and_no_shape_depends_on_data(entry, shape, max_value):
    # On the meta device there are no values: a branch on one, a read, or a shape made of one fails.
    pipeline = pipeline_of([entry], shape, max_value).to("meta")
    x = torch.empty(4, *shape, dtype=torch.uint8, device="meta")
    u = torch.empty(4, pipeline.columns, device="meta")
    assert pipeline(x, u).shape == x.shape


@pytest.mark.parametrize(
    ("spec", "shape", "max_value"),
    [
        (SIMCLR, CIFAR, 255),
        (TIMM, CIFAR, 255),
        (TIMM, FASHION, 255),
        (TIMM, DIGITS, 16),
        ([{"op": "rotation"}, *SIMCLR[:3], SIMCLR[-1]], DIGITS, 16),
    ],
    ids=["simclr", "timm", "timm-fashion", "timm-digits", "simclr-digits"],
)
def test_recipes_are_ops_one_after_the_other(spec, shape, max_value):
    """Each stage gets what the one before it left, and its own columns."""
    pipeline, x = pipeline_of(spec, shape, max_value), images(16, shape, max_value)
    u = uniform(16, pipeline.columns)
    expected, used, scale = x.float(), 0, augment.Images(shape, (0.4,) * shape[0], max_value)
    plain = pipeline_of([], shape, max_value)._stages[0][0]
    for op in check(spec, shape):
        if op.ON == "normalised":
            expected = plain(expected, u, None)
        stage = op.stage(scale)
        expected = stage(expected, u[:, used : used + op.columns], None)
        used += op.columns
        if stage.max_value is not None:
            scale = augment.Images(shape, scale.mean, stage.max_value)
            plain = pipeline_of([], shape, stage.max_value)._stages[0][0]
    if op.ON == "pixels":
        expected = plain(expected, u, None)
    torch.testing.assert_close(pipeline(x, u), expected)


@pytest.mark.parametrize(
    "spec",
    [
        [
            {"op": "rotation"},
            {"op": "random_resized_crop", "area": [0.5, 1.0]},
            {"op": "colour_jitter"},
            {"op": "gaussian_blur", "kernel": 0.3},
            {"op": "solarise"},
        ],
        [{"op": "randaugment_timm"}, {"op": "random_erasing", "fill": "noise", "p": 0.6}],
    ],
    ids=["simclr", "timm"],
)
def test_a_run_trains_with_them_and_repeats_to_the_bit(spec):
    given = factory.settings(epochs=2, augment=tuple(spec))
    first, second = (factory.train(given).weights() for _ in range(2))
    other = factory.train(factory.settings(epochs=2, augment=())).weights()
    assert first.keys() == second.keys()
    assert all(value.isfinite().all() for value in first.values())
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert not all(torch.equal(value, other[name]) for name, value in first.items())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("entry", "shape", "max_value"), CASES)
def test_a_captured_op_equals_the_cpu(entry, shape, max_value):
    pipeline, x = pipeline_of([entry], shape, max_value), images(64, shape, max_value)
    u = uniform(64, pipeline.columns)
    expected = pipeline(x, u)
    out = captured(pipeline, x, u, deterministic=True)
    # A pixel on a threshold may fall on its other side.
    assert ((out - expected).abs() < 1e-3).float().mean() > 0.999
