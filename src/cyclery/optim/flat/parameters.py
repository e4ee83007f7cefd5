"""Flatten the parameters and the gradients of a module into one vector each.

One vector makes optimisers, clipping and averaging of weights a few kernels instead of a few per
parameter. Shapes: P is the length of the vector, padding included.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

ALIGN = 16  # elements, so that every tensor starts on a 64-byte boundary


class Flat:
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
        self._slots: dict[str, tuple[torch.Size, tuple[int, ...], int]] = {}
        self.decay_end = offset = 0
        for name, p in named:
            last = channels_last and p.ndim == 4
            form = torch.channels_last if last else torch.contiguous_format
            strides = torch.empty(p.shape, device="meta", memory_format=form).stride()
            self._slots[name] = (p.shape, strides, offset)
            offset += -(-p.numel() // ALIGN) * ALIGN
            if p.ndim > 1:
                self.decay_end = offset
        self.data = torch.zeros(offset, device=named[0][1].device)
        self.grad = self.data.new_empty(0) if frozen else torch.zeros_like(self.data)
        values = self.views(self.data)
        grads = {} if frozen else self.views(self.grad)
        for name, p in named:
            values[name].copy_(p.data)
            p.data = values[name]
            p.grad = None
            p.requires_grad_(not frozen)
        self._pairs = [(self.params[name], view) for name, view in grads.items()]

    def __len__(self) -> int:
        return len(self.data)

    def views(self, vector: Tensor) -> dict[str, Tensor]:
        """Return each parameter's part of a vector [P] in the parameter's shape and strides."""
        return {
            name: vector.as_strided(shape, strides, vector.storage_offset() + offset)
            for name, (shape, strides, offset) in self._slots.items()
        }

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


def grad_norm(flat: Flat) -> Tensor:
    """Return the 2-norm of all gradients as a 0-dim tensor."""
    return torch.linalg.vector_norm(flat.grad)


def clip_(flat: Flat, max_norm: Tensor, norm: Tensor | None = None) -> Tensor:
    """Scale the gradients down to ``max_norm`` where their norm exceeds it.

    Equal to `torch.nn.utils.clip_grad_norm_`; ``norm`` saves computing it where it is known.

    Returns:
        1.0 where this step was clipped, else 0.0, as a 0-dim tensor.
    """
    factor = max_norm / ((grad_norm(flat) if norm is None else norm) + 1e-6)
    flat.grad.mul_(factor.clamp(max=1.0))
    return (factor < 1).to(torch.float32)
