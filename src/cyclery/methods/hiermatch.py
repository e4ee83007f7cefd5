"""HIERMATCH: coarser labels of a hierarchy have heads of their own, on parts of the features.

A. Garg et al., HIERMATCH (arXiv 2111.00164), and the official code 07Agarg/HIERMATCH. Level 1 are
the classes, levels 2 to H the groups above them. Of the features v [D] of the network each level
has a part: D // H of them, the coarsest first, and the rest at the end for level 1. With sg, the
stopped gradient, the logits of level h are

    z_h = W_h [v_h, sg(v_(h-1)), ..., sg(v_1)]

so a coarse loss sees finer features and does not change them, and a fine loss leaves coarse
features alone. ``stop_gradient: false`` takes the stop away; without ``split_features`` every head
has the whole of v. With one level the network's own head is the only one.

The loss is the sum over levels of one semi-supervised loss on the labels of each, the ``core``:

- ``mixmatch``: that of `mixmatch` with two views. As in the official code a batch has one share and
  every pass, also those that guess, moves the running statistics; ``share`` and ``statistics`` have
  what Google's MixMatch does. Its weight rises through the whole training.
- ``fixmatch``: that of `fixmatch`, hard labels at a temperature of 1. The official code has no such
  losses (OWN DEFINITION: one at each head).

``pools: shared`` is the full variant of the code: every labelled sample has the labels of all
levels, and one batch and one mixture, with the labels of all levels, serve all heads. ``pools:
levels`` is the partial one: some samples are labelled at level 2 or 3 alone (``split.coarse``).
Each level has a labelled stream, of samples labelled at it or at a finer one, an unlabelled one of
all others, and passes of its own, H times those of one level. What is labelled at a coarser level
only is unlabelled for a finer one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from cyclery.common.errors import UserError
from cyclery.common.lazy import F, torch
from cyclery.methods import _mix, fixmatch
from cyclery.methods._ssl import pseudo_figures
from cyclery.methods._streams import MU, TRAIN, UNLABELLED, Stream
from cyclery.schedules import Quantity

VERSION = 1
TITLE = "HIERMATCH"

# Models by name; the two losses of a level, and what is logged of it.
Models = dict[str, "torch.nn.Module"]
Found = tuple["torch.Tensor", "torch.Tensor", dict[str, "torch.Tensor"]]


def _ramp() -> Any:
    """Return the official code's weight for CIFAR-100: a line over the whole training."""
    return {"kind": "ramp", "start": 0.0, "end": 150.0, "over": 1.0, "shape": "linear"}


@dataclass(frozen=True)
class Settings:
    """Settings of levels, heads and losses; the defaults are the official code's for CIFAR-100."""

    levels: int = field(
        default=1,
        metadata={
            "doc": "levels that are trained, the classes among them; the coarser ones are the "
            "first of `split.hierarchy`",
            "low": 1,
            "high": 9,
        },
    )
    core: Literal["mixmatch", "fixmatch"] = field(
        default="mixmatch", metadata={"doc": "the semi-supervised loss of each level"}
    )
    pools: Literal["shared", "levels"] = field(
        default="shared",
        metadata={
            "doc": "`shared`: one batch, whose samples have the labels of all levels; `levels`: "
            "each level has batches of its own, of what is labelled at it (`split.coarse`)"
        },
    )
    split_features: bool = field(
        default=True,
        metadata={"doc": "whether each level has a part of the features, or every head them all"},
    )
    stop_gradient: bool = field(
        default=True,
        metadata={"doc": "whether coarse losses leave the parts of finer levels alone"},
    )
    weight: Quantity = field(
        default_factory=_ramp,
        metadata={"doc": "weight of the unlabelled losses (lambda_u)", "low": 0.0},
    )
    threshold: Quantity = field(
        default=0.95,
        metadata={
            "doc": "confidence from which `fixmatch` uses a pseudo-label",
            "low": 0.0,
            "high": 1.0,
        },
    )
    temperature: Quantity = field(
        default=0.5, metadata={"doc": "sharpens what `mixmatch` guesses", "low": 0.1}
    )
    alpha: Quantity = field(
        default=0.75,
        metadata={"doc": "of the Beta(alpha, alpha) by which `mixmatch` mixes", "low": 0.1},
    )
    share: Literal["batch", "sample"] = field(
        default="batch",
        metadata={"doc": "whether `mixmatch` draws one share for a batch, or one for each sample"},
    )
    statistics: Literal["all", "first"] = field(
        default="all",
        metadata={
            "doc": "passes of `mixmatch` that update running statistics: `all`, or the `first` of "
            "a mixture alone"
        },
    )


def _name(text: str, level: int) -> str:
    """Return what the stream of a level is called, or what is logged of it."""
    return text if level == 1 else f"{text}_{level}"


