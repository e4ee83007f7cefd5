"""AuxiLearn: labels of an auxiliary task are learnt, so that held-out samples are told better.

A. Navon et al., Auxiliary Learning by Implicit Differentiation (ICLR 2021, arXiv 2007.02693), in
the form of the small-data benchmark (L. Brigato et al., arXiv 2212.12478; code lorenzobrigato/gem).
A generator g, another network of the run's kind, gives every sample soft labels q = softmax of
g(x) over the ``subclasses`` slots of its class y. The network has two heads, p over the C classes
and a over all C x subclasses slots, and with the focal losses of a sample

    l_main = -(1 - p_y)^2 log p_y,   l_aux = -aux_weight sum_k q_k (1 - a_k)^2 log a_k

it is trained on the mean of l_main + w_1 l_main + w_2 l_aux; w, from 1 on, is the linear combiner,
and the first term its skip connection. Before every ``every``-th update generator and combiner take
a step of SGD (momentum 0.9) that lowers the mean l_main of held-out samples, by the implicit
function theorem: with W the weights of network and main head, L the loss of ``inner`` training
samples and A that of the held-out ones

    -d/dphi (dL/dW) . v,   v = sum_{j=0}^{terms} (1 - s d2L/dW2)^j dA/dW     (Neumann series)

whose norm is cut at ``clip``. s v would be the product with the inverse Hessian; the code leaves s
out, and so do we: the step's rate makes up for it. s and that rate are the run's ``lr``, the
largest so far (the code's first one), and the weight decay is the run's at that update.

The held-out samples, the larger of ``held_out`` of the training samples and one for each class, are
drawn from these by class, and the network is never trained on them. w is kept at
zero or above after each step, as the paper wants: the code never does (``clamp: false``).

Otherwise than in the code: steps see samples that are not augmented, and no running statistics move
there; the generator's batch norm always has the statistics of the batch, where the code's is in
evaluation mode from the first evaluation on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cyclery.common.errors import UserError
from cyclery.common.lazy import torch
from cyclery.methods import Stream
from cyclery.methods._projection import mlp

VERSION = 1
TITLE = "AuxiLearn"

MOMENTUM = 0.9
SIZE: dict[str, Any] = {"low": 1, "high": 65_536}


@dataclass(frozen=True)
class Settings:
    """Settings of both losses and of the implicit step; the defaults are the benchmark's."""

    subclasses: int = field(
        default=5, metadata={"doc": "slots of each class in the auxiliary task", "low": 1,
                             "high": 1000},
    )  # fmt: skip
    aux_weight: float = field(
        default=0.25, metadata={"doc": "of the auxiliary loss, before the combiner", "low": 0.0}
    )
    embedding: int | None = field(
        default=1000,
        metadata={"doc": "length of the vector that network and generator make for their heads, of "
                  "two layers; null: heads are one layer on features, the main one the network's",
                  **SIZE},
    )  # fmt: skip
    hidden: int = field(default=512, metadata={"doc": "hidden units of those heads", **SIZE})
    every: int = field(
        default=15, metadata={"doc": "updates from one implicit step to the next", "low": 1}
    )
    terms: int = field(
        default=3, metadata={"doc": "terms of the series beyond the first", "low": 0, "high": 1000}
    )
    clip: float = field(
        default=50.0, metadata={"doc": "largest norm of an implicit gradient", "above": 0.0}
    )
    inner: int = field(
        default=50,
        metadata={"doc": "training samples of an implicit step, and at most so many of those that "
                  "are held out", "low": 2, "high": 65_536},
    )  # fmt: skip
    held_out: float = field(
        default=0.015,
        metadata={"doc": "share of the training samples that is held out", "low": 0.0,
                  "high": 0.9},
    )  # fmt: skip
    clamp: bool = field(
        default=True, metadata={"doc": "the combiner stays at zero or above (code: false)"}
    )


def streams(settings: Settings) -> dict[str, Stream]:
    """Return the one stream: training samples that are not held out."""
    return {"labelled": Stream(("weak",), "own")}


def ignored(settings: Settings) -> dict[str, str]:
    """Return the settings that nothing reads beside the others."""
    return {} if settings.embedding else {"hidden": "embedding: null"}


def forwards(settings: Settings, images: dict[str, int]) -> int:
    """Return the images that pass network and generator, and their share of implicit steps."""
    return 2 * images["labelled"] + 3 * settings.inner // settings.every


