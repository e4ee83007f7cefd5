"""Weak labels: a network learns coarse, partly wrong groups of images, before it learns classes.

E. W. Teh and G. W. Taylor, Learning with Less Data via Weakly Labeled Patch Classification in
Digital Pathology (arXiv 1911.12425), first step: patches of tissue have the group of their slide,
given by people who are no experts, and a network learns these groups by a softmax, or by ProxyNCA.
The second is an arm of another method that starts from this one without its head:
``init: {from: ..., parts: [features]}``.

OWN DEFINITION: the groups are those of the first level of ``split.hierarchy`` (the classes where
there is none), and images are the unlabelled pool, which with ``unlabelled: rest`` has none of the
labelled ones. Each group is another one, of all others as likely, with the probability ``wrong``:
independently, drawn once for a run, alike for both losses. The hidden classes of the pool serve to
make these groups alone. With ``loss: proxies`` the embedding of ProxyNCA lies between features and
proxies, and is left behind with them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from cyclery.common.errors import UserError
from cyclery.common.lazy import F, torch
from cyclery.methods import Stream, proxynca

VERSION = 1
TITLE = "Weak labels"
OWN_DEFINITION = "Weak labels are groups of a hierarchy, some of which are wrong at random."

# Models by name.
Models = dict[str, "torch.nn.Module"]


@dataclass(frozen=True)
class Settings:
    """Settings of the weak labels, and of what learns them."""

    loss: Literal["softmax", "proxies"] = field(
        default="softmax",
        metadata={"doc": "`softmax`: cross-entropy of a linear head; `proxies`: ProxyNCA"},
    )
    wrong: float = field(
        default=0.1,
        metadata={"doc": "probability of another group than the image's", "low": 0.0, "high": 1.0},
    )
    form: proxynca.Form = field(
        default="original", metadata={"doc": "of the loss of `proxies`, as in `proxynca`"}
    )
    scale: float = field(
        default=1.0,
        metadata={"doc": "of embeddings and proxies, as in `proxynca`", "above": 0.0},
    )


def streams(settings: Settings) -> dict[str, Stream]:
    """Return the images with weak labels, which `begin` gives them."""
    return {"labelled": Stream(("weak",), "own")}


def classifies(settings: Settings) -> bool:
    """Say that the network's own head is not trained."""
    return False


def ignored(settings: Settings) -> dict[str, str]:
    """Return the settings that say nothing beside the others."""
    return dict.fromkeys(("form", "scale"), "loss: softmax") if settings.loss == "softmax" else {}


def modules(settings: Settings, made: Any) -> Models:
    """Return what tells groups apart, and the group of every class [C]."""
    of = made.levels[0] if made.levels else [*range(made.classes)]
    groups, count = torch.nn.Module(), 1 + max(of)
    groups.register_buffer("of", torch.tensor(of))
    if settings.loss == "softmax":
        return {"groups": groups, "classifier": torch.nn.Linear(made.width, count)}
    return {"groups": groups, **proxynca.parts(made.width, count, None, norm=False)}


def begin(models: Models, moment: Any, settings: Settings) -> None:
    """Give every image of the unlabelled pool a group, which may be wrong."""
    ids = moment.pool("unlabelled")
    classes = moment.labels(ids)
    if (classes < 0).any():
        raise UserError("split.open_set: must be null, for an unknown class has no group.")
    groups = models["groups"].get_buffer("of")
    found, count = groups[classes], 1 + int(groups.max())
    generator = moment.generator("weak labels")
    wrong = torch.rand(len(ids), generator=generator) < settings.wrong
    steps = torch.randint(1, count, (len(ids),), generator=generator)
    moved = torch.where(wrong, steps, 0).to(found.device)
    moment.fill("labelled", ids, (found + moved) % count)


def _outputs(models: Models, x: torch.Tensor, settings: Settings) -> torch.Tensor:
    """Return logits [B, G] of the groups of images."""
    net: Any = models["main"]
    v = net.features(x)
    if settings.loss == "softmax":
        z: torch.Tensor = models["classifier"](v)
        return z.float()
    proxies: Any = models["proxies"].weight
    return -proxynca.distances(models["embedding"](v), proxies, settings.scale)


def measures(settings: Settings) -> tuple[str, ...]:
    """Return the names of the accuracies on groups."""
    return ("test_group_accuracy", "val_group_accuracy")


def evaluate(models: Models, measured: Any, settings: Settings) -> dict[str, float]:
    """Return the share of right groups of test, and of validation where there is any."""
    groups = models["groups"].get_buffer("of")
    found = {}
    for part, name in (("test", "test"), ("validation", "val")):
        ids = measured.pool(part)
        if len(ids):
            z = measured.outputs(lambda x: _outputs(models, x, settings), ids)
            right = z.argmax(1) == groups[measured.labels(ids)]
            found[f"{name}_group_accuracy"] = float(right.double().mean())
    return found


def step(
    models: Models,
    batch: Any,
    row: dict[str, torch.Tensor],
    settings: Settings,
    generator: torch.Generator,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the mean loss on weak labels; nothing else is logged."""
    z = _outputs(models, batch.x, settings)
    if settings.loss == "softmax":
        return F.cross_entropy(z, batch.y), {}
    return proxynca.loss(-z, batch.y, settings.form), {}
