"""A list of ops as one pipeline on the device."""

from __future__ import annotations

import pytest
import torch
from factories.augment import CIFAR, DIGITS, EVERYTHING, FASHION, captured, images, raw
from torch.utils._python_dispatch import TorchDispatchMode

from cyclery.augment import Pipeline
from cyclery.augment.policy import OPS
from cyclery.common.errors import UserError


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
        ([{"op": "rotation"}], 7),
        ([{"op": "solarise"}], 8),
        ([{"op": "colour_jitter"}], 35),
        ([{"op": "random_resized_crop"}], 75),
    ],
    ids=[
        "none",
        "flip",
        "shift",
        "both",
        "reflect",
        "policy",
        "rotation",
        "solarise",
        "jitter",
        "crop",
    ],
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
    out = captured(pipeline, x, u, magnitude)
    # A pixel on a threshold may fall on its other side.
    assert ((out - expected).abs() < 1e-3).float().mean() > 0.999


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("form", OPS)
@pytest.mark.parametrize("shape", [DIGITS, FASHION, CIFAR], ids=str)
def test_a_captured_policy_equals_the_cpu_bit_for_bit(shape, form):
    x, pipeline = images(448, shape), raw([{"op": "policy", "form": form}], shape)
    x[::3] //= 3
    u = torch.rand(len(x), pipeline.columns, generator=torch.Generator().manual_seed(0))
    expected = pipeline(x, u)
    out = captured(pipeline, x, u, deterministic=True)
    # Whole levels but for the normalisation.
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-4)


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
