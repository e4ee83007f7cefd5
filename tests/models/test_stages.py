"""Where stages of networks end, and batch norm that sees a batch in groups."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from factories.network import small
from torch import Tensor, nn

from cyclery.common.errors import UserError
from cyclery.models import build
from cyclery.models._classifier import blocks
from cyclery.models._stages import features_and_maps, stage_norms
from cyclery.models.layers import batch_norms, keep_statistics
from cyclery.models.layers.grouped import grouped_norms

# The maps of each stage of images of 8 x 8 pixels.
STAGES: dict[str, tuple[dict[str, Any], list[tuple[int, ...]]]] = {
    "wrn": ({"depth": 16, "width": 1}, [(16, 8, 8), (32, 4, 4), (64, 2, 2)]),
    "small_cnn": ({"width": 4}, [(4, 8, 8), (8, 4, 4), (16, 2, 2)]),
    "resnet": ({"depth": 14}, [(16, 8, 8), (32, 4, 4), (64, 2, 2)]),
    "bn_mlp": ({"hidden": [24, 12]}, [(24,), (12,)]),
}


def net_of(name: str) -> Any:
    torch.manual_seed(0)
    if name == "harmonic":  # its first batch norm has no weights
        return build("small_cnn", {"width": 4, "convolution": "harmonic"}, (1, 8, 8), 10)
    return build(name, STAGES[name][0], (1, 8, 8), 10)


@pytest.mark.parametrize("name", STAGES)
def test_maps_are_those_before_the_last_activation_of_a_stage(name: str) -> None:
    net, x = net_of(name).eval(), torch.randn(3, 1, 8, 8)
    activated: list[Tensor] = []
    honest = F.relu

    def relu(given: Tensor, inplace: bool = False) -> Tensor:
        activated.append(given)
        return honest(given, inplace)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "relu", relu)
        h, maps = features_and_maps(net, x)
    assert [tuple(each.shape[1:]) for each in maps] == STAGES[name][1]
    assert torch.equal(h, net.features(x))
    # Each is what an activation takes, and no later activation has maps of that size.
    last = {tuple(each.shape[1:]): each for each in activated}
    for each in maps:
        assert torch.equal(last[tuple(each.shape[1:])], each)
    # The last maps make the features.
    pooled = maps[-1].relu() if maps[-1].ndim == 2 else maps[-1].relu().mean((2, 3))
    torch.testing.assert_close(pooled, h)
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize("name", ["wrn", "small_cnn", "bn_mlp"])
def test_maps_are_spread_as_their_norm_says(name: str) -> None:
    """A norm's bias is the mean of its channel in a batch, and its weight the deviation."""
    net = net_of(name).train()
    for norm in batch_norms(net):
        nn.init.normal_(norm.weight, 1, 0.3)
        nn.init.normal_(norm.bias)
    _, maps = features_and_maps(net, torch.randn(64, 1, 8, 8))
    for norm, each in zip(stage_norms(net), maps, strict=True):
        other = [d for d in range(each.ndim) if d != 1]
        torch.testing.assert_close(each.mean(other), norm.bias, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(
            each.var(other, correction=0).sqrt(), norm.weight.abs(), atol=1e-2, rtol=2e-2
        )


def test_a_network_without_stages_or_batch_norm_is_refused() -> None:
    with pytest.raises(UserError, match=r"^model: does not say where its stages end"):
        stage_norms(small("alexnet"))
    other = build("small_cnn", {"norm": "group"}, (1, 8, 8), 10)
    with pytest.raises(UserError, match=r"^model: its stages must end in batch norm.*GroupNorm"):
        stage_norms(other)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("small_cnn", {"scattering": 1}),
        ("wrn", {"scattering": 1, "depth": 10}),
        ("wrn", {"blocks": "dual_selective_kernel", "depth": 10}),
        ("resnet_b", {"scattering": 1, "depth": 8}),
        ("resnet_b", {"blocks": "dual_selective_kernel", "depth": 8}),
    ],
)
def test_other_first_layers_and_blocks_have_no_stages(name: str, given: dict[str, Any]) -> None:
    net = build(name, given, (1, 8, 8), 10)
    with pytest.raises(UserError, match=r"^model: does not say.*without scattering"):
        stage_norms(net)


@pytest.mark.parametrize("name", ["wrn", "small_cnn", "resnet_b"])
@pytest.mark.parametrize("convolution", ["plain", "harmonic", "full"])
def test_other_convolutions_leave_stages_and_blocks_as_they_are(
    name: str, convolution: str
) -> None:
    net: Any = build(name, {"convolution": convolution}, (1, 8, 8), 10)
    assert [norm.num_features for norm in stage_norms(net)] == [
        each.shape[1] for each in features_and_maps(net.eval(), torch.randn(2, 1, 8, 8))[1]
    ]
    plain = blocks(build(name, {}, (1, 8, 8), 10))
    assert [len(block) for block in blocks(net)] == [len(block) for block in plain]


@pytest.mark.parametrize("name", ["small_cnn", "bn_mlp", "harmonic"])
def test_groups_are_what_so_many_devices_compute(name: str) -> None:
    torch.manual_seed(1)
    net, x, groups = net_of(name).train(), torch.randn(12, 1, 8, 8), 3
    for norm in batch_norms(net):
        if norm.affine:
            nn.init.normal_(norm.weight, 1, 0.3)
        nn.init.normal_(norm.running_mean)
    devices = [copy.deepcopy(net) for _ in range(groups)]
    expected = [device(x[place::groups]) for place, device in enumerate(devices)]
    with grouped_norms(net, groups):
        found = net(x)
    for place, each in enumerate(expected):
        torch.testing.assert_close(found[place::groups], each)
    # All devices have the mean of their running statistics.
    for norms in zip(batch_norms(net), *map(batch_norms, devices), strict=True):
        own, *others = norms
        for of in ("running_mean", "running_var"):
            mean = torch.stack([getattr(each, of) for each in others]).mean(0)
            torch.testing.assert_close(getattr(own, of), mean)
        assert int(own.num_batches_tracked) == 1
    # Gradients are those of all devices together.
    found.square().sum().backward()
    sum(each.square().sum() for each in expected).backward()  # type: ignore[union-attr]
    for own, *others in zip(net.parameters(), *(d.parameters() for d in devices), strict=True):
        total = torch.stack([each.grad for each in others]).sum(0)
        torch.testing.assert_close(own.grad, total, atol=1e-4, rtol=1e-4)


def test_groups_end_with_the_block_and_leave_other_modes_alone() -> None:
    net, x = net_of("bn_mlp"), torch.randn(8, 1, 8, 8)
    whole = net.eval()(x)
    with grouped_norms(net, 2):
        assert torch.equal(net(x), whole)
    net.train()
    before = copy.deepcopy(net.state_dict())
    keep_statistics(net)
    with grouped_norms(net, 2):
        parts = net(x)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert not torch.allclose(net(x), parts)
    with grouped_norms(net, 1):
        assert torch.equal(net(x), net(x))
