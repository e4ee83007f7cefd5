"""Packs: runs of one program that a CPU trains as one stacked program.

A step of a small network is bound by Python and dispatch, so a step of sixteen runs takes little
longer than that of one. What runs may differ in: seed, data, schedules, how far they are.
Shapes: K runs, B samples of an update, T updates.
"""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cyclery import methods, optim
from cyclery.engine.chunks import WIDEST
from cyclery.engine.cohort import FixedWidth, Pause, Task
from cyclery.engine.contract import check_step
from cyclery.engine.globals import Globals
from cyclery.engine.made import layout
from cyclery.engine.stacking import Places, mapped
from cyclery.engine.stream import Batch, Samples, stacked_samples
from cyclery.engine.tape import NotTaped, Tape
from cyclery.methods import Gradients
from cyclery.models import Shape
from cyclery.optim.flat.parameters import clip_, stacked
from cyclery.records.record import RunSettings

if TYPE_CHECKING:
    from cyclery.engine.run import Run

# What the runs of a pack may take together, in bytes.
MEMORY = 256 << 20
# Images of so many updates are made at once, in bytes.
AHEAD = 4 << 20


class NotStacked(Exception):
    """Runs cannot be trained as one program; the text says why."""


def may_stack(settings: RunSettings, shape: Shape, classes: int) -> bool:
    """Return whether runs with such settings may be stacked on a CPU, if their method can be."""
    plain = settings["precision"] == "fp32" and settings["threads"] == 1
    if not plain or settings["compile"] or not methods.load(settings["method"]["name"]).capture:
        return False
    # Convolutions gain nothing by it: theirs is the arithmetic.
    return all(len(x) < 4 for x in layout(settings, shape, classes).shapes.values())


def program(run: Run) -> str | None:
    """Return what runs must have in common to train as one; None where a run trains by itself."""
    chosen = run.settings
    if run.device.type != "cpu" or not may_stack(chosen, run.data.shape, run.data.classes):
        return None
    same = {
        "shapes": {k: [*v.shape] for k, v in run._tensors().items()},
        "teachers": [[*x.shape] for m in run.networks.teachers.values() for x in m.parameters()],
        "quantities": run.table.names,
        "decays": decays(run),
        "images": [id(run.data.images)],
        "streams": {k: repr(v) for k, v in run.streams.items()},
        **{k: chosen.get(k) for k in ("method", "model", "head", "optimiser", "augment", "strong",
                                      "views", "mu", "frozen", "rates", "ema_buffers")},
    }  # fmt: skip
    return json.dumps(same, sort_keys=True)


