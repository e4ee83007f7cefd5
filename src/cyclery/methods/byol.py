"""BYOL: an online network predicts what a slowly moving average of it makes of another view.

J.-B. Grill et al., Bootstrap Your Own Latent (NeurIPS 2020, arXiv 2006.07733), section 3. With the
encoder f and the projector g, z = g(f(x)), the predictor q, and z' by the target, whose weights are
the average of those of f and g (``ema_decay``), for the views v and w of each image

    loss = mean |n(q(z(v))) - n(z'(w))|^2 + |n(q(z(w))) - n(z'(v))|^2,   n(x) = x / |x|

No gradient flows into the target. Each network has a pass of its own for each view, and all batch
norms are in training mode: with ``ema_buffers: own`` the target's running statistics are those of
its own passes. The average moves after the optimiser step; its decay is a ``cosine`` from the base
to 1 in the paper (``{kind: cosine, peak: 0.996, end: 1}``), 1 is a frozen target and 0 a copy.

``target``, ``predictor`` and ``beta`` span the grid of tables 5b and 19 (section 5): with the
cosine S of q(z), or of z without a predictor, and of what the target says, the loss above plus

    beta 2 a mean_i ln(sum_{j != i} exp(S(v_i, v_j) / a) + sum_j exp(S(v_i, w_j) / a)), twice

for v and for w; a is the ``temperature``. BYOL has beta = 0. With beta = 1, no predictor and the
``online`` network on both sides it is 4 a times the loss of SimCLR, but for its batch norms.

Other normalisations of q(z) and z' (table 20) are ``layernorm`` and ``batchnorm``, by the mean and
deviation over dimensions or over the batch, both divided by sqrt(D) so that vectors are about as
long as unit vectors, and ``none``. ``chunk`` splits a batch into parts whose losses are averaged,
which is what accumulated gradients are (table 16): batch norm and negatives see one part alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cyclery.common.errors import UserError
from cyclery.common.lazy import F, torch
from cyclery.methods import Stream
from cyclery.methods._contrastive import check_pairs, spread, unit
from cyclery.methods._projection import HiddenNorm, mlp, projected
from cyclery.schedules import Quantity

VERSION = 1
TITLE = "BYOL"

Predictor = Literal["mlp", "closed_form", "none"]
Target = Literal["ema", "stop_gradient", "online"]
Normalise = Literal["l2", "layernorm", "batchnorm", "none"]
SIZE: dict[str, Any] = {"low": 1, "high": 65_536}


@dataclass(frozen=True)
class Settings:
    """Settings of heads, target and loss; defaults are the paper's but for the `views`."""

    hidden: int = field(
        default=4096, metadata={"doc": "hidden units of projector and predictor", **SIZE}
    )
    output: int = field(default=256, metadata={"doc": "length of z and of its prediction", **SIZE})
    projector_layers: int = field(
        default=2, metadata={"doc": "linear layers of the projector", "low": 1, "high": 8}
    )
    predictor_layers: int = field(
        default=2, metadata={"doc": "linear layers of an `mlp` predictor", "low": 1, "high": 8}
    )
    head_norm: HiddenNorm | Literal["none"] = field(
        default="batch",
        metadata={
            "doc": "norm in hidden layers of both: batch; group_ws (group norm and standardised "
            "weights); none"
        },
    )
    predictor: Predictor = field(
        default="mlp",
        metadata={
            "doc": "what predicts the target: `mlp`; `closed_form`, the linear map that is best on "
            "the batch, anew at each update (section 5); `none`"
        },
    )
    target: Target = field(
        default="ema",
        metadata={
            "doc": "`ema`: the averaged networks; `stop_gradient`: the online ones without a "
            "gradient; `online`: those with a gradient through both sides (no target)"
        },
    )
    target_init: Literal["online", "other"] = field(
        default="online",
        metadata={
            "doc": "initial weights of an `ema` target: the online ones, or others (official code)"
        },
    )
    beta: float = field(
        default=0.0, metadata={"doc": "weight of the negatives", "low": 0.0, "high": 100.0}
    )
    temperature: Quantity = field(
        default=0.1, metadata={"doc": "divides cosines in the term of the negatives", "above": 0.0}
    )
    normalise: Normalise = field(
        default="l2", metadata={"doc": "how predictions and targets are normalised in the loss"}
    )
    views: Literal["asymmetric", "symmetric"] = field(
        default="symmetric",
        metadata={
            "doc": "`symmetric`: two strong ones; `asymmetric`, as in the paper: one by `views.t`, "
            "the other by `views.t_prime`"
        },
    )
    chunk: int | None = field(
        default=None,
        metadata={
            "doc": "samples of each part of a batch whose losses are averaged; null: the batch",
            "low": 2,
            "high": 65_536,
        },
    )
    pool: Literal["train", "unlabelled"] = field(
        default="train", metadata={"doc": "samples that are looked at"}
    )

    def __post_init__(self) -> None:
        if self.beta and self.normalise != "l2":
            raise UserError(
                "normalise: must be l2 with a beta above 0, whose negatives are compared by "
                f"cosines (found {self.normalise})."
            )