def modules(settings: Settings, made: Any) -> dict[str, torch.nn.Module]:
    """Return heads, and what implicit steps change: generator, combiner and their momentum."""
    slots, length, nn = made.classes * settings.subclasses, settings.embedding, torch.nn

    def two_layers(outputs: int) -> Any:
        return mlp(length or 0, settings.hidden, outputs, hidden_norm=False)

    found: dict[str, torch.nn.Module] = {}
    if length:
        generator = nn.Sequential(made.fresh(length), two_layers(slots))
        found["embedding"] = nn.Linear(made.width, length)
        found["main_head"], found["aux_head"] = two_layers(made.classes), two_layers(slots)
    else:
        generator, found["aux_head"] = made.fresh(slots), nn.Linear(made.width, slots)
    learnt = nn.Module()
    learnt.generator, learnt.combiner = generator, nn.Parameter(torch.ones(2))
    learnt.requires_grad_(False)
    count = sum(each.numel() for each in learnt.parameters())
    learnt.register_buffer("velocity", torch.zeros(count))
    # The largest learning rate so far, and the last weight decay.
    learnt.register_buffer("rate", torch.zeros(2))
    learnt.register_buffer("held", torch.zeros(made.samples, dtype=torch.bool))
    return {**found, "learnt": learnt}


def begin(models: dict[str, torch.nn.Module], moment: Any, settings: Settings) -> None:
    """Hold samples out: one of each class, and then of each as large a share."""
    ids, y = moment.ids, moment.y
    draws = torch.rand(len(ids), generator=moment.generator("held out")).to(ids.device)
    order, key = draws.argsort(), torch.empty_like(draws)
    for label in y.unique().tolist():
        of = order[y[order] == label]
        key[of] = (torch.arange(len(of), device=ids.device) + draws[of]) / len(of)
        key[of[0]] = -1
    count = max(round(settings.held_out * len(ids)), len(y.unique()))
    out = key.argsort()[:count]
    learnt: Any = models["learnt"]
    learnt.held.zero_()
    learnt.held[ids[out]] = True
    rest = ~learnt.held[ids]
    if len(y[rest].unique()) < len(y.unique()):
        raise UserError(
            f"method.held_out: leaves a class without a training sample ({count} of {len(ids)} "
            "are held out, one of each class at least); hold fewer out, or let `split` have two "
            "labels of each class or more."
        )
    moment.fill("labelled", ids[rest])


def predict(
    models: dict[str, torch.nn.Module], x: torch.Tensor, settings: Settings
) -> torch.Tensor:
    """Return the logits [B, C] of the main head."""
    return _heads(models, x, settings)[0]


