"""The networks of a run: the trained one, a method's modules, and the weight averages.

All trainable parameters are one vector, and so are the averaged ones: averaging is one kernel.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from cyclery.common.errors import UserError
from cyclery.engine.globals import CPU, Globals
from cyclery.engine.made import Made, added, built, head_name, networks
from cyclery.engine.parts import NOTHING_LEFT, USUAL, factors, holding, numbers, within
from cyclery.engine.stream import Data, derive, origin
from cyclery.engine.teachers import Trained, handed_on, load, load_parts, teacher
from cyclery.methods import REFERENCE, TEACHER, Method
from cyclery.models.layers import convolves, keep_statistics, share_buffers, use_generator
from cyclery.optim.flat.parameters import Flat, Vectors
from cyclery.records.record import RunSettings


class Networks:
    """``models`` by name, all in training mode, as a method's step gets them.

    ``main`` is trained, with the modules that the method adds. Where weights are averaged, the
    average of ``main`` is ``ema`` and that of another trained module ``ema.<name>``; their
    parameters are frozen. Frozen parts of the settings are in evaluation mode, and no parameters of
    ``flat``. ``teachers`` are the parents that the method or the figures need.
    """

    def __init__(
        self,
        settings: RunSettings,
        method: Method,
        data: Data,
        device: torch.device,
        generators: dict[str, torch.Generator],
        parents: Mapping[str, Sequence[Trained]],
    ) -> None:
        shape, classes = data.shape, data.classes
        self._settings, self._method, self._data = settings, method, data
        self._chosen = method.chosen(settings["method"]["settings"])
        with self._drawing("init"):
            net = built(settings, shape, classes)
            left = self._start({"main": net}, parents)
            drawn = Globals(method.name, device)
            pixels = data.manifest["mean"], data.manifest["std"]
            made = Made(settings, shape, classes, net, len(data.labels), *pixels)
            own = added(method, self._chosen, made)
            # Torch's own on the CPU is seeded here, and put back.
            drawn.check("`modules`", "draw with torch, on the CPU", but=(CPU,))
            self._start(own, parents, left)
        self.models: dict[str, nn.Module] = {"main": net, **own}
        # Convolutions are faster with channels last, on a CPU as on a GPU.
        on_gpu = device.type == "cuda"
        last = on_gpu or any(map(convolves, self.models.values()))
        self.format = torch.channels_last if last else torch.contiguous_format
        # Memory, and frozen networks, are neither trained nor averaged.
        trained = nn.ModuleDict(
            {k: m for k, m in self.models.items() if any(p.requires_grad for p in m.parameters())}
        )
        self._freeze(trained)
        averaged = copy.deepcopy(trained) if "ema_decay" in settings["schedules"] else None
        for module in self.models.values():
            module.to(device).train()
        self._at_rest(trained)
        self.flat = self._flat(trained, generators["network"])
        for name in self.models.keys() - trained.keys():
            # A method may train what the optimiser does not.
            use_generator(self.models[name], generators["network"])
        self.averaged: Flat | None = None
        # Buffers that are averaged too, each with what it follows.
        self.followed: list[tuple[Tensor, Tensor]] = []
        # What is evaluated, the best first: networks by the names that the method gives them.
        self.evaluated: list[dict[str, nn.Module]] = [dict(self.models)]
        if averaged is not None:
            averaged.to(device).train()
            self._at_rest(averaged)
            self.averaged = self._flat(averaged, generators["average"], frozen=True)
            self.followed = _buffers(settings["ema_buffers"], averaged, trained)
            if method.averages(self._chosen):
                self.evaluated.insert(0, {**self.models, **averaged})
            for name, module in averaged.items():
                self.models["ema" if name == "main" else f"ema.{name}"] = module
        wanted = {*method.parents(self._chosen), *({REFERENCE} & parents.keys())}
        self.teachers = {name: teacher(name, parents[name], shape) for name in sorted(wanted)}
        for module in self.teachers.values():
            module.to(device).to(memory_format=self.format)
        if settings["compile"] and on_gpu:
            # Each of a cohort's networks may be compiled again, in training and in evaluation.
            torch._dynamo.config.recompile_limit = 64
            for module in (*self.models.values(), *self.teachers.values()):
                module.compile(dynamic=False)

    def _start(
        self,
        nets: Mapping[str, nn.Module],
        parents: Mapping[str, Sequence[Trained]],
        parts: Sequence[str] | None = None,
    ) -> list[str]:
        """Give networks the weights that a parent hands on; return the parts not found in them.

        Of the whole network, or of some ``parts``: without them, all those of the settings.
        """
        if not self._settings["init"]:
            return []
        [start] = parents[self._settings["init"]]
        wanted = self._settings.get("init_parts")
        if wanted is None:
            if parts is None:
                load(nets["main"], start.main, "init", self._settings["init_share"] or 1.0)
            return []
        left = load_parts(nets, start, wanted if parts is None else parts, self.within)
        if parts is not None and left:
            raise UserError(f"init.parts: nothing in this run is {left[0]!r} or in it.")
        return left

    @cached_property
    def _head(self) -> str:
        """The name of the head inside the network."""
        return head_name(self._settings["model"], self._data.shape, self._data.classes)

    def within(self, name: str, part: str) -> bool:
        """Return whether a parameter, a buffer or a module lies in a part, by its full name."""
        return within(name, part, self._head if part in USUAL else "")

    def _freeze(self, nets: nn.ModuleDict) -> None:
        """Take the frozen parts out of training."""
        parts = self._settings.get("frozen", [])
        trained = {name: p for name, p in nets.named_parameters() if p.requires_grad}
        for name in holding("frozen", trained, parts, self.within):
            trained.pop(name).requires_grad_(False)
        if parts and not trained:
            raise UserError(NOTHING_LEFT)

    def _at_rest(self, nets: nn.ModuleDict) -> None:
        """Put frozen parts in evaluation mode: their batch norm keeps its statistics."""
        frozen = self._settings.get("frozen", [])
        for name, module in nets.named_modules():
            if any(self.within(name, part) for part in frozen):
                module.training = False

    def rates(self) -> dict[str, float]:
        """Return the factors of learning rates that are not 1, by the names of parameters."""
        given = self._settings.get("rates", {})
        return factors(given, self.flat.params, [], self.within) if given else {}

    def clip_values(self) -> dict[str, float]:
        """Return the bounds on the entries of gradients, by the names of parameters."""
        given = self._settings.get("clip_values", {})
        return numbers("clip_values", given, self.flat.params, [], self.within) if given else {}

    @contextmanager
    def _drawing(self, purpose: str) -> Iterator[None]:
        """Inside, torch's global generator draws what belongs to a purpose of the run."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(origin(self._settings), purpose))
            yield

    def drawn_again(self, purpose: str) -> dict[str, nn.Module]:
        """Return new networks, as those of the run were made at first but for a parent's weights.

        Their weights are those of ``purpose``, on the CPU: ``init`` has those of the run itself.
        """
        data = self._data
        with self._drawing(purpose):
            return networks(self._settings, data.shape, data.classes, len(data.labels))

    def predict(self, nets: Mapping[str, nn.Module], x: Tensor) -> Tensor:
        """Return the logits [B, K] of networks that are evaluated."""
        logits: Any = self._method.predict(nets, x, self._chosen)
        shape = (len(x), self._data.classes)
        if not isinstance(logits, Tensor) or logits.shape != shape:
            found = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise UserError(
                f"method: `predict` of {self._method.name!r} must return logits {list(shape)}, one "
                f"for each class (found {found})."
            )
        return logits

    def features(self, nets: Mapping[str, nn.Module], x: Tensor) -> dict[str, Tensor]:
        """Return the feature vectors [B, D] by name."""
        return self._method.features(nets, x, self._chosen)

    @property
    def reference(self) -> nn.Module | None:
        """The parent that final figures are compared with, where there is one."""
        return self.teachers.get(REFERENCE, self.teachers.get(TEACHER))

    def average(self, part: Tensor) -> None:
        """Move the averaged weights, and buffers where they follow, by ``part`` of the way."""
        assert self.averaged is not None, "the settings ask for no average"
        average(self.averaged, self.flat, self.followed, part)

    def weights(self) -> dict[str, Tensor]:
        """Return what is handed on, by name: the evaluated network, and modules that are kept."""
        return handed_on(self.evaluated[0], self._method.keeps(self._chosen))

    def tensors(self) -> dict[str, Tensor]:
        """Return the live tensors that training changes, by name."""
        tensors = {"flat": self.flat.data}
        if self.averaged is not None:
            tensors["average"] = self.averaged.data
        seen = set()
        for name, model in sorted(self.models.items()):
            for key, buffer in model.named_buffers():
                if id(buffer) not in seen:
                    seen.add(id(buffer))
                    tensors[f"buffer.{name}.{key}"] = buffer
            # Those that are frozen, and their copies in an average, which `event` may change.
            source = "main" if name == "ema" else name.removeprefix("ema.")
            tensors |= {
                f"frozen.{name}.{key}": parameter
                for key, parameter in model.named_parameters()
                if f"{source}.{key}" not in self.flat.params
            }
        return tensors

    def _flat(self, nets: nn.Module, noise: torch.Generator, frozen: bool = False) -> Flat:
        # Torch's own generator is shared by all runs of a process, and not part of their state.
        drawing = [m for m in nets.modules() if isinstance(m, _DropoutNd)]
        if drawing:
            raise ValueError(f"{drawing[0]} draws from torch's own generator; use layers.Dropout")
        nets.to(memory_format=self.format)
        use_generator(nets, noise)
        return Flat(nets, channels_last=self.format is torch.channels_last, frozen=frozen)


@torch.no_grad()
def average(
    averaged: Vectors, source: Vectors, followed: Iterable[tuple[Tensor, Tensor]], part: Tensor
) -> None:
    """Move averaged weights to their source by a part of the way, and buffers to what they follow.

    The part is that of a run, [], or of K runs, [K, 1].
    """
    averaged.data.lerp_(source.data, part)
    for buffer, other in followed:
        buffer.lerp_(other, part.view(-1, *[1] * (buffer.ndim - 1)) if part.ndim else part)


def _buffers(
    kind: str | None, averaged: nn.Module, trained: nn.Module
) -> list[tuple[Tensor, Tensor]]:
    """Give the averaged networks their running statistics; return those that are averaged too."""
    if kind == "own":
        return []
    # Its own passes in training use the batch's statistics and leave the running ones alone.
    keep_statistics(averaged)
    if kind == "shared":
        share_buffers(averaged, trained)
        return []
    source = dict(trained.named_buffers())
    return [(b, source[name]) for name, b in averaged.named_buffers() if b.is_floating_point()]
