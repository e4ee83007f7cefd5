"""S4L: a task that needs no labels is learnt beside the classes, by one network.

X. Zhai et al., S4L (arXiv 1905.03670, sections 3.1, 3.2 and 7) and its code, google-research/s4l.
All images pass the network at once, the unlabelled ones, among which are the labelled ones, before
the labelled ones; a linear layer of its own makes the task's outputs of the features:

    loss = class_weight L_class + weight L_task

``task: rotation``: every image is there in four rotations, by 0, 1, 2 and 3 quarters of a turn
counter-clockwise, and the task is which. ``task: exemplar``: every image is there in ``copies``
views, and the task is to have those of one image nearer to each other than to those of others, by
batch-hard triplets with a soft margin: with the outputs at a length of 1, d+ the largest distance
of a view from others of its image and d- the least from views of other images,

    L = mean log(1 + exp(d+ - d-))

L_task is the mean of that of each stream, which has triplets of its own. L_class is the mean
cross-entropy over all rotations, or copies, of labelled images. With a ``weight`` of 0 the task is
not learnt, and what is left is a control: training with classes on all rotations, or copies.

``vat`` adds the other terms of the first step of the paper's combination (MOAM), with p(u) the
predictions for all rotations of unlabelled images, cut off from the graph, and H the entropy,

    vat_weight mean KL(p(u + r) || p(u)) + entropy_weight mean H(p(u))

The perturbation r is sought as in `vat`, in one iteration, but by this divergence, the perturbed
prediction first. Both passes have the batch statistics of the unlabelled images alone and leave
running statistics as they are, whereas p(u) comes from the pass of both streams; so it is in the
code. (VAT without a task is the method `vat`.) Weights there are 0.4 of rotations and 0.3 of each
other term.

``samples: unlabelled`` has no labelled stream: the task alone is learnt, for a child to start from.
``samples: labelled`` leaves out the unlabelled one. ``labels: teacher`` is the second step: the
labelled stream has all samples, those without labels with what a parent says (see `retraining`).

Tests are of images as they are; the accuracy of the mean over four rotations is measured too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from cyclery.common.errors import UserError
from cyclery.common.lazy import F, torch
from cyclery.methods import Stream, retraining
from cyclery.methods._contrastive import similarities
from cyclery.methods._contrastive import unit as unit_length
from cyclery.methods._gradients import by_input
from cyclery.methods._rotations import QUARTERS, averaged, check_square, rotations
from cyclery.methods._streams import MU, OWN, TRAIN, UNLABELLED
from cyclery.methods.retraining import Predictions
from cyclery.methods.vat import divergence, unit
from cyclery.schedules import Quantity

VERSION = 1
TITLE = "S4L"


@dataclass(frozen=True)
class Settings:
    """Settings of the loss; defaults are those of the code, with lengths for 32 x 32 colours."""

    weight: Quantity = field(
        default=1.0, metadata={"doc": "weight of the task without labels", "low": 0.0}
    )
    class_weight: Quantity = field(
        default=1.0, metadata={"doc": "weight of the cross-entropy of the classes", "low": 0.0}
    )
    vat_weight: Quantity = field(
        default=0.3, metadata={"doc": "weight of the divergence of `vat`", "low": 0.0}
    )
    entropy_weight: Quantity = field(
        default=0.3, metadata={"doc": "weight of the entropy of predictions", "low": 0.0}
    )
    epsilon: Quantity = field(
        default=11.4,
        metadata={"doc": "L2 norm of the perturbation of a normalised image", "low": 0.0},
    )
    xi: Quantity = field(
        default=0.01,
        metadata={
            "doc": "L2 norm of the step at which the search takes its gradient; 1e-6 in the code, "
            "which float32 loses",
            "above": 0.0,
        },
    )
    task: Literal["rotation", "exemplar"] = field(
        default="rotation", metadata={"doc": "which rotation it is, or triplets of views"}
    )
    vat: bool = field(
        default=False,
        metadata={"doc": "adds virtual adversarial training and the entropy of predictions"},
    )
    samples: Literal["both", "labelled", "unlabelled"] = field(
        default="both",
        metadata={"doc": "streams that there are; `unlabelled`: the task alone, without classes"},
    )
    labels: Literal["known", "teacher"] = field(
        default="known",
        metadata={
            "doc": "labels of the labelled stream: those that are known, or of all samples, with "
            "what a parent says of the others"
        },
    )
    predictions: Predictions = field(
        default="rotations",
        metadata={"doc": "what the parent's labels are of: the image, or its four rotations"},
    )
    copies: int = field(
        default=8, metadata={"doc": "views of an image in triplets", "low": 2, "high": 64}
    )
    embedding: int = field(
        default=1000, metadata={"doc": "outputs that triplets compare", "low": 2, "high": 10_000}
    )

    def __post_init__(self) -> None:
        if self.vat and (self.task != "rotation" or self.samples != "both"):
            raise UserError(
                "vat: true needs task: rotation and samples: both (found "
                f"{self.task} and {self.samples})."
            )
        if self.labels == "teacher" and self.samples == "unlabelled":
            raise UserError("labels: teacher needs a labelled stream (found samples: unlabelled).")


def ignored(settings: Settings) -> dict[str, str]:
    """Return what nothing reads, by name, and why."""
    found: dict[str, str] = {}
    if not settings.vat:
        names = ("vat_weight", "entropy_weight", "epsilon", "xi")
        found |= dict.fromkeys(names, "vat: false")
    if settings.task != "exemplar":
        found |= dict.fromkeys(("copies", "embedding"), f"task: {settings.task}")
    if settings.labels == "known":
        found["predictions"] = "labels: known"
    if settings.samples == "unlabelled":
        found["class_weight"] = "samples: unlabelled"
    return found


def streams(settings: Settings) -> dict[str, Stream]:
    """Return the streams: the labelled one, which makes the epoch where it is there, first."""
    views = ("weak",) * (settings.copies if settings.task == "exemplar" else 1)
    if settings.samples == "unlabelled":
        return {"unlabelled": Stream(views, UNLABELLED)}
    found = {"labelled": Stream(views, TRAIN if settings.labels == "known" else OWN)}
    if settings.samples == "both":
        found["unlabelled"] = Stream(views, UNLABELLED, MU)
    return found


def forwards(settings: Settings, images: dict[str, int]) -> int:
    """Return the images that pass the network: all rotations, and perturbed ones twice."""
    turned = QUARTERS if settings.task == "rotation" else 1
    perturbed = images["unlabelled"] if settings.vat else 0
    return turned * (sum(images.values()) + 2 * perturbed)


def classifies(settings: Settings) -> bool:
    """Say whether there is a labelled stream."""
    return settings.samples != "unlabelled"


def parents(settings: Settings) -> tuple[str, ...]:
    """Return the parent that makes labels, where one does."""
    return retraining.parents(retraining.Settings()) if settings.labels == "teacher" else ()


def begin(models: dict[str, torch.nn.Module], moment: Any, settings: Settings) -> None:
    """Label the samples that have no label, where a parent does."""
    if settings.labels == "teacher":
        retraining.label_all(models, moment, "labelled", settings.predictions)


def modules(settings: Settings, made: Any) -> dict[str, torch.nn.Module]:
    """Return the layer that makes the outputs of the task."""
    if settings.task == "rotation":
        check_square(made.shape, "task: rotation", "exemplar")
    if settings.labels == "teacher":
        retraining.check_shape(made.shape, settings.predictions)
    outputs = QUARTERS if settings.task == "rotation" else settings.embedding
    return {"task": torch.nn.Linear(made.width, outputs)}


def keeps(settings: Settings) -> tuple[str, ...]:
    """Return the layer of the task, with which a child may go on."""
    return ("task",)


def measures(settings: Settings) -> tuple[str, ...]:
    """Return the names of the accuracies of the mean over four rotations."""
    turned = settings.task == "rotation" and classifies(settings)
    return ("test_rotations_accuracy", "val_rotations_accuracy") if turned else ()


def evaluate(
    models: dict[str, torch.nn.Module], measured: Any, settings: Settings
) -> dict[str, float]:
    """Return the accuracies of logits that are averaged over four rotations."""
    found = {}
    for name in measures(settings):
        ids = measured.pool("test" if name.startswith("test") else "validation")
        if len(ids):
            z = measured.outputs(lambda x: averaged(models["main"], x), ids)
            found[name] = float((z.argmax(1) == measured.labels(ids)).double().mean())
    return found


def rotation_loss(z: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of outputs [4 N, 4] for the rotations of N images."""
    turns = torch.arange(QUARTERS, device=z.device)
    return F.cross_entropy(z, turns.repeat_interleave(len(z) // QUARTERS))


def triplet_loss(z: torch.Tensor, images: int) -> torch.Tensor:
    """Return the batch-hard soft-margin triplet loss of outputs [M N, D] of M copies of N images.

    The copies follow each other: row i is of image i mod N. Distances are Euclidean.
    """
    ids = torch.arange(images, device=z.device).repeat(len(z) // images)
    same = ids[:, None] == ids
    # Of vectors of length 1; the root of less has no gradient that is finite.
    distances = (2 - 2 * similarities(unit_length(z))).clamp(min=1e-12).sqrt()
    far = distances.masked_fill(~same, 0).amax(1)
    near = distances.masked_fill(same, torch.inf).amin(1)
    # Both are between 0 and 2, so nothing overflows.
    return (1 + (far - near).exp()).log().mean()


def vat_loss(
    net: torch.nn.Module,
    x: torch.Tensor,
    z: torch.Tensor,
    perturbed: int,
    row: dict[str, torch.Tensor],
    generator: torch.Generator,
) -> torch.Tensor:
    """Return the divergence of the first images of ``x`` from their worst perturbation.

    ``z`` [N, K] are the logits of ``x`` [N, C, H, W]; ``perturbed`` images are perturbed.
    """
    from cyclery.models.layers import statistics_kept

    u, clean, kind = x[:perturbed], z[:perturbed].detach(), x.device.type
    with statistics_kept(net):
        rough = torch.is_autocast_enabled(kind)
        with torch.no_grad(), torch.autocast(kind, enabled=False):
            exact = net(x)[:perturbed] if rough else clean
            d = row["xi"] * unit(torch.empty_like(u).normal_(generator=generator))
            d = unit(by_input(net, lambda d: divergence(exact, net(u + d), "reverse"), d))
        answers = net(u + row["epsilon"] * d).float()
    return divergence(clean, answers, "reverse")


def step(
    models: dict[str, torch.nn.Module],
    batch: Any,
    row: dict[str, torch.Tensor],
    settings: Settings,
    generator: torch.Generator,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss; its parts are logged."""
    net: Any = models["main"]
    given = [batch[name] for name in ("unlabelled", "labelled") if name in batch.streams]
    rotated = settings.task == "rotation"
    parts = [rotations(each.x) if rotated else torch.cat(each.views) for each in given]
    x, sizes = torch.cat(parts), [len(part) for part in parts]
    features = net.features(x)
    outputs = models["task"](features).float().split(sizes)
    losses = [
        rotation_loss(z) if rotated else triplet_loss(z, len(each.y))
        for z, each in zip(outputs, given, strict=True)
    ]
    loss_task = torch.stack(losses).mean()
    loss, logs = row["weight"] * loss_task, {"loss_task": loss_task}
    if not classifies(settings):
        return loss, logs
    z = net.head(features).float()
    labelled = z[-sizes[-1] :]
    loss_class = F.cross_entropy(labelled, batch.y.repeat(len(labelled) // len(batch.y)))
    loss, logs["loss_labelled"] = loss + row["class_weight"] * loss_class, loss_class
    if settings.vat:
        unlabelled = z[: sizes[0]]
        loss_vat = vat_loss(net, x, z, sizes[0], row, generator)
        entropy = F.cross_entropy(unlabelled, unlabelled.softmax(1))
        loss = loss + row["vat_weight"] * loss_vat + row["entropy_weight"] * entropy
        logs |= {"loss_vat": loss_vat, "entropy": entropy}
    return loss, logs
