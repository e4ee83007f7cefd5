"""Make the networks of a run."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cyclery import methods, models
from cyclery.common.errors import UserError, choices
from cyclery.data import splits
from cyclery.engine.parts import USUAL, within
from cyclery.models import Shape
from cyclery.models._classifier import head_of
from cyclery.records.record import ArmSettings, Component, RunSettings


class Made:
    """What a method's ``modules`` may use: the network of a run, and what it was made for.

    ``net``; ``shape`` [C, H, W] of images; the number of ``classes``; ``samples``, above all ids;
    ``mean`` and ``std`` [C], by which images in 0..1 are normalised (0 and 1 in planning).
    """

    def __init__(
        self,
        settings: RunSettings,
        shape: Shape,
        classes: int,
        net: nn.Module,
        samples: int = 0,
        mean: Sequence[float] = (),
        std: Sequence[float] = (),
    ) -> None:
        self._settings = settings
        self.mean, self.std = tuple(mean) or (0.0,) * shape[0], tuple(std) or (1.0,) * shape[0]
        self.shape, self.classes, self.net, self.samples = shape, classes, net, samples

    @property
    def levels(self) -> list[list[int]]:
        """The group of every class [K] at each coarser level of a hierarchy, finer ones first."""
        return splits.levels(self._settings["split"], self._settings["seed"])

    @property
    def width(self) -> int:
        """The length of a feature vector; a UserError where the network has none."""
        if not isinstance(width := getattr(self.net, "width", None), int):
            name = self._settings["model"]["name"]
            raise UserError(f"model: {name} has no features before a head; choose another network.")
        return width

    def fresh(self, classes: int | None = None) -> nn.Module:
        """Return another network of the run's kind, with initial weights of its own."""
        return built(self._settings, self.shape, classes or self.classes)


def built(settings: ArmSettings, shape: Shape, classes: int) -> nn.Module:
    """Return a new network of a run's kind, whose weights torch's global generator draws."""
    kind = settings["model"]
    return models.build(kind["name"], kind["settings"], shape, classes, settings.get("head"))


def added(method: methods.Method, chosen: Any, made: Made) -> dict[str, nn.Module]:
    """Return the modules that a method adds; a UserError where they are none, or a name is taken.

    What is there already, and parts of every network, cannot be called the same.
    """
    found: Any = method.modules(chosen, made)
    if not isinstance(found, dict) or not all(isinstance(x, nn.Module) for x in found.values()):
        raise UserError(
            f"method: `modules` of {method.name!r} must return a dict of torch modules by name "
            f"(found {found!r:.80})."
        )
    taken = ("main", "ema", *USUAL, *method.parents(chosen))
    for name in found:
        if not isinstance(name, str) or not name.isidentifier() or name in taken:
            raise UserError(
                f"method: `modules` of {method.name!r} must have names as Python has them, other "
                f"than {choices(taken)} (found {name!r:.80})."
            )
    return found


@dataclass(frozen=True)
class Layout:
    """The shapes of a run's parameters and buffers by their names, the module of the run first.

    ``trained`` are those of the parameters that are not frozen by the method itself; ``head`` is
    the name of the head inside the network.
    """

    shapes: dict[str, tuple[int, ...]]
    trained: Collection[str]
    head: str

    def within(self, name: str, part: str) -> bool:
        """Return whether a name lies in a part."""
        return within(name, part, self.head)


def layout(settings: ArmSettings, shape: Shape, classes: int) -> Layout:
    """Return how a run's networks are made, without making their weights; each is made once."""
    used = {key: settings.get(key) for key in ("model", "head", "method", "split")}
    return _layout(json.dumps({**used, "seed": 0}, sort_keys=True), shape, classes)


class _Undrawn(TorchFunctionMode):
    """Leave weights undrawn: normal numbers without values make torch import its compiler."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Return the tensor as it is, of a function of ``torch.nn.init``, or call another one."""
        given = kwargs or {}
        if func is Tensor.normal_ or getattr(func, "__module__", "") == nn.init.__name__:
            return args[0] if args else given["tensor"]
        return func(*args, **given)


@contextmanager
def _shapes_alone() -> Iterator[None]:
    """Let modules be made without the values of their weights."""
    with torch.device("meta"), _Undrawn():
        yield


@lru_cache(maxsize=256)
def _layout(chosen: str, shape: Shape, classes: int) -> Layout:
    settings = json.loads(chosen)
    try:
        with _shapes_alone():
            nets = nn.ModuleDict(networks(settings, shape, classes))
    except (NotImplementedError, RuntimeError):
        # A module may read a number off a tensor, which there has none.
        with torch.random.fork_rng(devices=[]):
            nets = nn.ModuleDict(networks(settings, shape, classes))
    return Layout(
        {name: tuple(tensor.shape) for name, tensor in nets.state_dict().items()},
        frozenset(name for name, tensor in nets.named_parameters() if tensor.requires_grad),
        head_name(settings["model"], shape, classes),
    )


def networks(
    settings: RunSettings, shape: Shape, classes: int, samples: int = 0
) -> dict[str, nn.Module]:
    """Return a new network of a run's kind and the modules that its method adds, by name."""
    method = methods.load(settings["method"]["name"])
    net = built(settings, shape, classes)
    made = Made(settings, shape, classes, net, samples)
    return {"main": net, **added(method, method.chosen(settings["method"]["settings"]), made)}


def head_name(model: Component, shape: Shape, classes: int) -> str:
    """Return the name of the head inside a network, whatever its kind; empty without one."""
    return _head_name(json.dumps(model, sort_keys=True), shape, classes)


@lru_cache(maxsize=256)
def _head_name(model: str, shape: Shape, classes: int) -> str:
    chosen = json.loads(model)
    with _shapes_alone():
        # With the head of its own, which is linear, whatever takes its place.
        net = models.build(chosen["name"], chosen["settings"], shape, classes)
    return head_of(net, classes) or ""