class Pack:
    """Trains ``runs`` of one program. From then on their tensors lie in the pack's memory.

    Raises:
        NotStacked: they cannot be; they have trained nothing.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = list(runs)
        self._tapes: dict[int, Tape] = {}
        first = runs[0]
        self._vectors = stacked([run.flat for run in runs])
        views = self._vectors.views(self._vectors.data.detach())
        self._leaves = {name: view.requires_grad_() for name, view in views.items()}
        self._gradients = self._vectors.views(self._vectors.grad)
        decay, norm = decays(first)
        chosen = first.settings["optimiser"]
        self._optimiser = optim.build(
            chosen["name"], self._vectors, chosen["settings"],
            decay=decay, decay_norm=norm, rates=first.networks.rates(),
        )  # fmt: skip
        averaged = [run.networks.averaged for run in runs if run.networks.averaged is not None]
        self._averaged = stacked(averaged, grad=False) if averaged else None
        stacks = self._shared() | _copies(runs)
        stacks |= {id(p): self._leaves[name] for name, p in first.flat.params.items()}
        if self._averaged is not None:
            moved = self._averaged.views(self._averaged.data)
            stacks |= {id(p): moved[name] for name, p in averaged[0].params.items()}
        self._places = Places(first.models.values(), stacks)
        self._ones = torch.ones(len(runs))

    def _shared(self) -> dict[int, Tensor]:
        """Have the runs' tensors in stacked ones; return these by the ids of the first run's."""
        own = {f"optimiser.{name}": x for name, x in self._optimiser.state().items()}
        own["flat"] = self._vectors.data
        if self._averaged is not None:
            own["average"] = self._averaged.data
        live, found = [run._tensors() for run in self.runs], {}
        for name, tensor in live[0].items():
            rows = [each[name] for each in live]
            values = torch.stack([row.detach() for row in rows])
            stack = own[name].copy_(values.view(own[name].shape)) if name in own else values
            found[id(tensor)] = stack
            for place, row in zip(stack, rows, strict=True):
                row.data = place.view(row.shape)
        for index, run in enumerate(self.runs):
            run.flat.lie_in(self._vectors.data[index])
            if run.networks.averaged is not None and self._averaged is not None:
                run.networks.averaged.lie_in(self._averaged.data[index])
        first = self.runs[0]
        self._live = [stack for stack in found.values()]
        self._update = found[id(first.update)]
        self._followed = [(found[id(a)], found[id(b)]) for a, b in first.networks.followed]
        return found

    def train(self, size: int, starts: Sequence[int], updates: int) -> np.ndarray[Any, Any]:
        """Make updates of ``size`` samples, from the update that each run is at.

        Return what each logs, [K, T, logged].
        """
        found = [
            self._tape(size, inputs)(*inputs) for inputs in self._inputs(size, starts, updates)
        ]
        self._update.add_(updates)
        for run in self.runs:
            run.logged = self.logged
        return torch.stack(found).permute(2, 0, 1).numpy()

    def try_(self, size: int, start: int) -> int:
        """Record a step of one run, and train nothing; return how many bytes it takes.

        Raises:
            NotStacked: it cannot be recorded, or its record computes something else.
        """
        [run] = self.runs
        cursors = {name: feed.cursor.clone() for name, feed in run.feeds.items()}
        [inputs] = self._inputs(size, [start], 1)
        for name, cursor in cursors.items():
            run.feeds[name].cursor.copy_(cursor)
        tape = self._tape(size, inputs)
        before, found = [x.clone() for x in self._live], []
        try:
            for make in (tape, self._step):
                logged = make(*inputs)
                found.append([logged, *(x.clone() for x in self._live)])
                self._put_back(before)
        except Exception as error:
            raise NotStacked(_line(error)) from error
        if not all(a.equal(b) or a.isnan().any() for a, b in zip(*found, strict=True)):
            raise NotStacked("it computes something else the second time")
        return tape.bytes + 2 * sum(x.numel() * x.element_size() for x in self._live)

    def _put_back(self, before: Sequence[Tensor]) -> None:
        for tensor, value in zip(self._live, before, strict=True):
            tensor.copy_(value)

    def _tape(self, size: int, inputs: Sequence[Tensor]) -> Tape:
        """Return the step for updates of this size, recorded unless it is; that changes nothing."""
        if size in self._tapes:
            return self._tapes[size]
        first, before = self.runs[0], [x.clone() for x in self._live]
        states = {name: drawn.get_state() for name, drawn in first.generators.items()}
        drawn = Globals(first.method.name, first.device)
        try:
            with warnings.catch_warnings():
                # That torch has to go through the runs one by one for some operation.
                warnings.simplefilter("ignore")
                tape = Tape(self._step, inputs)
            drawn.check("`step`", "")
            for name, state in states.items():
                if not torch.equal(first.generators[name].get_state(), state):
                    raise NotTaped("it draws random numbers")
        except Exception as error:
            raise NotStacked(_line(error)) from error
        finally:
            self._put_back(before)
        self._tapes[size] = tape
        return tape

    def _inputs(self, size: int, starts: Sequence[int], updates: int) -> Iterator[Sequence[Tensor]]:
        """Yield what a step is given at each update, in the order of ``_step``."""
        names = self.runs[0].table.names
        feeds = {name: [run.feeds[name] for run in self.runs] for name in self.runs[0].feeds}
        pixels = math.prod(self.runs[0].data.shape)
        views = sum(len(f.pipelines) * f.size(size) for f, *_ in feeds.values())
        ahead = max(1, AHEAD // (4 * pixels * views * len(self.runs)))
        for done in range(0, updates, ahead):
            count = min(ahead, updates - done)
            rows = torch.stack(
                [run.table.rows(start + done, count)
                 for run, start in zip(self.runs, starts, strict=True)], 1
            )  # fmt: skip
            magnitude = rows[..., names.index("magnitude")] if "magnitude" in names else None
            given = [rows]
            self._layout: dict[str, tuple[int, bool, int]] = {}
            for name, of_runs in feeds.items():
                found = stacked_samples(of_runs, size, count, magnitude)
                self._layout[name] = (len(found.views), found.mask is not None, found.expected)
                masks = [] if found.mask is None else [found.mask]
                given += [*found.views, found.y, found.ids, *masks]
            yield from zip(*(tensor.unbind() for tensor in given), strict=True)

    def _step(self, rows: Tensor, *given: Tensor) -> Tensor:
        """Make an update of every run; return what is logged, [logged, K]."""
        names = self.runs[0].table.names
        try:
            loss, gradients, logs = mapped(self._one, self._places.stacks, rows, list(given))
        finally:
            self._places.restore()
        if not gradients:
            found = torch.autograd.grad(
                loss, list(self._leaves.values()), self._ones, allow_unused=True
            )
            gradients = dict(zip(self._leaves, found, strict=True))
        known = {name: x.detach() for name, x in gradients.items() if x is not None}
        if len(known) < len(self._leaves):
            self._vectors.grad.zero_()
        torch._foreach_copy_([self._gradients[name] for name in known], list(known.values()))
        scalars = {"loss": loss.detach(), **{name: x.detach() for name, x in logs.items()}}
        row = {name: rows[:, i : i + 1] for i, name in enumerate(names)}
        with torch.no_grad():
            if "clip_norm" in row:
                scalars["clipped"] = clip_(self._vectors, row["clip_norm"])[:, 0]
            self._optimiser.step(row)
            if "ema_decay" in row:
                self._average(1 - row["ema_decay"])
        self.logged = list(scalars)
        return torch.stack([x.float() for x in scalars.values()])

    def _one(self, tensors: Sequence[Tensor], row: Tensor, given: Sequence[Tensor]) -> Any:
        """Return the loss of one run, gradients where it makes them itself, and what it logs."""
        first, left = self.runs[0], iter(given)
        self._places.put(tensors)
        streams = {}
        for name, (views, masked, expected) in self._layout.items():
            seen = tuple(next(left) for _ in range(views))
            y, ids = next(left), next(left)
            streams[name] = Samples(seen, y, ids, next(left) if masked else None, expected)
        quantities = dict(zip(first.table.names, row.unbind(), strict=True))
        found = first.method.step(
            first.models, Batch(streams), quantities, first.method_settings,
            torch.Generator(),
        )  # fmt: skip
        check_step(first.method.name, found, first.flat.params, mapped=True)
        loss, logs = found
        if isinstance(loss, Gradients):
            return loss.loss, dict(loss.of), dict(logs)
        return loss, {}, dict(logs)

    def _average(self, part: Tensor) -> None:
        """Move the averages of the weights, and buffers that follow, by ``part`` [K, 1]."""
        assert self._averaged is not None, "the settings ask for no average"
        self._averaged.data.lerp_(self._vectors.data, part)
        for buffer, source in self._followed:
            buffer.lerp_(source, part.view(-1, *[1] * (buffer.ndim - 1)))


def _line(error: Exception) -> str:
    return f"{error}".strip().partition("\n")[0][:200] or type(error).__name__


def decays(run: Run) -> tuple[bool, bool]:
    """Return whether weights ever decay, and whether biases and norms do."""
    weights, norms = (run.table.columns[f"weight_decay{end}"] for end in ("", "_norm"))
    return bool(weights.any()), bool(norms.any())


def _copies(runs: Sequence[Run]) -> dict[int, Tensor]:
    """Return the tensors of the runs' teachers, stacked, by the ids of the first run's."""
    found = {}
    for name, teacher in runs[0].networks.teachers.items():
        every = [[*run.networks.teachers[name].parameters(), *run.networks.teachers[name].buffers()]
                 for run in runs]  # fmt: skip
        assert len(every[0]) == len([*teacher.parameters(), *teacher.buffers()])
        for rows in zip(*every, strict=True):
            found[id(rows[0])] = torch.stack([row.detach() for row in rows])
    return found


@dataclass(eq=False)
class _Request:
    """So many updates that a run waits for."""

    run: Run
    size: int
    updates: int
    values: np.ndarray[Any, Any] | None = None
    error: Exception | None = None
    done: bool = False
    seconds: float = 0.0


class Stack(FixedWidth):
    """Collects what runs ask for until all of them wait, and trains alike ones as packs.

    Of a kind it admits one run until it is known that such runs can be stacked, then as many as
    ``width`` says; None takes as many as help and fit. ``refusals`` says of methods why their runs
    are trained one by one.
    """

    def __init__(self, width: int | None = None) -> None:
        super().__init__(width or WIDEST)
        self._kind = ""
        self._widths: dict[str, int] = {}
        # What one run takes, in bytes, by the program of those that can be stacked.
        self._bytes: dict[str, int] = {}
        self.refusals: dict[str, str] = {}
        self._refused: set[str] = set()
        self._requests: list[_Request] = []
        self._pack: Pack | None = None

    def admits(self, kind: str, active: int) -> bool:
        """Say whether a run of this kind may start."""
        return active < self._widths.get(kind, 1)

    def started(self, kind: str) -> None:
        """Remember which kind is in training."""
        self._kind = kind

    def train(self, run: Run, size: int, updates: int) -> Task[np.ndarray[Any, Any] | None]:
        """Train a run for so many updates beside others; return what it logs, [T, logged].

        None where it must train by itself.
        """
        if run.program is None or run.program in self._refused:
            return None
        request, began = _Request(run, size, updates), time.monotonic()
        self._requests.append(request)
        try:
            while not request.done:
                yield Pause.WAIT
        finally:
            self._requests.remove(request)
        run.waited += time.monotonic() - began - request.seconds
        if request.error is not None:
            raise request.error
        return request.values

    def advance(self) -> bool:
        """Train what is asked for, once all runs wait; return whether anything was done."""
        groups: dict[Any, list[_Request]] = {}
        for request in self._requests:
            run, size = request.run, request.size
            # A pool may have changed, and the room of a stream with it.
            room = tuple(feed.size(size) for feed in run.feeds.values())
            groups.setdefault((run.program, size, request.updates, room), []).append(request)
        for (program, *_), group in groups.items():
            began = time.monotonic()
            try:
                if program not in self._bytes:
                    self._try(group)
                elif self._kind not in self._widths:
                    # Others may join.
                    fits = max(1, MEMORY // self._bytes[program])
                    self._widths[self._kind] = min(self.width, fits)
                else:
                    self._train(group)
            except Exception as error:
                for request in group:
                    request.error, request.done = error, True
            for request in group:
                request.seconds += (time.monotonic() - began) / len(group)
        return bool(groups)

    def _train(self, group: list[_Request]) -> None:
        runs = [request.run for request in group]
        if self._pack is None or self._pack.runs != runs:
            self._pack = Pack(runs)
        first = group[0]
        values = self._pack.train(first.size, [run.at for run in runs], first.updates)
        for request, logged in zip(group, values, strict=True):
            request.values, request.done = logged, True

    def _try(self, group: list[_Request]) -> None:
        run = group[0].run
        assert run.program is not None, "it would not have asked"
        try:
            taken = Pack([run]).try_(group[0].size, run.at)
        except NotStacked as reason:
            self._refused.add(run.program)
            self.refusals[run.method.name] = str(reason)
            for request in group:
                request.done = True
            return
        self._bytes[run.program] = taken
