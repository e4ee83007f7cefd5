"""Knowledge distillation: a student learns from the probabilities of a frozen teacher.

G. Hinton, O. Vinyals, J. Dean, Distilling the Knowledge in a Neural Network (arXiv 1503.02531),
in the form of the usual benchmark (HobbitLong/RepDistiller): with z_s, z_t the logits of the same
augmented images and T the temperature,

    loss = hard CE(y, z_s) + soft T^2 mean_b sum_k p_t log(p_t / p_s),  p = softmax(z / T)

The teacher may be an ensemble, whose probabilities are averaged before T (Stanton et al. 2021,
arXiv 2106.05945). No gradient flows into it. A chain of assistants (Mirzadeh et al. 2020, arXiv
1902.03393) and born-again generations are arms whose teachers are such students.

Papers differ in the scale of the soft loss:

- RepDistiller: as above. ``hard`` null is 1 - ``soft``.
- TAKD's code: ``reduction: mean`` divides by the classes, too.
- ``squared: false`` leaves T^2 out.
- Stanton et al.: ``form: cross_entropy``, whose value also has the teacher's entropy; the gradient
  is the same.

``inputs`` says which samples the teacher labels: those with labels, the unlabelled stream (which
``split.unlabelled`` takes from the other samples or from all), or both. ``mixup`` mixes them, one
share from Beta(a, a) a batch (Stanton et al., appendix A.1): the teacher labels the mixture, so
hard labels have no part in it. ``permuted`` is a control (OWN DEFINITION), of images that are not
mixed: the teacher's probabilities of all classes but the right one trade places at random, for each
sample; how sure the teacher is stays, what it says of the other classes goes.

A cycle in ``soft`` is our reading (OWN DEFINITION) of the cyclical distillation that General
Cyclical Training proposes (L. N. Smith, arXiv 2202.08835): the teacher's guidance is easy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from cyclery.common.errors import UserError
from cyclery.common.lazy import F, torch
from cyclery.methods._ssl import passes
from cyclery.schedules import Quantity

VERSION = 1
TITLE = "Knowledge distillation"


@dataclass(frozen=True)
class Settings:
    """Settings of the loss; the defaults are those of the benchmark on CIFAR-100."""

    temperature: Quantity = field(
        default=4.0,
        metadata={"doc": "divides the logits of teacher and student in the soft loss", "above": 0},
    )
    soft: Quantity = field(
        default=0.9,
        metadata={"doc": "weight of the soft loss", "low": 0.0},
    )
    hard: float | None = field(
        default=None,
        metadata={
            "doc": "weight of the labels' cross-entropy; null is 1 - `soft`, but at least 0",
            "low": 0.0,
        },
    )
    form: Literal["kl", "cross_entropy"] = field(
        default="kl", metadata={"doc": "divergence from the teacher, or cross-entropy with it"}
    )
    reduction: Literal["batchmean", "mean"] = field(
        default="batchmean",
        metadata={"doc": "sum over classes and mean over samples, or a mean over both"},
    )
    squared: bool = field(default=True, metadata={"doc": "multiply the soft loss by T^2"})
    targets: Literal["teacher", "permuted"] = field(
        default="teacher",
        metadata={"doc": "`permuted`: the wrong classes trade their probabilities (control)"},
    )
    inputs: Literal["labelled", "unlabelled", "both"] = field(
        default="labelled", metadata={"doc": "samples that the teacher labels"}
    )
    mixup: float | None = field(
        default=None,
        metadata={"doc": "a of the Beta(a, a) that mixes these samples; null mixes none",
                  "above": 0.0},
    )  # fmt: skip

    def __post_init__(self) -> None:
        if self.mixup is not None and self.hard != 0:
            raise UserError(f"mixup: a mixture has no hard label; set hard: 0 (found {self.hard}).")
        if self.targets == "permuted" and self.inputs != "labelled":
            raise UserError(
                f"targets: permuted needs the right class of every sample, so inputs: labelled "
                f"(found {self.inputs})."
            )
        if self.targets == "permuted" and self.mixup is not None:
            raise UserError(
                "targets: permuted needs the right class of every sample, and a mixture has two; "
                f"drop mixup (found {self.mixup}), or set targets: teacher."
            )


def streams(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Return the views of each stream."""
    if settings.inputs == "labelled":
        return {"labelled": ("weak",)}
    return {"labelled": ("weak",), "unlabelled": ("weak",)}


