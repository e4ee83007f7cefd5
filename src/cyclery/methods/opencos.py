"""OpenCoS: what looks like no known class leaves the pool, and comes back with soft labels.

J. Park et al., OpenCoS (arXiv 2107.08943, sections 3.1 and 3.2) and the official code
alinlab/OpenCoS, whose published commands the defaults are. The parent ``encoder`` was trained
without labels on labelled and unlabelled images (SimCLR), and the network starts from its features.
Before training, with u behind the parent's projector (``z``; of a parent that has none, its
features), v_c the mean of u over the labelled samples of class c, not normalised, and
s(x) = max_c cos(u(x), v_c) (`_open_set`):

    t     = mean - 2 deviations of s over the labelled samples themselves
    D_in  = {x in the pool: s(x) > t}, D_out = the rest
    q(x)  = softmax_c(cos(u(x), v_c) / 0.1)  for D_out, fixed for the whole run
    D_l+  = labelled samples and the surest tenth of D_in, as a linear classifier on the parent's
            features labels them; these stay in D_in as well. Batches of D_l+ have each class as
            often.

A labelled sample helps to make the prototype that it is compared with, so t is too high where
labels are few; ``scores: left_out`` has the threshold of scores for which it did not. At each
update

    loss = core(D_l+, D_in) + outside_weight CE(q(x), f(x)) over D_out

f having for D_out batch norms of its own: scale, offset and running statistics, which start as the
parent's. Everything else is shared, and what is evaluated has the norms of the core.

The core is the semi-supervised loss of labelled and in-class samples:

- ``remixmatch``: that of `remixmatch` as the official code has it: one strong view, the labels and
  guesses of the last 128 batches for alignment, one share for a batch, and no further terms. Every
  pass moves the running statistics, that of guesses too.
- ``fixmatch``: that of `fixmatch`, hard labels at a temperature of 1 and one pass for all. The
  official code cuts that pass into mixed chunks, as it does with those of ``remixmatch``.

Parts that can be taken away: ``filter: none`` has the whole pool in the core, ``outside`` uniform
targets or no loss, ``auxiliary: false`` one set of norms, ``confident: 0`` no more labels,
``balanced: false`` batches as they come. With all of them away the run is that of its core bit for
bit, and takes no parent to detect with. ``filter: oracle`` looks at the hidden labels: it
bounds what detection can do, and is no method.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Literal

from cyclery.common.errors import UserError
from cyclery.common.lazy import F, torch
from cyclery.methods import _alignment, _open_set, _remixmatch
from cyclery.methods._auroc import auroc
from cyclery.methods._mix import correct
from cyclery.methods._ssl import passes, pseudo_figures
from cyclery.methods._streams import MU, OWN, Stream
from cyclery.methods.fixmatch import confident_losses
from cyclery.schedules import Quantity

VERSION = 1
TITLE = "OpenCoS"
ENCODER = "encoder"

# Models by name; the two losses of a core, and what is logged of it.
Models = dict[str, "torch.nn.Module"]
Found = tuple["torch.Tensor", "torch.Tensor", dict[str, "torch.Tensor"]]


@dataclass(frozen=True)
class Settings:
    """Settings of detection and loss; the defaults are those of the official code's commands."""

    core: Literal["remixmatch", "fixmatch"] = field(
        default="remixmatch",
        metadata={"doc": "the semi-supervised loss of labelled and in-class samples"},
    )
    weight: Quantity = field(
        default=1.5,
        metadata={
            "doc": "weight of the core's unlabelled loss (lambda_u); of `fixmatch` it is 1",
            "low": 0.0,
        },
    )
    temperature: Quantity = field(
        default=0.5, metadata={"doc": "sharpens what `remixmatch` guesses", "low": 0.1}
    )
    alpha: Quantity = field(
        default=0.75,
        metadata={"doc": "of the Beta(alpha, alpha) by which `remixmatch` mixes", "low": 0.1},
    )
    threshold: Quantity = field(
        default=0.95,
        metadata={
            "doc": "confidence from which `fixmatch` uses a pseudo-label",
            "low": 0.0,
            "high": 1.0,
        },
    )
    filter: Literal["detected", "oracle", "none"] = field(
        default="detected",
        metadata={
            "doc": "samples of the pool that the core has: those `detected` as in-class, those "
            "that are (`oracle`, by hidden labels), or all"
        },
    )
    deviations: float = field(
        default=2.0,
        metadata={
            "doc": "deviations of the labelled samples' scores by which the threshold is below "
            "their mean",
            "low": 0.0,
        },
    )
    scores: Literal["plain", "left_out"] = field(
        default="plain",
        metadata={
            "doc": "scores that set the threshold: with each labelled sample in the prototype of "
            "its class, or left out of it"
        },
    )
    outside: Literal["soft", "uniform", "none"] = field(
        default="soft",
        metadata={
            "doc": "what out-of-class samples are trained on: soft labels, equal probabilities, or "
            "nothing"
        },
    )
    outside_weight: Quantity = field(
        default=0.5, metadata={"doc": "weight of the loss of out-of-class samples", "low": 0.0}
    )
    soft_temperature: float = field(
        default=0.1, metadata={"doc": "divides cosines for soft labels", "above": 0.0}
    )
    auxiliary: bool = field(
        default=True, metadata={"doc": "whether out-of-class samples have batch norms of their own"}
    )
    confident: float = field(
        default=0.1,
        metadata={
            "doc": "share of the in-class samples that get a label and join the labelled ones",
            "low": 0.0,
            "high": 1.0,
        },
    )
    balanced: bool = field(
        default=True, metadata={"doc": "whether labelled batches have each class as often"}
    )

    @property
    def detects(self) -> bool:
        """Say whether anything is done with scores."""
        return self.filter == "detected" or self.outside != "none" or self.confident > 0


