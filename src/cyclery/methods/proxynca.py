"""ProxyNCA and ProxyNCA++: an image is near the proxy of its class, and far from the others.

Y. Movshovitz-Attias et al. (arXiv 1703.07464) compare an embedding e with one learnt proxy f_c for
each class; E. W. Teh et al., ProxyNCA++ (arXiv 2004.01113, and its program euwern/proxynca_pp),
make a probability of it. With s the ``scale``,

    d_c = |s e / |e| - s f_c / |f_c||^2 = 2 s^2 (1 - cos(e, f_c)),

and of the distances to all proxies the loss of a sample of class y is, by the ``form``,

- ``probability``: -log softmax(-d)_y, so that with scale 3 it is the cross-entropy of 18 cos: a
  temperature of 1/9 of the squared distance;
- ``original``: -log(exp(-d_y) / sum over c != y of exp(-d_c)), with scale 1 in its paper.

e is a linear layer on the features of the network, after a layer norm without weights of its own
(``norm``). Proxies begin as N(0, 1) / 8. What is compared is normalised in training alone:
``features`` are embeddings as they are, whose Euclidean distances retrieval takes, as the program
does. The rest of the recipe is configuration: proxies that move fast (``rates: {features: ...,
embedding: ...}``), Adam with ``eps: 1``, the bound on gradients of the network but not of the
proxies (``clip_values``), and the network's maximum over pixels (``pooling: max``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from cyclery.common.lazy import F, torch
from cyclery.methods import Stream
from cyclery.schedules import Quantity

VERSION = 1
TITLE = "ProxyNCA++"

# Models by name.
Models = dict[str, "torch.nn.Module"]
Form = Literal["probability", "original"]


@dataclass(frozen=True)
class Settings:
    """Settings of distances, loss and batches; the defaults are those of ProxyNCA++."""

    form: Form = field(
        default="probability",
        metadata={
            "doc": "`probability`: the softmax over all proxies (ProxyNCA++); `original`: the "
            "denominator leaves out the proxy of the class (ProxyNCA)"
        },
    )
    scale: float = field(
        default=3.0,
        metadata={
            "doc": "length of embeddings and proxies where they are compared: the root of 1 / "
            "temperature; ProxyNCA has 1",
            "above": 0.0,
        },
    )
    embedding: int | None = field(
        default=None,
        metadata={"doc": "length of an embedding; null: that of the features", "low": 1},
    )
    norm: bool = field(
        default=True,
        metadata={"doc": "whether a layer norm without weights comes before the embedding"},
    )
    classes: int | None = field(
        default=None,
        metadata={
            "doc": "classes of a batch, which has as many samples of each (the paper has 8 with "
            "4); `batch` is a multiple of it; null: samples are shuffled",
            "low": 2,
        },
    )
    backbone: Quantity = field(
        default=1.0,
        metadata={
            "doc": "share of its gradient that reaches the network below the embedding: 0 freezes "
            "it, as in the paper's warm-up. OWN DEFINITION: the program has a rate of 0 there, and "
            "Adam's averages go on",
            "low": 0.0,
            "high": 1.0,
        },
    )


def streams(settings: Settings) -> dict[str, Stream]:
    """Return the labelled samples in one weak view, shuffled or of a few classes at a time."""
    if settings.classes is None:
        return {"labelled": Stream(("weak",))}
    return {"labelled": Stream(("weak",), sampler="balanced", classes=settings.classes)}


def parts(width: int, classes: int, embedding: int | None, norm: bool) -> Models:
    """Return the embedding of features [B, width], and the proxies [classes, embedding]."""
    length = embedding or width
    proxies = torch.nn.Module()
    proxies.weight = torch.nn.Parameter(torch.empty(classes, length))
    torch.nn.init.normal_(proxies.weight, std=1 / 8)
    layers: list[torch.nn.Module] = [torch.nn.Linear(width, length)]
    if norm:
        layers.insert(0, torch.nn.LayerNorm(width, elementwise_affine=False))
    return {"proxies": proxies, "embedding": torch.nn.Sequential(*layers)}


def modules(settings: Settings, made: Any) -> Models:
    """Return embedding and proxies, one for each class that is trained."""
    return parts(made.width, made.classes, settings.embedding, settings.norm)


def keeps(settings: Settings) -> tuple[str, ...]:
    """Return what is handed on beside the network."""
    return ("proxies", "embedding")


def distances(e: torch.Tensor, proxies: torch.Tensor, scale: float) -> torch.Tensor:
    """Return the squared distances [B, C] of embeddings [B, D] and proxies [C, D], at a scale."""
    # In bfloat16 near and nearest would be the same.
    with torch.autocast(e.device.type, enabled=False):
        cosine = F.linear(F.normalize(e.float()), F.normalize(proxies.float()))
    return 2 * scale**2 * (1 - cosine).clamp_min(0)


def loss(d: torch.Tensor, y: torch.Tensor, form: Form) -> torch.Tensor:
    """Return the mean loss of samples whose distances to all proxies are d [B, C]."""
    if form == "probability":
        return F.cross_entropy(-d, y)
    own = torch.eye(d.shape[1], dtype=torch.bool, device=d.device)[y]
    others = torch.where(own, -torch.inf, -d).logsumexp(1)
    nearest = torch.where(own, d, 0.0).sum(1)
    return (nearest + others).mean()


def features(models: Models, x: torch.Tensor, settings: Settings) -> dict[str, torch.Tensor]:
    """Return embeddings [B, D] as they are, and what is below them, ``network`` [B, width]."""
    net: Any = models["main"]
    v = net.features(x)
    return {"features": models["embedding"](v), "network": v}


def predict(models: Models, x: torch.Tensor, settings: Settings) -> torch.Tensor:
    """Return minus the distances [B, C] to the proxies: the nearest is the class."""
    proxies: Any = models["proxies"].weight
    return -distances(features(models, x, settings)["features"], proxies, settings.scale)


def step(
    models: Models,
    batch: Any,
    row: dict[str, torch.Tensor],
    settings: Settings,
    generator: torch.Generator,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss; nothing else is logged."""
    net: Any = models["main"]
    proxies: Any = models["proxies"].weight
    v = net.features(batch.x)
    share = row["backbone"].to(v.dtype)
    v = v * share + v.detach() * (1 - share)
    d = distances(models["embedding"](v), proxies, settings.scale)
    return loss(d, batch.y, settings.form), {}
