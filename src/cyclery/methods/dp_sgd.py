"""DP-SGD: clipped gradients of single images, each over several views, with noise.

S. De et al., Unlocking High-Accuracy Differentially Private Image Classification through Scale
(arXiv 2204.13650), section 2 and appendix C; M. Abadi et al. (arXiv 1607.00133) for the algorithm.
Every image i of N is drawn with probability q = B / N at each update (a Poisson batch, which may be
empty). With g_i the gradient of the mean cross-entropy of its K views, over all parameters,

    g = 1 / B (sum_i g_i min(1 / C, 1 / |g_i|) + sigma z),  z ~ N(0, 1)

is what the optimiser gets: the sum is divided by the expected B, never by the size drawn, and by C,
so that the step does not grow with it. The paper's optimiser is plain SGD with a constant rate,
without momentum and decay, its averaged weights have ``ema_decay: {kind: running_mean, delay: 9}``,
and its networks no batch statistics: another network is refused.

What is spent follows from q, sigma and the number of updates alone, so the state of the accountant
is the update counter of the run: a run that is resumed repeats its updates with the same draws, and
spends what it would have spent in one go. Neither K, nor averaging, nor evaluations cost privacy;
choosing rates on private images does, and is not counted.

With ``epsilon`` set and ``calibrate``, sigma is the least that keeps it over the whole run, found
before the first update; without ``calibrate`` the ``noise`` as given must keep it, or the run is
refused with the last update that fits.

``noise: 0`` is clipping alone, and has no epsilon. ``private: false`` neither clips nor adds noise:
the same batches and views, and the mean of their losses over B.

The membership attack (S. Yeom et al., arXiv 1709.01604) says of an image with a small loss that it
was trained on: its figure is the area under the ROC curve over training and test images, where 50
per cent is a guess. It is a check, not a bound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cyclery.common.errors import UserError
from cyclery.common.lazy import F, torch
from cyclery.methods import Course, Gradients, Stream, _sampled_gaussian
from cyclery.methods._auroc import auroc
from cyclery.methods._gradients import per_example
from cyclery.methods._sampled_gaussian import Accountant
from cyclery.schedules import Quantity

VERSION = 1
TITLE = "DP-SGD"


@dataclass(frozen=True)
class Settings:
    """Settings of DP-SGD; the defaults are the paper's on CIFAR-10, but for the noise."""

    views: int = field(
        default=16,
        metadata={
            "doc": "K, views of an image in its one gradient, each drawn anew by `augment`; 0: the "
            "image as it is",
            "low": 0,
        },
    )
    clip: Quantity = field(
        default=1.0,
        metadata={
            "doc": "C, the largest norm of an image's gradient, by which the sum is then divided",
            "above": 0.0,
        },
    )
    noise: Quantity = field(
        default=1.0,
        metadata={
            "doc": "sigma, the noise multiplier: the deviation of the noise over C; 0: clipping "
            "alone",
            "low": 0.0,
        },
    )
    epsilon: float | None = field(
        default=None,
        metadata={"doc": "budget that a run must keep; null: what `noise` spends", "above": 0.0},
    )
    calibrate: bool = field(
        default=True,
        metadata={
            "doc": "with `epsilon`: the noise is the least that keeps it; false: `noise` as given "
            "must keep it"
        },
    )
    delta: float = field(
        default=1e-5, metadata={"doc": "delta of the epsilon", "above": 0.0, "below": 1.0}
    )
    accountant: Accountant = field(
        default="rdp",
        metadata={
            "doc": "how epsilon is found. rdp: Renyi divergences and the improved conversion (the "
            "paper's code); pld: privacy loss distributions, tighter and slower"
        },
    )
    chunk: int | None = field(
        default=None,
        metadata={
            "doc": "images whose gradients are in memory at once; null: all of an update",
            "low": 1,
        },
    )
    private: bool = field(
        default=True,
        metadata={"doc": "false: neither clipped nor with noise, on the same batches and views"},
    )


def ignored(settings: Settings) -> dict[str, str]:
    """Return what nothing reads, by name, and why."""
    if not settings.private:
        names = ("clip", "noise", "epsilon", "calibrate", "delta", "accountant", "chunk")
        return dict.fromkeys(names, "private: false")
    if settings.epsilon is None:
        return {"calibrate": "epsilon: null"}
    return {"noise": "calibrate: true"} if settings.calibrate else {}


def streams(settings: Settings) -> dict[str, Stream]:
    """Return Poisson batches, in K views or as they are."""
    views = ("weak",) * settings.views or ("plain",)
    return {"labelled": Stream(views, sampler="poisson")}


