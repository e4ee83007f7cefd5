"""Packs: runs of one program that a CPU trains as one stacked program.

A step of a small network is bound by Python and dispatch, so a step of sixteen runs takes little
longer than that of one. What runs may differ in: seed, data, schedules, how far they are.
Shapes: K runs, B samples of an update, T updates.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from cyclery.common.errors import UserError
from cyclery.engine.contract import check_step
from cyclery.engine.draws import Draws
from cyclery.engine.evaluation import BATCH
from cyclery.engine.globals import Globals
from cyclery.engine.metrics import measure
from cyclery.engine.networks import average
from cyclery.engine.stackable import Stackable
from cyclery.engine.stacking import Places, mapped
from cyclery.engine.stream import Batch, Samples, stacked_samples
from cyclery.engine.tape import NotTaped, Tape
from cyclery.engine.widths import depends
from cyclery.methods import Gradients
from cyclery.models.layers import evaluating
from cyclery.optim.flat.parameters import clip_, stacked

T = TypeVar("T")
DRAWS = "a step draws random numbers that runs cannot draw each for itself"
# How many runs are tried beside one another. Odd, so that some lie askew in memory.
BESIDE = 7
# Images of so many updates are made at once, in bytes.
AHEAD = 4 << 20


class NotStacked(Exception):
    """Runs cannot be trained as one program; the text says why."""


class Pack:
    """Copies of what ``runs`` of one program have, stacked; once they are in, it trains them."""

    def __init__(self, runs: Sequence[Stackable]) -> None:
        self.runs = list(runs)
        self._tapes: dict[tuple[Any, ...], Tape] = {}
        first = runs[0]
        self._vectors = stacked([run.flat for run in runs])
        views = self._vectors.views(self._vectors.data.detach())
        self._leaves = {name: view.requires_grad_() for name, view in views.items()}
        self._gradients = self._vectors.views(self._vectors.grad)
        self._optimiser = first.new_optimiser(self._vectors)
        averaged = [run.networks.averaged for run in runs if run.networks.averaged is not None]
        self._averaged = stacked(averaged, grad=False) if averaged else None
        self._live = self._stacked()
        live = first.live()
        stacks = {id(live[name]): stack for name, stack in self._live.items()} | _copies(runs)
        self._followed = [(stacks[id(a)], stacks[id(b)]) for a, b in first.networks.followed]
        stacks |= {id(p): self._leaves[name] for name, p in first.flat.params.items()}
        if self._averaged is not None:
            moved = self._averaged.views(self._averaged.data)
            stacks |= {id(p): moved[name] for name, p in averaged[0].params.items()}
        self._places = Places(first.models.values(), stacks)
        self._ones = torch.ones(len(runs))
        self._draws = Draws([run.generators for run in runs])

    def _stacked(self) -> dict[str, Tensor]:
        """Return the runs' live tensors, stacked, by name."""
        found = {f"optimiser.{name}": x for name, x in self._optimiser.state().items()}
        found["flat"] = self._vectors.data
        if self._averaged is not None:
            found["average"] = self._averaged.data
        live = [run.live() for run in self.runs]
        for name in live[0]:
            values = torch.stack([each[name].detach() for each in live])
            # What lies elsewhere already has a form of its own.
            found[name] = (
                found[name].copy_(values.view(found[name].shape)) if name in found else values
            )
        return found

    def take_in(self) -> None:
        """Have the runs' own tensors lie in the stacked ones from now on."""
        for index, run in enumerate(self.runs):
            for name, tensor in run.live().items():
                tensor.data = self._live[name][index].view(tensor.shape)
            run.flat.lie_in(self._vectors.data[index])
            if run.networks.averaged is not None and self._averaged is not None:
                run.networks.averaged.lie_in(self._averaged.data[index])

    def train(self, size: int, starts: Sequence[int], updates: int) -> np.ndarray[Any, Any]:
        """Make updates of ``size`` samples, from the update that each run is at.

        Return what each logs, [K, T, logged].
        """
        found = []
        for inputs in self._inputs(size, starts, updates):
            found.append(self._step_tape(size, inputs)(*inputs))
        self._live["update"].add_(updates)
        for run in self.runs:
            run.logged = self.logged
        return torch.stack(found).double().permute(2, 0, 1).numpy()

    def try_(self) -> int:
        """Record a step of each size of one run; train nothing. Return the bytes that one takes.

        Raises:
            NotStacked: it cannot be recorded, or its record computes something else.
        """
        [run] = self.runs
        cursors = {name: feed.cursor.clone() for name, feed in run.feeds.items()}
        taken = 0
        try:
            for size in sorted(set(run.table.batches)):
                for feed in run.feeds.values():
                    feed.cursor.zero_()
                [(rows, *given)] = self._inputs(size, [0], 1)
                # What begins at zero would hide what it multiplies.
                inputs = [rows.masked_fill(rows == 0, 0.5), *given]
                taken = max(taken, self._try(size, inputs))
        finally:
            for name, cursor in cursors.items():
                run.feeds[name].cursor.copy_(cursor)
        if run.method.classifies(run.method_settings):
            # A network that is evaluated in another way must be one that can be stacked, too.
            x, y = run.plain(run.data.images[:2])[None], torch.zeros(1, 2, dtype=torch.int64)
            logits = self._tape(("logits", 2), self._logits, [x])(x)
            self._tape(("figures", 2), _measured, [logits, y])
        return taken + 2 * sum(x.numel() * x.element_size() for x in self._live.values())

    def _try(self, size: int, inputs: Sequence[Tensor]) -> int:
        """Record a step, and compare it with one that is not; return how many bytes it takes."""
        tape, found = self._step_tape(size, inputs), []
        for make in (tape, self._step):

            def made(make: Callable[..., Tensor] = make) -> list[Tensor]:
                return [make(*inputs), *(x.clone() for x in self._live.values())]

            found.append(self._recorded(made))
        if not all(a.equal(b) or a.isnan().any() for a, b in zip(*found, strict=True)):
            raise NotStacked("it computes something else the second time")
        if not self._same_beside(inputs, found[1]):
            raise NotStacked("its last bits depend on how many runs there are")
        return tape.bytes

    def _same_beside(self, inputs: Sequence[Tensor], alone: Sequence[Tensor]) -> bool:
        """Return whether each of several runs like this one computes what it does alone."""
        wide = Pack(self.runs * BESIDE)
        wide._layout = self._layout
        # In all places from the same state, and none from what another has left.
        own = self.runs[0].generators.items()
        wide._draws = Draws([{k: x.clone_state() for k, x in own} for _ in wide.runs])
        given = [x.expand(BESIDE, *x.shape[1:]).contiguous() for x in inputs]

        def made() -> list[Tensor]:
            logged = wide._step(*given)
            return [logged, *(x.clone() for x in wide._live.values())]

        pairs = zip(wide._recorded(made), alone, strict=True)
        return all(a.equal(b.expand_as(a)) or b.isnan().any() for a, b in pairs)

    def _step_tape(self, size: int, inputs: Sequence[Tensor]) -> Tape:
        """Return the tape of a step."""
        # Of a pool that a hook fills an update may have fewer samples.
        sizes = [feed.size(size) for feed in self.runs[0].feeds.values()]
        return self._tape(("step", size, *sizes), self._step, inputs)

    def _put_back(self, before: Sequence[Tensor]) -> None:
        for tensor, value in zip(self._live.values(), before, strict=True):
            tensor.copy_(value)

    def figures(self, part: str) -> np.ndarray[Any, Any]:
        """Return the figures on a part of the split of all that is evaluated, [K, E, ...].

        They are those of ``metrics.measure``.
        """
        first = self.runs[0]
        data, ids = first.data, torch.stack([run.ids[part] for run in self.runs])
        # The same whatever the width of the pack, for a product may be computed otherwise.
        count = min(BATCH, max(1, AHEAD // (4 * math.prod(data.shape))))
        logits = []
        for chunk in ids.split(count, 1):
            x = first.plain(data.images.index_select(0, chunk.flatten())).unflatten(0, chunk.shape)
            tape = self._tape(("logits", chunk.shape[1]), self._logits, [x])
            logits.append(tape(x))
        y = torch.stack([run.data.labels.index_select(0, run.ids[part]) for run in self.runs])
        given = [torch.cat(logits, 2), y]
        found = self._tape(("figures", ids.shape[1]), _measured, given)(*given)
        return found.numpy()

    def _logits(self, x: Tensor) -> Tensor:
        """Return the logits [K, E, N, C] of all that is evaluated, for samples x [K, N, ...]."""
        networks = self.runs[0].networks

        def judge(tensors: Sequence[Tensor], x: Tensor) -> Tensor:
            self._places.put(tensors)
            return torch.stack([networks.predict(nets, x).float() for nets in networks.evaluated])

        every = [net for nets in networks.evaluated for net in nets.values()]
        try:
            with torch.no_grad(), evaluating(*every):
                found: Tensor = mapped(judge, self._places.stacks, x)
        finally:
            self._places.restore()
        return found

    def _tape(
        self, key: tuple[Any, ...], function: Callable[..., Tensor], inputs: Sequence[Tensor]
    ) -> Tape:
        """Return what computes a function, recorded unless it is; that changes nothing."""
        if key not in self._tapes:
            wrong = [_other_bits] if len(self.runs) == 1 else []
            self._tapes[key] = self._recorded(lambda: Tape(function, inputs, *wrong))
        return self._tapes[key]

    def _recorded(self, make: Callable[[], T]) -> T:
        """Return what is made of a step, which changes nothing.

        Raises:
            NotStacked: it cannot be made, or it draws random numbers that are no run's own.
        """
        first, before = self.runs[0], [x.clone() for x in self._live.values()]
        states = [(x, x.get_state()) for x in self._draws.generators]
        drawn = Globals(first.method.name, first.device)
        try:
            with warnings.catch_warnings():
                # That torch has to go through the runs one by one for some operation.
                warnings.simplefilter("ignore")
                made = make()
            drawn.check("`step`", "")
            if self._draws.moved:
                raise NotTaped(DRAWS)
        except Exception as error:
            raise NotStacked(reason(error)) from error
        finally:
            self._put_back(before)
            for generator, state in states:
                generator.set_state(state)
        return made

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
        first, names = self.runs[0], self.runs[0].table.names
        try:
            with self._draws.taken(first.models.values(), first.generators):
                loss, gradients, logs = mapped(
                    self._one, self._places.stacks, rows, list(given), draws=self._draws
                )
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
                assert self._averaged is not None, "the decay is that of an average"
                average(self._averaged, self._vectors, self._followed, 1 - row["ema_decay"])
        self.logged = list(scalars)
        return torch.stack([x.float() for x in scalars.values()])

    def _one(self, tensors: Sequence[Tensor], row: Tensor, given: Sequence[Tensor]) -> Any:
        """Return the loss of one run, gradients where it makes them itself, and what it logs."""
        first, left = self.runs[0], iter(given)
        self._draws.begin(row)
        self._places.put(tensors)
        streams = {}
        for name, (views, masked, expected) in self._layout.items():
            seen = tuple(next(left) for _ in range(views))
            y, ids = next(left), next(left)
            streams[name] = Samples(seen, y, ids, next(left) if masked else None, expected)
        quantities = dict(zip(first.table.names, row.unbind(), strict=True))
        found = first.method.step(
            first.models, Batch(streams), quantities, first.method_settings,
            self._draws.stand_ins["method"],
        )  # fmt: skip
        check_step(first.method.name, found, first.flat.params, mapped=True)
        loss, logs = found
        if isinstance(loss, Gradients):
            return loss.loss, dict(loss.of), dict(logs)
        return loss, {}, dict(logs)


def _measured(logits: Tensor, y: Tensor) -> Tensor:
    """Return the figures [K, E, ...] of logits [K, E, N, C] for labels [K, N]."""

    def of_run(logits: Tensor, y: Tensor) -> Tensor:
        return torch.stack([measure(each, y) for each in logits])

    found: Tensor = mapped(of_run, logits, y)
    return found


def _other_bits(name: str, args: Any) -> str | None:
    """Return why a kernel of a pack of one run computes other bits in a wider one, if so."""
    why = depends(name, args)
    return why and f"the last bits of {why} depend on how many runs there are"


def reason(error: Exception) -> str:
    """Return in a line why runs cannot be stacked."""
    text = f"{error}".strip().partition("\n")[0][:200]
    if "randomness error mode" in text:
        return DRAWS
    if "requires_grad_()" in text:
        return "a step differentiates by itself, with `requires_grad_`"
    if isinstance(error, NotStacked | NotTaped | UserError):
        return text
    return f"{type(error).__name__}: {text}"


def _copies(runs: Sequence[Stackable]) -> dict[int, Tensor]:
    """Return the tensors of the runs' teachers, stacked, by the ids of the first run's."""
    found = {}
    for name, teacher in runs[0].networks.teachers.items():
        every = [[*run.networks.teachers[name].parameters(), *run.networks.teachers[name].buffers()]
                 for run in runs]  # fmt: skip
        assert len(every[0]) == len([*teacher.parameters(), *teacher.buffers()])
        for rows in zip(*every, strict=True):
            found[id(rows[0])] = torch.stack([row.detach() for row in rows])
    return found