def streams(settings: Settings) -> dict[str, Stream]:
    """Return the streams of labelled, in-class and out-of-class samples."""
    # Of mixtures every pass is as large as the labelled one.
    times: int | Literal["mu"] = MU if settings.core == "fixmatch" else 1
    found = {
        "labelled": Stream(("weak",), OWN, sampler="balanced" if settings.balanced else "shuffled"),
        "unlabelled": Stream(("weak", "strong"), OWN, times),
    }
    if settings.outside != "none":
        found["outside"] = Stream(("weak",), OWN, times)
    return found


def forwards(settings: Settings, images: dict[str, int]) -> int:
    """Return the images that pass: with `remixmatch` weak views do so once more, to be guessed."""
    again = images["unlabelled"] // 2 if settings.core == "remixmatch" else 0
    return sum(images.values()) + again


def ignored(settings: Settings) -> dict[str, str]:
    """Return the settings that say nothing beside the others."""
    other = ("threshold",) if settings.core == "remixmatch" else ("temperature", "alpha")
    found = dict.fromkeys(other, f"core: {settings.core}")
    if settings.outside != "soft":
        found["soft_temperature"] = f"outside: {settings.outside}"
    if settings.outside == "none":
        found |= dict.fromkeys(("outside_weight", "auxiliary"), "outside: none")
    if settings.filter == "oracle":
        found |= dict.fromkeys(("deviations", "scores"), "filter: oracle")
    elif not settings.detects:
        found |= dict.fromkeys(("deviations", "scores"), "nothing that is detected is used")
    return found


def parents(settings: Settings) -> tuple[str, ...]:
    """Return the network that detects, which was trained without labels."""
    return (ENCODER,) if settings.detects else ()


def modules(settings: Settings, made: Any) -> Models:
    """Return what is remembered of samples, and the network with norms of its own."""
    found: Models = {}
    if settings.detects:
        found["memory"] = _open_set.memory(made.samples, made.classes)
    if settings.outside != "none" and settings.auxiliary:
        found["auxiliary"] = _with_own_norms(made.net)
    if settings.core == "remixmatch":
        found["alignment"] = _alignment.memory(made.classes, "history")
    return found


def _with_own_norms(net: torch.nn.Module) -> torch.nn.Module:
    """Return a network that shares all with ``net`` but has copies of its batch norms."""
    from cyclery.models.layers import batch_norms

    norms = batch_norms(net)
    if not norms:
        raise UserError(
            "method.auxiliary: must be false for a network without batch norm (found true); or "
            "choose another network."
        )
    own = {id(tensor) for norm in norms for tensor in (*norm.parameters(), *norm.buffers())}
    every = (*net.parameters(), *net.buffers())
    return deepcopy(net, {id(tensor): tensor for tensor in every if id(tensor) not in own})