def streams(settings: Settings) -> dict[str, Stream]:
    """Return the samples of each level in their views, the finest level's first."""

    def hidden(pool: str) -> Stream:
        if settings.core == "mixmatch":
            return Stream(("weak", "weak"), pool)
        return Stream(("weak", "strong"), pool, MU)

    found = {"labelled": Stream(("weak",), TRAIN), "unlabelled": hidden(UNLABELLED)}
    for h in range(2, 1 + settings.levels) if settings.pools == "levels" else ():
        found[_name("labelled", h)] = Stream(("weak",), f"labelled.{h}")
        found[_name("unlabelled", h)] = hidden(f"unlabelled.{h}")
    return found


def forwards(settings: Settings, images: dict[str, int]) -> int:
    """Return the images that pass: those whose labels are guessed do so once more."""
    again = {name: n for name, n in images.items() if name.startswith("unlabelled")}
    return sum(images.values()) + (sum(again.values()) if settings.core == "mixmatch" else 0)


def ignored(settings: Settings) -> dict[str, str]:
    """Return the settings that say nothing beside the others."""
    other = ("threshold",) if settings.core == "mixmatch" else (
        "temperature", "alpha", "share", "statistics")  # fmt: skip
    found = dict.fromkeys(other, f"core: {settings.core}")
    if settings.levels == 1:
        return found | dict.fromkeys(("pools", "split_features", "stop_gradient"), "levels: 1")
    return found | ({} if settings.split_features else {"stop_gradient": "split_features: false"})


def modules(settings: Settings, made: Any) -> Models:
    """Return the heads, finest first, and the groups of classes at each level [H, C]."""
    known = 1 + len(made.levels)
    if settings.levels > known:
        raise UserError(
            f"method.levels: must be at most {known}, the classes and the coarser levels of "
            f"`split.hierarchy` (found {settings.levels})."
        )
    if settings.split_features and settings.levels > made.width:
        raise UserError(
            f"method.levels: must be at most {made.width}, the features of the network, of which "
            f"each level has a part, or `split_features` false (found {settings.levels})."
        )
    groups = [[*range(made.classes)], *made.levels[: settings.levels - 1]]
    sizes = [1 + max(level) for level in groups]
    heads: Any = torch.nn.ModuleList()
    if settings.levels > 1:
        widths = [made.width - start for start, _ in _parts(settings, made.width)]
        heads.extend(map(torch.nn.Linear, widths, sizes))
    heads.register_buffer("groups", torch.tensor(groups))
    heads.sizes = sizes
    return {"heads": heads}


def keeps(settings: Settings) -> tuple[str, ...]:
    """Return the name of the heads, where there are others than the network's own."""
    return ("heads",) if settings.levels > 1 else ()


