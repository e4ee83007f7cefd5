"""Flatten the parameters and the gradients of a module into one vector each.

One vector makes optimisers, clipping and averaging of weights a few kernels instead of a few per
parameter. Shapes: P is the length of the vector, padding included; of K runs that train as one
program the vectors are rows, [K, P], and what is one number for a run is [K, 1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

ALIGN = 16  # elements, so that every tensor starts on a 64-byte boundary


class Slot(NamedTuple):
    """Where a parameter lies in a vector, and how."""

    shape: torch.Size
    strides: tuple[int, ...]
    offset: int


class Vectors:
    """Parameters ``data`` and gradients ``grad``, [P] each, or [K, P] of K runs.

    ``decay_end`` is where biases and normalisation parameters begin.
    """

    def __init__(
        self, data: Tensor, grad: Tensor, slots: Mapping[str, Slot], decay_end: int
    ) -> None:
        self.data, self.grad, self.slots, self.decay_end = data, grad, slots, decay_end

    def __len__(self) -> int:
        return self.data.shape[-1]

    def views(self, vector: Tensor) -> dict[str, Tensor]:
        """Return each parameter's part of a vector in the parameter's shape and strides.

        Of [K, P] they are [K, ...].
        """
        rows, steps = vector.shape[:-1], vector.stride()[:-1]
        return {
            name: vector.as_strided(
                (*rows, *shape), (*steps, *strides), vector.storage_offset() + offset
            )
            for name, (shape, strides, offset) in self.slots.items()
        }

    def scalar(self, value: float = 0.0, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return a number of a run as a new tensor: [], or [K, 1]."""
        if self.data.ndim == 1:
            return torch.full([], value, dtype=dtype, device=self.data.device)
        # Of two columns: side by side, some numbers would be computed in registers, others not.
        two = torch.full([len(self.data), 2], value, dtype=dtype, device=self.data.device)
        return two[:, :1]


def stacked(flats: Sequence[Flat], grad: bool = True) -> Vectors:
    """Return copies of the parameters of K runs of one network as rows, their gradients zero."""
    data = torch.stack([flat.data for flat in flats])
    first = flats[0]
    gradients = torch.zeros_like(data) if grad else data.new_empty(0)
    return Vectors(data, gradients, first.slots, first.decay_end)


class Flat(Vectors):
    """The trainable parameters of a module as views of one fp32 vector; a second one for gradients.

    Weights (ndim > 1) come first; ``decay_end`` is where biases and normalisation parameters
    (ndim <= 1) begin. Padding is zero and stays zero.

    Args:
        module: its parameters must be float32 and on one device; frozen ones are left alone.
        channels_last: store 4-D parameters in channels-last order.
        frozen: freeze the parameters, and keep no gradients.
    """

    def __init__(
        self, module: nn.Module, *, channels_last: bool = False, frozen: bool = False
    ) -> None:
        named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        wrong = [f"{name} ({p.dtype})" for name, p in named if p.dtype != torch.float32]
        if wrong or not named:
            raise ValueError(f"need float32 parameters, found {', '.join(wrong) or 'none'}")
        named.sort(key=lambda pair: pair[1].ndim <= 1)
        self.params: dict[str, nn.Parameter] = dict(named)
        slots: dict[str, Slot] = {}
        decay_end = offset = 0
        for name, p in named:
            last = channels_last and p.ndim == 4
            form = torch.channels_last if last else torch.contiguous_format
            strides = torch.empty(p.shape, device="meta", memory_format=form).stride()
            slots[name] = Slot(p.shape, strides, offset)
            offset += -(-p.numel() // ALIGN) * ALIGN
            if p.ndim > 1:
                decay_end = offset
        data = torch.zeros(offset, device=named[0][1].device)
        grad = data.new_empty(0) if frozen else torch.zeros_like(data)
        super().__init__(data, grad, slots, decay_end)
        values = self.views(self.data)
        grads = {} if frozen else self.views(self.grad)
        for name, p in named:
            values[name].copy_(p.data)
            p.data = values[name]
            p.grad = None
            p.requires_grad_(not frozen)
        self._pairs = [(self.params[name], view) for name, view in grads.items()]

    def lie_in(self, row: Tensor) -> None:
        """Have the parameters in ``row`` [P] of what K runs share, which holds their values."""
        self.data.data = row
        for name, view in self.views(self.data).items():
            self.params[name].data = view

    def backward(self, loss: Tensor) -> None:
        """Set ``grad`` to the gradients of a loss []; zero where a parameter is not part of it.

        Autograd puts each gradient where it likes, and few kernels gather them: to add them to
        views of the vector would take one for each parameter.
        """
        for p, _ in self._pairs:
            p.grad = None
        loss.backward()
        found = [(view, p.grad) for p, view in self._pairs if p.grad is not None]
        if len(found) < len(self._pairs):
            self.grad.zero_()
        views, gradients = zip(*found, strict=True)
        torch._foreach_copy_(list(views), list(gradients))

    def put(self, gradients: Mapping[str, Tensor]) -> None:
        """Set ``grad`` to gradients by the names of parameters; zero where one has none.

        Raises:
            KeyError: a name that no trained parameter has.
        """
        views = {name: view for (_, view), name in zip(self._pairs, self.params, strict=True)}
        if len(gradients) < len(views):
            self.grad.zero_()
        # A second derivative leaves the graph of the first behind.
        found = [(views[name], value.detach()) for name, value in gradients.items()]
        torch._foreach_copy_([view for view, _ in found], [value for _, value in found])


def grad_norm(flat: Vectors) -> Tensor:
    """Return the 2-norm of all gradients of a run, as a 0-dim tensor or [K, 1]."""
    if flat.grad.ndim > 1:
        return torch.linalg.vector_norm(flat.grad, dim=1, keepdim=True)
    return torch.linalg.vector_norm(flat.grad)


def clip_(flat: Vectors, max_norm: Tensor, norm: Tensor | None = None) -> Tensor:
    """Scale the gradients down to ``max_norm`` where their norm exceeds it.

    Equal to `torch.nn.utils.clip_grad_norm_`; ``norm`` saves computing it where it is known.

    Returns:
        1.0 where this step was clipped, else 0.0, as a 0-dim tensor or [K, 1].
    """
    factor = max_norm / ((grad_norm(flat) if norm is None else norm) + 1e-6)
    flat.grad.mul_(factor.clamp(max=1.0))
    return (factor < 1).to(torch.float32)
