"""VAT: what the network says of an image holds for its worst small perturbation, too.

T. Miyato et al., Virtual Adversarial Training (arXiv 1704.03976, sections 3.2, 3.3 and 4.2), as
google-research/fixmatch compares with it. With p(u) = softmax(f(u)) cut off from the graph, H the
entropy and r the perturbation of length ``epsilon``,

    loss = mean CE(y, f(x)) + weight mean KL(p(u) || p(u + r)) + entropy_weight mean H(p(u))

r is where the divergence grows fastest: one ``iterations`` at a time, g is its gradient at d = xi
times a unit vector, at first a random one, and g's direction is the next. Both are normalised by
the largest of their absolute values before their L2 norm, as in that code. The divergence of the
search is KL(p(u) || p(u + d)): the other one has the same Hessian at d = 0, which is all that
matters there. Weights have no gradient through r. All passes are in training mode, and those that
search or are perturbed leave running statistics alone.

How others' code is set, in this project's units (images divided by their deviation):

- google-research/fixmatch: ``divergence: reverse``, a length of 6 for images in -1..1, where ours
  are about twice as large.
- google-research/s4l (arXiv 1905.03670): ``forward: joint``, ``statistics: all``, ``divergence:
  reverse``, a weight of 0.5 without ramp and an ``entropy_weight`` of 0 or 1; lengths of other
  sizes of image are as the square root of the number of values.

Both have an xi of 1e-6. In float32 so small a step changes a logit by less than its rounding, and
the direction that comes of it is nearly random: with 0.01 it is exact to a few per cent. The search
computes in float32 whatever the rest does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from cyclery.common.lazy import F, torch
from cyclery.methods._gradients import by_input
from cyclery.methods._ssl import Forward, Statistics, check_passes, passes
from cyclery.schedules import Quantity

VERSION = 1
TITLE = "VAT"


def _ramp() -> Any:
    """Return the code's ramp over the first 40 % of training."""
    return {"kind": "ramp", "start": 0.0, "end": 0.3, "over": 0.4, "shape": "linear"}


@dataclass(frozen=True)
class Settings:
    """Settings of the loss; defaults of google-research/fixmatch but ``xi`` and ``divergence``."""

    weight: Quantity = field(
        default_factory=_ramp, metadata={"doc": "weight of the divergence", "low": 0.0}
    )
    epsilon: Quantity = field(
        default=6.0,
        metadata={"doc": "L2 norm of the perturbation of a normalised image", "low": 0.0},
    )
    entropy_weight: Quantity = field(
        default=0.06,
        metadata={"doc": "weight of the entropy of the predictions (EntMin)", "low": 0.0},
    )
    xi: Quantity = field(
        default=0.01,
        metadata={
            "doc": "L2 norm of the step at which the search takes its gradient; 1e-6 in the codes",
            "above": 0.0,
        },
    )
    iterations: int = field(
        default=1, metadata={"doc": "power iterations of the search", "low": 1, "high": 16}
    )
    divergence: Literal["forward", "reverse"] = field(
        default="forward",
        metadata={
            "doc": "`forward`: KL(clean || perturbed), the paper's; `reverse`: the other way round"
        },
    )
    forward: Forward = field(
        default="separate",
        metadata={
            "doc": "`separate`: one pass over each stream, and the unlabelled one is perturbed; "
            "`joint`: one over both, and both are perturbed"
        },
    )
    statistics: Statistics = field(
        default="labelled",
        metadata={
            "doc": "clean passes that update running statistics; `labelled` needs separate ones"
        },
    )

    def __post_init__(self) -> None:
        check_passes(self.forward, self.statistics)


def streams(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Return the views of each stream."""
    return {"labelled": ("weak",), "unlabelled": ("weak",)}


def forwards(settings: Settings, images: dict[str, int]) -> int:
    """Return the images that pass the network: clean, once an iteration, and perturbed."""
    perturbed = images["unlabelled"] + (images["labelled"] if settings.forward == "joint" else 0)
    return sum(images.values()) + (settings.iterations + 1) * perturbed


def divergence(
    clean: torch.Tensor, perturbed: torch.Tensor, kind: Literal["forward", "reverse"] = "forward"
) -> torch.Tensor:
    """Return the mean of KL(clean || perturbed), or the reverse, of logits [N, K]."""
    log_p, log_q = clean.log_softmax(1), perturbed.log_softmax(1)
    if kind == "reverse":
        log_p, log_q = log_q, log_p
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def unit(d: torch.Tensor) -> torch.Tensor:
    """Return each of ``d`` [N, C, H, W] with an L2 norm of 1, or 0 where it is nothing."""
    d = d / d.abs().amax((1, 2, 3), keepdim=True).add(1e-12)
    return d / d.square().sum((1, 2, 3), keepdim=True).add(1e-6).sqrt()


def direction(
    net: torch.nn.Module,
    x: torch.Tensor,
    clean: torch.Tensor,
    xi: torch.Tensor,
    iterations: int,
    generator: torch.Generator,
) -> torch.Tensor:
    """Return the unit vectors [N, C, H, W] along which answers to ``x`` change most.

    ``clean`` [N, K] are those answers, as logits. There is no graph.
    """

    def grown(d: torch.Tensor) -> torch.Tensor:
        return divergence(clean, net(x + d))

    d = unit(torch.empty_like(x).normal_(generator=generator))
    for _ in range(iterations):
        d = unit(by_input(net, grown, xi * d))
    return d


def step(
    models: dict[str, torch.nn.Module],
    batch: Any,
    row: dict[str, torch.Tensor],
    settings: Settings,
    generator: torch.Generator,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss; its three parts are logged."""
    from cyclery.models.layers import statistics_kept

    net, parts = models["main"], [batch.x, batch.unlabelled.x]
    keep = net if settings.statistics == "labelled" else None
    # The clean passes go first: under autocast a pass without a graph must not be the one that
    # casts the weights.
    outputs = passes(net, parts, settings.forward, keep)
    joint = settings.forward == "joint"
    x, z = (torch.cat(parts), torch.cat(outputs)) if joint else (parts[1], outputs[1])
    clean, kind = z.detach(), x.device.type
    with statistics_kept(net):
        rough = torch.is_autocast_enabled(kind)
        with torch.no_grad(), torch.autocast(kind, enabled=False):
            exact = net(x) if rough else clean
            found = direction(net, x, exact, row["xi"], settings.iterations, generator)
        perturbed = net(x + row["epsilon"] * found).float()
    loss_x = F.cross_entropy(outputs[0], batch.y)
    loss_vat = divergence(clean, perturbed, settings.divergence)
    entropy = F.cross_entropy(z, z.softmax(1))
    loss = loss_x + row["weight"] * loss_vat + row["entropy_weight"] * entropy
    return loss, {"loss_labelled": loss_x, "loss_vat": loss_vat, "entropy": entropy}