def streams(settings: Settings) -> dict[str, Stream]:
    """Return the one stream, of two views."""
    views = ("t", "t_prime") if settings.views == "asymmetric" else ("strong", "strong")
    return {"pairs": Stream(views, settings.pool)}


def uses_ema(settings: Settings) -> bool:
    """Say whether the target is the averaged networks."""
    return settings.target == "ema"


# Such a target is in training mode.
trains_ema = uses_ema


def averages(settings: Settings) -> bool:
    """Say that the online network is evaluated and handed on, never the target."""
    return False


def classifies(settings: Settings) -> bool:
    """Say that no labels train the head."""
    return False


def keeps(settings: Settings) -> tuple[str, ...]:
    """Return what is handed on beside the network."""
    return ("projector",)


def measures(settings: Settings) -> tuple[str, ...]:
    """Return the indicators of collapse on test images."""
    return ("test_collapse", "test_effective_rank")


def ignored(settings: Settings) -> dict[str, str]:
    """Return the settings that nothing reads beside the others."""
    found = {}
    if settings.predictor != "mlp":
        found["predictor_layers"] = f"predictor: {settings.predictor}"
    if settings.target != "ema":
        found["target_init"] = f"target: {settings.target}"
    if not settings.beta:
        found["temperature"] = "beta: 0"
    layers = settings.predictor_layers if settings.predictor == "mlp" else 1
    if settings.projector_layers == layers == 1:
        found |= dict.fromkeys(("hidden", "head_norm"), "projector_layers: 1")
    return found


def forwards(settings: Settings, images: dict[str, int]) -> int:
    """Return the images that pass a network forwards: all twice, where the target is another.

    A UserError where the parts of a batch would not be equal, or of one sample.
    """
    pairs = images["pairs"]
    check_pairs(pairs)
    if settings.chunk and pairs // 2 % settings.chunk:
        raise UserError(
            f"method.chunk: must divide the batch (found {settings.chunk}, batch {pairs // 2})."
        )
    return 2 * pairs if settings.target == "ema" else pairs


def modules(settings: Settings, made: Any) -> dict[str, torch.nn.Module]:
    """Return the projector, and the predictor where it is learnt; neither ends in a norm."""
    norm = settings.head_norm

    def head(width: int, layers: int) -> torch.nn.Module:
        return mlp(
            width,
            settings.hidden,
            settings.output,
            layers,
            hidden_norm=norm != "none",
            norm="batch" if norm == "none" else norm,
            hidden_bias=True,
            output_bias=False,
        )

    found = {"projector": head(made.width, settings.projector_layers)}
    if settings.predictor == "mlp":
        found["predictor"] = head(settings.output, settings.predictor_layers)
    return found


def events(settings: Settings, clock: Any) -> tuple[int, ...]:
    """Return the update before which the target gets other weights, if it does."""
    return (0,) if settings.target == "ema" and settings.target_init == "other" else ()


def event(models: dict[str, torch.nn.Module], moment: Any, settings: Settings) -> None:
    """Give the target initial weights of its own."""
    drawn = moment.drawn_again()
    for name, source in (("ema", "main"), ("ema.projector", "projector")):
        models[name].load_state_dict(drawn[source].state_dict())


def features(
    models: dict[str, torch.nn.Module], x: torch.Tensor, settings: Settings
) -> dict[str, torch.Tensor]:
    """Return h as ``features``, and ``z`` behind the projector, of images [B, C, H, W]."""
    return projected(models, x)


