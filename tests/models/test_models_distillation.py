"""The networks of the papers on distillation: what they consist of, and which images they take.

``test_models.py`` holds what is true of every network.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cyclery.common.errors import UserError
from cyclery.models import build, check
from cyclery.models.layers import Dropout, use_generator

DIGITS, FASHION, CIFAR = (1, 8, 8), (1, 28, 28), (3, 32, 32)
FIDELITY_VGG = {"depth": 16, "norm": "none", "pools": 5, "hidden": 2, "dropout": 0.5}
X4 = [32, 64, 128, 256]

# Each network in a width that a CPU trains at once, and the shapes that it takes.
EVERY = [DIGITS, FASHION, CIFAR]
TINY = [
    *(
        ("plain_cnn", {"size": size, "width": 0.125, "widths": widths}, shapes)
        for size, shapes in {2: EVERY, 4: EVERY, 6: EVERY, 8: EVERY[1:], 10: EVERY[1:]}.items()
        for widths in ("cifar10", "cifar100")
    ),
    *(("vgg", {"depth": depth, "width": 0.0625}, EVERY) for depth in (8, 11, 13, 16, 19)),
    ("vgg", FIDELITY_VGG | {"width": 0.0625}, [CIFAR]),
    ("vgg", {"width": 0.0625, "norm": "none", "hidden": 1, "pools": 2}, EVERY),
    ("resnet_b", {"depth": 8, "widths": [4, 4, 8, 16]}, EVERY),
    ("resnet_b", {"depth": 14, "widths": [4, 8, 16, 32], "norm": "group"}, EVERY),
    ("preresnet", {"depth": 20, "width": 4, "norm": "layer"}, EVERY),
    ("preresnet", {"depth": 11, "width": 4, "blocks": "bottleneck"}, EVERY),
]  # fmt: skip
TAKEN = [(name, settings, shape) for name, settings, shapes in TINY for shape in shapes]
REFUSED = [
    (name, settings, shape)
    for name, settings, shapes in TINY
    for shape in EVERY
    if shape not in shapes
]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made(name: str, settings: dict, shape=CIFAR, classes: int = 10, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build(name, settings, shape, classes)


def on_meta(name: str, settings: dict, shape=CIFAR, classes: int = 10) -> nn.Module:
    with torch.device("meta"):
        return build(name, settings, shape, classes)


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def convolutions(net: nn.Module) -> list[nn.Conv2d]:
    return [m for m in net.modules() if isinstance(m, nn.Conv2d)]


def moved(net: nn.Module) -> nn.Module:
    """Give every norm statistics and weights under which it does something."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (*module.buffers(), *module.parameters()):
                if tensor.is_floating_point():
                    tensor.data.uniform_(0.5, 1.5)
    return net


@pytest.mark.parametrize(
    ("name", "settings", "count", "millions"),
    [
        # As printed for RepDistiller's networks, 100 classes.
        ("resnet_b", {"depth": 20}, 278_324, "0.28"),
        ("resnet_b", {"depth": 32}, 472_756, "0.47"),
        ("resnet_b", {"depth": 56}, 861_620, "0.86"),
        ("resnet_b", {"depth": 110}, 1_736_564, "1.74"),
        ("resnet_b", {"depth": 8, "widths": X4}, 1_233_540, "1.23"),
        ("resnet_b", {"depth": 32, "widths": X4}, 7_433_860, "7.43"),
        ("wrn", {"depth": 40, "width": 1}, 569_780, "0.57"),
        ("wrn", {"depth": 16, "width": 2}, 703_284, "0.70"),
        ("wrn", {"depth": 40, "width": 2}, 2_255_156, "2.26"),
        ("vgg", {"depth": 8}, 3_965_028, "3.97"),
        ("vgg", {"depth": 13}, 9_462_180, "9.46"),
    ],
)
def test_parameter_counts_are_the_published_ones(name, settings, count, millions):
    assert parameters(on_meta(name, settings, classes=100)) == count
    assert f"{count / 1e6:.2f}" == millions


def test_pre_activation_resnet_164_has_the_published_count():
    # He et al. 2016b: 1.7 million for ten classes.
    assert parameters(on_meta("preresnet", {"depth": 164})) == 1_703_258


@pytest.mark.parametrize(("name", "settings", "shape"), TAKEN, ids=str)
def test_shapes_gradients_and_parts(name, settings, shape):
    net = made(name, {k: v for k, v in settings.items() if k != "dropout"}, shape, 7)
    x = torch.randn(4, *shape)
    logits = net(x)
    assert logits.shape == (4, 7)
    logits.square().sum().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []
    features = net.eval().features(x)
    assert features.shape == (4, net.head.in_features)
    assert torch.equal(net(x), net.head(features))


