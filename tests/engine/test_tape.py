"""Tapes: a replay computes what the function would, and what cannot be replayed is refused."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cyclery.engine.tape import NotTaped, Tape


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def constants(x: Tensor) -> Tensor:
    """Change what the code makes anew each time."""
    total, ones = torch.tensor(2.0), torch.ones(3)
    total.add_(x.sum())
    ones.mul_(total).add_(x.new_tensor([1.0, 2.0, 3.0]).mul_(x))
    return ones + x.new_zeros(3).add_(1) + torch.full((3,), 0.5).add_(total)


def views(x: Tensor) -> Tensor:
    """Change memory through views of it, of views, and read it through others."""
    y = x.clone()
    y[0].add_(1)
    y.t()[0].mul_(2)
    y.flatten()[3:].sub_(1)
    a, b = y.unsqueeze(0).transpose(1, 2).chunk(2, 2)
    return a.squeeze(0).sum() + b.expand(2, -1, -1).sum() + x[1:, :].sum() + y.sum()


def several(x: Tensor) -> Tensor:
    """Use operations of more results than one, some of them not, some in lists."""
    values, places = x.max(1)
    _, rest = x.sort(1)
    variance, mean = torch.var_mean(x, 0)
    parts = torch.split(x, 1)
    first, *_ = torch.unbind(x, 1)
    every = (values, places, rest, variance, mean, parts[1], first)
    return torch.stack([part.float().sum() for part in every])


def gradients(x: Tensor) -> Tensor:
    """Go backward, where an operation has results that are None."""
    w = x.clone().requires_grad_()
    with torch.enable_grad():
        y = F.batch_norm(w, None, None, training=True) * 2 + F.layer_norm(w, [2])
        loss = F.cross_entropy(y, torch.tensor([0, 1, 1]))
    [found] = torch.autograd.grad(loss, [w])
    return found


def choices(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, -x) + torch.where(torch.tensor(True), 1.0, 2.0)


def untouched(x: Tensor) -> Tensor:
    """Return what an operation changed in place and gave back."""
    y = x.clone()
    z = y.add_(1)
    y.mul_(2)
    return z


@pytest.mark.parametrize("function", [constants, views, several, gradients, choices, untouched])
def test_a_replay_computes_what_the_function_does(function: Callable[..., Tensor]) -> None:
    tape = Tape(function, [drawn(0, 3, 2) if function is not constants else drawn(0, 3)])
    for seed in (1, 2, 3):
        x = drawn(seed, 3, 2) if function is not constants else drawn(seed, 3)
        before = x.clone()
        assert tape(x).equal(function(x.clone()))
        assert x.equal(before)


def test_the_result_may_be_an_input_or_what_is_kept() -> None:
    x = drawn(0, 3)
    assert Tape(lambda x: x, [x])(drawn(1, 3)).equal(drawn(1, 3))
    kept = torch.zeros(3)
    tape = Tape(lambda x: kept.add_(x), [x])
    kept.zero_()
    for times in (1, 2):
        assert tape(torch.ones(3)).equal(torch.full((3,), float(times)))
    assert kept.equal(torch.full((3,), 2.0))


def test_what_is_kept_changes_in_place_through_views_of_it() -> None:
    net = nn.BatchNorm1d(2)
    twin = nn.BatchNorm1d(2)

    def step(net: nn.BatchNorm1d, x: Tensor) -> Tensor:
        with torch.no_grad():
            net.weight[0].add_(x.sum())
            net.bias.data.copy_(x[0])
            return net(x)

    tape = Tape(lambda x: step(net, x), [drawn(0, 3, 2)])
    step(twin, drawn(0, 3, 2))
    for seed in (1, 2):
        x = drawn(seed, 3, 2)
        assert tape(x).equal(step(twin, x))
    others = twin.state_dict()
    for name, tensor in net.state_dict().items():
        assert tensor.equal(others[name]), name


def test_what_is_drawn_is_drawn_anew_from_the_same_generator() -> None:
    own, twin = (torch.Generator().manual_seed(4) for _ in range(2))

    def noisy(x: Tensor, generator: torch.Generator) -> Tensor:
        keys = torch.rand(3, generator=generator)
        parts = torch.empty(2, 3).unbind()
        parts[1].normal_(generator=generator)
        return x + keys + parts[1].bernoulli_(0.5, generator=generator)

    tape = Tape(lambda x: noisy(x, own), [drawn(0, 3)])
    noisy(drawn(0, 3), twin)
    for seed in (1, 2):
        assert tape(drawn(seed, 3)).equal(noisy(drawn(seed, 3), twin))
    assert own.get_state().equal(twin.get_state())


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * x.sum().item(),
        lambda x: x if x.sum() > 0 else -x,
        lambda x: x * float(x[0]),
        lambda x: x[x.equal(x) :],
        lambda x: x if torch.allclose(x, x) else -x,
    ],
)  # fmt: skip
def test_a_number_that_is_read_off_a_tensor_is_refused(function: Callable[..., Tensor]) -> None:
    with pytest.raises(NotTaped, match="reads a number off a tensor"):
        Tape(function, [drawn(0, 3)])


@pytest.mark.parametrize("function", [lambda x: x[x > 0], lambda x: x.nonzero().float()])
def test_a_shape_that_depends_on_data_is_no_silent_error(function: Callable[..., Tensor]) -> None:
    tape = Tape(function, [drawn(0, 30)])
    assert tape(drawn(1, 30)).equal(function(drawn(1, 30)))


def test_a_kernel_that_is_wrong_is_refused() -> None:
    def wrong(name: str, args: Any) -> str | None:
        return "no sines" if name == "aten::sin" else None

    with pytest.raises(NotTaped, match="no sines"):
        Tape(lambda x: x.sin(), [drawn(0, 3)], wrong)
    assert Tape(lambda x: x.cos(), [drawn(0, 3)], wrong)(drawn(1, 3)).equal(drawn(1, 3).cos())


def test_a_replay_forgets_what_it_does_not_need_any_more() -> None:
    """Of a chain of large results no two but the last are alive at once."""
    alive: list[weakref.ref[Tensor]] = []
    most = 0

    class Watched(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kw: Any = None) -> Any:
            nonlocal most
            found = func(*args, **(kw or {}))
            alive.append(weakref.ref(found))
            most = max(most, sum(x() is not None for x in alive))
            return found

    def chain(x: Tensor) -> Tensor:
        kept = [x]
        for _ in range(20):
            kept.append(kept[-1].cos())
        return kept[-1]

    tape = Tape(chain, [drawn(0, 100)])
    assert tape.bytes == 20 * 400
    x = drawn(1, 100)
    with Watched():
        tape(x)
    assert len(alive) == 20 and most <= 2


def test_an_error_of_the_function_is_its_own() -> None:
    def fails(x: Tensor) -> Tensor:
        raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        Tape(fails, [drawn(0, 3)])
