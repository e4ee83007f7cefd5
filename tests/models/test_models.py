from __future__ import annotations

import copy
import json
import subprocess
import sys
import types
from dataclasses import asdict, fields
from typing import get_args, get_type_hints

import pytest
import torch
from torch import nn

from cyclery.common.errors import UserError
from cyclery.models import SETTINGS, build, check
from cyclery.models.layers import (
    Dropout,
    evaluating,
    keep_statistics,
    norm_2d,
    share_buffers,
    statistics_kept,
    use_generator,
)
from cyclery.models.resnet import Subsample, Survival

DIGITS, FASHION, CIFAR = (1, 8, 8), (1, 28, 28), (3, 32, 32)
SMALL = {
    "bn_mlp": {"hidden": [16, 8]},
    "small_cnn": {"width": 4},
    "plain_cnn": {"size": 2, "width": 0.25},
    "vgg": {"depth": 8, "width": 0.0625},
    "resnet": {"depth": 8},
    "resnet_b": {"depth": 8, "widths": [4, 4, 8, 16]},
    "resnet18": {},
    "preresnet": {"depth": 8, "width": 4},
    "wrn": {"depth": 10, "width": 1},
    "stochastic_depth": {"depth": 14, "p_last": 0.5},
    "densenet": {"depth": 10, "growth": 4},
}


def small(name: str, shape=DIGITS, classes: int = 10, seed: int = 0, **settings) -> nn.Module:
    torch.manual_seed(seed)
    return build(name, {**SMALL[name], **settings}, shape, classes)


def parameters(name: str, settings: dict, shape=CIFAR, classes: int = 10) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in build(name, settings, shape, classes).parameters())


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


@pytest.mark.parametrize(("name", "count"), [("alexnet", 61_100_840), ("googlenet", 6_624_904)])
def test_torchvision_networks_have_the_documented_counts(name, count):
    pytest.importorskip("torchvision")
    assert parameters(name, {}, (3, 224, 224), 1000) == count


