"""Mean Teacher, and the Pi model as its control.

A. Tarvainen, H. Valpola, Mean teachers are better role models (arXiv 1703.01780, section 2): the
student f sees view s of each image, the teacher g, whose weights are the average of the student's,
an independent view t of the same images. With K classes and N items in the consistency cost,

    loss = mean CE(y, f(x_s)) + weight mean_N 1/K |softmax(f(x_s)) - softmax(g(x_t))|^2

The teacher is in training mode; no gradient flows through it. ``consistency: kl`` replaces the
squared distance by KL(g || f), summed over classes. With ``target: current`` the teacher is the
student with the same weights, at equal everything else: the Pi model, whose gradient flows
through the prediction (Google's code) or through ``both`` views (the authors').

How the authors' and others' code are set (besides ``ema_decay``, which all need):

- A, CuriousAI/mean-teacher, tensorflow: ``forward: joint``, ``denominator: all``, ``items:
  unlabelled`` and a weight of 1 for SVHN, ``items: all`` and 100 n / 50000 for CIFAR-10 with n
  labels, a sigmoid ramp over the first 40,000 updates; ``ema_buffers: own``. There a batch for
  CIFAR-10 holds whatever labels 100 random images have; here their number is fixed. There the
  average also takes the weights before each update, here those after it.
- B, the same, pytorch: ``forward: joint``, ``items: all``, ``denominator: all``,
  ``logit_distance: 0.01``, a weight of 100 (mse) or 10 (kl) after a sigmoid ramp over 5 epochs
  that holds through an epoch (its ``clock: epoch``); ``split.unlabelled: rest``, ``ema_buffers:
  own``, ``ema_decay`` of kind ``running_mean``. Without ``logit_distance`` it has one head.
- C, google-research/fixmatch: ``forward: separate``, ``statistics: labelled``, ``items:
  unlabelled``, a weight of 50 after a linear ramp over 0.4; ``ema_buffers: shared``. Its Pi model
  adds ``target: current`` and a weight of 10.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

from cyclery.common.errors import UserError
from cyclery.common.lazy import F, torch
from cyclery.methods._ssl import Forward, Statistics, check_passes, passes
from cyclery.schedules import Quantity

VERSION = 1
TITLE = "Mean Teacher"


def _ramp() -> Any:
    """Return the paper's ramp for CIFAR-10: 40,000 of 150,000 updates.

    Its 100 n / 50000, with the class cost divided by the whole batch in which n / 50000 are
    labelled, is 100 where the class cost is a mean over the labelled.
    """
    return {"kind": "ramp", "start": 0.0, "end": 100.0, "over": 0.27, "shape": "sigmoid"}


@dataclass(frozen=True)
class Settings:
    """Settings of the loss; the defaults are the paper's but for the scale of the whole loss."""

    weight: Quantity = field(
        default_factory=_ramp, metadata={"doc": "weight of the consistency cost", "low": 0.0}
    )
    target: Literal["ema", "current"] = field(
        default="ema",
        metadata={"doc": "weights of the teacher: averaged, or the student's own (Pi model)"},
    )
    gradient: Literal["one", "both"] = field(
        default="one",
        metadata={"doc": "through the student's view, or `both` views with `target: current`"},
    )
    consistency: Literal["mse", "kl"] = field(
        default="mse",
        metadata={"doc": "`mse`: a mean over classes; `kl`: KL(teacher || student), a sum"},
    )
    items: Literal["all", "unlabelled"] = field(
        default="all", metadata={"doc": "samples of the consistency cost"}
    )
    denominator: Literal["labelled", "all"] = field(
        default="labelled",
        metadata={
            "doc": "`labelled`: the class cost is a mean over the labelled samples, the "
            "consistency cost over its items; `all`: both are divided by the whole batch"
        },
    )
    forward: Forward = field(
        default="joint",
        metadata={"doc": "student and teacher take both streams in one pass, or one by one"},
    )
    statistics: Statistics = field(
        default="all",
        metadata={
            "doc": "student's passes that update running statistics; `labelled` needs separate "
            "ones; a pass for targets never does"
        },
    )
    logit_distance: float | None = field(
        default=None,
        metadata={
            "doc": "weight of the mean squared distance of a second head's logits, which alone "
            "take the consistency cost, from the class logits; null has one head",
            "low": 0.0,
        },
    )

    def __post_init__(self) -> None:
        check_passes(self.forward, self.statistics)
        if self.gradient == "both" and self.target != "current":
            raise UserError(f"gradient: both needs target: current (found {self.target}).")