def parents(settings: Settings) -> tuple[str, ...]:
    """Return the one parent."""
    return ("teacher",)


def forwards(settings: Settings, images: dict[str, int]) -> int:
    """Return the images of an update that pass the student, and those that pass the teacher."""
    taught = sum(images.values()) if settings.inputs == "both" else images[settings.inputs]
    hard = settings.inputs == "unlabelled" and settings.hard != 0
    return 2 * taught + (images["labelled"] if hard else 0)


def soft_losses(
    student: torch.Tensor, target: torch.Tensor, temperature: torch.Tensor, settings: Settings
) -> torch.Tensor:
    """Return the soft loss of each sample [N] of logits [N, K] and target probabilities [N, K].

    ``target`` is at the temperature already. With ``reduction: mean`` a sample's loss is a mean
    over classes.
    """
    losses = F.cross_entropy(student / temperature, target, reduction="none")
    if settings.form == "kl":
        losses = losses - torch.special.entr(target).sum(1)
    if settings.reduction == "mean":
        losses = losses / student.shape[1]
    return losses * temperature.square() if settings.squared else losses


def permuted(target: torch.Tensor, y: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return probabilities [N, K] whose entries but that of ``y`` [N] trade places at random."""
    right = y[:, None] == torch.arange(target.shape[1], device=y.device)
    # The right class comes first in both orders, so it keeps its place.
    keys = torch.rand(target.shape, generator=generator, device=target.device)
    drawn = keys.masked_fill(right, -1.0).argsort(1)
    plain = (~right).to(torch.uint8).argsort(dim=1, stable=True)
    # Gathered, not scattered: that is deterministic on every device by itself.
    return target.gather(1, drawn).gather(1, plain.argsort(1))


def mixed(x: torch.Tensor, a: float, generator: torch.Generator) -> torch.Tensor:
    """Return samples [N, ...] mixed with others of them, one share from Beta(a, a) for all."""
    shape = torch.full((2,), a, device=x.device)
    first, second = torch._standard_gamma(shape, generator=generator).unbind()
    order = torch.rand(len(x), generator=generator, device=x.device).argsort()
    return x.index_select(0, order).lerp(x, first / (first + second))


def step(
    models: dict[str, torch.nn.Module],
    batch: Any,
    row: dict[str, torch.Tensor],
    settings: Settings,
    generator: torch.Generator,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss; its two parts and the agreement with the teacher are logged."""
    parts = {"labelled": [batch.x], "both": [batch.x]}.get(settings.inputs, [])
    if settings.inputs != "labelled":
        parts = [*parts, batch.unlabelled.x]
    taught = parts[0] if len(parts) == 1 else torch.cat(parts)
    if settings.mixup is not None:
        taught = mixed(taught, settings.mixup, generator)
    if settings.hard == 0:
        student = models["main"](taught).float()
        loss_hard = torch.zeros((), device=taught.device)
    elif settings.inputs == "unlabelled":
        z_x, student = passes(models["main"], [batch.x, taught], "joint")
        loss_hard = F.cross_entropy(z_x, batch.y)
    else:
        # The labelled samples come first.
        student = models["main"](taught).float()
        loss_hard = F.cross_entropy(student[: len(batch.y)], batch.y)
    answer = models["teacher"](taught)
    target = (answer / row["temperature"]).softmax(1)
    if settings.targets == "permuted":
        target = permuted(target, batch.y, generator)
    loss_soft = soft_losses(student, target, row["temperature"], settings).mean()
    hard = (1 - row["soft"]).clamp_min(0) if settings.hard is None else settings.hard
    agreement = (student.argmax(1) == answer.argmax(1)).to(student.dtype).mean()
    return hard * loss_hard + row["soft"] * loss_soft, {
        "loss_hard": loss_hard,
        "loss_soft": loss_soft,
        "agreement": agreement,
    }
