"""What can be done to any network, and the layers that draw random numbers."""

from __future__ import annotations

import copy

import pytest
import torch
from factories.network import DIGITS, shape_of, small
from torch import nn

from cyclery import models
from cyclery.models.layers import (
    Dropout,
    batch_norms,
    evaluating,
    keep_statistics,
    norm_2d,
    share_buffers,
    statistics_kept,
    use_generator,
)


def test_norms_have_the_stated_groups():
    groups = {c: norm_2d("group", c).num_groups for c in (2, 12, 16, 32, 64, 160, 640)}
    assert groups == {2: 1, 12: 1, 16: 4, 32: 8, 64: 16, 160: 8, 640: 16}
    assert norm_2d("layer", 64).num_groups == 1


def buffers(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: buffer.clone() for name, buffer in net.named_buffers()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(params=[name for name in models.names() if models.check(name, {}).batch_norm])
def any_net(request) -> tuple[nn.Module, torch.Tensor]:
    """A network in train mode that draws nothing, and a batch for it."""
    settings = {"p_last": 1.0} if request.param == "stochastic_depth" else {}
    net = small(request.param, **settings)
    for module in net.modules():
        if isinstance(module, Dropout):
            module.p = 0.0
    return net, torch.randn(4, *shape_of(request.param))


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
