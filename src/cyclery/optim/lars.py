"""Layer-wise adaptive rate scaling (LARS), as three published programs compute it.

You et al. (arXiv 1708.03888, equation 6) give each tensor w of weights a rate of its own: the
gradient d, with its weight decay b w, is multiplied by a trust ratio r of norms. With momentum m
and trust coefficient eta, the programs compute

    simclr  g = d + b w;  r = eta |w| / |g|;                     v = m v + lr r g;  w -= v
    byol    g = d + b w;  r = eta |w| / |g|;                     v = m v + r g;     w -= lr v
    bolts   g = d + b w;  r = eta |w| / (|d| + b |w| + 1e-8);    v = m v + r g;     w -= lr v

Where |w| or |g| is zero, r is 1 in ``simclr`` and ``byol``. Where |w| or |d| is zero, ``bolts``
takes g = d and r = 1, so there weights without a gradient do not decay.

- ``simclr``: google-research/simclr, `lars_optimizer.py`, with the momentum that it calls classic
  and has by default. The rate enters the buffer as in You et al. (Algorithm 1), whose r however is
  that of ``bolts``, without 1e-8.
- ``byol``: google-deepmind/deepmind-research, `byol/utils/optimizers.py`. The rate stays outside
  of the buffer, which makes no difference while it is constant.
- ``bolts``: Lightning Bolts, where lightly and solo-learn have theirs from; ``clip`` is in
  solo-learn alone.

In all of them biases and norms are left out (``adapts: weights``): r = 1, so theirs is SGD with
momentum at the full rate, and they do not decay. Here they decay by `weight_decay_norm`, as with
every optimiser, which is zero by default. What ``exclude`` names has r = 1 too but keeps its
decay, as the supervised head in SimCLR.

Own definition: what is left out does not depend on the decay. lightly leaves out what has none, so
that with a decay of zero its LARS is SGD; here it is adapted all the same, as in solo-learn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from cyclery.common.errors import UserError, choices, nearest
from cyclery.common.lazy import torch
from cyclery.optim.flat.optimiser import Optimiser, Part, Row

if TYPE_CHECKING:
    from torch import Tensor

    from cyclery.optim.flat.parameters import Slot, Vectors

EPS = 1e-8  # of bolts

Variant = Literal["simclr", "byol", "bolts"]
Adapts = Literal["weights", "all"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Layer-wise adaptive rate scaling (LARS) with momentum, and L2."""

    variant: Variant = field(
        default="simclr",
        metadata={
            "doc": "whose program: `simclr` (momentum holds the learning rate), `byol` (momentum "
            "without it) or Lightning `bolts` (as `byol`, but the trust ratio adds the norms of "
            "gradient and decay)"
        },
    )
    eta: float = field(default=0.001, metadata={"doc": "trust coefficient", "above": 0.0})
    adapts: Adapts = field(
        default="weights",
        metadata={"doc": "which tensors are adapted: `weights`, or biases and norms too (`all`)"},
    )
    exclude: tuple[str, ...] = field(
        default=(),
        metadata={
            "doc": "parameters, or modules of them, that are not adapted but still decay, such as "
            "`main.head`"
        },
    )
    clip: bool = field(
        default=False,
        metadata={
            "doc": "take min(r / lr, 1) for the trust ratio r, as solo-learn does; with `bolts` "
            "alone"
        },
    )

    def __post_init__(self) -> None:
        if self.clip and self.variant != "bolts":
            raise UserError(
                f"clip: true is not allowed with variant: {self.variant}; "
                "set one of them to false or bolts."
            )


