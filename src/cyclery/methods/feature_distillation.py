"""Feature distillation: the maps of every stage stay near those of the network it starts from.

B. Heo et al., A Comprehensive Overhaul of Feature Distillation (ICCV 2019, arXiv 1904.01866), as
the second stage of B. Zhao and X. Wen, Distilling Visual Priors from Self-Supervised Learning
(arXiv 2008.00261), section 2.2. The teacher ``prior`` is frozen; the student begins with its
weights (``init: {from: ..., parts: [features]}``). With S_l and T_l the maps of stage l = 1..L
before the activation, r_l a 1x1 convolution and batch norm of the student (for vectors a linear
layer), and a margin m_c < 0 for each channel of the teacher

    loss = CE + weight / B sum_l 2^(l - L) sum over all elements of d(r_l(S_l), max(T_l, m)),
    d(s, t) = 0 where s <= t <= 0, else (s - t)^2                 (partial L2, section 3.3)

m_c is what values below zero are on average (margin ReLU, section 3.1): E[x | x < 0] for x from
N(beta_c, gamma_c^2) of the teacher's batch norm, and -3 |gamma_c| where a thousandth of x or less
is below zero, as in the code. Elements are summed, so ``weight`` depends on how many a network has.

The code of the small-data benchmark (lorenzobrigato/gem) has a ``weight`` of 0 in the first epochs,
``no_distill_epoch`` = 5, a schedule here; counted from 1, as there, these are four. Two things of
that code are settings, and not the default: the teacher is in training mode (``teacher: training``:
its batch norm sees the batch; the running statistics that it moves nothing reads, so they stay
here), and margins are those of new batch norms (``margins: new``, -sqrt(2 / pi) for all channels),
for it makes them before it loads the teacher.

Stages are the groups of a WRN or of a residual network, as in the code, whose margins of the latter
are those of the last norm before the sum. Those of other networks are ours (OWN DEFINITION): each
convolution of a small network, and each hidden layer of a perceptron.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from cyclery.common.errors import UserError
from cyclery.common.lazy import F, torch
from cyclery.schedules import Quantity

VERSION = 1
TITLE = "Feature distillation"

# Where so small a share of a channel is below zero, its margin is so many deviations below.
RARE, FAR = 1e-3, 3.0


@dataclass(frozen=True)
class Settings:
    """Settings of the loss; the defaults are those of Distilling Visual Priors."""

    weight: Quantity = field(
        default=1e-4,
        metadata={
            "doc": "of the distance, summed over elements, beside cross-entropy; with `{kind: "
            "epoch_ramp, wait: 5, end: 1.0e-4, shape: step}` 0 in the first five epochs (code)",
            "low": 0.0,
        },
    )
    teacher: Literal["evaluation", "training"] = field(
        default="evaluation",
        metadata={"doc": "mode of the teacher; training: its batch norm sees the batch (code)"},
    )
    margins: Literal["teacher", "new"] = field(
        default="teacher",
        metadata={"doc": "whose batch norm margins are of: the teacher's, or a new one (code)"},
    )


def parents(settings: Settings) -> tuple[str, ...]:
    """Return the parent whose maps are kept."""
    return ("prior",)


def forwards(settings: Settings, images: dict[str, int]) -> int:
    """Return the images that pass: those of the student, and again of the teacher."""
    return 2 * images["labelled"]


def modules(settings: Settings, made: Any) -> dict[str, torch.nn.Module]:
    """Return a connector for each stage, and the margins of the teacher's channels."""
    from cyclery.models._stages import stage_norms

    margins, connectors = torch.nn.Module(), []
    for index, norm in enumerate(stage_norms(made.net)):
        connectors.append(_connector(norm))
        margins.register_buffer(f"stage_{index}", torch.zeros(norm.num_features))
    return {"connectors": torch.nn.ModuleList(connectors), "margins": margins}