@pytest.mark.parametrize(("name", "settings", "shape"), REFUSED, ids=str)
def test_images_that_are_too_small_are_refused(name, settings, shape):
    least = 2**5 if name == "vgg" else 16
    expected = rf"^model {name}: needs images of at least {least} x {least} pixels \(found 1 "
    for refuse in (check, lambda *given: build(*given, 10)):
        with pytest.raises(UserError, match=expected):
            refuse(name, settings, shape)


@pytest.mark.parametrize(("name", "settings", "shapes"), TINY, ids=str)
def test_channels_last_computes_the_same(name, settings, shapes):
    net = moved(made(name, settings, shapes[-1])).eval()
    x = torch.randn(2, *shapes[-1])
    expected = net(x)
    net.to(memory_format=torch.channels_last)
    found = net(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "settings", "shapes"), TINY, ids=str)
def test_weights_follow_the_seed_and_passes_leave_torch_s_generator(name, settings, shapes):
    net, again, other = (made(name, settings, shapes[0], seed=s) for s in (1, 1, 2))
    weights = net.state_dict()
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in weights.items())
    assert not torch.equal(weights["head.weight"], other.state_dict()["head.weight"])
    use_generator(net, torch.Generator().manual_seed(7))
    use_generator(again, torch.Generator().manual_seed(7))
    x = torch.randn(2, *shapes[0])
    before = torch.get_rng_state()
    assert torch.equal(net(x), again(x))
    assert torch.equal(torch.get_rng_state(), before)


PLAIN = {  # The layers as the code of TAKD has them: channels, M for pooling, FC for linear.
    ("cifar10", 2): "16 M 16 M FC10",
    ("cifar10", 4): "16 16 M 32 32 M FC10",
    ("cifar10", 6): "16 16 M 32 32 M 64 64 M FC10",
    ("cifar10", 8): "16 16 M 32 32 M 64 64 M 128 128 M FC64 FC10",
    ("cifar10", 10): "32 32 M 64 64 M 128 128 M 256 256 256 256 M FC128 FC10",
    ("cifar100", 2): "32 M 32 M FC100",
    ("cifar100", 4): "32 32 M 64 64 M FC100",
    ("cifar100", 6): "32 32 M 64 64 M 128 128 FC100",
    ("cifar100", 8): "32 32 M 64 64 M 128 128 M 256 256 M FC64 FC100",
    ("cifar100", 10): "32 32 M 64 64 M 128 128 M 256 256 256 256 M FC512 FC100",
}


def words(net: nn.Module) -> str:
    kinds = {
        nn.Conv2d: lambda m: f"{m.out_channels}",
        nn.MaxPool2d: lambda m: "M",
        nn.Linear: lambda m: f"FC{m.out_features}",
    }
    found = [kinds[type(m)](m) for m in (*net.body, net.head) if type(m) in kinds]
    return " ".join(found)


@pytest.mark.parametrize(("widths", "size"), PLAIN)
def test_plain_networks_have_the_paper_s_layers(widths, size):
    settings = {"size": size, "widths": widths}
    net = on_meta("plain_cnn", settings, classes=int(widths.removeprefix("cifar")))
    assert words(net) == PLAIN[widths, size]
    assert len(convolutions(net)) == size
    # On 28 x 28 the last of four poolings would leave a single pixel.
    fashion = on_meta("plain_cnn", settings, FASHION, int(widths.removeprefix("cifar")))
    expected = PLAIN[widths, size]
    assert words(fashion) == (expected.replace(" M FC", " FC", 1) if size > 6 else expected)


@pytest.mark.parametrize(
    ("size", "shape", "maps"),
    [
        (2, CIFAR, (16, 8, 8)), (4, CIFAR, (32, 8, 8)), (6, CIFAR, (64, 4, 4)),
        (2, FASHION, (16, 7, 7)), (4, FASHION, (32, 7, 7)), (6, FASHION, (64, 3, 3)),
        (2, DIGITS, (16, 2, 2)), (4, DIGITS, (32, 2, 2)), (6, DIGITS, (64, 2, 2)),
        (6, (1, 9, 12), (64, 2, 3)),
    ],
)  # fmt: skip
def test_plain_networks_never_pool_below_two_pixels(size, shape, maps):
    net = on_meta("plain_cnn", {"size": size}, shape)
    assert net.body[:-1](torch.empty(2, *shape, device="meta")).shape[1:] == maps
    assert net.head.in_features == torch.Size(maps).numel()


