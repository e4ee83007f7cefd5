"""Parents of a run: weights to start from, and frozen networks to learn from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cyclery import models
from cyclery.common.errors import UserError
from cyclery.models import Shape
from cyclery.records.record import RunSettings


@dataclass(frozen=True)
class Trained:
    """A finished run: its resolved settings, and the weights and buffers that it kept."""

    settings: RunSettings
    weights: dict[str, Tensor]


class Teacher(nn.Module):
    """One network or an ensemble, frozen and always in evaluation mode.

    Its answer for images [B, C, H, W] is the logarithm [B, K] of the mean of its members'
    probabilities (Stanton et al. 2021, arXiv 2106.05945), float32 and without a graph. A
    temperature comes after the mean: softmax(answer / T).
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Teacher:
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Return log mean_m softmax(z_m(x)), [B, K]."""
        answers = [member(x).float().log_softmax(1) for member in self.members]
        if len(answers) == 1:
            return answers[0]
        return torch.stack(answers).logsumexp(0) - math.log(len(answers))


def teacher(name: str, runs: Sequence[Trained], shape: Shape, classes: int) -> Teacher:
    """Return the finished runs of the parent ``name`` as a teacher, on the CPU.

    A UserError where weights are not those of the network that their run had.
    """
    members = []
    for run in runs:
        kind = run.settings["model"]
        with torch.random.fork_rng(devices=[]):
            net = models.build(
                kind["name"], kind["settings"], shape, classes, run.settings.get("head")
            )
        if wrong := _misfit(net, run.weights):
            raise UserError(
                f"parents.{name}: the checkpoint has other weights than its network, "
                f"{kind['name']} (first: {wrong}); delete its run to train it again."
            )
        net.load_state_dict(run.weights)
        members.append(net)
    return Teacher(members)


def load(net: nn.Module, weights: dict[str, Tensor], key: str, share: float = 1.0) -> None:
    """Move a network's parameters and buffers by ``share`` of the way to a parent's weights.

    Whole numbers, as counters are, stay its own unless ``share`` is 1. A UserError, which begins
    with ``key``, names what does not fit.
    """
    if wrong := _misfit(net, weights):
        raise UserError(
            f"{key}: the parent's weights do not fit this network (first: {wrong}); parent and "
            "child need the same network, head, input shape and number of classes."
        )
    if share < 1:
        weights = {
            name: value.lerp(weights[name], share) if value.is_floating_point() else value
            for name, value in net.state_dict().items()
        }
    net.load_state_dict(weights)


def _misfit(net: nn.Module, weights: dict[str, Tensor]) -> str | None:
    """Return the first name, sorted, that only one of them has or has in another shape."""
    own = net.state_dict()
    return min(
        (
            name
            for name in own.keys() | weights.keys()
            if name not in own or name not in weights or own[name].shape != weights[name].shape
        ),
        default=None,
    )
