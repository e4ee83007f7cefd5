"""MixMatch: guessed labels are averaged, sharpened and mixed with the labelled samples.

D. Berthelot et al., MixMatch (arXiv 1905.02249, section 3) and the code google-research/mixmatch. A
batch has B labelled samples x with one-hot labels, and B unlabelled ones u, each in K weak views.

1. Guess (equations 6, 7): q = sharpen(mean_k softmax f(u_k), T), the same for all views of a
   sample. f has the weights and the batch statistics of this update; no gradient flows through q.
2. Mix (equations 8 to 11): sample i of the pool W = [x; u_1; ...; u_K] becomes l_i W_i + (1 - l_i)
   W_p(i), its label likewise, with a random permutation p and l_i = max(l, 1 - l) of l from
   Beta(alpha, alpha). So the first B remain mostly labelled samples.
3. loss = CE of the first B + weight * mean over the others and over classes of |q - softmax f|^2.

The K + 1 batches of the pool pass the network one after the other, interleaved, so that each is a
sample of the whole pool, and running statistics come from the first of them alone: neither from
the others nor from guesses.

What others' code leaves out or does otherwise is set so:

- one share for a batch, ports in PyTorch (YU1ut, TorchSSL, USB): ``share: batch``;
- running statistics from every pass, those of guesses too (YU1ut): ``statistics: all``;
- no interleaving (USB has it commented out): ``interleave: false``;
- a weight that rises during all of training (YU1ut) or 40 % of it (TorchSSL): the ramp's ``over``.

``labels_from: ema_train`` guesses with averaged weights and the batch's statistics, as the code of
the ablation does. The code decays kernels alone by 1 - lr * 0.02 at each update: ``decay:
decoupled`` of the optimiser, and ``weight_decay: 0.02``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cyclery.common.lazy import torch
from cyclery.methods import Stream
from cyclery.methods._mix import (
    correct,
    guess_passes,
    guessed,
    interleaved_passes,
    loss_pair,
    mixed,
    permutation,
    shares,
)
from cyclery.schedules import Quantity

VERSION = 1
TITLE = "MixMatch"
Mixing = Literal["none", "labelled", "unlabelled", "within", "all"]


def _ramp() -> Any:
    """Return the code's ramp on CIFAR-10: to 75 over 2^20 of 2^26 labelled images."""
    return {"kind": "ramp", "start": 0.0, "end": 75.0, "over": 1 / 64, "shape": "linear"}


@dataclass(frozen=True)
class Settings:
    """Settings of guesses, mixture and loss; the defaults are the code's for CIFAR-10."""

    weight: Quantity = field(
        default_factory=_ramp,
        metadata={"doc": "weight of the unlabelled loss (lambda_u)", "low": 0.0},
    )
    alpha: Quantity = field(
        default=0.75, metadata={"doc": "of the Beta(alpha, alpha) that mixes", "low": 0.1}
    )
    temperature: Quantity = field(
        default=0.5, metadata={"doc": "sharpens guesses (T); 1 leaves them as they are", "low": 0.1}
    )
    views: int = field(
        default=2, metadata={"doc": "weak views of an unlabelled sample (K)", "low": 1, "high": 16}
    )
    mixing: Mixing = field(
        default="all",
        metadata={
            "doc": "who is mixed, with whom: `all` with all, `within` the labelled and the "
            "unlabelled each with their own, only the `labelled` or only the `unlabelled` so, "
            "or `none`"
        },
    )
    share: Literal["sample", "batch"] = field(
        default="sample", metadata={"doc": "one share for each sample, or one for the batch"}
    )
    interleave: bool = field(
        default=True, metadata={"doc": "each pass has a part of every batch, or a batch of its own"}
    )
    statistics: Literal["first", "all"] = field(
        default="first",
        metadata={
            "doc": "passes that update running statistics: the first one of the mixture, or all "
            "of the trained network, those of guesses among them"
        },
    )
    labels_from: Literal["main", "ema_train"] = field(
        default="main",
        metadata={
            "doc": "network of the guesses: `main`, the one that is trained, or the averaged one, "
            "both with the statistics of the batch"
        },
    )


