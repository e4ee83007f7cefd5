"""Selective kernels, blurred strides, and the two branches of which training draws one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from factories.network import DIGITS, parameters, small
from torch import Tensor, nn

from cyclery.common.errors import UserError
from cyclery.models import check
from cyclery.models._dual import basic, bottleneck, wide
from cyclery.models.layers import norm_2d, use_generator
from cyclery.models.layers.selective_kernel import BlurPool, DualBlock, SelectiveKernel

DUAL = {"blocks": "dual_selective_kernel"}
THIN = {"depth": 8, "widths": [8, 8, 16, 32], **DUAL}


def norm(channels: int) -> nn.Module:
    return norm_2d("batch", channels)


def seeded(net: nn.Module, seed: int) -> nn.Module:
    use_generator(net, torch.Generator().manual_seed(seed))
    return net


@pytest.mark.parametrize("side", [2, 5, 8])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_stride_is_blurred_before_it(side: int, stride: int) -> None:
    x = torch.randn(2, 3, side, side + 1, dtype=torch.float64)
    line = torch.tensor([1.0, 2, 1], dtype=torch.float64)
    filters = (line[:, None] * line / 16).expand(3, 1, 3, 3)
    expected = F.conv2d(F.pad(x, (1, 1, 1, 1), "reflect"), filters, stride=stride, groups=3)
    found = BlurPool(3, stride).double()(x)
    torch.testing.assert_close(found, expected)
    assert found.shape[2:] == (-(-side // stride), -(-(side + 1) // stride))
    assert not BlurPool(3, 2).state_dict()


@pytest.mark.parametrize("stride", [1, 2])
def test_a_selective_kernel_is_its_definition(stride: int) -> None:
    torch.manual_seed(0)
    module = SelectiveKernel(16, 32, stride, 8, norm)
    x = torch.randn(4, 16, 8, 8)
    branches = []
    for index, kernel in enumerate(module.kernels):
        maps = F.conv2d(
            x, kernel[0].weight, padding=index + 1, dilation=index + 1, groups=8
        )  # fmt: skip
        if stride == 2:
            maps = BlurPool(32, 2)(maps)
        branches.append(F.relu(F.batch_norm(maps, None, None, training=True)))
    mean = (branches[0] + branches[1]).mean((2, 3))
    hidden = F.batch_norm(mean @ module.squeeze[0].weight.flatten(1).T, None, None, training=True)
    scores = [F.relu(hidden) @ a.weight.flatten(1).T + a.bias for a in module.attention]
    weights = torch.stack(scores).softmax(0)[..., None, None]
    expected = weights[0] * branches[0] + weights[1] * branches[1]
    torch.testing.assert_close(module(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("outputs", "hidden"), [(32, 32), (512, 32), (1024, 64)])
def test_parameters_of_a_selective_kernel(outputs: int, hidden: int) -> None:
    with torch.device("meta"):
        module = SelectiveKernel(64, outputs, 1, 32, norm)
    # Two grouped convolutions with norms; into the hidden units with a norm; out with biases.
    expected = 2 * (9 * 64 * outputs // 32 + 2 * outputs)
    expected += outputs * hidden + 2 * hidden + 2 * (hidden * outputs + outputs)
    assert sum(p.numel() for p in module.parameters()) == expected


BLOCKS = {
    "wide": lambda: wide(8, 16, 2, norm, nn.ReLU, 0.0),
    "basic": lambda: basic(8, 16, 2, norm),
    "bottleneck": lambda: bottleneck(64, 32, 2, norm),
}


@pytest.mark.parametrize("kind", BLOCKS)
def test_evaluation_takes_the_mean_of_both_branches(kind: str) -> None:
    torch.manual_seed(0)
    block = BLOCKS[kind]()
    x = torch.randn(4, 64 if kind == "bottleneck" else 8, 8, 8)
    block(x)
    block.eval()
    first, second = (branch(x) for branch in block.branches)
    total = (first + second) / 2 + block.shortcut(x)
    torch.testing.assert_close(block(x), total if kind == "wide" else total.relu())
    assert not torch.equal(first, second)


@pytest.mark.parametrize("kind", BLOCKS)
def test_a_batch_gets_one_of_them_and_the_other_no_gradient(kind: str) -> None:
    torch.manual_seed(0)
    block = seeded(BLOCKS[kind](), 0)
    x = torch.randn(4, 64 if kind == "bottleneck" else 8, 8, 8)
    counts = [0, 0]
    for _ in range(16):
        block.zero_grad()
        out = block(x)
        out.square().sum().backward()
        reached = [any(p.grad.any() for p in branch.parameters()) for branch in block.branches]
        assert sorted(reached) == [False, True]
        drawn = reached.index(True)
        counts[drawn] += 1
        total = block.branches[drawn](x) + block.shortcut(x)
        torch.testing.assert_close(out, total if kind == "wide" else total.relu())
    assert min(counts) > 0


class Given(nn.Module):
    """A branch that returns a constant."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return torch.full_like(x, self.value)


