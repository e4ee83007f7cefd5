"""Retraining on pseudo-labels: what a parent says of samples without labels is taken for true.

The pseudo-label baseline of X. Zhai et al., S4L (arXiv 1905.03670, section 4.2) and of its code,
google-research/s4l. A parent predicts all samples; labelled ones keep their labels, the others get
the likeliest class, however unsure it is, and a network is trained on all of them as if each label
were known:

    loss = mean CE(y, f(x))

In the paper that network is a new one; with ``init`` it goes on from another. A prediction is that
of the image as it is, or, as in the second step of the paper's combination of methods, the mean of
the parent's log-probabilities of the four rotations, which has the order of the mean of its logits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from cyclery.common.lazy import F, torch
from cyclery.methods import Stream
from cyclery.methods._rotations import averaged, check_square
from cyclery.methods._streams import OWN

VERSION = 1
TITLE = "Retraining on pseudo-labels"
Predictions = Literal["upright", "rotations"]
TEACHER = "teacher"


@dataclass(frozen=True)
class Settings:
    """Settings of the pseudo-labels."""

    predictions: Predictions = field(
        default="upright",
        metadata={
            "doc": "what makes a pseudo-label: the image as it is, or the mean over its four "
            "rotations"
        },
    )


def streams(settings: Settings) -> dict[str, Stream]:
    """Return the stream of all training samples, whose labels `begin` gives."""
    return {"labelled": Stream(("weak",), OWN)}


def parents(settings: Settings) -> tuple[str, ...]:
    """Return the parent that makes the pseudo-labels."""
    return (TEACHER,)


def check_shape(shape: tuple[int, int, int], predictions: Predictions) -> None:
    """Raise a UserError where images [C, H, W] must be turned and cannot be."""
    if predictions == "rotations":
        check_square(shape, "predictions: rotations", "upright")


def modules(settings: Settings, made: Any) -> dict[str, torch.nn.Module]:
    """Return no module; images that cannot be turned are refused."""
    check_shape(made.shape, settings.predictions)
    return {}


def label_all(
    models: dict[str, torch.nn.Module], moment: Any, stream: str, predictions: Predictions
) -> None:
    """Fill a stream with all training samples, with true labels where they are known."""
    teacher = models[TEACHER]

    def answer(x: torch.Tensor) -> torch.Tensor:
        return averaged(teacher, x) if predictions == "rotations" else teacher(x)

    ids = torch.cat([moment.ids, moment.pool("unlabelled")]).unique()
    labels = moment.outputs(answer, ids).argmax(1)
    known = torch.isin(ids, moment.ids)
    moment.fill(stream, ids, torch.where(known, moment.labels(ids), labels))


def begin(models: dict[str, torch.nn.Module], moment: Any, settings: Settings) -> None:
    """Label the samples that have no label."""
    label_all(models, moment, "labelled", settings.predictions)


def step(
    models: dict[str, torch.nn.Module],
    batch: Any,
    row: dict[str, torch.Tensor],
    settings: Settings,
    generator: torch.Generator,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the mean cross-entropy of the batch; nothing else is logged."""
    return F.cross_entropy(models["main"](batch.x).float(), batch.y), {}
