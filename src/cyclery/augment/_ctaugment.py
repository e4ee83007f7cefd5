"""CTAugment: a batch's ops as PIL computes them, at strengths that training learns.

D. Berthelot et al., ReMixMatch (ICLR 2020, arXiv 1911.09785, section 3.2), with the ops and ranges
of google-research/fixmatch. An image goes through ``DEPTH`` ops, drawn evenly. Each parameter of an
op, from 0 to 1, has bins, and each bin a weight m that begins at 1. Images to train on draw a bin
with p = m + 1 - ``DECAY``, in shares of the largest, where that share is at least ``THRESHOLD``,
and a value evenly within the bin; they end with the largest cutout, as FixMatch has it. Probes draw
any value, and what a network says of them moves the weights of their bins: see `CTAugment.learn`.

As in that code what a geometric op uncovers is black, a hole is grey 127, and a translation is by
0.3 of a pixel at most, which moves none (the paper has 0.3 of the side). Grey images have no
``colour``. Shapes: D ops, N images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, pi

import torch
from torch import Tensor, nn

from cyclery.augment._op import Images
from cyclery.augment._pil import PilOps, blurred, places, smooth
from cyclery.augment._resize import FILTERS, ONE, resizing

DEPTH, DECAY, THRESHOLD = 2, 0.99, 0.80
BINS = 17
HOLE = 127
# Of the uniform numbers of an image: op, bins and values of two parameters, and a centre, for each
# op; and the centre of the last cutout.
ROUND = 7
COLUMNS = DEPTH * ROUND + 2

# The coefficients of an image in one round, with the values that leave it as it is. "mix", "blur"
# and "smooth" are shares of an image that is blended in, "hole" and "crop" levels.
_PARTS = {
    "keep": 1.0, "contrast": 0.0, "colour": 0.0, "sharpness": 0.0, "factor": 1.0,
    "still": 1.0, "equalize": 0.0, "bits": 8.0, "threshold": 256.0, "mix": 1.0,
    "blur": 0.0, "smooth": 0.0, "hole": 0.0, "degrees": 0.0, "shear_x": 0.0, "shear_y": 0.0,
    "move_x": 0.0, "move_y": 0.0, "crop": 0.0,
}  # fmt: skip
_ENHANCED, _LEVEL = (0.1, 1.9), (0.0, 1.0)
# What each op writes into them: a number, or a first value and what a level of 1 adds.
_WRITES: dict[str, dict[str, float | tuple[float, float]]] = {
    "autocontrast": {"still": 0.0, "mix": _LEVEL},
    "blur": {"blur": _LEVEL},
    "brightness": {"keep": 0.0, "factor": _ENHANCED},
    "colour": {"keep": 0.0, "colour": 1.0, "factor": _ENHANCED},
    "contrast": {"keep": 0.0, "contrast": 1.0, "factor": _ENHANCED},
    "cutout": {"hole": _LEVEL},
    "equalize": {"equalize": 1.0, "mix": _LEVEL},
    "invert": {"threshold": 0.0, "mix": _LEVEL},
    "identity": {},
    "posterize": {"bits": (1.0, 7.999)},
    "rescale": {"crop": (0.0, 0.25)},
    "rotate": {"degrees": (-45.0, 90.0)},
    "sharpness": {"sharpness": 1.0, "factor": _ENHANCED},
    "shear_x": {"shear_x": (-0.3, 0.6)},
    "shear_y": {"shear_y": (-0.3, 0.6)},
    "smooth": {"smooth": _LEVEL},
    "solarize": {"threshold": (0.0, 255.999)},
    "translate_x": {"move_x": (-0.3, 0.6)},
    "translate_y": {"move_y": (-0.3, 0.6)},
}
# Of each op, bins of the level and of a second parameter, where they are not ``BINS`` and none.
_BINS = {"identity": (0, 0), "posterize": (8, 0), "rescale": (BINS, len(FILTERS))}


def names_for(channels: int) -> tuple[str, ...]:
    """Return the ops that images of so many channels may draw, in the order of their weights."""
    return tuple(name for name in _WRITES if name != "colour" or channels == 3)


@dataclass(frozen=True)
class Policy:
    """What is done with each image, in turn.

    ``op`` [D, N] int64; ``level`` [D, N, 2] in 0..1, of both parameters; ``centre`` [D + 1, N, 2],
    in shares of the sides, of cutouts; ``last`` [N], whether the largest cutout comes last.
    """

    op: Tensor
    level: Tensor
    centre: Tensor
    last: Tensor


class CTAugment(nn.Module, PilOps):  # type: ignore[misc] # `to` is the module's
    """The ops, and the weights of their bins: ``weights`` [ops, 2, 17], which ``learn`` changes.

    ``images`` says shape and mean; ``std`` is the deviation that normalised images are divided by.
    """

    weights: Tensor
    bins: Tensor
    there: Tensor
    below: Tensor
    first: Tensor
    span: Tensor
    x: Tensor
    y: Tensor
    sides: Tensor
    middle: Tensor
    across: Tensor
    down: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, images: Images, std: Sequence[float]) -> None:
        nn.Module.__init__(self)
        # Levels are made of values in 0..1 here.
        PilOps.__init__(self, Images(images.shape, images.mean, 1))
        self.names = names_for(self.channels)
        bins = torch.tensor([_BINS.get(name, (BINS, 0)) for name in self.names])
        self.register_buffer("weights", torch.ones(len(self.names), 2, BINS))
        self.constant("bins", bins)
        self.constant("there", torch.arange(BINS) < bins[..., None])
        self.constant("below", torch.ones(BINS, BINS).tril())
        first, span = _table(self.names)
        self.constant("first", first)
        self.constant("span", span)
        self.constant("x", torch.arange(self.width, dtype=torch.int32))
        self.constant("y", torch.arange(self.height, dtype=torch.int32)[:, None])
        self.constant("sides", torch.tensor([self.height, self.width], dtype=torch.float64))
        self.constant("middle", self.sides.flip(0)[:, None, None] / 2)
        self.constant("across", torch.from_numpy(resizing(self.width)))
        self.constant("down", torch.from_numpy(resizing(self.height)))
        self.constant("mean", torch.tensor(images.mean)[:, None, None])
        self.constant("std", torch.tensor(std)[:, None, None])

    def constant(self, name: str, value: Tensor | None) -> None:
        """Keep a tensor that moves with the module, and is no part of what it has learnt."""
        self.register_buffer(name, value, persistent=False)

    # What is drawn.

    def chances(self) -> Tensor:
        """Return the probability of each bin [ops, 2, 17]; 0 in those that are not there."""
        raw = (self.weights + (1 - DECAY)).masked_fill(~self.there, 0)
        share = raw / raw.amax(2, keepdim=True).clamp_min(1e-12)
        share = share.masked_fill(share < THRESHOLD, 0)
        return share / share.sum(2, keepdim=True).clamp_min(1e-12)

    def policy(self, u: Tensor, probes: int) -> Policy:
        """Return what uniform numbers ``u`` [N, COLUMNS] choose; the first ``probes`` are such."""
        rounds = u[:, : DEPTH * ROUND].t().double().unflatten(0, (DEPTH, ROUND))
        op = (rounds[:, 0] * len(self.names)).long()
        drawn, value, centre = (rounds[:, i : i + 2].transpose(1, 2) for i in (1, 3, 5))
        ends = (self.chances()[:, :, None] * self.below).sum(3)
        # The last bin that can be drawn ends at 1, however its share was rounded.
        ends = (ends / ends[..., -1:].clamp_min(1e-12)).double()
        chosen = ends.index_select(0, op.flatten()).unflatten(0, op.shape)
        count = self.bins.index_select(0, op.flatten()).unflatten(0, op.shape).clamp_min(1)
        bin_ = torch.minimum((drawn[..., None] >= chosen).sum(3), count - 1)
        trained = torch.arange(len(u), device=u.device) >= probes
        level = torch.where(trained[:, None], (bin_ + value) / count, value)
        last = u[:, DEPTH * ROUND :].double()[None]
        return Policy(op, level, torch.cat((centre, last)), trained)

    # What is learnt.

    def learn(self, policy: Policy, proximity: Tensor) -> None:
        """Move the weights of the bins of probes towards their ``proximity`` [N], one by one.

        The first N images of ``policy`` are the probes. Each use of a bin makes its weight m
        ``DECAY`` m + (1 - ``DECAY``) proximity, in the order of images, their ops and parameters:
        what comes later counts once, what came earlier has decayed.
        """
        n = len(proximity)
        op, level = policy.op[:, :n].t(), policy.level[:, :n].transpose(0, 1)
        count = self.bins.index_select(0, op.flatten()).unflatten(0, op.shape)
        bin_ = (level * count * 0.999).long()
        parameter = torch.arange(2, device=op.device)
        cell = ((op[..., None] * 2 + parameter) * BINS + bin_).flatten()
        cell = cell.masked_fill((count == 0).flatten(), -1)
        at = cell[:, None] == torch.arange(self.weights.numel(), device=op.device)
        same = (cell[:, None] == cell).triu(1)
        decay = (same.sum(1) * log(DECAY)).exp()
        given = decay * (1 - DECAY) * proximity.repeat_interleave(2 * DEPTH)
        added = (at * given[:, None]).sum(0).view_as(self.weights)
        left = (at.sum(0) * log(DECAY)).exp().view_as(self.weights)
        self.weights.mul_(left).add_(added)

    # What is done.

    def forward(self, x: Tensor, policy: Policy) -> Tensor:
        """Return normalised float32 images [N, C, H, W] for normalised ``x``."""
        image = self.whole_levels(torch.addcmul(self.mean, x, self.std).clamp_(0, 1))
        for part, centre in zip(self._rounds(policy), policy.centre, strict=False):
            image = self._moved(self._toned(image, part), part)
            hole = self._hole(centre, self._half(part["hole"]))
            image = image.masked_fill(hole, HOLE)
        largest = self._half(policy.last.double())
        image = image.masked_fill(self._hole(policy.centre[-1], largest), HOLE)
        return (image / 255 - self.mean) / self.std

    def _rounds(self, policy: Policy) -> list[dict[str, Tensor]]:
        """Return the coefficients of each round, [N, 1, 1, 1]; all are computed at once."""
        row = policy.op.flatten()
        level, second = policy.level.flatten(0, 1).unbind(1)
        values = self.first.index_select(0, row) + self.span.index_select(0, row) * level[:, None]
        part = dict(zip(_PARTS, values.unbind(1), strict=True))
        place = {name: part.pop(name) for name in ("degrees", "crop", "hole")}
        degrees = place["degrees"].round() * (pi / 180)
        pairs = [torch.stack([part.pop(n) for n in names], 1)[:, :, None, None]
                 for names in (("shear_y", "shear_x"), ("move_x", "move_y"))]  # fmt: skip
        index, inside = self._index(degrees[:, None, None, None], *pairs)
        part = {n: v.floor() if n in ("bits", "threshold") else v for n, v in part.items()}
        part = {n: v.float()[:, None, None, None] for n, v in part.items()}
        part["still"], part["equalize"] = part["still"] > 0, part["equalize"] > 0
        # As many zeros at the end as bits are lost: 255 is eight ones.
        part["bits"] = (255 << (8 - part["bits"].int())).to(torch.uint8)
        kind = (second * (len(FILTERS) - 0.01)).long()
        for name, side, table in (("down", 0, self.down), ("across", 1, self.across)):
            margin = (place["crop"] * self.sides[side]).round().long()
            part[name] = table.index_select(0, margin * len(FILTERS) + kind)
        part |= {"index": index, "inside": inside, "hole": place["hole"]}
        split = {n: v.unflatten(0, policy.op.shape).unbind() for n, v in part.items()}
        return [{n: v[i] for n, v in split.items()} for i in range(DEPTH)]

    def _index(self, angle: Tensor, shear: Tensor, move: Tensor) -> tuple[Tensor, Tensor]:
        """Return where pixels come from [N, 1, H x W], and whether from inside [N, 1, H, W]."""
        zero = torch.zeros_like(shear[:, :1])
        along, down = torch.cat((zero, shear[:, :1]), 1), torch.cat((shear[:, 1:], zero), 1)
        place = places(angle, along, down, move, self.x, self.y, self.middle)
        column, row = place.unbind(1)
        near_x, near_y = column.clamp(0, self.width - 1), row.clamp(0, self.height - 1)
        inside = (near_x == column) & (near_y == row)
        return (near_y * self.width + near_x).long().flatten(1)[:, None], inside[:, None]

    def _toned(self, x: Tensor, part: dict[str, Tensor]) -> Tensor:
        """Return uint8 ``x`` after all ops but those that move pixels."""
        x = self.blended(x.float(), part).to(torch.uint8)
        plain = x.float()
        levels = self.mapped(plain, part).float()
        # One of them at most has a share; product and sum are rounded one by one, as in C.
        found = plain + part["mix"] * (levels - plain)
        if min(self.height, self.width) >= 3:
            detail = smooth(plain) - plain[:, :, 1:-1, 1:-1]
            found[:, :, 1:-1, 1:-1] += part["smooth"] * detail
        if min(self.height, self.width) >= 5:
            detail = blurred(plain) - plain[:, :, 2:-2, 2:-2]
            found[:, :, 2:-2, 2:-2] += part["blur"] * detail
        return found.to(torch.uint8)

    def _moved(self, x: Tensor, part: dict[str, Tensor]) -> Tensor:
        """Return uint8 ``x`` turned, sheared and moved, or cropped and resized."""
        index = part["index"].expand(-1, self.channels, -1)
        x = x.flatten(2).gather(2, index).view_as(x) * part["inside"]
        # Sums of whole numbers below 2^53: exact in any order.
        wide = x.double().flatten(1, 2) @ part["across"].transpose(1, 2)
        wide = _cut(wide).view(x.shape).transpose(1, 2).flatten(2)
        tall = (part["down"] @ wide).view(len(x), self.height, self.channels, self.width)
        return _cut(tall).transpose(1, 2).to(torch.uint8)

    def _half(self, level: Tensor) -> Tensor:
        """Return half the side of a hole [N]; 0 of a level of 0."""
        side = (level * (min(self.height, self.width) * 0.499)).floor() + 1
        return (side / 2).floor()

    def _hole(self, centre: Tensor, half: Tensor) -> Tensor:
        """Return where a square around a pixel lies, [N, 1, H, W]; ``centre`` [N, 2] in 0..1."""
        row, column = (centre * self.sides).floor()[:, :, None, None, None].unbind(1)
        half = half[:, None, None, None]
        rows = (self.y >= row - half) & (self.y < row + half)
        return rows & (self.x >= column - half) & (self.x < column + half)


def _cut(total: Tensor) -> Tensor:
    """Return whole grey levels for sums whose weights add up to ``ONE``."""
    return ((total + ONE / 2) / ONE).floor().clamp(0, 255)


def _table(names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return coefficients at level 0, and what a level of 1 adds, float64 [ops, parts]."""
    rows = []
    for name in names:
        written = {**_PARTS, **_WRITES[name]}.values()
        rows.append([part if isinstance(part, tuple) else (part, 0.0) for part in written])
    first, span = torch.tensor(rows, dtype=torch.float64).unbind(2)
    return first.contiguous(), span.contiguous()
