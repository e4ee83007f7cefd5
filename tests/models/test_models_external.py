"""The networks that torchvision and timm define."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from factories.network import CIFAR, parameters
from torch import nn

from cyclery import models
from cyclery.common.errors import UserError
from cyclery.models import build
from cyclery.models.layers import Dropout


@pytest.mark.parametrize(("name", "count"), [("alexnet", 61_100_840), ("googlenet", 6_624_904)])
def test_torchvision_networks_have_the_documented_counts(name, count):
    pytest.importorskip("torchvision")
    assert parameters(name, {}, (3, 224, 224), 1000) == count


@pytest.mark.parametrize("name", ["alexnet", "googlenet"])
def test_smallest_images_of_torchvision_networks(name):
    pytest.importorskip("torchvision")
    side = models.settings_type(name).MIN_SIDE
    torch.manual_seed(0)
    net = build(name, {}, (3, side, side), 5)
    assert net(torch.randn(2, 3, side, side)).shape == (2, 5)
    assert not [m for m in net.modules() if isinstance(m, nn.Dropout)]
    assert [m for m in net.modules() if isinstance(m, Dropout)]


def test_alexnet_pools_only_maps_of_another_size():
    pytest.importorskip("torchvision")
    pool = build("alexnet", {}, (3, 64, 64), 5).avgpool
    right, small_map = torch.randn(1, 2, 6, 6), torch.randn(1, 2, 3, 3)
    assert pool(right) is right
    assert torch.equal(pool(small_map), nn.functional.adaptive_avg_pool2d(small_map, 6))


@pytest.mark.parametrize(
    ("name", "package", "shape"),
    [("tresnet_m", "timm", CIFAR), ("alexnet", "torchvision", (3, 64, 64))],
)
def test_a_missing_package_is_named_with_the_remedy(name, package, shape, monkeypatch):
    for module in [m for m in sys.modules if m.partition(".")[0] == package] + [package]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"'{name}' needs the package {package}.*pip install"):
        build(name, {}, shape, 10)


def test_tresnet_is_asked_of_timm(monkeypatch):
    asked = {}

    def create_model(name, **settings):
        asked.update(settings, name=name)
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(3072, 10))

    monkeypatch.setitem(sys.modules, "timm", types.SimpleNamespace(create_model=create_model))
    net = build("tresnet_m", {}, CIFAR, 10)
    assert asked == {"name": "tresnet_m", "pretrained": False, "num_classes": 10, "in_chans": 3}
    assert isinstance(net[1], Dropout)