def _heads(
    models: dict[str, torch.nn.Module], x: torch.Tensor, settings: Settings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits of both heads, [B, C] and [B, C x subclasses]."""
    net: Any = models["main"]
    h = net.features(x)
    if settings.embedding:
        h = models["embedding"](h)
        return models["main_head"](h).float(), models["aux_head"](h).float()
    return net.head(h).float(), models["aux_head"](h).float()


def focal(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return -sum_k q_k (1 - p_k)^2 log p_k [B] of logits and soft labels q, both [B, K]."""
    log_p = logits.log_softmax(1)
    return -(labels * (1 - log_p.exp()).square() * log_p).sum(1)


def soft_labels(logits: torch.Tensor, y: torch.Tensor, subclasses: int) -> torch.Tensor:
    """Return the softmax [B, C x subclasses] over the slots of each sample's class y [B]."""
    slots = torch.arange(logits.shape[1], device=y.device) // subclasses
    return logits.masked_fill(slots != y[:, None], float("-inf")).softmax(1)


def losses(
    models: dict[str, torch.nn.Module], x: torch.Tensor, y: torch.Tensor, settings: Settings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the focal losses of every sample, [B] each, of the main and the auxiliary task."""
    learnt: Any = models["learnt"]
    main, aux = _heads(models, x, settings)
    labels = soft_labels(learnt.generator(x).float(), y, settings.subclasses)
    hot = torch.eye(main.shape[1], device=y.device, dtype=main.dtype)[y]
    return focal(main, hot), settings.aux_weight * focal(aux, labels)


def combined(weights: torch.Tensor, main: torch.Tensor, aux: torch.Tensor) -> torch.Tensor:
    """Return what is trained on [], of both tasks' losses [B] and the combiner's weights [2]."""
    return (main + weights[0] * main + weights[1] * aux).mean()


def step(
    models: dict[str, torch.nn.Module],
    batch: Any,
    row: dict[str, torch.Tensor],
    settings: Settings,
    generator: torch.Generator,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the combined loss; both tasks' losses and the combiner's weights are logged."""
    learnt: Any = models["learnt"]
    main, aux = losses(models, batch.x, batch.y, settings)
    with torch.no_grad():
        rate = torch.maximum(learnt.rate[0], row["lr"])
        learnt.rate.copy_(torch.stack([rate, row["weight_decay"]]))
    weights = learnt.combiner
    logs = {"loss_labelled": main.mean(), "loss_auxiliary": aux.mean(),
            "main_weight": weights[0], "auxiliary_weight": weights[1]}  # fmt: skip
    return combined(weights, main, aux), logs


def implicit_gradient(
    inner: torch.Tensor,
    outer: torch.Tensor,
    weights: Sequence[torch.Tensor],
    of: Sequence[torch.Tensor],
    scale: float,
    terms: int,
) -> list[torch.Tensor]:
    """Return the gradient of the loss ``outer`` by ``of``, through weights that lower ``inner``.

    It is that of the implicit function theorem divided by ``scale``, with as many ``terms`` beyond
    the first one of the Neumann series for the inverse Hessian.
    """
    slopes = torch.autograd.grad(inner, weights, create_graph=True)
    v = total = torch.autograd.grad(outer, weights)
    for _ in range(terms):
        curved = torch.autograd.grad(slopes, weights, v, retain_graph=True)
        v = tuple(a - scale * b for a, b in zip(v, curved, strict=True))
        total = tuple(a + b for a, b in zip(total, v, strict=True))
    # What the inner loss does not depend on, such as the running head of a generator, has none.
    found = torch.autograd.grad(slopes, of, total, materialize_grads=True)
    return [-each for each in found]


def events(settings: Settings, clock: Any) -> range:
    """Return the updates before which generator and combiner take a step."""
    return range(settings.every, clock.updates, settings.every)


def event(models: dict[str, torch.nn.Module], moment: Any, settings: Settings) -> None:
    """Take an implicit step of generator and combiner."""
    from cyclery.models.layers import statistics_kept

    learnt: Any = models["learnt"]
    held = learnt.held[moment.ids]
    draws = torch.rand(len(held), generator=moment.generator("inner")).to(held.device)
    parts = (moment.ids[part][draws[part].argsort()[: settings.inner]] for part in (~held, held))
    (x, y), (held_x, held_y) = ((moment.images(ids), moment.labels(ids)) for ids in parts)
    # Of network and main head: the auxiliary head has no part in the held-out loss (code).
    trained = [models[name] for name in ("main", "embedding", "main_head") if name in models]
    weights = [p for net in trained for n, p in net.named_parameters() if p.requires_grad]
    if settings.embedding:
        unused = set(models["main"].head.parameters())  # type: ignore[union-attr]
        weights = [p for p in weights if p not in unused]
    of = list(learnt.parameters())
    rate, decay = learnt.rate.tolist()
    learnt.requires_grad_(True)
    try:
        with statistics_kept(models["main"]), statistics_kept(learnt):
            inner = combined(learnt.combiner, *losses(models, x, y, settings))
            main, _ = _heads(models, held_x, settings)
            hot = torch.eye(main.shape[1], device=held_y.device)[held_y]
            outer = focal(main, hot).mean()
            found = implicit_gradient(inner, outer, weights, of, rate, settings.terms)
    finally:
        learnt.requires_grad_(False)
    with torch.no_grad():
        _descend(learnt, of, found, rate, decay, settings)


def _descend(
    learnt: Any,
    of: Sequence[torch.Tensor],
    found: Sequence[torch.Tensor],
    rate: float,
    decay: float,
    settings: Settings,
) -> None:
    """Move what is learnt by a step of SGD, in place; no graph may be wanted."""
    gradient = torch.cat([each.reshape(-1) for each in found])
    gradient *= (settings.clip / (gradient.norm() + 1e-6)).clamp_max(1)
    gradient += decay * torch.cat([each.reshape(-1) for each in of])
    learnt.velocity.mul_(MOMENTUM).add_(gradient)
    sizes = [each.numel() for each in of]
    for parameter, step in zip(of, learnt.velocity.split(sizes), strict=True):
        parameter.sub_(rate * step.view(parameter.shape))
    if settings.clamp:
        learnt.combiner.clamp_(0)