@pytest.mark.parametrize(("shape", "side"), [(CIFAR, 2), (FASHION, 3), ((1, 16, 16), 2)])
@pytest.mark.parametrize("size", [8, 10])
def test_large_plain_networks_end_in_a_hidden_layer(size, shape, side):
    net = on_meta("plain_cnn", {"size": size}, shape)
    hidden, channels = {8: (64, 128), 10: (128, 256)}[size]
    assert net.head.in_features == hidden
    assert net.body[-2].in_features == channels * side**2


def test_the_width_of_a_plain_network_scales_channels_and_hidden_units():
    tiny = on_meta("plain_cnn", {"size": 8, "width": 0.25})
    assert words(tiny) == "4 4 M 8 8 M 16 16 M 32 32 M FC16 FC10"
    assert words(on_meta("plain_cnn", {"width": 0.01})) == "1 M 1 M FC10"


def test_plain_convolutions_start_as_torch_s():
    first = convolutions(made("plain_cnn", {}))[0].weight
    torch.manual_seed(0)
    assert torch.equal(first, nn.Conv2d(3, 16, 3, bias=False).weight)


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_vgg_equals_torchvision_up_to_its_linear_layers(depth, norm):
    models = pytest.importorskip("torchvision.models")
    net = moved(made("vgg", {"depth": depth, "norm": norm, "pools": 5})).eval()
    name = f"vgg{depth}_bn" if norm == "batch" else f"vgg{depth}"
    with torch.device("meta"):
        features = getattr(models, name)().features
    features.to_empty(device="cpu").eval()
    values = list(net.body.state_dict().values())
    features.load_state_dict(dict(zip(features.state_dict(), values, strict=True)))
    x = torch.randn(1, *CIFAR)
    torch.testing.assert_close(net.features(x), features(x).flatten(1))


def test_vgg_8_has_one_convolution_a_group_and_pools_three_times():
    net = on_meta("vgg", {})
    assert [m.out_channels for m in convolutions(net)] == [64, 128, 256, 512, 512]
    assert net.body[:-1](torch.empty(2, *CIFAR, device="meta")).shape == (2, 512, 4, 4)
    assert net.body[:-1](torch.empty(2, 3, 28, 28, device="meta")).shape == (2, 512, 3, 3)
    assert not len(net.hidden) and net.head.in_features == 512


def test_the_vgg_of_the_fidelity_paper():
    net = on_meta("vgg", FIDELITY_VGG, classes=100)
    assert not [m for m in net.modules() if "Norm" in type(m).__name__]
    assert [type(m) for m in net.hidden] == [Dropout, nn.Linear, nn.ReLU] * 2
    assert [m.p for m in net.modules() if isinstance(m, Dropout)] == [0.5, 0.5]
    assert parameters(net) == 14_714_688 + 2 * (512 * 512 + 512) + 512 * 100 + 100
    assert net.body[:-1](torch.empty(2, *CIFAR, device="meta")).shape == (2, 512, 1, 1)


@pytest.mark.parametrize(
    ("name", "settings"), [("vgg", {"depth": 11}), ("resnet_b", {}), ("preresnet", {"depth": 56})]
)
def test_convolutions_start_at_he_scale(name, settings):
    for conv in convolutions(made(name, settings)):
        weight, drawn = conv.weight, conv.weight.numel()
        expected = (2 / (weight.shape[0] * weight[0, 0].numel())) ** 0.5
        assert weight.std().item() == pytest.approx(expected, rel=5 / (2 * drawn) ** 0.5)
        assert conv.bias is None or not conv.bias.any()


def test_resnet_b_has_a_stem_of_its_own_width_and_projects_where_the_shape_changes():
    net = on_meta("resnet_b", {"depth": 14, "widths": X4})
    assert net.stem[0].out_channels == 32
    projected = [not isinstance(block.shortcut, nn.Identity) for block in net.blocks]
    assert projected == [True, False] * 3
    shapes = [tuple(block.shortcut[0].weight.shape) for block in net.blocks[::2]]
    assert shapes == [(64, 32, 1, 1), (128, 64, 1, 1), (256, 128, 1, 1)]
    assert [block.shortcut[0].stride for block in net.blocks[::2]] == [(1, 1), (2, 2), (2, 2)]
    same_width = on_meta("resnet_b", {"depth": 8}).blocks
    assert isinstance(same_width[0].shortcut, nn.Identity)


