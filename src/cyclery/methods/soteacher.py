"""SoTeacher: how a teacher is trained so that students learn more from it.

C. Dong, L. Liu, J. Shang, Toward Student-oriented Teacher Network Training for Knowledge
Distillation (ICLR 2024, arXiv 2206.06661), as in the official code shwinshaker/SoTeacher. This is
the teacher's training alone. With p_i = softmax(z_i) in training mode for the present view of
sample i, in a batch of B samples at epoch k of E,

    loss = mean_B CE(y, z) + lipschitz_weight R_lip + consistency_weight[k] R_cons

R_lip is a sum over the layers of the network, the classifier included, without biases: sum |W| of
a Conv2d, max_in sum_out |W| (the induced 1-norm) of a Linear, and max_c |gamma_c| /
sqrt(running_var_c + eps) of a batch norm, whose buffer, just updated by this pass, takes no
gradient. It is a sum, not a product, so its size grows with the network, and `lipschitz_weight`
must be tuned for each: compare weight times R_lip with the cross-entropy, which are logged.

R_cons = mean_B sum_c (p_ic - S_ic)^2, where S_i is the memory of sample i from earlier epochs.
After the loss is formed, S_i <- (1 - t_k) S_i + t_k p_i without gradient. `mixing_rate` is t_k:

- ``{kind: mean_rate}``, the default: t_k = 1 / k, so S_i is the mean of p_i over the epochs so
  far, which is evidently meant.
- ``{kind: mean_rate, first: 2}``, the released code: t_1 = 1 and t_k = 1 / (k + 1), so the first
  epoch counts twice.

The schedules of the consistency weight in the code, for a largest weight of 1; all begin in the
second epoch, when there is a memory:

- ``{kind: epoch_ramp, end: 1, wait: 1}`` is linear, k / E, the default; with ``shape: cosine``,
  ``shape: circle`` ("cycle" there) or ``shape: step`` ("none", at full weight at once).
- ``{kind: epoch_ramp, end: 1, wait: 50, shape: step}`` is its "step".

The defaults are those of its script for CIFAR-100 (240 epochs there). The figures that the paper
prints are known from notes and memory only, so none stands here.

OWN DEFINITIONS, where the code has no case for it:

- Here an epoch drops what is left of a whole batch. A sample that has no memory yet has no part
  in the sum of R_cons, and remembers p_i whole, whatever k is; one that misses an epoch keeps S_i.
- An epoch of several passes (``epoch_images``) moves S_i at each. Of a sample that a batch holds
  more than once, the last place counts; all its places are compared with the same S_i.
- Group and layer norm have no running variance, so no bound that parameters alone give, and have
  no term in R_lip. Nor has a batch norm without gamma or running variance.
- ``penalty`` has the controls that tell a Lipschitz bound from shrinkage, in the place of R_lip:
  ``l1`` is sum |w| over all weights (of norms, too; no biases), ``l1_matched`` the same scaled,
  without gradient, to the value that R_lip has at this update.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from cyclery.common.lazy import F, torch
from cyclery.schedules import Quantity

VERSION = 1
TITLE = "SoTeacher: student-oriented training of a teacher"


def _mean() -> Any:
    """Return the rate that makes the memory a mean over epochs."""
    return {"kind": "mean_rate"}


def _linear() -> Any:
    """Return the code's linear weight: k / E from the second epoch on."""
    return {"kind": "epoch_ramp", "end": 1.0, "wait": 1}


@dataclass(frozen=True)
class Settings:
    """Settings of the loss; the defaults are the code's for CIFAR-100, but for the mixing rate."""

    lipschitz_weight: Quantity = field(
        default=1e-5,
        metadata={"doc": "weight of the penalty (lambda_LR); constant in the paper", "low": 0.0},
    )
    penalty: Literal["lipschitz", "l1", "l1_matched"] = field(
        default="lipschitz",
        metadata={
            "doc": "`lipschitz`: the sum of the layers' constants; controls: `l1`, the sum of all "
            "absolute weights, and `l1_matched`, the same scaled to the former's value"
        },
    )
    consistency_weight: Quantity = field(
        default_factory=_linear,
        metadata={"doc": "weight of the consistency with earlier epochs (lambda_CR)", "low": 0.0},
    )
    mixing_rate: Quantity = field(
        default_factory=_mean,
        metadata={
            "doc": "how far the memory of a sample moves to its present prediction",
            "low": 0.0,
            "high": 1.0,
        },
    )


def modules(settings: Settings, made: Any) -> dict[str, torch.nn.Module]:
    """Return the memory: the soft label of each sample, none at first."""
    memory = torch.nn.Module()
    memory.register_buffer("soft_labels", torch.zeros(made.samples, made.classes))
    return {"memory": memory}


def lipschitz(net: torch.nn.Module) -> torch.Tensor:
    """Return R_lip [], the sum of the constants of all layers."""
    terms = []
    for layer in net.modules():
        if isinstance(layer, torch.nn.Conv2d):
            terms.append(layer.weight.abs().sum())
        elif isinstance(layer, torch.nn.Linear):
            terms.append(layer.weight.abs().sum(0).amax())
        elif (
            isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)
            and layer.weight is not None
            and layer.running_var is not None
        ):
            deviation = (layer.running_var.detach() + layer.eps).sqrt()
            terms.append((layer.weight.abs() / deviation).amax())
    return torch.stack(terms).sum()


def l1(net: torch.nn.Module) -> torch.Tensor:
    """Return sum |w| [] over all weights; biases have no part in it."""
    named = net.named_parameters()
    weights = [p for name, p in named if name.rpartition(".")[2] == "weight"]
    return torch.stack([weight.abs().sum() for weight in weights]).sum()


def remember(
    memory: torch.Tensor, ids: torch.Tensor, p: torch.Tensor, rate: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Move the rows ``ids`` [B] of the memory [N, K] by ``rate`` [] of the way to p [B, K].

    A row that holds nothing yet becomes p. Return what the rows [B, K] were, and which of them
    [B] held anything.
    """
    before = memory.index_select(0, ids)
    seen = before.sum(1) > 0
    after = torch.lerp(before, p.detach(), torch.where(seen, rate, 1.0)[:, None])
    # Where a sample stands more than once all write the last of its rows: in any order the same.
    last = ((ids[:, None] == ids) * torch.arange(len(ids), device=ids.device)).amax(1)
    memory.index_copy_(0, ids, after.index_select(0, last))
    return before, seen


def step(
    models: dict[str, torch.nn.Module],
    batch: Any,
    row: dict[str, torch.Tensor],
    settings: Settings,
    generator: torch.Generator,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss; its three parts are logged before their weights, and L1 as a control."""
    net = models["main"]
    z = net(batch.x).float()
    loss_ce = F.cross_entropy(z, batch.y)
    p = z.softmax(1)
    soft_labels = models["memory"].get_buffer("soft_labels")
    targets, seen = remember(soft_labels, batch.ids, p, row["mixing_rate"])
    consistency = ((p - targets).square().sum(1) * seen).mean()
    penalty = bound = lipschitz(net)
    logs = {"loss_ce": loss_ce, "lipschitz": bound, "consistency": consistency}
    if settings.penalty != "lipschitz":
        logs["l1"] = penalty = l1(net)
        if settings.penalty == "l1_matched":
            penalty = penalty * (bound / penalty).detach()
    weights = row["lipschitz_weight"], row["consistency_weight"]
    return loss_ce + weights[0] * penalty + weights[1] * consistency, logs
