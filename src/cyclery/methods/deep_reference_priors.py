"""Deep reference priors: K networks that are sure one by one and differ from one another.

Y. Gao, R. Ramesh, P. Chaudhari, Deep Reference Priors: What is the best way to pretrain a model?
(ICML 2022, arXiv 2202.00187) and the official code grasp-lyrl/deep_reference_priors (2c5b49b). A
prior with the K particles w_k as its atoms, 1/K each, is trained for a large mutual information of
weights and the answers to n unlabelled images at once, H(y^n) - H(y^n | w), beside the labels. With
p_k the predictions of particle k, of B labelled images in a weak view and N unlabelled ones in a
weak view w and a strong one s, and sg the stopped gradient, the loss is

    mean_(B, K) -log p_k(y | x) + (H_yw - alpha H_y) / (1 - tau^2)

    H_yw = mean_(N, K) 1[max sg(p_k^w) >= threshold] h_k
    h_k  = -sum_c p_G log p_G,  p_G = tau sg(p_k^w) + (1 - tau) p_k^s
    H_y  = mean_b -sum_(y_1..y_n) p_b log(p_b + 1e-12) / n
    p_b(y_1, ..., y_n) = 1/K sum_k p_k^w(y_1 | x_b) p_k^w(y_2 | x_(b + N/n)) ...

In h the logarithm of the mixture is that of the code, the mixture tau log sg(p^w) + (1 - tau) log
p^s, by which h is at least the entropy of p_G (``logarithm: jensen``), or p_G's own, which an older
state of that code had (``exact``). Masks are for each image and particle; what is masked out counts
in the divisor. H_y takes the weak predictions with their gradient, without a mask, of n parts of
the batch in its order; images that are left over, fewer than n, stand in H_yw alone (OWN
DEFINITION: the code has n divide N). Each particle has one pass over all views, whose batch
statistics they share. All particles see the same views; initial weights tell them apart.

The loss is a mean over particles, so each of them has 1/K of the gradient: a rate K times that of
one network and a decay of 1/K of its decay make a particle learn at that network's pace, as in the
code. The prediction is the mean of the logits.

Controls of ours at the cost of K networks: ``objective: fixmatch`` has K networks with the loss of
`fixmatch` each, ``objective: supervised`` K that learn from the labels alone; both are the mean
over networks, which share nothing but their batches.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from cyclery.common.errors import UserError
from cyclery.common.lazy import F, torch
from cyclery.methods import fixmatch
from cyclery.methods._ssl import passes, pseudo_figures
from cyclery.schedules import Quantity

VERSION = 1
TITLE = "Deep reference priors"

Models = dict[str, "torch.nn.Module"]


@dataclass(frozen=True)
class Settings:
    """Settings of the ensemble and its loss; the defaults are the official code's."""

    particles: int = field(default=4, metadata={"doc": "networks, K", "low": 1, "high": 64})
    objective: Literal["reference_prior", "fixmatch", "supervised"] = field(
        default="reference_prior",
        metadata={
            "doc": "`reference_prior`; or, of networks that have nothing to do with one another, "
            "`fixmatch`, or the labels alone (`supervised`)"
        },
    )
    order: int = field(
        default=2,
        metadata={
            "doc": "images whose answers are looked at together, n; their joint distribution has "
            "the n-th power of the number of classes as its entries",
            "low": 1,
            "high": 5,
        },
    )
    alpha: Quantity = field(
        default=0.05, metadata={"doc": "weight of the entropy of the mixture, H_y", "low": 0.0}
    )
    tau: Quantity = field(
        default=1 / 3,
        metadata={
            "doc": "share of the weak prediction in the mixture with the strong one",
            "low": 0.0,
            "below": 1.0,
        },
    )
    threshold: Quantity = field(
        default=0.95,
        metadata={
            "doc": "confidence of a particle from which an image counts for it",
            "low": 0.0,
            "high": 1.0,
        },
    )
    logarithm: Literal["jensen", "exact"] = field(
        default="jensen",
        metadata={
            "doc": "of the mixture of both predictions: the mixture of their logarithms, or its own"
        },
    )