def streams(settings: Settings) -> dict[str, Any]:
    """Return the views of each stream: one unlabelled sample to each labelled one."""
    return {"labelled": ("weak",), "unlabelled": Stream(("weak",) * settings.views, "unlabelled")}


def uses_ema(settings: Settings) -> bool:
    """Say whether the averaged network guesses."""
    return settings.labels_from == "ema_train"


# Such a network guesses in training mode.
trains_ema = uses_ema


def forwards(settings: Settings, images: Mapping[str, int]) -> int:
    """Return the images that pass: the unlabelled views do so twice, to be guessed and to train."""
    return sum(images.values()) + images["unlabelled"]


def ignored(settings: Settings) -> dict[str, str]:
    """Return what has no effect where nothing is mixed."""
    why = "mixing: none" if settings.mixing == "none" else ""
    return dict.fromkeys(("alpha", "share"), why) if why else {}


def guesses(
    models: Mapping[str, torch.nn.Module],
    views: tuple[torch.Tensor, ...],
    row: Mapping[str, torch.Tensor],
    settings: Settings,
) -> torch.Tensor:
    """Return the guessed labels [B, K] of unlabelled samples in views [B, C, H, W]."""
    if settings.labels_from == "ema_train":
        # The engine says what the averaged network does with its statistics.
        return guessed(guess_passes(models["ema"], views), row["temperature"])
    net = models["main"]
    keep = net if settings.statistics == "first" else None
    return guessed(guess_passes(net, views, keep), row["temperature"])


def partners(
    mixing: Mixing, labelled: int, total: int, generator: torch.Generator, device: torch.device
) -> torch.Tensor:
    """Return with which sample each of the pool is mixed, int64 [total]; with itself: not at all.

    The first ``labelled`` samples are the labelled ones.
    """
    if mixing == "all":
        return permutation(total, generator, device)

    def within(size: int, mixes: bool) -> torch.Tensor:
        own = torch.arange(size, device=device)
        return permutation(size, generator, device) if mixes else own

    first = within(labelled, mixing in ("labelled", "within"))
    others = within(total - labelled, mixing in ("unlabelled", "within"))
    return torch.cat([first, labelled + others])


def step(
    models: dict[str, torch.nn.Module],
    batch: Any,
    row: dict[str, torch.Tensor],
    settings: Settings,
    generator: torch.Generator,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss; its two parts and the accuracy of the guesses are logged."""
    net, unlabelled, size = models["main"], batch.unlabelled, len(batch.y)
    q = guesses(models, unlabelled.views, row, settings)
    x = torch.cat([batch.x, *unlabelled.views])
    y = torch.cat([torch.eye(q.shape[1], device=x.device)[batch.y], *[q] * settings.views])
    if settings.mixing != "none":
        share = shares(row["alpha"], len(x), generator, settings.share == "sample")
        x, y = mixed(x, y, share, partners(settings.mixing, size, len(x), generator, x.device))
    keep = net if settings.statistics == "first" else None
    z = interleaved_passes(net, x, size, keep, settings.interleave)
    loss_x, loss_u = loss_pair(z, y, size)
    return loss_x + row["weight"] * loss_u, {
        "loss_labelled": loss_x,
        "loss_unlabelled": loss_u,
        "target_correct": correct(q, unlabelled.y),
    }


def measures(settings: Settings) -> tuple[str, ...]:
    """Return the name of the accuracy with batch statistics in the place of running ones."""
    return ("test_batch_statistics_accuracy",)


def evaluate(
    models: Mapping[str, torch.nn.Module], measured: Any, settings: Settings
) -> dict[str, float]:
    """Return, at the end, the accuracy where batch norm has the statistics of test batches."""
    from cyclery.models.layers import batch_norms, statistics_kept

    if not measured.last:
        return {}
    net, ids = models["main"], measured.pool("test")

    def answers(x: torch.Tensor) -> torch.Tensor:
        for norm in batch_norms(net):
            norm.train()
        return net(x)

    with statistics_kept(net):
        z = measured.outputs(answers, ids)
    return {measures(settings)[0]: (z.argmax(1) == measured.labels(ids)).float().mean().item()}