@pytest.mark.parametrize("shape", [DIGITS, FASHION, CIFAR], ids=str)
@pytest.mark.parametrize("name", SMALL)
def test_forward_shape_and_gradient_of_every_parameter(name, shape):
    net = small(name, shape, 7, **({"p_last": 1.0} if name == "stochastic_depth" else {}))
    x = torch.randn(4, *shape)
    logits = net(x)
    assert logits.shape == (4, 7)
    logits.square().sum().backward()
    still = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []
    assert torch.equal(net.eval()(x), net.head(net.features(x)))


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize(
    "name",
    ["small_cnn", "plain_cnn", "vgg", "resnet", "resnet_b", "resnet18", "preresnet", "wrn"],
)
def test_group_and_layer_norm_keep_images_apart(name, norm):
    net = small(name, norm=norm)
    x = torch.randn(3, *DIGITS)
    assert not [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    torch.testing.assert_close(net(x)[1:2], net(x[1:2]), rtol=1e-4, atol=1e-5)


def test_norms_have_the_stated_groups():
    groups = {c: norm_2d("group", c).num_groups for c in (2, 12, 16, 32, 64, 160, 640)}
    assert groups == {2: 1, 12: 1, 16: 4, 32: 8, 64: 16, 160: 8, 640: 16}
    assert norm_2d("layer", 64).num_groups == 1


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


def batch_norms(net: nn.Module) -> list[nn.Module]:
    return [m for m in net.modules() if hasattr(m, "track_running_stats")]


def buffers(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: buffer.clone() for name, buffer in net.named_buffers()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("name", [*SMALL, "alexnet", "googlenet"])
def test_settings_say_whether_a_network_has_batch_norm(name):
    """Planning asks them, without torch; of TResNet-M they say yes."""
    norms = ("batch", "group", "layer", "none")
    hints = get_type_hints(SETTINGS[name])
    for norm in [n for n in norms if n in get_args(hints.get("norm"))] or [None]:
        given = {**SMALL.get(name, {}), **({"norm": norm} if norm else {})}
        with torch.device("meta"):
            net = build(name, given, (3, 64, 64), 10)
        assert check(name, given).batch_norm == bool(batch_norms(net)), norm
    assert check("tresnet_m", {}).batch_norm


@pytest.fixture(params=[*SMALL, "googlenet"])
def any_net(request) -> tuple[nn.Module, torch.Tensor]:
    """A network in train mode that draws nothing, and a batch for it."""
    if request.param == "googlenet":
        pytest.importorskip("torchvision")
        torch.manual_seed(0)
        net = build("googlenet", {}, CIFAR, 10)
        net.dropout.p = 0.0
        return net, torch.randn(4, *CIFAR)
    settings = {"p_last": 1.0} if request.param == "stochastic_depth" else {}
    return small(request.param, **settings), torch.randn(4, *DIGITS)


def test_kept_statistics_do_not_move_and_the_batch_normalises(any_net):
    net, x = any_net
    before = buffers(net)
    with statistics_kept(net):
        inside = net(x)
    assert same(before, buffers(net)) and before
    assert torch.equal(inside, net(x))
    moved = buffers(net)
    assert not any(torch.equal(before[name], moved[name]) for name in before)
    # In evaluation the running statistics count, inside as outside.
    with statistics_kept(net.eval()):
        assert torch.equal(net(x), net.eval()(x)) and not torch.equal(net(x), inside)


def test_statistics_kept_for_good(any_net):
    net, x = any_net
    plain = copy.deepcopy(net)
    keep_statistics(net)
    with statistics_kept(net):
        pass
    before = buffers(net)
    assert torch.equal(net(x), plain(x))
    assert same(before, buffers(net)) and not same(before, buffers(plain))
    net.load_state_dict(plain.state_dict())
    assert torch.equal(net.eval()(x), plain.eval()(x))


def test_statistics_move_again_after_an_error():
    net = small("small_cnn")
    batch_norms(net)[0].track_running_stats = False
    with pytest.raises(KeyError), statistics_kept(net), statistics_kept(net):
        assert [m.track_running_stats for m in batch_norms(net)] == [False] * 3
        raise KeyError
    assert [m.track_running_stats for m in batch_norms(net)] == [False, True, True]


def test_evaluating_gives_every_module_its_mode_back(any_net):
    net, x = any_net
    for module in list(net.modules())[::3]:
        module.training = False
    modes, before = [m.training for m in net.modules()], buffers(net)
    with evaluating(net):
        assert not any(m.training for m in net.modules())
        inside = net(x)
    assert [m.training for m in net.modules()] == modes and True in modes
    assert same(before, buffers(net))
    with pytest.raises(KeyError), evaluating(net):
        raise KeyError
    assert [m.training for m in net.modules()] == modes
    assert torch.equal(inside, net.eval()(x))


def test_shared_buffers_follow_the_source(any_net):
    source, x = any_net
    average = copy.deepcopy(source)
    keep_statistics(average)
    share_buffers(average, source)
    theirs = dict(source.named_buffers())
    assert theirs and all(b is theirs[name] for name, b in average.named_buffers())
    assert not {id(p) for p in average.parameters()} & {id(p) for p in source.parameters()}
    source(x)
    average(x)
    assert torch.equal(average.eval()(x), source.eval()(x))
    # Loading fills the tensors that are there, so a resumed run still shares them.
    average.load_state_dict(copy.deepcopy(average.state_dict()))
    assert all(b is theirs[name] for name, b in average.named_buffers())


def test_buffers_of_another_network_cannot_be_shared():
    with pytest.raises(AttributeError):
        share_buffers(small("small_cnn"), small("small_cnn", norm="group"))


def test_a_compiled_step_keeps_statistics_and_modes():
    def step(net, x):
        with statistics_kept(net):
            first = net(x)
        with evaluating(net):
            second = net(x)
        return first, second, net(x)

    net, x = small("small_cnn"), torch.randn(4, *DIGITS)
    other = copy.deepcopy(net)
    compiled = torch.compile(step, backend="eager", fullgraph=True)
    assert all(torch.equal(a, b) for a, b in zip(compiled(net, x), step(other, x), strict=True))
    assert same(buffers(net), buffers(other)) and net.body[1].num_batches_tracked == 1
    assert all(m.training for m in net.modules())


@pytest.mark.parametrize("name", SMALL)
def test_initial_weights_follow_the_seed_alone(name):
    first, again, other = (small(name, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", SMALL)
def test_a_copy_and_a_reload_compute_the_same(name):
    net = small(name).eval()
    x = torch.randn(2, *DIGITS)
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


@pytest.mark.parametrize("name", [*SMALL, "alexnet", "googlenet"])
def test_a_training_pass_never_asks_the_host(name):
    # On the meta device there are no values, so any branch on one, or any read, fails.
    if name in ("alexnet", "googlenet"):
        pytest.importorskip("torchvision")
    shape = CIFAR if name in SMALL else (3, 64, 64)
    with torch.device("meta"):
        net = build(name, SMALL.get(name, {}), shape, 10)
        net(torch.empty(2, *shape)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_option_a_shortcut_subsamples_and_pads_channels():
    x = torch.randn(2, 3, 5, 5)
    out = Subsample(2, 4)(x)
    assert out.shape == (2, 7, 3, 3)
    assert torch.equal(out[:, :3], x[:, :, ::2, ::2])
    assert not out[:, 3:].any()


def copy_in_order(source: nn.Module, target: nn.Module) -> None:
    """Copy weights between networks whose layers come in the same order under other names."""
    ours, theirs = target.state_dict(), source.state_dict()
    pairs = list(zip(sorted_last(ours, "head"), sorted_last(theirs, "classifier"), strict=True))
    assert [ours[a].shape for a, _ in pairs] == [theirs[b].shape for _, b in pairs]
    target.load_state_dict({a: theirs[b] for a, b in pairs})


def sorted_last(state: dict, head: str) -> list[str]:
    return sorted(state, key=lambda key: key.startswith(head))


def test_resnet18_equals_torchvision_with_a_small_stem():
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    reference = models.resnet18(num_classes=10)
    reference.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    reference.maxpool = nn.Identity()
    net = small("resnet18", CIFAR)
    copy_in_order(reference.eval(), net.eval())
    x = torch.randn(2, *CIFAR)
    torch.testing.assert_close(net(x), reference(x), rtol=1e-4, atol=1e-5)


def test_densenet_bc_equals_torchvision_with_a_small_stem():
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    reference = models.DenseNet(6, (3, 3, 3), num_init_features=12, num_classes=10)
    features = nn.Sequential(*[m for n, m in reference.features.named_children() if n != "pool0"])
    features[0] = nn.Conv2d(3, 12, 3, 1, 1, bias=False)
    del features[1:3]  # torchvision's stem also has a norm and a ReLU, the CIFAR network has not.
    reference.features = features
    net = build("densenet", {"depth": 22, "growth": 6}, CIFAR, 10)
    copy_in_order(reference.eval(), net.eval())
    x = torch.randn(2, *CIFAR)
    torch.testing.assert_close(net(x), reference(x), rtol=1e-4, atol=1e-5)


def test_wide_block_is_pre_activation():
    net = small("wrn", DIGITS, width=2).eval()
    widen, last = net.body[1], net.body[3]
    x = torch.randn(2, 16, 8, 8)
    active = torch.relu(widen.norm1(x))
    expected = widen.conv2(torch.relu(widen.norm2(widen.conv1(active)))) + widen.project(active)
    torch.testing.assert_close(widen(x), expected)
    assert last.project is not None and last(torch.randn(2, 64, 4, 4)).shape == (2, 128, 2, 2)


@pytest.mark.parametrize("width", [1, 2])
def test_wrn_with_raw_shortcuts_is_the_network_of_fixmatch(width):
    settings = {"activation": "leaky", "shortcuts": "raw", "depth": 16, "width": width}
    net = small("wrn", DIGITS, **settings).eval()
    for buffer in net.buffers():  # So that every norm does something.
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)

    def leaky(x):
        return torch.where(x > 0, x, 0.1 * x)

    stem, *blocks, norm, _ = net.body
    x = torch.randn(2, *DIGITS)
    y = stem(x)
    for index, block in enumerate(blocks):
        active = leaky(block.norm1(y))
        shortcut = active if index == 0 else y
        assert (block.project is None) == (block.conv1.in_channels == block.conv1.out_channels)
        if block.project is not None:
            shortcut = block.project(shortcut)
        y = shortcut + block.conv2(leaky(block.norm2(block.conv1(active))))
    expected = net.head(leaky(norm(y)).mean((2, 3)))
    torch.testing.assert_close(net(x), expected)
    usual = small("wrn", DIGITS, **settings | {"shortcuts": "activated"}).eval()
    usual.load_state_dict(net.state_dict())
    assert not torch.allclose(usual(x), expected, rtol=1e-3)


def test_survival_falls_linearly_to_p_last():
    survival = Survival(4, 0.5)
    assert survival.probability.tolist() == pytest.approx([0.875, 0.75, 0.625, 0.5])
    assert torch.equal(torch.stack(survival.eval()()), survival.probability)


def test_survival_draws_whole_batches_at_its_rates():
    torch.manual_seed(0)
    survival = Survival(4, 0.5)
    draws = torch.stack([torch.stack(survival()) for _ in range(4000)])
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    assert draws.mean(0).tolist() == pytest.approx(survival.probability.tolist(), abs=0.03)


def test_stochastic_depth_weighs_the_residual_branches():
    net = small("stochastic_depth", p_last=0.5)
    plain = small("resnet", depth=14)
    plain.load_state_dict(net.state_dict())
    x = torch.randn(2, *DIGITS)
    for block, p in zip(plain.eval().blocks, net.survival.probability, strict=True):
        block.residual[-1].weight.data *= p
        block.residual[-1].bias.data *= p
    torch.testing.assert_close(net.eval()(x), plain(x))


def test_stochastic_depth_that_always_survives_is_a_resnet():
    net, plain = small("stochastic_depth", p_last=1.0), small("resnet", depth=14)
    x = torch.randn(2, *DIGITS)
    assert torch.equal(net(x), plain(x))


def test_a_dropped_block_passes_its_shortcut_and_no_gradient():
    net = small("stochastic_depth")
    block = net.blocks[0]
    x = torch.rand(2, 16, 8, 8)
    out = block(x, torch.zeros(()))
    assert torch.equal(out, x)
    out.sum().backward()
    assert not any(p.grad.any() for p in block.parameters())


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("stochastic_depth", {}),
        ("wrn", {"dropout": 0.5}),
        ("small_cnn", {"dropout": 0.5}),
        ("bn_mlp", {"dropout": 0.5}),
        ("vgg", {"hidden": 1, "dropout": 0.5}),
    ],
)
def test_noise_follows_the_run_generator_alone(name, settings):
    net = small(name, **settings)
    use_generator(net, torch.Generator().manual_seed(7))
    x = torch.randn(4, *DIGITS)
    first = [net(x) for _ in range(4)]
    use_generator(net, torch.Generator().manual_seed(7))
    torch.manual_seed(123)  # Another run in the same process draws from torch's own generator.
    assert all(torch.equal(a, net(x)) for a in first)
    assert any(not torch.equal(first[0], other) for other in first[1:])


def test_dropout_keeps_the_mean_and_rests_in_evaluation():
    torch.manual_seed(0)
    drop, x = Dropout(0.3), torch.ones(100_000)
    out = drop(x)
    assert out.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert out.mean().item() == pytest.approx(1, abs=0.01)
    assert drop.eval()(x) is x


@pytest.mark.parametrize("name", SETTINGS)
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
        ("resnet", {"norm": "bach"}, r"one of batch, group, layer \(found 'bach'\)\. Did you mean"),
        ("resnet18", {"depth": 18}, r"unknown key 'depth'.*Allowed: norm"),
        ("wrn", {"depth": 20}, r"wrn\.depth: must be 6n \+ 4"),
        ("wrn", {"width": 0}, r"wrn\.width: must be at least 1 and at most 1000 \(found 0\)"),
        ("wrn", {"width": 2.5}, r"wrn\.width: must be a whole number \(found 2\.5\)"),
        ("wrn", {"width": True}, r"must be a whole number \(found True\)"),
        ("wrn", {"dropout": -0.1}, r"at least 0 and at most 0\.9 \(found -0\.1\)"),
        ("wrn", {"dropout": float("nan")}, r"must be a number \(found nan\)"),
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


@pytest.mark.parametrize("name", ["alexnet", "googlenet"])
def test_smallest_images_of_torchvision_networks(name):
    pytest.importorskip("torchvision")
    side = SETTINGS[name].MIN_SIDE
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


def test_checking_needs_no_torch():
    code = (
        "import sys; from cyclery.models import check; from cyclery import augment as a;"
        "check('wrn', {'depth': 28}, (3, 32, 32)); a.check([{'op': 'flip'}]);"
        "heavy = {'torch', 'numpy', 'torchvision'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