def begin(models: Models, moment: Any, settings: Settings) -> None:
    """Detect, label, and fill the streams."""
    pool, ids, y = moment.pool("unlabelled"), moment.ids, moment.y
    if not settings.detects:
        inside = torch.ones_like(pool, dtype=torch.bool)
    else:
        inside = _detect(models, moment, settings)
    if settings.filter == "oracle":
        inside = moment.labels(pool) >= 0
    core = pool if settings.filter == "none" else pool[inside]
    if not len(core):
        raise UserError(_nothing_inside(models, pool, settings))
    if settings.confident:
        chosen, given = _label(models, moment, settings, pool[inside])
        ids, y = torch.cat([ids, chosen]), torch.cat([y, given])
    moment.fill("labelled", ids, y)
    moment.fill("unlabelled", core)
    if settings.outside != "none":
        outside = pool[~inside]
        models["memory"].get_buffer("some").fill_(float(len(outside) > 0))
        # A stream must have samples: without any outside, those inside pass with a weight of 0.
        moment.fill("outside", outside if len(outside) else core)


def _nothing_inside(models: Models, pool: torch.Tensor, settings: Settings) -> str:
    if settings.filter != "detected" or not len(pool):
        return (
            f"method.filter: {settings.filter} leaves the core no sample (found a pool of "
            f"{len(pool)}); let the split's pool hold samples of known classes."
        )
    memory = models["memory"]
    limit = float(memory.get_buffer("threshold")[int(settings.scores == "left_out")])
    best = float(memory.get_buffer("score")[pool].max())
    return (
        f"method.deviations: finds no in-class sample in the pool of {len(pool)} (found "
        f"{settings.deviations:g}, which makes a threshold of {limit:.4f}; the highest score is "
        f"{best:.4f}); raise it, or set the method's `scores: left_out`."
    )


def _projected(encoder: Any, x: torch.Tensor) -> torch.Tensor:
    """Return what a parent's projector makes of images, or its features where it has none."""
    found: torch.Tensor = encoder.features(x, "z" if "projector" in encoder.parts else "features")
    return found


def _detect(models: Models, moment: Any, settings: Settings) -> torch.Tensor:
    """Return which samples of the pool score above the threshold; remember what was found."""
    encoder: Any = models[ENCODER]
    memory, pool = models["memory"], moment.pool("unlabelled")
    soft = memory.get_buffer("soft")
    # In double precision: the place of the threshold must not depend on the kind of device.
    own, far = (
        moment.outputs(lambda x: _projected(encoder, x), ids).double() for ids in (moment.ids, pool)
    )
    prototypes = _open_set.sums(own, moment.y, soft.shape[1])
    near = _open_set.cosines(far, prototypes)
    scores = (_open_set.cosines(own, prototypes), _open_set.left_out(own, moment.y, soft.shape[1]))
    limits = torch.stack(
        [_open_set.threshold(each.amax(1), settings.deviations) for each in scores]
    )
    soft.index_copy_(0, pool, (near / settings.soft_temperature).softmax(1).to(soft))
    memory.get_buffer("score").index_copy_(0, pool, near.amax(1).to(soft))
    memory.get_buffer("threshold").copy_(limits)
    return near.amax(1) > limits[int(settings.scores == "left_out")]