def planned(settings: Settings, course: Course) -> None:
    """Raise a UserError where noise as given would spend more than the budget."""
    if not settings.private or settings.epsilon is None or settings.calibrate:
        return
    rates, noises = course.columns["batch"] / course.samples, course.columns["noise"]
    given = (settings.epsilon, settings.delta, settings.accountant)
    last = _sampled_gaussian.last_within(rates.tolist(), noises.tolist(), *given)
    if last < len(rates):
        raise UserError(
            f"method.epsilon: {settings.epsilon:g} allows {last} updates with this noise, and the "
            f"run makes {len(rates)}; train for fewer epochs, raise `noise`, or let `calibrate` "
            "choose it."
        )


def columns(settings: Settings, course: Course) -> dict[str, Any]:
    """Return the noise that keeps the budget; a UserError where noise as given does not."""
    planned(settings, course)
    if not settings.private or settings.epsilon is None or not settings.calibrate:
        return {}
    rates = Counter((course.columns["batch"] / course.samples).tolist())
    given = (settings.epsilon, settings.delta, settings.accountant)
    return {"noise": _sampled_gaussian.calibrated(tuple(rates.items()), *given)}


def step(
    models: dict[str, torch.nn.Module],
    batch: Any,
    row: dict[str, torch.Tensor],
    settings: Settings,
    generator: torch.Generator,
) -> tuple[torch.Tensor | Gradients, dict[str, torch.Tensor]]:
    """Return the private gradient; the mean loss and the share of clipped images are logged."""
    net, samples = models["main"], batch.labelled
    if not settings.private:
        return _plain_loss(net, samples), {}
    x, chunk = torch.stack(samples.views, 1), settings.chunk or len(samples.y)
    total: dict[str, torch.Tensor] = {}
    loss = clipped = torch.zeros_like(row["clip"])
    for start in range(0, len(x), chunk):
        at = slice(start, start + chunk)
        of_one, costs = per_example(net, _loss, x[at], samples.y[at])
        squares = [g.flatten(1).square().sum(1) for g in of_one.values()]
        norms = sum(squares[1:], squares[0]).sqrt()
        mask = samples.mask[at]
        share = mask / torch.maximum(norms, row["clip"])
        for name, each in of_one.items():
            part = torch.tensordot(share, each, 1)
            total[name] = total[name] + part if start else part
        loss = loss + (costs * mask).sum()
        clipped = clipped + ((norms > row["clip"]) * mask).sum()
    found = {
        f"main.{name}": (each + _noise(each, generator) * row["noise"]) / samples.expected
        for name, each in total.items()
    }
    drawn = samples.mask.sum().clamp_min(1)
    return Gradients(loss / samples.expected, found), {"clipped_share": clipped / drawn}


def _loss(net: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy [] of the views [K, C, H, W] of one image of class y []."""
    return F.cross_entropy(net(x).float(), y.expand(len(x)))


def _plain_loss(net: torch.nn.Module, samples: Any) -> torch.Tensor:
    """Return the sum of the drawn images' losses over the expected batch."""
    views = len(samples.views)
    costs = F.cross_entropy(
        net(torch.cat(samples.views)).float(), samples.y.repeat(views), reduction="none"
    )
    return (costs.view(views, -1).mean(0) * samples.mask).sum() / samples.expected


def _noise(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.empty_like(like).normal_(generator=generator)


def measures(settings: Settings) -> tuple[str, ...]:
    """Return the names of the figures."""
    spent = ("train_epsilon", "train_noise_multiplier") if settings.private else ()
    return (*spent, "test_membership_auroc")


def evaluate(
    models: Mapping[str, torch.nn.Module], measured: Any, settings: Settings
) -> dict[str, float]:
    """Return the epsilon spent so far, where there is noise; at the end the other figures."""
    found: dict[str, float] = {}
    if settings.private:
        rates = measured.history("batch") / len(measured.pool("train"))
        noises = measured.history("noise")
        if noises.all():
            spent = _sampled_gaussian.counted(rates.tolist(), noises.tolist())
            given = (settings.delta, settings.accountant)
            found["train_epsilon"] = _sampled_gaussian.epsilon(spent, *given)
        if measured.last:
            found["train_noise_multiplier"] = float(noises[-1])
    if measured.last and len(test := measured.pool("test")):
        inside, outside = (
            F.cross_entropy(
                measured.outputs(models["main"], ids), measured.labels(ids), reduction="none"
            )
            for ids in (measured.pool("train"), test)
        )
        found["test_membership_auroc"] = auroc(outside, inside)
    return found