def _parts(settings: Settings, width: int) -> list[tuple[int, int]]:
    """Return where the features of each level begin and end, finest first."""
    if not settings.split_features:
        return [(0, width)] * settings.levels
    starts = [width // settings.levels * before for before in reversed(range(settings.levels))]
    return list(zip(starts, [width, *starts], strict=False))


def logits(
    models: Models, x: torch.Tensor, settings: Settings, levels: Sequence[int] | None = None
) -> list[torch.Tensor]:
    """Return the logits [B, C_h] of levels, counted from 0, of all without ``levels``."""
    net: Any = models["main"]
    if settings.levels == 1:
        return [net(x)]
    v, heads = net.features(x), list(models["heads"].children())
    finer, parts = v.detach() if settings.stop_gradient else v, _parts(settings, v.shape[1])
    wanted = [(heads[h], *parts[h]) for h in (range(len(parts)) if levels is None else levels)]
    return [head(torch.cat([v[:, a:b], finer[:, b:]], 1)) for head, a, b in wanted]


def predict(models: Models, x: torch.Tensor, settings: Settings) -> torch.Tensor:
    """Return the logits [B, C] of the classes, of the finest head."""
    return logits(models, x, settings, [0])[0]


def measures(settings: Settings) -> tuple[str, ...]:
    """Return the names of two accuracies of each coarser level."""
    coarser = range(2, settings.levels + 1)
    return tuple(f"test_{of}_{h}_accuracy" for of in ("level", "marginal") for h in coarser)


def marginal(p: torch.Tensor, groups: torch.Tensor, count: int) -> torch.Tensor:
    """Return the probabilities [B, count] of groups, the sums of those of their classes [B, C]."""
    return p.new_zeros(len(p), count).index_add_(1, groups, p)


def evaluate(models: Models, measured: Any, settings: Settings) -> dict[str, float]:
    """Return the accuracy of each coarser level by its head, and by the finest one.

    That is by the classes' probabilities, summed within each group.
    """
    if settings.levels == 1:
        return {}
    groups: Any = models["heads"].get_buffer("groups")

    def answers(x: torch.Tensor) -> torch.Tensor:
        fine, *coarse = logits(models, x, settings)
        p = fine.float().softmax(1)
        sums = [marginal(p, g, z.shape[1]) for g, z in zip(groups[1:], coarse, strict=True)]
        return torch.stack([each.argmax(1) for each in (*coarse, *sums)], 1)

    ids = measured.pool("test")
    right = measured.outputs(answers, ids) == groups[1:, measured.labels(ids)].T.repeat(1, 2)
    return dict(zip(measures(settings), right.double().mean(0).tolist(), strict=True))


@dataclass(frozen=True)
class _Together:
    """Samples that pass together for some levels, counted from 0.

    ``y`` [B] and ``hidden`` [mu B] are their labels at each of these levels, ``sizes`` the groups
    that a level has. ``function`` returns the logits of the levels, joined, of images.
    """

    x: Any
    u: Any
    levels: list[int]
    y: list[torch.Tensor]
    hidden: list[torch.Tensor]
    sizes: list[int]
    function: Callable[[torch.Tensor], torch.Tensor]


def _together(models: Models, batch: Any, settings: Settings) -> Iterator[_Together]:
    """Yield what passes together: all, or the samples of each level, whose labels are its own."""

    def joined(levels: list[int], x: torch.Tensor) -> torch.Tensor:
        return torch.cat(logits(models, x, settings, levels), 1)

    heads: Any = models["heads"]
    sizes: list[int] = heads.sizes
    for h, size in enumerate(sizes) if settings.pools == "levels" else ():
        x, u = (batch[_name(stream, h + 1)] for stream in ("labelled", "unlabelled"))
        yield _Together(x, u, [h], [x.y], [u.y], [size], partial(joined, [h]))
    if settings.pools == "shared":
        x, u = batch.labelled, batch.unlabelled
        y, hidden = ([each.y, *(groups[each.y] for groups in heads.groups[1:])] for each in (x, u))
        every = list(range(len(sizes)))
        yield _Together(x, u, every, y, hidden, sizes, partial(joined, every))


def _fixmatch(given: _Together, row: dict[str, torch.Tensor]) -> Iterator[Found]:
    """Yield the losses of each level, and figures of its pseudo-labels."""
    labelled, unlabelled = len(given.x.y), len(given.u.y)
    outputs = given.function(torch.cat([given.x.x, *given.u.views])).float()
    each = outputs.split(given.sizes, 1)
    for z, y, hidden in zip(each, given.y, given.hidden, strict=True):
        z_x, z_w, z_s = z.split([labelled, unlabelled, unlabelled])
        q = z_w.detach().softmax(1)
        losses, mask, labels = fixmatch.confident_losses(q, z_s, row["threshold"])
        figures = pseudo_figures(mask, labels, hidden, z.shape[1])
        yield F.cross_entropy(z_x, y), losses.mean(), figures


def _mixmatch(
    given: _Together,
    row: dict[str, torch.Tensor],
    settings: Settings,
    keep: torch.nn.Module | None,
    generator: torch.Generator,
) -> Iterator[Found]:
    """Yield the losses of each level, of one mixture for all, and the share of right guesses."""
    batch, device, sizes = len(given.x.y), given.x.y.device, given.sizes
    found = _mix.guess_passes(given.function, given.u.views, keep)
    by_level = zip(*(z.split(sizes, 1) for z in found), strict=True)
    guesses = [_mix.guessed(views, row["temperature"]) for views in by_level]
    known = [torch.eye(n, device=device)[y] for n, y in zip(sizes, given.y, strict=True)]
    x = torch.cat([given.x.x, *given.u.views])
    y = torch.cat([torch.cat(known, 1), *[torch.cat(guesses, 1)] * len(found)])
    share = _mix.shares(row["alpha"], len(x), generator, settings.share == "sample")
    x, y = _mix.mixed(x, y, share, _mix.permutation(len(x), generator, device))
    z = _mix.interleaved_passes(given.function, x, batch, keep)
    levels = zip(z.split(sizes, 1), y.split(sizes, 1), guesses, given.hidden, strict=True)
    for z_h, y_h, guess, hidden in levels:
        yield *_mix.loss_pair(z_h, y_h, batch), {"target_correct": _mix.correct(guess, hidden)}


def step(
    models: Models,
    batch: Any,
    row: dict[str, torch.Tensor],
    settings: Settings,
    generator: torch.Generator,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the sum of the losses of all levels; those of each level are logged."""
    keep = models["main"] if settings.statistics == "first" else None
    losses: list[torch.Tensor] = []
    logs: dict[str, torch.Tensor] = {}
    for given in _together(models, batch, settings):
        if settings.core == "fixmatch":
            found = _fixmatch(given, row)
        else:
            found = _mixmatch(given, row, settings, keep, generator)
        for level, (loss_x, loss_u, figures) in zip(given.levels, found, strict=True):
            losses.append(loss_x + row["weight"] * loss_u)
            told = {"loss_labelled": loss_x, "loss_unlabelled": loss_u, **figures}
            logs |= {_name(name, level + 1): value for name, value in told.items()}
    return sum(losses[1:], losses[0]), logs