def _teaches_labelled(settings: Settings) -> bool:
    """Say whether the teacher sees the labelled samples, be it for its batch statistics only."""
    return settings.items == "all" or settings.forward == "joint"


def streams(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Return the views of each stream: the student's, then the teacher's."""
    labelled = ("weak", "weak") if _teaches_labelled(settings) else ("weak",)
    return {"labelled": labelled, "unlabelled": ("weak", "weak")}


def uses_ema(settings: Settings) -> bool:
    """Say whether the teacher is the averaged network."""
    return settings.target == "ema"


# Such a teacher is in training mode.
trains_ema = uses_ema


def modules(settings: Settings, made: Any) -> dict[str, torch.nn.Module]:
    """Return the second head, if there is one; a UserError where the network cannot have it."""
    if settings.logit_distance is None:
        return {}
    head = getattr(made.net, "head", None)
    if not isinstance(head, torch.nn.Linear) or not hasattr(made.net, "features"):
        raise UserError("method.logit_distance: needs a network with features and a linear head.")
    return {"consistency_head": torch.nn.Linear(head.in_features, made.classes)}


def consistency_costs(
    z: torch.Tensor, target: torch.Tensor, kind: Literal["mse", "kl"]
) -> torch.Tensor:
    """Return the cost [N] of student's logits z [N, K] and teacher's logits [N, K]."""
    if kind == "mse":
        return (z.softmax(1) - target.softmax(1)).square().mean(1)
    log_p, log_q = z.log_softmax(1), target.log_softmax(1)
    return F.kl_div(log_p, log_q, reduction="none", log_target=True).sum(1)


def _targets(
    models: dict[str, torch.nn.Module], batch: Any, settings: Settings
) -> list[torch.Tensor]:
    """Return the teacher's logits of the streams that it sees, [B, K] and [mu B, K]."""
    from cyclery.models.layers import statistics_kept

    parts = [batch.unlabelled.views[1]]
    if _teaches_labelled(settings):
        parts.insert(0, batch.views[1])
    net = models["ema" if settings.target == "ema" else "main"]
    # The engine says what the averaged network does with its statistics.
    kept = statistics_kept(net) if settings.target == "current" else nullcontext()
    with torch.set_grad_enabled(settings.gradient == "both"), kept:
        return passes(net, parts, settings.forward)


def step(
    models: dict[str, torch.nn.Module],
    batch: Any,
    row: dict[str, torch.Tensor],
    settings: Settings,
    generator: torch.Generator,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss; its parts and the accuracy of the targets are logged."""
    net: Any = models["main"]

    def heads(x: torch.Tensor) -> torch.Tensor:
        features = net.features(x)
        return torch.cat([net.head(features), models["consistency_head"](features)], dim=1)

    parts = [batch.x, batch.unlabelled.x]
    # The student goes first: under autocast a pass without a graph must not be the one that casts
    # its weights.
    function = net if settings.logit_distance is None else heads
    keep = net if settings.statistics == "labelled" else None
    outputs = passes(function, parts, settings.forward, keep)
    targets = _targets(models, batch, settings)
    classes = targets[-1].shape[1]
    count = 2 if settings.items == "all" else 1
    # With one head the class logits are the columns that are compared, too.
    students = torch.cat([output[:, -classes:] for output in outputs[-count:]])
    teachers = torch.cat(targets[-count:])
    costs = consistency_costs(students, teachers, settings.consistency)
    class_costs = F.cross_entropy(outputs[0][:, :classes], batch.y, reduction="none")
    total = len(batch.y) + len(batch.unlabelled.y)
    whole = settings.denominator == "all"
    loss_x = class_costs.sum() / (total if whole else len(class_costs))
    loss_u = costs.sum() / (total if whole else len(costs))
    logs = {"loss_labelled": loss_x, "loss_consistency": loss_u}
    loss = loss_x + row["weight"] * loss_u
    if settings.logit_distance is not None:
        both = torch.cat(outputs)
        distance = F.mse_loss(both[:, :classes], both[:, classes:])
        loss = loss + settings.logit_distance * distance
        logs["logit_distance"] = distance
    correct = targets[-1].argmax(1) == batch.unlabelled.y
    logs["target_correct"] = correct.to(loss.dtype).mean()
    return loss, logs