def test_resnet_b_block_is_post_activation():
    net = moved(made("resnet_b", {"depth": 8, "widths": [4, 8, 16, 32]})).eval()
    block, x = net.blocks[1], torch.randn(2, 8, 8, 8)
    conv1, norm1, _, conv2, norm2 = block.residual
    conv3, norm3 = block.shortcut
    expected = F.relu(norm2(conv2(F.relu(norm1(conv1(x))))) + norm3(conv3(x)))
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("blocks", ["basic", "bottleneck"])
def test_preresnet_equals_its_definition(blocks):
    depth = {"basic": 14, "bottleneck": 20}[blocks]
    net = moved(made("preresnet", {"depth": depth, "width": 4, "blocks": blocks}, DIGITS)).eval()
    x = torch.randn(2, *DIGITS)
    stem, *found, norm, _, _ = net.body
    y = stem(x)
    for block in found:
        out = y
        for before, _, conv in zip(*[iter(block.residual)] * 3, strict=True):
            out = conv(F.relu(before(out)))
        changes = out.shape != y.shape
        assert changes == isinstance(block.shortcut, nn.Conv2d)
        stride = y.shape[-1] // out.shape[-1]
        y = out + (F.conv2d(y, block.shortcut.weight, None, stride) if changes else y)
    expected = net.head(F.relu(norm(y)).mean((2, 3)))
    torch.testing.assert_close(net(x), expected)
    assert len(convolutions(net)) == depth - 1 + 2 + (blocks == "bottleneck")


def test_preresnet_has_bottlenecks_from_depth_44_on():
    sides = {
        depth: sorted({m.kernel_size[0] for m in on_meta("preresnet", settings).body[1].modules()
                       if isinstance(m, nn.Conv2d)})
        for depth, settings in {
            38: {"depth": 38}, 47: {"depth": 47}, 56: {"depth": 56}, 110: {"depth": 110},
            44: {"depth": 44, "blocks": "basic"}, 20: {"depth": 20, "blocks": "bottleneck"},
        }.items()
    }  # fmt: skip
    assert sides == {38: [3], 44: [3], 20: [1, 3], 47: [1, 3], 56: [1, 3], 110: [1, 3]}
    net = on_meta("preresnet", {"depth": 56})
    assert net.head.in_features == 256 and len(net.body) == 1 + 18 + 3
    strides = [m.residual[5].stride[0] for m in net.body[1:-3]]
    assert strides == [1] * 6 + [2] + [1] * 5 + [2] + [1] * 5


def test_the_layer_norm_resnet_keeps_no_statistics():
    net = made("preresnet", {"depth": 20, "width": 4, "norm": "layer"}, DIGITS)
    assert not list(net.buffers())
    x = torch.randn(2, *DIGITS)
    torch.testing.assert_close(net(x), net.eval()(x))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("plain_cnn", {"size": 3}, r"plain_cnn\.size: must be one of 2, 4, 6, 8, 10 \(found 3\)"),
        ("plain_cnn", {"size": "2"}, r"size: must be a whole number \(found '2'\)"),
        ("plain_cnn", {"width": 0}, r"width: must be above 0 and at most 5 \(found 0\)"),
        ("plain_cnn", {"widths": "cifar"}, r"one of cifar10, cifar100 .*Did you mean 'cifar10'"),
        ("plain_cnn", {"norm": "instance"}, r"one of batch, group, group_ws, layer, none \(found"),
        ("vgg", {"depth": 12}, r"vgg\.depth: must be one of 8, 11, 13, 16, 19 \(found 12\)"),
        ("vgg", {"norm": "nome"}, r"one of batch, group, layer, none .*Did you mean 'none'"),
        ("vgg", {"pools": 6}, r"pools: must be at least 1 and at most 5 \(found 6\)"),
        ("vgg", {"hidden": 3}, r"hidden: must be at least 0 and at most 2 \(found 3\)"),
        ("vgg", {"dropout": 0.5}, r"vgg\.dropout: stands before hidden .*dropout 0\.5 with"),
        ("resnet_b", {"depth": 18}, r"resnet_b\.depth: must be 6n \+ 2, such as .*found 18"),
        ("resnet_b", {"widths": [16, 32]}, r"widths: must be a list of 4, each .*found \[16, 32\]"),
        ("resnet_b", {"widths": [16, 16, 32, 0]}, r"widths\[3\]: must be at least 1 .*\(found 0\)"),
        ("preresnet", {"depth": 44}, r"with bottlenecks\.depth: must be 9n \+ 2, .*found 44"),
        ("preresnet", {"depth": 21}, r"with basic blocks\.depth: must be 6n \+ 2, .*found 21"),
        ("preresnet", {"blocks": "basics"}, r"one of basic, bottleneck, by_depth .*mean 'basic'"),
    ],
)  # fmt: skip
def test_wrong_settings_are_named(name, settings, message):
    with pytest.raises(UserError, match=message):
        check(name, settings)
