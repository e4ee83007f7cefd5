"""The networks of a run: the trained one, a method's modules, and the weight average.

All trainable parameters are one vector, and so are the averaged ones: averaging is one kernel.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from cyclery import models
from cyclery.engine.globals import CPU, Globals
from cyclery.engine.stream import Data, derive, origin
from cyclery.engine.teachers import Trained, load, teacher
from cyclery.methods import REFERENCE, TEACHER, Method
from cyclery.models.layers import keep_statistics, share_buffers, use_generator
from cyclery.optim.flat.parameters import Flat
from cyclery.records.record import RunSettings


class Networks:
    """``models`` by name, all in training mode, as a method's step gets them.

    ``main`` is trained, with the modules that the method adds. Where weights are averaged, the
    average of ``main`` is ``ema`` and that of another trained module ``ema.<name>``; their
    parameters are frozen. ``teachers`` are the parents that the method or the figures need.
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
        kind, manifest = settings["model"], data.manifest
        shape, classes = tuple(manifest["shape"]), manifest["classes"]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(origin(settings), "init"))
            net = models.build(kind["name"], kind["settings"], shape, classes, settings.get("head"))
            if settings["init"]:
                [start] = parents[settings["init"]]
                load(net, start.weights, "init", settings["init_share"] or 1.0)
            chosen = method.chosen(settings["method"]["settings"])
            drawn = Globals(method.name, device)
            added = method.modules(chosen, net, classes, len(data.labels))
            # Torch's own on the CPU is seeded here, and put back.
            drawn.check("`modules`", "draw with torch, on the CPU", but=(CPU,))
        self.models: dict[str, nn.Module] = {"main": net, **added}
        # Convolutions of several channels are faster with channels last on a GPU.
        on_gpu = device.type == "cuda"
        self.format = torch.channels_last if on_gpu else torch.contiguous_format
        # The memory of a method has buffers alone: it is neither trained nor averaged.
        trained = nn.ModuleDict({k: m for k, m in self.models.items() if list(m.parameters())})
        averaged = copy.deepcopy(trained) if "ema_decay" in settings["schedules"] else None
        for module in self.models.values():
            module.to(device).train()
        self.flat = self._flat(trained, generators["network"])
        self._average: Tensor | None = None
        self._buffers: list[tuple[Tensor, Tensor]] = []
        if averaged is not None:
            averaged.to(device).train()
            self._average = self._flat(averaged, generators["average"], frozen=True).data
            self._buffers = _buffers(settings["ema_buffers"], averaged, trained)
            for name, module in averaged.items():
                self.models["ema" if name == "main" else f"ema.{name}"] = module
        wanted = {*method.parents(chosen), *({REFERENCE} & parents.keys())}
        self.teachers = {
            name: teacher(name, parents[name], shape, classes) for name in sorted(wanted)
        }
        for module in self.teachers.values():
            module.to(device).to(memory_format=self.format)
        if settings["compile"] and on_gpu:
            # Each of a cohort's networks may be compiled again, in training and in evaluation.
            torch._dynamo.config.recompile_limit = 64
            for module in (*self.models.values(), *self.teachers.values()):
                module.compile(dynamic=False)

    @property
    def reference(self) -> nn.Module | None:
        """The parent that final figures are compared with, where there is one."""
        return self.teachers.get(REFERENCE, self.teachers.get(TEACHER))

    @property
    def evaluated(self) -> list[nn.Module]:
        """The networks that are evaluated: the averaged one first, where there is one."""
        return [self.models[name] for name in ("ema", "main") if name in self.models]

    @torch.no_grad()
    def average(self, part: Tensor) -> None:
        """Move the averaged weights, and buffers where they follow, by ``part`` of the way."""
        assert self._average is not None, "the settings ask for no average"
        self._average.lerp_(self.flat.data, part)
        for buffer, source in self._buffers:
            buffer.lerp_(source, part)

    def tensors(self) -> dict[str, Tensor]:
        """Return the live tensors that training changes, by name."""
        tensors = {"flat": self.flat.data}
        if self._average is not None:
            tensors["average"] = self._average
        shared = set()
        for name, model in sorted(self.models.items()):
            for key, buffer in model.named_buffers():
                if id(buffer) not in shared:
                    shared.add(id(buffer))
                    tensors[f"buffer.{name}.{key}"] = buffer
        return tensors

    def _flat(self, nets: nn.Module, noise: torch.Generator, frozen: bool = False) -> Flat:
        # Torch's own generator is shared by all runs of a process, and not part of their state.
        drawing = [m for m in nets.modules() if isinstance(m, _DropoutNd)]
        if drawing:
            raise ValueError(f"{drawing[0]} draws from torch's own generator; use layers.Dropout")
        nets.to(memory_format=self.format)
        use_generator(nets, noise)
        return Flat(nets, channels_last=self.format is torch.channels_last, frozen=frozen)


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
