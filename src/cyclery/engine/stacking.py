"""Call a step for several runs at once: their tensors are stacked and mapped by torch's vmap.

Shapes: K runs; what a run has as [...] is [K, ...] here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._C._functorch import get_unwrapped, is_batchedtensor
from torch.overrides import TorchFunctionMode

from cyclery.engine.draws import Draws

# A module's own dictionary of parameters or buffers, and the name there.
Place = tuple[dict[str, Any], str]
_TRAINED = Tensor.requires_grad.__get__  # type: ignore[attr-defined]


def mapped(function: Callable[..., Any], *given: Any, draws: Draws | None = None) -> Any:
    """Return what ``function`` makes of every run's entries of ``given``, stacked.

    A draw of random numbers that is not one of ``draws`` is an error: it would be no run's own.
    """
    with _Layers(draws):
        return torch.vmap(function, randomness="error")(*given)


class Places:
    """Where modules have their parameters and buffers, and what is put there for a call."""

    def __init__(self, modules: Iterable[nn.Module], stacks: Mapping[int, Tensor]) -> None:
        found: dict[tuple[int, str], tuple[Place, Tensor]] = {}
        for module in modules:
            for inner in module.modules():
                for held in (inner._parameters, inner._buffers):
                    for name, tensor in held.items():
                        if tensor is not None:
                            found[id(held), name] = ((held, name), tensor)
        self._places = [place for place, _ in found.values()]
        self._own = [tensor for _, tensor in found.values()]
        self.stacks = [stacks[id(tensor)] for tensor in self._own]

    def put(self, tensors: Sequence[Tensor]) -> None:
        """Have these in the modules, one for each of ``stacks``."""
        for (held, name), tensor in zip(self._places, tensors, strict=True):
            held[name] = tensor

    def restore(self) -> None:
        """Have the modules' own tensors in them again."""
        self.put(self._own)


class _Layers(TorchFunctionMode):
    """Inside, linear layers and batch norm are those of this file, and every run draws its own."""

    def __init__(self, draws: Draws | None) -> None:
        super().__init__()
        self._draws = draws

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear:
            return _linear(*args, **(kwargs or {}))
        if func is F.batch_norm:
            return _batch_norm(*args, **(kwargs or {}))
        if func == _TRAINED:
            # What stands for a run's tensor within vmap does not know.
            return func(*args) or (
                is_batchedtensor(args[0]) and get_unwrapped(args[0]).requires_grad
            )
        if self._draws is not None:
            return self._draws.made(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    return _Linear.apply(input, weight, bias)


class _Linear(torch.autograd.Function):
    """A linear layer whose gradients come in the layout of its weights.

    What vmap makes of `F.linear` has the gradient of the transposed weights, which then is copied.
    """

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        x, weight, bias = inputs
        ctx.save_for_backward(x, weight)
        ctx.biased = bias is not None

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        rows = gradient.flatten(0, -2)
        return (
            gradient @ weight if wanted[0] else None,
            rows.t() @ x.flatten(0, -2) if wanted[1] else None,
            rows.sum(0) if ctx.biased and wanted[2] else None,
        )

    @staticmethod
    def vmap(info: Any, dims: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Any:
        plain = x.ndim == 3 and dims[0] == 0 and dims[1] == 0 and dims[2] in (0, None)
        if plain and (bias is None or dims[2] == 0):
            return _Stacked.apply(x, weight, bias), 0
        # A case that no network here has, such as weights that all runs share.
        used = [
            (d if t is not None else None) for t, d in zip((x, weight, bias), dims, strict=True)
        ]
        return torch.vmap(F.linear, tuple(used))(x, weight, bias), 0


class _Stacked(_Linear):
    """x [K, B, D], weights [K, E, D] and bias [K, E] or None -> [K, B, E]."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if bias is None:
            return torch.bmm(x, weight.transpose(1, 2))
        return torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        return (
            torch.bmm(gradient, weight) if wanted[0] else None,
            torch.bmm(gradient.transpose(1, 2), x) if wanted[1] else None,
            _sum(gradient) if ctx.biased and wanted[2] else None,
        )


def _sum(gradient: Tensor) -> Tensor:
    """Return the sums over the samples of [K, B, E].

    Those of all runs are vectorised together where batch norm lays them side by side, and the last
    columns are then added in another order than the rest.
    """
    return (gradient if gradient.shape[2] % 32 == 0 else gradient.contiguous()).sum(1)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise by the statistics of a batch [B, C] as `F.batch_norm` does, but for rounding.

    What vmap makes of that lays the runs side by side, [B, K C], and back.
    """
    if not training or input.ndim != 2 or weight is None or bias is None:
        # The mode is off inside of itself, so this is torch's own.
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    y, mean, variance = _Norm.apply(input, weight, bias, eps)
    if running_mean is not None and running_var is not None:
        count = len(input)
        running_mean.mul_(1 - momentum).add_(mean, alpha=momentum)
        running_var.mul_(1 - momentum).add_(variance, alpha=momentum * count / (count - 1))
    found: Tensor = y
    return found


class _Norm(torch.autograd.Function):
    """x [B, C] with weight [C] and bias [C] -> y [B, C], and the batch's mean and variance [C].

    Or of all runs, where each has K before.
    """

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Any:
        mean = x.mean(-2, keepdim=True)
        centred = x - mean
        variance = centred.square().mean(-2, keepdim=True)
        scale = (variance + eps).rsqrt_().mul_(weight.unsqueeze(-2))
        y = torch.addcmul(bias.unsqueeze(-2), centred, scale)
        return y, mean.squeeze(-2), variance.squeeze(-2)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, weight, _, ctx.eps = inputs
        _, mean, variance = output
        ctx.mark_non_differentiable(mean, variance)
        ctx.save_for_backward(x, weight, mean, variance)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> Any:
        x, weight, mean, variance = ctx.saved_tensors
        if torch.is_grad_enabled():
            # This gradient is differentiated in turn, and statistics have their part in that.
            mean = x.mean(-2)
            variance = (x - mean.unsqueeze(-2)).square().mean(-2)
        inverse = (variance + ctx.eps).rsqrt_().unsqueeze(-2)
        hat = (x - mean.unsqueeze(-2)).mul_(inverse)
        of_bias, of_weight = gradient.sum(-2), (gradient * hat).sum(-2)
        count = x.shape[-2]
        of_x = torch.addcmul(gradient, hat, of_weight.unsqueeze(-2), value=-1 / count)
        of_x.sub_(of_bias.unsqueeze(-2), alpha=1 / count).mul_(inverse * weight.unsqueeze(-2))
        return of_x, of_weight, of_bias, None

    @staticmethod
    def vmap(info: Any, dims: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Any:
        given = [each.movedim(dim, 0) for each, dim in zip((x, weight, bias), dims, strict=False)]
        return _StackedNorm.apply(*given, eps), (0, 0, 0)


class _StackedNorm(_Norm):
    """x [K, B, C], weight and bias [K, C] -> [K, B, C], and mean and variance [K, C]."""
