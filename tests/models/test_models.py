"""What is true of every network."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from dataclasses import asdict, fields
from typing import get_args, get_type_hints

import pytest
import torch
from factories.network import CIFAR, DIGITS, FASHION, SMALL, parameters, shape_of, small
from torch import nn

from cyclery import models
from cyclery.common.errors import UserError
from cyclery.models import build, check, settings_type
from cyclery.models._classifier import Classifier
from cyclery.models.layers import Dropout, batch_norms


@pytest.mark.parametrize(
    ("name", "settings", "count", "millions"),
    [
        # He et al. 2016, table 6.
        ("resnet", {"depth": 20}, 269_722, "0.27"),
        ("resnet", {"depth": 32}, 464_154, "0.46"),
        ("resnet", {"depth": 44}, 658_586, "0.66"),
        ("resnet", {"depth": 56}, 853_018, "0.85"),
        ("resnet", {"depth": 110}, 1_727_962, "1.7"),
        ("stochastic_depth", {"depth": 110}, 1_727_962, "1.7"),
        ("resnet18", {}, 11_173_962, "11.17"),
        ("resnet50", {}, 23_528_522, "23.5"),
        # No norms of shortcuts and stem, and first norms of a block's inputs; one before pooling.
        ("preact_resnet18", {}, 11_172_170, "11.17"),
        # Zagoruyko and Komodakis 2016, table 4; WRN-28-2 as in the semi-supervised literature.
        ("wrn", {"depth": 28, "width": 2}, 1_467_610, "1.47"),
        ("wrn", {"depth": 28, "width": 2, "shortcuts": "raw"}, 1_467_610, "1.47"),
        ("wrn", {"depth": 28, "width": 8, "activation": "leaky"}, 23_354_842, "23.4"),
        ("wrn", {"depth": 40, "width": 4}, 8_949_210, "8.9"),
        ("wrn", {"depth": 16, "width": 8}, 10_961_370, "11.0"),
        ("wrn", {"depth": 28, "width": 10}, 36_479_194, "36.5"),
        # Huang et al. 2017, table 2.
        ("densenet", {"depth": 40, "growth": 12, "bc": False}, 1_019_722, "1.0"),
        ("densenet", {"depth": 100, "growth": 12, "bc": False}, 6_979_642, "7.0"),
        ("densenet", {"depth": 100, "growth": 12}, 769_162, "0.8"),
        ("densenet", {"depth": 250, "growth": 24}, 15_324_406, "15.3"),
        ("densenet", {"depth": 190, "growth": 40}, 25_624_430, "25.6"),
    ],
)
def test_parameter_counts_are_the_published_ones(name, settings, count, millions):
    assert parameters(name, settings) == count
    digits = len(millions.partition(".")[2])
    assert f"{count / 1e6:.{digits}f}" == millions


@pytest.mark.parametrize(
    ("name", "shape"),
    [(name, shape) for name in SMALL for shape in (FASHION, CIFAR)]
    + [(name, None) for name in models.names()],
    ids=str,
)
def test_forward_shape_and_gradient_of_every_parameter(name, shape):
    net = small(name, shape, 7, **({"p_last": 1.0} if name == "stochastic_depth" else {}))
    x = torch.randn(4, *(shape or shape_of(name)))
    logits = net(x)
    assert logits.shape == (4, 7)
    logits.square().sum().backward()
    still = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []
    if isinstance(net, Classifier):
        features = net.eval().features(x)
        assert features.shape == (4, net.width) and torch.equal(net(x), net.head(features))


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize(
    "name",
    [
        "small_cnn",
        "plain_cnn",
        "vgg",
        "resnet",
        "resnet_b",
        "resnet18",
        "preact_resnet18",
        "preresnet",
        "wrn",
    ],
)
def test_group_and_layer_norm_keep_images_apart(name, norm):
    net = small(name, norm=norm)
    x = torch.randn(3, *DIGITS)
    assert not [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    torch.testing.assert_close(net(x)[1:2], net(x[1:2]), rtol=1e-4, atol=1e-5)


ACTIVATIONS = {"relu": nn.ReLU, "leaky": nn.LeakyReLU, "sigmoid": nn.Sigmoid}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", ["bn_mlp", "small_cnn", "wrn"])
def test_activation_is_the_one_asked_for(name, activation):
    kinds = tuple(ACTIVATIONS.values())
    found = [m for m in small(name, activation=activation).modules() if isinstance(m, kinds)]
    assert {type(m) for m in found} == {ACTIVATIONS[activation]}
    assert all(m.negative_slope == 0.1 for m in found if activation == "leaky")


@pytest.mark.parametrize("name", ["bn_mlp", "small_cnn", "wrn"])
def test_every_norm_has_the_momentum_and_eps_asked_for(name):
    def found(**settings):
        norms = [m for m in small(name, **settings).modules() if "Norm" in type(m).__name__]
        return {(getattr(m, "momentum", None), m.eps) for m in norms}

    assert found() == {(0.1, 1e-5)}
    assert found(norm_momentum=0.001, norm_eps=1e-3) == {(0.001, 1e-3)}
    if name != "bn_mlp":
        assert found(norm="group", norm_eps=1e-3) == {(None, 1e-3)}


@pytest.mark.parametrize(("name", "places"), [("bn_mlp", 2), ("small_cnn", 2), ("wrn", 3)])
def test_dropout_stands_where_it_should_and_only_in_training(name, places):
    net, plain = small(name, dropout=0.5), small(name)
    assert [m.p for m in net.modules() if isinstance(m, Dropout)] == [0.5] * places
    assert list(net.state_dict()) == list(plain.state_dict())
    x = torch.randn(4, *DIGITS)
    assert torch.equal(plain(x), plain(x))
    assert not torch.equal(net(x), net(x))
    net.load_state_dict(plain.state_dict())
    assert torch.equal(net.eval()(x), plain.eval()(x))


@pytest.mark.parametrize("name", models.names())
def test_settings_say_whether_a_network_has_batch_norm(name):
    """Planning asks them, without torch."""
    norms = ("batch", "group", "layer", "none")
    hints = get_type_hints(settings_type(name))
    for norm in [n for n in norms if n in get_args(hints.get("norm"))] or [None]:
        given = {"norm": norm} if norm else {}
        with torch.device("meta"):
            net = small(name, (3, 64, 64), **given)
        assert check(name, given).batch_norm == bool(batch_norms(net)), norm


@pytest.mark.parametrize("name", models.names())
def test_initial_weights_follow_the_seed_alone(name):
    first, again, other = (small(name, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", models.names())
def test_a_copy_and_a_reload_compute_the_same(name):
    net = small(name).eval()
    x = torch.randn(2, *shape_of(name))
    other = small(name, seed=5).eval()
    other.load_state_dict(net.state_dict())
    assert torch.equal(net(x), copy.deepcopy(net)(x))
    assert torch.equal(net(x), other(x))


def test_convolutions_start_at_he_scale():
    torch.manual_seed(0)
    net = build("resnet18", {}, CIFAR, 10)
    for weight in (m.weight for m in net.modules() if isinstance(m, nn.Conv2d)):
        expected = (2 / (weight.shape[0] * weight[0, 0].numel())) ** 0.5
        assert weight.std().item() == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("name", models.names())
def test_a_training_pass_never_asks_the_host(name):
    # On the meta device there are no values, so any branch on one, or any read, fails.
    shape = (3, 64, 64)
    with torch.device("meta"):
        net = small(name, shape)
        net(torch.empty(2, *shape)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("name", models.names())
def test_settings_are_documented_and_survive_json(name):
    checked = check(name, {})
    assert checked == check(name, json.loads(json.dumps(asdict(checked))))
    assert type(checked).__doc__ and all(f.metadata["doc"] for f in fields(checked))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("resnet", {"depth": 21}, r"model resnet\.depth: must be 6n \+ 2, such as .*found 21"),
        ("resnet", {"depth": 2}, r"found 2\)"),
        (
            "resnet",
            {"dept": 20},
            r"unknown key 'dept'\. Did you mean 'depth'\? Allowed: depth, norm",
        ),
        (
            "resnet",
            {"norm": "bach"},
            r"one of batch, group, group_ws, layer, none \(found 'bach'\)\. Did you mean 'batch'",
        ),
        ("resnet18", {"depth": 18}, r"unknown key 'depth'.*Allowed: norm"),
        ("wrn", {"depth": 20}, r"wrn\.depth: must be 6n \+ 4"),
        ("wrn", {"width": 0}, r"wrn\.width: must be at least 1 and at most 1000 \(found 0\)"),
        ("wrn", {"width": 2.5}, r"wrn\.width: must be a whole number \(found 2\.5\)"),
        ("wrn", {"width": True}, r"must be a whole number \(found True\)"),
        ("wrn", {"dropout": -0.1}, r"at least 0 and at most 0\.9 \(found -0\.1\)"),
        ("wrn", {"dropout": float("nan")}, r"must be a finite number \(found nan\)"),
        ("wrn", {"norm_momentum": 1.5}, r"norm_momentum: must be at least 0 and at most 1"),
        ("wrn", {"shortcuts": "rew"}, r"one of activated, raw \(found 'rew'\)\. Did you mean"),
        ("small_cnn", {"norm_eps": 0}, r"norm_eps: must be above 0 \(found 0\)"),
        ("bn_mlp", {"activation": "leeky"}, r"Did you mean 'leaky'"),
        ("stochastic_depth", {"p_last": 0}, r"p_last: must be above 0\.0 and at most 1\.0"),
        ("densenet", {"depth": 41}, r"densenet with bc\.depth: must be 6n \+ 4"),
        ("densenet", {"depth": 41, "bc": False}, r"densenet without bc\.depth: must be 3n \+ 4"),
        ("densenet", {"bc": "yes"}, r"must be true or false \(found 'yes'\)"),
        ("bn_mlp", {"hidden": []}, r"hidden: must list at least one layer"),
        (
            "bn_mlp",
            {"hidden": [64, -1]},
            r"hidden\[1\]: must be at least 1 and at most 100000 \(found -1\)",
        ),
        ("bn_mlp", {"hidden": 64}, r"must be a list, each element a whole number \(found 64\)"),
        ("reznet", {}, r"unknown model 'reznet'\. Did you mean 'resnet'\? Models: alexnet"),
    ],
)
def test_wrong_settings_are_named(name, settings, message):
    with pytest.raises(UserError, match=message):
        check(name, settings)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("alexnet", CIFAR, r"alexnet: needs images of at least 63 x 63 pixels \(found 3 channels"),
        ("alexnet", (1, 224, 224), r"needs images of 3 channels \(found 1 channels of 224 x 224\)"),
        ("googlenet", FASHION, r"needs images of 3 channels"),
        ("tresnet_m", (3, 33, 40), r"sides that are multiples of 4 \(found 33 x 40\)"),
        ("small_cnn", (1, 3, 8), r"at least 4 x 4 pixels \(found 1 channels of 3 x 8\)"),
    ],
)
def test_images_that_do_not_fit_are_named(name, shape, message):
    for refuse in (lambda: check(name, {}, shape), lambda: build(name, {}, shape, 10)):
        with pytest.raises(UserError, match=message):
            refuse()


def test_settings_are_read_without_torch_and_one_loads_no_other():
    """But for files that import it at their top, as an author's may."""
    code = """
import re, sys
from pathlib import Path
from cyclery import augment, models, optim
from cyclery.models import heads
models.check("wrn", {"depth": 28}, (3, 32, 32)); optim.settings_type("sgd")
augment.check([{"op": "flip"}])
loaded = {name for name in sys.modules if name.startswith(("cyclery.models.", "cyclery.optim."))}
others = {f"cyclery.models.{name}" for name in models.names() if name != "wrn"}
others |= {f"cyclery.optim.{name}" for name in optim.names() if name != "sgd"}
assert not loaded & others, loaded & others
for kind in (models, heads, optim):
    for name in kind.names():
        text = Path(kind.__path__[0], name + ".py").read_text()
        if not re.search(r"^(import|from) torch", text, re.MULTILINE):
            kind.settings_type(name)
heavy = {"torch", "numpy", "torchvision"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