class Rule(Optimiser):
    """v = m v + r g; p -= lr v, with a trust ratio r of each tensor.

    One call takes all norms. A table says to which tensor each block of the vector belongs, so
    one product scales all gradients.
    """

    VECTORS = ("momentum_buffer",)

    def __init__(
        self, flat: Vectors, settings: Settings, *, decay: bool = True, decay_norm: bool = True
    ) -> None:
        # Decays are not added part by part: the norms of whole tensors may include them.
        super().__init__(flat, settings, decay=False, decay_norm=False)
        # This module imports torch, which planning does without.
        from cyclery.optim.flat.parameters import ALIGN

        weights, gradients = flat.views(flat.data), flat.views(flat.grad)
        adapted = _adapted(flat.slots, settings)
        # The T adapted parameters, then their gradients.
        self._tensors = [views[name] for views in (weights, gradients) for name in adapted]
        # Each block takes the ratio of its tensor, or the last one, which is 1.
        self._blocks = flat.grad.unflatten(-1, (-1, ALIGN))
        self._index = torch.full((len(flat) // ALIGN,), len(adapted), device=flat.data.device)
        for index, name in enumerate(adapted):
            first = flat.slots[name].offset // ALIGN
            self._index[first : first + -(-flat.slots[name].shape.numel() // ALIGN)] = index
        self._one, self._zero = flat.data.new_ones(*flat.data.shape[:-1], 1), flat.scalar()
        groups = [
            ("weight_decay", slice(flat.decay_end), decay),
            ("weight_decay_norm", slice(flat.decay_end, None), decay_norm),
        ]
        self._decays = [
            (flat.data[..., part], flat.grad[..., part], name) for name, part, on in groups if on
        ]
        count = sum(len(flat.slots[name].shape) > 1 for name in adapted)
        # How many of the adapted tensors have which decay, None for zero.
        self._counts = [
            (name if on else None, number)
            for (name, _, on), number in zip(groups, (count, len(adapted) - count), strict=True)
        ]

    def step(self, row: Row) -> None:
        """Update the parameters in place."""
        ratios = torch.cat((self._ratios(row), self._one), -1)
        if self.settings.variant == "simclr":
            ratios = ratios * row["lr"]
        self._blocks.mul_(ratios.index_select(-1, self._index)[..., None])
        super().step(row)

    def _update(self, part: Part, row: Row, scalars: tuple[Tensor, ...]) -> None:
        (v,) = part.state
        torch.addcmul(part.g, v, row["momentum"], out=v)
        if self.settings.variant == "simclr":
            part.p.sub_(v)
        else:
            part.p.addcmul_(v, row["lr"], value=-1)

    def _ratios(self, row: Row) -> Tensor:
        """Return the trust ratios [T] or [K, T] of the adapted tensors, and add the decays."""
        eta = self.settings.eta
        if not self._tensors:
            self._decay(row)
            return self._one[..., :0]
        if self.settings.variant != "bolts":
            self._decay(row)
            w, g = self._norms()
            return (eta * w / g).masked_fill_((w == 0) | (g == 0), 1.0)
        w, g = self._norms()
        self._decay(row)
        decay = torch.cat(
            [
                (row[name] if name else self._zero).expand(*self._one.shape[:-1], number)
                for name, number in self._counts
            ],
            -1,
        )
        ratios = eta * w / (g + decay * w + EPS)
        if self.settings.clip:
            ratios = (ratios / row["lr"]).clamp_(max=1.0)
        # Of a zero gradient only the decay is left, which the zero drops.
        return ratios.masked_fill_(g == 0, 0.0).masked_fill_(w == 0, 1.0)

    def _norms(self) -> tuple[Tensor, Tensor]:
        """Return the norms of the adapted tensors, and those of their gradients, [T] or [K, T]."""
        if self._one.ndim > 1:
            found = [torch.linalg.vector_norm(x.flatten(1), dim=1) for x in self._tensors]
        else:
            found = list(torch._foreach_norm(self._tensors))
        w, g = torch.stack(found, -1).chunk(2, -1)
        return w, g

    def _decay(self, row: Row) -> None:
        for p, g, name in self._decays:
            g.addcmul_(p, row[name])


def _adapted(weights: Mapping[str, Slot], settings: Settings) -> list[str]:
    """Return the names of the parameters that are adapted, in the order of the vector."""
    for name in settings.exclude:
        if not any(_within(parameter, name) for parameter in weights):
            raise UserError(
                f"optimiser.exclude: no trained parameter is {name!r} or in it."
                f"{nearest(name, weights)} There are: {choices(weights)}."
            )
    return [
        name
        for name, slot in weights.items()
        if (len(slot.shape) > 1 or settings.adapts == "all")
        and not any(_within(name, other) for other in settings.exclude)
    ]


def _within(parameter: str, name: str) -> bool:
    """Say whether a name is that of the parameter or of a module that holds it."""
    return f"{parameter}.".startswith(f"{name}.")
