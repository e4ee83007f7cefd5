"""Gradients that a step makes itself, where those of one loss will not do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cyclery.common.errors import UserError
from cyclery.common.lazy import torch


@dataclass(frozen=True)
class Gradients:
    """What a step returns in the place of its loss, to train by gradients of its own.

    ``loss`` [] is logged; ``of`` has a gradient by the name of each trained parameter, such as
    ``main.head.weight``: a parameter that is not in it gets none.
    """

    loss: torch.Tensor
    of: Mapping[str, torch.Tensor]


def by_input(
    net: torch.nn.Module, loss: Callable[[torch.Tensor], torch.Tensor], at: torch.Tensor
) -> torch.Tensor:
    """Return the gradient of ``loss(at)`` [] by ``at``, of its shape, within a step.

    The loss may call ``net``, whose running statistics stay. No graph leads out of the result. In
    packs nothing else differentiates inside of a step: ``requires_grad_`` cannot be stacked.
    """
    from cyclery.models.layers import statistics_kept, uncompiled

    with torch.no_grad(), statistics_kept(net), uncompiled(net):
        gradient: torch.Tensor = torch.func.grad(loss)(at)
    return gradient


def per_example(
    net: torch.nn.Module,
    losses: Callable[..., torch.Tensor],
    *given: torch.Tensor,
    chunk: int | None = None,
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Return the gradient of every example's loss by parameter, [B, ...] each, and losses [B].

    ``losses(call, *one)`` gets a function that calls the network, and one entry of each tensor of
    ``given`` [B, ...]; it returns that example's loss []. ``chunk`` examples are taken at a time,
    all where it is None. Frozen parameters have no gradient. The network must treat examples one by
    one: a UserError where it has batch norm.
    """
    from cyclery.models.layers import batch_norms

    if batch_norms(net):
        raise UserError(
            "model: has batch norm, which mixes the samples of a batch, so no gradient is that of "
            "one sample; choose a network with another norm, such as `norm: group`."
        )
    state = {name: value.detach() for name, value in net.named_parameters()}
    trained = {n: state[n] for n, p in net.named_parameters() if p.requires_grad}
    fixed = {name: value for name, value in state.items() if name not in trained}

    def loss(parameters: dict[str, torch.Tensor], *one: torch.Tensor) -> torch.Tensor:
        def call(x: torch.Tensor) -> Any:
            return torch.func.functional_call(net, {**fixed, **parameters}, (x,))

        return losses(call, *one)

    each = torch.func.grad_and_value(loss)
    dims = (None, *[0] * len(given))
    # Dropout draws for every example anew, from the generator that it has.
    mapped = torch.vmap(each, dims, randomness="different", chunk_size=chunk)
    gradients, values = mapped(trained, *given)
    return gradients, values.detach()