def streams(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Return the views of each stream."""
    if settings.objective == "supervised":
        return {"labelled": ("weak",)}
    return {"labelled": ("weak",), "unlabelled": ("weak", "strong")}


def ignored(settings: Settings) -> dict[str, str]:
    """Return the settings that nothing reads beside the others."""
    if settings.objective == "reference_prior":
        return {}
    names = ["order", "alpha", "tau", "logarithm"]
    if settings.objective == "supervised":
        names.append("threshold")
    return dict.fromkeys(names, f"objective: {settings.objective}")


def modules(settings: Settings, made: Any) -> Models:
    """Return the other particles, networks of the run's kind with initial weights of their own."""
    return {name: made.fresh() for name in keeps(settings)}


def keeps(settings: Settings) -> tuple[str, ...]:
    """Return the names of the particles beside ``main``, which is the first."""
    return tuple(f"particle_{k}" for k in range(2, settings.particles + 1))


def _names(settings: Settings) -> tuple[str, ...]:
    return ("main", *keeps(settings))


def forwards(settings: Settings, images: dict[str, int]) -> int:
    """Return the images that pass a network: every view passes each particle."""
    return settings.particles * sum(images.values())


def predict(models: Models, x: torch.Tensor, settings: Settings) -> torch.Tensor:
    """Return the mean [B, C] of the particles' logits."""
    return torch.stack([models[name](x).float() for name in _names(settings)]).mean(0)


def measures(settings: Settings) -> tuple[str, ...]:
    """Return the names of figures of particles, of averaged weights and of the trained ones.

    The accuracy of each, their mean, and what the ensemble has above that mean.
    """
    each = tuple(f"particle_{k}_accuracy" for k in range(1, settings.particles + 1))
    names = ("particle_accuracy", "ensemble_gain", *each)
    return tuple(f"{raw}test_{name}" for raw in ("", "raw_") for name in names)


def evaluate(models: Models, measured: Any, settings: Settings) -> dict[str, float]:
    """Return those figures on the test samples; ``raw_`` ones where weights are averaged."""
    ids, found = measured.pool("test"), dict[str, float]()
    y = measured.labels(ids)
    for start, raw in (("", ""), ("raw.", "raw_")):
        nets = [models[start + name] for name in _names(settings) if start + name in models]
        if not nets:
            continue

        def logits(x: torch.Tensor, nets: list[torch.nn.Module] = nets) -> torch.Tensor:
            return torch.stack([net(x).float() for net in nets], 1)

        z = measured.outputs(logits, ids)
        right = (z.argmax(2) == y[:, None]).double().mean(0)
        whole = (z.mean(1).argmax(1) == y).double().mean()
        values = [right.mean(), whole - right.mean(), *right]
        names = measures(settings)[: len(values)]
        found |= {f"{raw}{n}": float(v) for n, v in zip(names, values, strict=True)}
    return found


def mixture_costs(
    log_w: torch.Tensor, log_s: torch.Tensor, tau: torch.Tensor, exact: bool
) -> torch.Tensor:
    """Return h [...] of log-probabilities [..., C] of the weak view and the strong one."""
    p = tau * log_w.exp() + (1 - tau) * log_s.exp()
    if exact:
        # Probabilities that are 0 in float32 have no logarithm; what they add is 0.
        return -(p * p.clamp_min(torch.finfo(p.dtype).tiny).log()).sum(-1)
    return -(p * (tau * log_w + (1 - tau) * log_s)).sum(-1)


def entropies(p: torch.Tensor, order: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return H_y [] of predictions [K, N, C] and the mean entropy [] of a particle's, in nats.

    Their difference is the mutual information of particle and answers for an image. Both are of the
    images that n parts of the batch have.

    Raises:
        UserError: there are fewer images than the order.
    """
    size = p.shape[1] // order
    if not size:
        raise UserError(
            f"method.order: must be at most {p.shape[1]}, the unlabelled samples of an update "
            f"(found {order}); take more of them (`mu`, `batch`)."
        )
    used = p[:, : size * order]
    first, *others = used.split(size, 1)
    for part in others:
        first = (first[..., None] * part[..., None, :]).flatten(2)
    mixture = first.mean(0)
    joint = -(mixture * (mixture + 1e-12).log()).sum(1).mean() / order
    return joint, -(used * (used + 1e-12).log()).sum(2).mean()


def step(
    models: Models,
    batch: Any,
    row: dict[str, torch.Tensor],
    settings: Settings,
    generator: torch.Generator,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss; its parts, the information and figures of the masks are logged."""
    views = [] if settings.objective == "supervised" else [*batch.unlabelled.views]
    each = [passes(models[name], [batch.x, *views], "joint") for name in _names(settings)]
    z_x, *hidden = (torch.stack(z) for z in zip(*each, strict=True))
    loss_x = F.cross_entropy(z_x.flatten(0, 1), batch.y.repeat(len(z_x)))
    if not hidden:
        return loss_x, {"loss_labelled": loss_x}
    z_w, z_s = hidden
    y, classes = batch.unlabelled.y.repeat(len(z_w)), z_w.shape[2]
    if settings.objective == "fixmatch":
        q = z_w.detach().flatten(0, 1).softmax(1)
        costs, mask, labels = fixmatch.confident_losses(q, z_s.flatten(0, 1), row["threshold"])
        figures = pseudo_figures(mask, labels, y, classes)
        loss_u = costs.mean()
        return loss_x + loss_u, {"loss_labelled": loss_x, "loss_unlabelled": loss_u, **figures}
    log_w, log_s = z_w.log_softmax(2), z_s.log_softmax(2)
    sure = log_w.detach()
    confidence, labels = sure.exp().max(2)
    mask = (confidence >= row["threshold"]).to(sure.dtype)
    h_yw = (mask * mixture_costs(sure, log_s, row["tau"], settings.logarithm == "exact")).mean()
    h_y, own = entropies(log_w.exp(), settings.order)
    loss = loss_x + (h_yw - row["alpha"] * h_y) / (1 - row["tau"].square())
    return loss, {
        "loss_labelled": loss_x,
        "h_yw": h_yw,
        "h_y": h_y,
        "information": h_y - own,
        **pseudo_figures(mask.flatten(), labels.flatten(), y, classes),
    }