def test_blocks_draw_each_for_itself_and_with_even_odds() -> None:
    values = iter([0.0, 1.0, 0.0, 2.0])
    blocks = [DualBlock(lambda: Given(next(values)), nn.Identity(), nn.Identity())
              for _ in range(2)]  # fmt: skip
    net, x = seeded(nn.Sequential(*blocks), 3), torch.zeros(2, 1, 1, 1)
    drawn = torch.stack([net(x).flatten() for _ in range(1000)])
    # One draw for the whole batch, and all four combinations of two blocks, a quarter each.
    assert torch.equal(drawn[:, 0], drawn[:, 1])
    counts = torch.bincount(drawn[:, 0].long(), minlength=4)
    assert ((counts - 250).abs() <= 4 * (1000 * 3 / 16) ** 0.5).all()


@pytest.mark.parametrize(("name", "chosen"), [("wrn", DUAL), ("resnet_b", THIN)])
def test_draws_come_from_the_run_s_generator_alone(name: str, chosen: dict) -> None:
    net, x = small(name, DIGITS, **chosen), torch.randn(4, *DIGITS)
    first = [seeded(net, 7)(x), net(x), net(x)]
    torch.manual_seed(123)
    assert all(torch.equal(a, b) for a, b in zip(first, [seeded(net, 7)(x), net(x), net(x)],
                                                 strict=True))  # fmt: skip
    assert len({net(x).sum().item() for _ in range(9)}) > 1
    assert torch.equal(net.eval()(x), net(x))


def dual(inputs: int, outputs: int, width: int, kind: str, groups: int) -> int:
    """Return the parameters of a block, all but its shortcut, counted by hand."""

    def kernel(a: int, b: int) -> int:
        hidden = max(b // 16, 32)
        return (2 * (9 * a * b // groups + 2 * b) + b * hidden + 2 * hidden
                + 2 * (hidden * b + b))  # fmt: skip

    if kind == "bottleneck":
        each = inputs * width + 2 * width + kernel(width, width) + width * outputs + 2 * outputs
    else:
        norms = 2 * (inputs if kind == "wide" else outputs) + 2 * outputs
        each = norms + kernel(inputs, outputs) + kernel(outputs, outputs)
    return 2 * each


def test_parameters_of_the_networks() -> None:
    def wide_net(depth: int, width: int, channels: int) -> int:
        count, inputs = 9 * channels * 16, 16
        for outputs in (16 * width, 32 * width, 64 * width):
            count += inputs * outputs if inputs != outputs else 0
            for _ in range((depth - 4) // 6):
                count += dual(inputs, outputs, 0, "wide", 8)
                inputs = outputs
        return count + 2 * inputs + 10 * inputs + 10

    assert parameters("wrn", {"depth": 16, "width": 8, **DUAL}) == wide_net(16, 8, 3) == 6_308_858
    assert parameters("wrn", {"depth": 10, "width": 1, **DUAL}, DIGITS) == wide_net(10, 1, 1)

    count, inputs = 9 * 8 + 2 * 8, 8
    for outputs in (8, 16, 32):
        count += dual(inputs, outputs, 0, "basic", 8)
        count += inputs * outputs + 2 * outputs if inputs != outputs else 0
        inputs = outputs
    assert parameters("resnet_b", THIN, DIGITS) == count + 330 == 34_434

    count, inputs = 49 * 3 * 64 + 2 * 64, 64
    for width, depth in zip((64, 128, 256, 512), (3, 4, 6, 3), strict=True):
        count += inputs * 4 * width + 2 * 4 * width
        for _ in range(depth):
            count += dual(inputs, 4 * width, 2 * width, "bottleneck", 32)
            inputs = 4 * width
    found = parameters("resnet50", DUAL, (3, 224, 224), 1000)
    assert found == count + 2_049_000 == 50_154_664


@pytest.mark.parametrize(
    ("name", "chosen", "smallest"),
    [("wrn", DUAL, 3), ("resnet_b", THIN, 3), ("resnet50", {"width": 0.25, **DUAL}, 17)],
)
def test_the_smallest_images(name: str, chosen: dict, smallest: int) -> None:
    shape = (1, smallest, smallest)
    net = small(name, shape, **chosen)
    assert net(torch.randn(3, *shape)).shape == (3, 10)
    with pytest.raises(UserError, match=f"at least {smallest} x {smallest} pixels"):
        check(name, chosen, (1, smallest - 1, smallest))


@pytest.mark.parametrize("norm", ["group", "layer", "group_ws"])
def test_other_norms_keep_images_apart(norm: str) -> None:
    net, x = small("wrn", DIGITS, norm=norm, **DUAL), torch.randn(3, *DIGITS)
    torch.testing.assert_close(seeded(net, 1)(x)[1:2], seeded(net, 1)(x[1:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "chosen", "message"),
    [
        ("resnet_b", {"widths": [16, 16, 32, 60], **DUAL},
         r"resnet_b\.widths: .* 8 groups, so each must be a multiple of 8 \(found \[16, 16, 32"),
        ("resnet50", {"width": 0.3, **DUAL},
         r"resnet50\.width: .* must be a multiple of 0\.25 \(found 0\.3\)"),
        ("wrn", {"shortcuts": "raw", **DUAL},
         r"wrn\.shortcuts: .* take the raw input in any case; leave it out \(found raw\)"),
        ("wrn", {"blocks": "dual"}, r"one of dual_selective_kernel, plain \(found 'dual'\)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(name: str, chosen: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(name, chosen)
