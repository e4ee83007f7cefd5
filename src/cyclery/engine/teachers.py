"""Parents of a run: weights to start from, and frozen networks to learn from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cyclery import methods
from cyclery.common.errors import UserError, choices
from cyclery.engine.made import Made, added, built
from cyclery.engine.parts import Within
from cyclery.models import Shape
from cyclery.records.record import RunSettings


@dataclass(frozen=True)
class Trained:
    """A finished run: its resolved settings, and the weights and buffers that it kept.

    ``classes`` is how many it tells apart.
    """

    settings: RunSettings
    weights: dict[str, Tensor]
    classes: int

    @property
    def main(self) -> dict[str, Tensor]:
        """The weights of its network."""
        return {name: value for name, value in self.weights.items() if "/" not in name}

    def of(self, module: str) -> dict[str, Tensor]:
        """Return the weights of a module that it kept."""
        start = f"{module}/"
        return {k.removeprefix(start): v for k, v in self.weights.items() if k.startswith(start)}


def handed_on(nets: Mapping[str, nn.Module], kept: Iterable[str]) -> dict[str, Tensor]:
    """Return what `Trained` takes apart: the weights of a network and of the modules that it keeps.

    Those of a module have its name before them, as in ``projector/0.weight``.
    """
    state = dict(nets["main"].state_dict())
    for name in kept:
        state |= {f"{name}/{key}": value for key, value in nets[name].state_dict().items()}
    return state


class Member(nn.Module):
    """One finished run: its network and the modules that it kept, by name, as ``parts``."""

    def __init__(self, run: Trained, parts: dict[str, nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(parts)
        choice = run.settings["method"]
        self._method = methods.load(choice["name"])
        self._chosen = self._method.chosen(choice["settings"])

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits [B, K] that were evaluated."""
        logits: Tensor = self._of("predict", x)
        return logits

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """Return the feature vectors [B, D] by name."""
        found: dict[str, Tensor] = self._of("features", x)
        return found

    def _of(self, hook: str, x: Tensor) -> Any:
        """Return what a hook of the run's method makes of images; it has what was kept alone."""
        try:
            return getattr(self._method, hook)(dict(self.parts), x, self._chosen)
        except KeyError as missing:
            raise UserError(
                f"method: `{hook}` of {self._method.name!r} takes the module {missing}, which it "
                "does not hand on to children; name it in `keeps`."
            ) from None


class Teacher(nn.Module):
    """One network or an ensemble, frozen and always in evaluation mode.

    Its answer for images [B, C, H, W] is the logarithm [B, K] of the mean of its members'
    probabilities (Stanton et al. 2021, arXiv 2106.05945), float32 and without a graph. A
    temperature comes after the mean: softmax(answer / T).
    """

    def __init__(self, members: Sequence[Member]) -> None:
        super().__init__()
        self.members: Sequence[Member] = nn.ModuleList(members)  # type: ignore[assignment]
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

    @property
    def parts(self) -> nn.ModuleDict:
        """The network of a single run, ``main``, and the modules that it kept, by name."""
        return self._single.parts

    @torch.no_grad()
    def features(self, x: Tensor, name: str = "features") -> Tensor:
        """Return a single run's feature vectors [B, D] of images, those before the head."""
        found = self._single.features(x)
        if name not in found:
            raise UserError(f"method: a parent has no features {name!r}; it has {choices(found)}.")
        return found[name].float()

    @property
    def _single(self) -> Member:
        if len(self.members) != 1:
            raise UserError(
                f"method: a parent of {len(self.members)} runs has no features or parts of one; "
                "take its answers, or let it be a single run (`seeds: same`)."
            )
        return self.members[0]


def teacher(name: str, runs: Sequence[Trained], shape: Shape) -> Teacher:
    """Return the finished runs of the parent ``name`` as a teacher, on the CPU.

    A UserError where weights are not those of the network that their run had.
    """
    return Teacher([_member(name, run, shape) for run in runs])


def _member(name: str, run: Trained, shape: Shape) -> Member:
    choice = run.settings["method"]
    method = methods.load(choice["name"])
    chosen = method.chosen(choice["settings"])
    with torch.random.fork_rng(devices=[]):
        net = built(run.settings, shape, run.classes)
        parts = {"main": net}
        if kept := method.keeps(chosen):
            made = added(method, chosen, Made(run.settings, shape, run.classes, net))
            parts |= {each: made[each] for each in kept}
    for part, module in parts.items():
        weights = run.main if part == "main" else run.of(part)
        if wrong := _misfit(module.state_dict(), weights):
            raise UserError(
                f"parents.{name}: the checkpoint has other weights than its "
                f"{'network' if part == 'main' else part}, {run.settings['model']['name']} (first: "
                f"{wrong}); delete its run to train it again."
            )
        module.load_state_dict(weights)
    return Member(run, parts)


def load(net: nn.Module, weights: dict[str, Tensor], key: str, share: float = 1.0) -> None:
    """Move a network's parameters and buffers by ``share`` of the way to a parent's weights.

    Whole numbers, as counters are, stay its own unless ``share`` is 1. A UserError, which begins
    with ``key``, names what does not fit.
    """
    if wrong := _misfit(net.state_dict(), weights):
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


def load_parts(
    nets: Mapping[str, nn.Module], run: Trained, parts: Sequence[str], within: Within
) -> list[str]:
    """Copy the parameters and buffers of parts from a finished run; return the parts not found.

    A UserError names what of a part does not fit.
    """
    own = {f"{name}.{key}": v for name, net in nets.items() for key, v in net.state_dict().items()}
    theirs = {key.replace("/", ".", 1) if "/" in key else f"main.{key}": value
              for key, value in run.weights.items()}  # fmt: skip
    left = []
    for part in parts:
        mine, taken = (
            {name: value for name, value in weights.items() if within(name, part)}
            for weights in (own, theirs)
        )
        if not mine:
            left.append(part)
            continue
        if wrong := _misfit(mine, taken):
            raise UserError(
                f"init.parts: the parent's {part!r} is not the same as this run's (first: {wrong});"
                " take parts that both have in the same shape."
            )
        for name, value in mine.items():
            value.copy_(taken[name])
    return left


def _misfit(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str | None:
    """Return the first name, sorted, that only one of them has or has in another shape."""
    return min(
        (
            name
            for name in own.keys() | weights.keys()
            if name not in own or name not in weights or own[name].shape != weights[name].shape
        ),
        default=None,
    )