def _label(
    models: Models, moment: Any, settings: Settings, inside: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the surest in-class samples, and the class of each, by a linear classifier."""
    encoder: Any = models[ENCODER]
    memory, pool = models["memory"], moment.pool("unlabelled")
    own, far = (moment.outputs(encoder.features, ids).double() for ids in (moment.ids, pool))
    weight, bias = _open_set.linear(own, moment.y, memory.get_buffer("soft").shape[1])
    sure, found = (far @ weight.T + bias).softmax(1).max(1)
    memory.get_buffer("linear").index_copy_(0, pool, sure.float())
    rows = torch.isin(pool, inside).nonzero()[:, 0]
    best = rows[sure[rows].argsort(descending=True, stable=True)]
    best = best[: int(settings.confident * len(rows))]
    memory.get_buffer("labels").index_copy_(0, pool[best], found[best])
    return pool[best], found[best]


def measures(settings: Settings) -> tuple[str, ...]:
    """Return the names of figures of detection in the pool, and of the labels that are added."""
    names = ["confidence_auroc"]
    if settings.detects:
        names += ["auroc"]
    if settings.detects and settings.filter != "oracle":
        names += ["tpr", "tnr", "left_out_tpr", "left_out_tnr"]
    if settings.confident:
        names += ["linear_auroc", "confident_accuracy"]
    return tuple(f"unlabelled_{name}" for name in names)


def evaluate(models: Models, measured: Any, settings: Settings) -> dict[str, float]:
    """Return the figures at the end: how well known and unknown samples are told apart.

    By the score, by the largest probability of the linear classifier and by that of the network.
    """
    if not measured.last:
        return {}
    pool, main = measured.pool("unlabelled"), models["main"]
    known = measured.labels(pool) >= 0
    by = {"confidence": measured.outputs(lambda x: main(x).softmax(1).amax(1)[:, None], pool)[:, 0]}
    found = {}
    if settings.detects:
        memory = models["memory"]
        by[""] = memory.get_buffer("score")[pool]
        found = _open_set.rates(memory, pool, known) if settings.filter != "oracle" else {}
    if settings.confident:
        by["linear"] = memory.get_buffer("linear")[pool]
        given = memory.get_buffer("labels")[pool]
        right = (given == measured.labels(pool))[given >= 0]
        found |= {"confident_accuracy": float(right.double().mean())} if len(right) else {}
    if known.any() and not known.all():
        found |= {
            f"{name}_auroc".lstrip("_"): auroc(score[known], score[~known])
            for name, score in by.items()
        }
    return {f"unlabelled_{name}": value for name, value in found.items()}


def _fixmatch_losses(
    models: Models, batch: Any, row: dict[str, torch.Tensor], generator: torch.Generator
) -> Found:
    """Return the losses of FixMatch, and figures of its pseudo-labels."""
    z_x, z_w, z_s = passes(models["main"], [batch.x, *batch.unlabelled.views], "joint")
    losses, mask, labels = confident_losses(z_w.detach().softmax(1), z_s, row["threshold"])
    figures = pseudo_figures(mask, labels, batch.unlabelled.y, z_x.shape[1])
    return F.cross_entropy(z_x, batch.y), losses.mean(), figures


def _remixmatch_losses(
    models: Models, batch: Any, row: dict[str, torch.Tensor], generator: torch.Generator
) -> Found:
    """Return the losses of ReMixMatch, and the share of right guesses."""
    net: Any = models["main"]
    views = batch.unlabelled.views
    z = _remixmatch.guess(net, views[0], None)
    q = _remixmatch.targets(z, batch.y, row["temperature"], models["alignment"], "history")
    known = torch.eye(q.shape[1], device=q.device)[batch.y]
    loss_x, loss_u = _remixmatch.mixture_losses(
        net, torch.cat([batch.x, *views]), torch.cat([known, q, q]), len(batch.y), row["alpha"],
        generator, per_sample=False,
    )  # fmt: skip
    return loss_x, loss_u, {"target_correct": correct(q, batch.unlabelled.y)}


def step(
    models: Models,
    batch: Any,
    row: dict[str, torch.Tensor],
    settings: Settings,
    generator: torch.Generator,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss; its parts and figures of the pseudo-labels are logged."""
    core = _remixmatch_losses if settings.core == "remixmatch" else _fixmatch_losses
    loss_x, loss_u, figures = core(models, batch, row, generator)
    loss = loss_x + row["weight"] * loss_u
    logs = {"loss_labelled": loss_x, "loss_unlabelled": loss_u, **figures}
    if settings.outside == "none":
        return loss, logs
    logs["loss_outside"] = outside = _outside_loss(models, batch["outside"], settings)
    return loss + row["outside_weight"] * outside, logs


def _outside_loss(models: Models, outside: Any, settings: Settings) -> torch.Tensor:
    """Return the cross-entropy [] of out-of-class samples and their targets; 0 without any."""
    memory = models["memory"]
    z = models["auxiliary" if settings.auxiliary else "main"](outside.x).float()
    if settings.outside == "uniform":
        q = torch.full_like(z, 1 / z.shape[1])
    else:
        q = memory.get_buffer("soft").index_select(0, outside.ids)
    return memory.get_buffer("some") * F.cross_entropy(z, q)
