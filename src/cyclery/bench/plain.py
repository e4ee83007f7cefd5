"""Hand-written training loops in plain eager PyTorch, the baseline of the benchmark.

They are what one would write without this package, with the usual care for speed: the data lie on
the device as uint8, augmentation is batched, the optimiser is torch's with ``foreach``, images and
weights are channels-last on a GPU, cuDNN chooses its algorithms by trying them, and nothing is
read from the device within an epoch. TensorFloat-32 is off, as in the engine. Of this package they
take the networks and the augmentation, which are not what is compared.

A ``task`` is a dict: ``net`` (name, settings), ``classes``, ``mean``, ``std``, ``max_value``,
``augment``, ``strong``, ``train`` and ``unlabelled`` (ids), ``batch``, ``mu``, ``steps`` (updates
per epoch), ``updates`` (of the whole run), ``peak``, ``momentum``, ``decay``, ``ema_decay`` (or
None), ``bf16`` and ``seed``; and what the method has: ``threshold``, or ``eta`` (of which
``factor``), ``gamma_hc`` and ``label_smoothing``, or ``teacher`` (name, settings), ``temperature``
and ``soft``.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclery import models
from cyclery.augment import Pipeline

EVALUATION_BATCH = 1000


class Supervised:
    """Cross-entropy with SGD, Nesterov's momentum, a cosine schedule and averaged weights."""

    def __init__(self, images: Tensor, labels: Tensor, task: dict[str, Any]) -> None:
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.manual_seed(task["seed"])
        self.images, self.labels, self.task, self.device = images, labels, task, images.device
        on_gpu = self.device.type == "cuda"
        self.format = torch.channels_last if on_gpu else torch.contiguous_format
        channels, height, width = images.shape[1:]
        shape = channels, height, width
        net = models.build(task["net"]["name"], task["net"]["settings"], shape, task["classes"])
        self.net = net.to(self.device).to(memory_format=self.format).train()
        specs: list[Any] = [[], task["augment"], task["augment"] + task["strong"]]
        self.plain, self.weak, self.strong = (
            Pipeline(spec, shape, task["mean"], task["std"], task["max_value"]).to(self.device)
            for spec in specs
        )
        self.weights: list[Tensor] = list(self.net.parameters())
        decayed = [p for p in self.weights if p.ndim > 1]
        others = [p for p in self.weights if p.ndim <= 1]
        self.optimiser = torch.optim.SGD(
            [{"params": decayed, "weight_decay": task["decay"]}, {"params": others}],
            lr=task["peak"],
            momentum=task["momentum"],
            nesterov=True,
            foreach=True,
        )
        # The averaged network would share the batch norm buffers, which need no averaging.
        self.averaged = [p.detach().clone() for p in self.weights] if task["ema_decay"] else []
        self.update = 0

    def epoch(self) -> float:
        """Train an epoch; return its mean loss."""
        total = torch.zeros((), device=self.device)
        batch, steps = self.task["batch"], self.task["steps"]
        ids = shuffled(self.task["train"], batch * steps).split(batch)
        others = self.unlabelled_ids()
        for step in range(steps):
            for group in self.optimiser.param_groups:
                group["lr"] = self.rate()
            loss = self.loss(ids[step], others[step] if others else None)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            if self.averaged:
                torch._foreach_lerp_(self.averaged, self.weights, 1 - self.task["ema_decay"])
            self.update += 1
            total += loss.detach()
        return total.item() / steps

    def rate(self) -> float:
        """Return the learning rate of this update."""
        return self.task["peak"] * (1 + math.cos(math.pi * self.update / self.task["updates"])) / 2

    def unlabelled_ids(self) -> tuple[Tensor, ...]:
        """Return the unlabelled ids of every step of an epoch, where there are any."""
        return ()

    def loss(self, ids: Tensor, others: Tensor | None) -> Tensor:
        """Return the loss of a batch."""
        logits = self.logits(self.view(ids, self.weak))
        return F.cross_entropy(logits, self.labels.index_select(0, ids))

    def logits(self, x: Tensor) -> Tensor:
        """Return the network's answer, in fp32."""
        with self.autocast():
            logits: Tensor = self.net(x)
        return logits.float()

    def view(self, ids: Tensor, pipeline: Pipeline) -> Tensor:
        """Return the samples as the network takes them, each with its own random numbers."""
        u = torch.rand(len(ids), pipeline.columns, device=self.device)
        return pipeline(self.images.index_select(0, ids), u).contiguous(memory_format=self.format)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return what computes in bf16, where the task says so."""
        if self.task["bf16"]:
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()

    @torch.no_grad()
    def evaluate(self, ids: Tensor) -> tuple[float, float]:
        """Return accuracy and mean cross-entropy of the trained weights on some samples."""
        self.net.eval()
        parts = [self.view(part, self.plain) for part in ids.split(EVALUATION_BATCH)]
        logits = torch.cat([self.logits(x) for x in parts])
        self.net.train()
        y = self.labels.index_select(0, ids)
        return (logits.argmax(1) == y).float().mean().item(), F.cross_entropy(logits, y).item()


class CyclicalFocal(Supervised):
    """Cyclical focal loss (Smith 2022, arXiv 2202.08978), its focusing exponents 2, smoothed."""

    def __init__(self, images: Tensor, labels: Tensor, task: dict[str, Any]) -> None:
        super().__init__(images, labels, task)
        self.hot = torch.eye(task["classes"], device=self.device)
        smoothing = task["label_smoothing"]
        self.smoothed = (1 - smoothing) * self.hot + smoothing / task["classes"]

    def eta(self) -> float:
        """Return the weight of the easy part in this epoch: 1 at both ends, 0 in between."""
        factor, steps = self.task["eta"]["factor"], self.task["steps"]
        epoch, epochs = self.update // steps, self.task["updates"] // steps
        x = factor * epoch / (epochs - 1)
        eta = 1 - x if factor * epoch < epochs else (x - 1) / (factor - 1)
        return float(min(max(eta, 0.0), 1.0))

    def loss(self, ids: Tensor, others: Tensor | None) -> Tensor:
        """Return the loss of a batch."""
        logits, y = self.logits(self.view(ids, self.weak)), self.labels.index_select(0, ids)
        hot, target = self.hot.index_select(0, y), self.smoothed.index_select(0, y)
        return focal_loss(logits, hot, target, self.eta(), self.task["gamma_hc"])


def focal_loss(logits: Tensor, hot: Tensor, target: Tensor, eta: float, gamma_hc: float) -> Tensor:
    """Return the cyclical focal loss of logits [B, K], of targets that are 0 or 1 and smoothed."""
    log_p = F.log_softmax(logits, 1)
    p = log_p.exp()
    # (1 - p)^2 and (1 + p)^gamma where the class is right, p^2 and 1 where it is not.
    weights = torch.lerp((hot - p).square(), (hot * p + 1).pow(gamma_hc), eta)
    return (target * weights * log_p).sum() / -len(logits)


class Distilled(Supervised):
    """Knowledge distillation (Hinton et al. 2015, arXiv 1503.02531) from a frozen teacher."""

    def __init__(self, images: Tensor, labels: Tensor, task: dict[str, Any]) -> None:
        super().__init__(images, labels, task)
        kind, [channels, height, width] = task["teacher"], images.shape[1:]
        shape = channels, height, width
        teacher = models.build(kind["name"], kind["settings"], shape, task["classes"])
        teacher = teacher.to(self.device).to(memory_format=self.format)
        self.teacher = teacher.eval().requires_grad_(False)

    def loss(self, ids: Tensor, others: Tensor | None) -> Tensor:
        """Return the loss of a batch, which the teacher has seen too."""
        x, y = self.view(ids, self.weak), self.labels.index_select(0, ids)
        with torch.no_grad(), self.autocast():
            answer = self.teacher(x).float()
        return kd_loss(self.logits(x), answer, y, self.task["temperature"], self.task["soft"])


def kd_loss(student: Tensor, teacher: Tensor, y: Tensor, temperature: float, soft: float) -> Tensor:
    """Return the labels' and the teacher's part of the loss; logits [B, K], y [B]."""
    divergence = F.kl_div(
        F.log_softmax(student / temperature, 1),
        F.softmax(teacher / temperature, 1),
        reduction="batchmean",
    )
    return (1 - soft) * F.cross_entropy(student, y) + soft * temperature**2 * divergence


class FixMatch(Supervised):
    """FixMatch (Sohn et al. 2020, arXiv 2001.07685, section 2.2) with hard pseudo-labels."""

    def rate(self) -> float:
        """Return the learning rate of this update: 7/16 of a cosine's half wave."""
        return self.task["peak"] * math.cos(math.pi * 7 / 16 * self.update / self.task["updates"])

    def unlabelled_ids(self) -> tuple[Tensor, ...]:
        """Return mu times as many unlabelled ids as labelled ones for every step."""
        size = self.task["mu"] * self.task["batch"]
        return shuffled(self.task["unlabelled"], size * self.task["steps"]).split(size)

    def loss(self, ids: Tensor, others: Tensor | None) -> Tensor:
        """Return the loss of a batch and of two views of its unlabelled samples."""
        assert others is not None
        x, y = self.view(ids, self.weak), self.labels.index_select(0, ids)
        weak, strong = self.view(others, self.weak), self.view(others, self.strong)
        with self.autocast():
            return fixmatch_loss(self.net, x, y, weak, strong, self.task["threshold"])


def fixmatch_loss(
    net: nn.Module, x: Tensor, y: Tensor, weak: Tensor, strong: Tensor, threshold: float
) -> Tensor:
    """Return the labelled loss plus that of the pseudo-labels, one pass over all views."""
    logits = net(torch.cat([x, weak, strong])).float()
    labelled, weak_logits, strong_logits = logits.split([len(x), len(weak), len(strong)])
    confidence, pseudo = weak_logits.detach().softmax(1).max(1)
    used = (confidence >= threshold).float()
    unlabelled = F.cross_entropy(strong_logits, pseudo, reduction="none") * used
    return F.cross_entropy(labelled, y) + unlabelled.mean()


def shuffled(ids: Tensor, size: int) -> Tensor:
    """Return so many ids in shuffled passes."""
    passes = -(-size // len(ids))
    order = [ids[torch.randperm(len(ids), device=ids.device)] for _ in range(passes)]
    return torch.cat(order)[:size]


LOOPS: dict[str, type[Supervised]] = {
    "supervised": Supervised, "cyclical_focal": CyclicalFocal, "kd": Distilled,
    "fixmatch": FixMatch,
}  # fmt: skip
"""The loop of each method."""