def _connector(norm: Any) -> torch.nn.Module:
    """Return the connector of a stage, whose maps are as wide as this norm.

    Weights are from N(0, 2 / outputs), as in the code.
    """
    nn, width = torch.nn, norm.num_features
    maps = isinstance(norm, nn.BatchNorm2d)
    layer = nn.Conv2d(width, width, 1, bias=False) if maps else nn.Linear(width, width, bias=False)
    nn.init.normal_(layer.weight, std=(2 / width) ** 0.5)
    return nn.Sequential(layer, (nn.BatchNorm2d if maps else nn.BatchNorm1d)(width))


def margin(norm: Any) -> torch.Tensor:
    """Return the margins [C] of a batch norm: E[x | x < 0] of N(bias, weight^2)."""
    with torch.no_grad():
        mean, deviation = norm.bias.double(), norm.weight.double().abs()
        at = mean / deviation.clamp_min(torch.finfo(torch.float64).tiny)
        below = torch.special.ndtr(-at)
        density = (-at.square() / 2).exp() * (2 * torch.pi) ** -0.5
        found = mean - deviation * density / below
        return torch.where(below > RARE, found, -FAR * deviation).float()


def begin(models: dict[str, torch.nn.Module], moment: Any, settings: Settings) -> None:
    """Take the margins of the teacher; a UserError where its stages are not the student's."""
    from cyclery.models._stages import stage_norms

    prior: Any = models["prior"]
    buffers = list(models["margins"].buffers())
    norms = stage_norms(prior.parts["main"])
    wanted, widths = [len(each) for each in buffers], [norm.num_features for norm in norms]
    if widths != wanted:
        raise UserError(
            f"parents.prior: its stages must be as wide as the student's, {wanted} (found "
            f"{widths}); let both have one network."
        )
    for buffer, norm in zip(buffers, norms, strict=True):
        new = torch.nn.BatchNorm1d(norm.num_features)
        buffer.copy_(margin(norm if settings.margins == "teacher" else new))


def distance(s: torch.Tensor, t: torch.Tensor, margins: torch.Tensor) -> torch.Tensor:
    """Return the partial L2 distance [] of maps s and t [B, C, ...], with margins [C]."""
    t = t.maximum(margins.view(-1, *[1] * (t.ndim - 2)))
    # Where both are below zero, and s is not above t, s is off as t is.
    counts = (s > t) | (t > 0)
    return (s - t).square().masked_fill(~counts, 0.0).sum()


def _taught(models: dict[str, torch.nn.Module], x: torch.Tensor, mode: str) -> list[torch.Tensor]:
    """Return the teacher's maps of each stage."""
    from cyclery.models._stages import features_and_maps
    from cyclery.models.layers import batch_norms, statistics_kept

    with torch.no_grad():
        prior: Any = models["prior"]
        net = prior.parts["main"]
        moved = batch_norms(net) if mode == "training" else []
        try:
            for norm in moved:
                norm.training = True
            with statistics_kept(net):
                return features_and_maps(net, x)[1]
        finally:
            for norm in moved:
                norm.training = False


def step(
    models: dict[str, torch.nn.Module],
    batch: Any,
    row: dict[str, torch.Tensor],
    settings: Settings,
    generator: torch.Generator,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss; its two parts are logged, the distance by sample and without its weight."""
    from cyclery.models._stages import features_and_maps

    main: Any = models["main"]
    connectors: Any = models["connectors"]
    h, maps = features_and_maps(main, batch.x)
    labelled = F.cross_entropy(main.head(h).float(), batch.y)
    taught = _taught(models, batch.x, settings.teacher)
    stages = zip(connectors, maps, taught, models["margins"].buffers(), strict=True)
    apart = torch.zeros_like(labelled)
    for index, (connector, s, t, margins) in enumerate(stages):
        share = 2.0 ** (index + 1 - len(maps))
        apart = apart + share * distance(connector(s).float(), t.float(), margins)
    apart = apart / len(batch.x)
    return labelled + row["weight"] * apart, {"loss_labelled": labelled, "distance": apart}