def best_linear(z: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return z [B, D] times the W [D, D] of the least |z W - target|^2, which has no gradient.

    A millionth of the mean squared length of z over D keeps it finite where z has collapsed.
    """
    with torch.no_grad(), torch.autocast(z.device.type, enabled=False):
        gram = z.T @ z
        ridge = 1e-6 * gram.diagonal().mean() + 1e-12
        gram = gram + ridge * torch.eye(len(gram), device=z.device)
        weights = torch.linalg.solve_ex(gram, z.T @ target)[0]
    with torch.autocast(z.device.type, enabled=False):
        return z @ weights


def normalised(x: torch.Tensor, kind: Normalise) -> torch.Tensor:
    """Return vectors [B, D] normalised for the loss."""
    if kind == "l2":
        return unit(x)
    if kind == "layernorm":
        return F.layer_norm(x, x.shape[1:]) * x.shape[1] ** -0.5
    if kind == "batchnorm":
        centred = x - x.mean(0)
        scale = (centred.square().mean(0) + 1e-5).rsqrt()
        return centred * scale * x.shape[1] ** -0.5
    return x


def repulsion(
    p: Sequence[torch.Tensor], z: Sequence[torch.Tensor], temperature: torch.Tensor
) -> torch.Tensor:
    """Return 2 a mean_i ln(...) of the head of this file, for both views together.

    ``p`` and ``z`` are unit vectors [B, D] of each view, online and of the target.
    """
    with torch.autocast(p[0].device.type, enabled=False):
        s = torch.cat(list(p)) @ torch.cat(list(z)).T / temperature
    itself = torch.eye(len(s), dtype=torch.bool, device=s.device)
    return 4 * temperature * s.masked_fill(itself, float("-inf")).logsumexp(1).mean()


def loss_of(
    p: Sequence[torch.Tensor],
    z: Sequence[torch.Tensor],
    row: dict[str, torch.Tensor],
    settings: Settings,
) -> torch.Tensor:
    """Return the loss of predictions [B, D] of both views and what the target says of them."""
    if settings.predictor == "closed_form":
        p = [best_linear(*pair) for pair in zip(p, reversed(z), strict=True)]
    p, z = ([normalised(x, settings.normalise) for x in each] for each in (p, z))
    pairs = zip(p, reversed(z), strict=True)
    loss: torch.Tensor = sum((a - b).square().sum(1).mean() for a, b in pairs)  # type: ignore[assignment]
    return loss + settings.beta * repulsion(p, z, row["temperature"]) if settings.beta else loss


def _targets(
    models: dict[str, torch.nn.Module],
    views: Sequence[torch.Tensor],
    z: list[torch.Tensor],
    settings: Settings,
) -> list[torch.Tensor]:
    """Return what the target says of each view; ``z`` are the online projections."""
    if settings.target == "online":
        return z
    if settings.target == "stop_gradient":
        return [each.detach() for each in z]
    net: Any = models["ema"]
    with torch.no_grad():
        return [models["ema.projector"](net.features(x)).float() for x in views]


def step(
    models: dict[str, torch.nn.Module],
    batch: Any,
    row: dict[str, torch.Tensor],
    settings: Settings,
    generator: torch.Generator,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss; how far online projections spread, and those of the target, is logged."""
    losses, spreads = [], []
    size = settings.chunk or len(batch["pairs"].views[0])
    for views in zip(*(view.split(size) for view in batch["pairs"].views), strict=True):
        # The online network goes first: under autocast a pass without a graph must not be the one
        # that casts its weights.
        z = [features(models, x, settings)["z"].float() for x in views]
        p = [models["predictor"](x).float() for x in z] if settings.predictor == "mlp" else z
        targets = _targets(models, views, z, settings)
        losses.append(loss_of(p, targets, row, settings))
        with torch.no_grad():
            spreads.append(torch.stack([spread(z[0]), spread(targets[0])]))
    online, target = torch.stack(spreads).mean(0)
    return torch.stack(losses).mean(), {"collapse": online, "target_collapse": target}


def effective_rank(z: torch.Tensor) -> torch.Tensor:
    """Return exp of the entropy of the singular values of directions z / |z| [N, D].

    It is D where they are spread evenly over all dimensions, and 1 where they are one.
    """
    values = torch.linalg.svdvals(unit(z))
    # Where all are zero there are no directions, and it is 1 too.
    tiny = torch.finfo(values.dtype).tiny
    return torch.special.entr(values / values.sum().clamp_min(tiny)).sum().exp()


def evaluate(
    models: dict[str, torch.nn.Module], measured: Any, settings: Settings
) -> dict[str, float]:
    """Return how far online projections of test images spread, in evaluation mode."""
    z = measured.outputs(lambda x: features(models, x, settings)["z"], measured.pool("test"))
    return {
        "test_collapse": float(spread(z)),
        "test_effective_rank": float(effective_rank(z)),
    }
