"""One run: its networks, data, schedule table, training step and evaluation.

Everything that changes with time is a column of ``Table``; a step picks its row with a counter on
the device. A step draws only from the run's own generators and writes its scalars to a trace on
the device that is read once an epoch, so it can be captured and replayed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cyclery import methods, optim
from cyclery.common.errors import UserError
from cyclery.engine.arithmetic import autocast, in_any_order, set_arithmetic
from cyclery.engine.cohort import Pause, Task, drain
from cyclery.engine.contract import check_events, check_step
from cyclery.engine.cuda import Lookahead, fetch
from cyclery.engine.evaluation import Evaluation
from cyclery.engine.failures import Diverged
from cyclery.engine.feeds import feeds, pipeline, pool
from cyclery.engine.globals import Globals
from cyclery.engine.hooks import Inside, Moment
from cyclery.engine.measuring import Measuring, evaluation_epochs
from cyclery.engine.metrics import Figures
from cyclery.engine.networks import Networks
from cyclery.engine.program import program
from cyclery.engine.replay import Recorder, Replays
from cyclery.engine.stack import Stack
from cyclery.engine.stream import Batch, Data, Samples, generator, origin
from cyclery.engine.table import Table
from cyclery.engine.teachers import Trained
from cyclery.methods import Gradients
from cyclery.optim.flat.optimiser import Optimiser
from cyclery.optim.flat.parameters import Vectors, clip_
from cyclery.records.record import Figure, RunSettings

__all__ = ["Batch", "Data", "Diverged", "Recorder", "Run", "Samples", "Table"]

# Steps at whose end a draw from a global generator is seen at once.
WATCHED = 2
DRAW_REMEDY = 'take `moment.generator("a purpose")`, on the CPU'
STEP_REMEDY = "hand its argument `generator` to all that draws (`generator=generator`)"


class Run:
    """A run in progress. Training goes epoch by epoch; state is consistent between epochs.

    ``recorder`` captures what is repeated, the steps and the evaluations; without one they run
    eager. With a ``stack`` it trains beside others that have one, as one program.
    """

    def __init__(
        self,
        settings: RunSettings,
        data: Data,
        device: torch.device,
        bounds: tuple[float, float] | None = None,
        parents: Mapping[str, Sequence[Trained]] | None = None,
        recorder: Recorder | None = None,
        stack: Stack | None = None,
    ) -> None:
        self.settings, self.device, self._stack = settings, device, stack
        set_arithmetic(settings, device)
        # Parents have splits of it too, which are not of this run's classes and labels.
        dataset, seed = data, settings["seed"]
        chosen = data.split(settings["split"], seed)
        self.data = data = data.trained_on(settings["split"], seed, chosen)
        self.ids = {name: torch.from_numpy(ids).to(device) for name, ids in chosen.items()}
        self.method = methods.load(settings["method"]["name"])
        self.method_settings = self.method.chosen(settings["method"]["settings"])
        self.streams = self.method.streams(self.method_settings)
        first = next(iter(self.streams.values()))
        size = len(pool(first, self.ids))
        self.samples = settings["epoch_images"] or size
        own = partial(self.method.columns, self.method_settings)
        self.table = Table(settings, self.samples, bounds, device, own, size)

        # Extra draws of the method, and dropout inside networks, never touch the streams'.
        self.generators = {
            name: generator(origin(settings), name, device)
            for name in ("method", "network", "average")
        }
        self.parents = parents or {}
        nets = Networks(settings, self.method, data, device, self.generators, self.parents)
        self.networks, self.flat = nets, nets.flat
        self.models = {**nets.models, **nets.teachers}
        self.optimiser = self.new_optimiser()
        self.plain = pipeline(data, [])
        self.feeds = feeds(settings, data, self.ids, self.streams, self.samples, self.table.batches)
        self._replays = Replays(
            self.method.name,
            recorder if self.method.capture is True else None,
            lambda: [*self.live().values(), *(feed.cursor for feed in self.feeds.values())],
            self.generators,
        )
        self._ahead = Lookahead(device)

        # The update that a pack goes on from, and how long the run waited for others.
        self.epoch, self.at, self.waited, self._packed = 0, 0, 0.0, False
        self.update = torch.zeros(1, dtype=torch.int64, device=device)
        self._trace: Tensor | None = None
        self.logged: list[str] = []
        self.curve: dict[str, list[float]] = {"epoch": [], "eval_epoch": []}
        self.evaluator = Evaluation(settings, nets, data, self.ids, self.plain)
        if (settings["init_share"] or 1) < 1:
            self.evaluator.measure_statistics()
        self._inside = Inside(
            settings, data, self.ids, dataset, self.table, nets, self.models, self.parents,
            self.feeds, self.evaluator, self.optimiser, self.new_optimiser,
        )  # fmt: skip
        self.measuring = Measuring(self._inside, self.method, self._replays, self._beside)
        asked = self.method.events(self.method_settings, self.table.clock)
        self._events = check_events(self.method.name, asked, self.updates)
        self._globals = Globals(self.method.name, device)
        self.method.begin(self.models, Moment(self._inside), self.method_settings)
        self._globals.check("`begin`", DRAW_REMEDY)
        self._watched = 0

    def new_optimiser(self, vectors: Vectors | None = None) -> Optimiser:
        """Return a new optimiser of the run's parameters, or of those of several such runs."""
        chosen, nets = self.settings["optimiser"], self.networks
        return optim.build(
            chosen["name"], self.flat if vectors is None else vectors, chosen["settings"],
            rates=nets.rates(), clip_values=nets.clip_values(), **self.table.decays,
        )  # fmt: skip

    @property
    def updates(self) -> int:
        """Updates of the whole run, those to come included."""
        return self.table.clock.updates

    @property
    def images(self) -> int:
        """Samples of the first stream, the labelled ones, that the run has trained on so far."""
        done = zip(self.table.steps[: self.epoch], self.table.batches, strict=False)
        return sum(int(steps) * size for steps, size in done)

    def spent(self, epochs: int | None = None) -> tuple[int, int]:
        """Return the images of the epochs done in all views, and those that passed a network."""
        views = forwards = 0
        mu, done = self.settings["mu"], self.epoch if epochs is None else epochs
        for steps, size in zip(self.table.steps[:done], self.table.batches, strict=False):
            seen, passed = self.method.spent(self.method_settings, size, mu)
            views, forwards = views + int(steps) * seen, forwards + int(steps) * passed
        return views, forwards

    @property
    def evaluated(self) -> bool:
        """Whether an evaluation was made: an eager run has then allocated all its memory."""
        return self.measuring.any

    @property
    def finished(self) -> bool:
        """Say whether all epochs are done."""
        return self.epoch >= self.settings["epochs"]

    # Steps.

    def prepare(self) -> bool:
        """Capture at once all that will be repeated; say whether it is all captured.

        Then the run holds all the memory that it will ever need. Between epochs only.
        """
        self._globals.mark()
        for size in sorted(set(self.table.batches)):
            self._replays.record(size, partial(self.step, size))
        self._globals.check("`step`", STEP_REMEDY)
        self.measuring.prepare()
        return self._replays.on

    def step(self, size: int) -> None:
        """Train on the next ``size`` samples. Pure tensor code: no host number that changes."""
        row = self.table.row(self.update)
        batch = self._batch(size, row.get("magnitude"))
        with autocast(self.settings, self.device):
            found = self.method.step(
                self.models, batch, row, self.method_settings, self.generators["method"]
            )
        if self._trace is None:
            check_step(self.method.name, found, self.flat.params)
        loss, logs = found
        if isinstance(loss, Gradients):
            self.flat.put(loss.of)
            loss = loss.loss
        else:
            self.flat.backward(loss)
        scalars = {"loss": loss.detach(), **{k: v.detach() for k, v in logs.items()}}
        if "clip_norm" in row:
            scalars["clipped"] = clip_(self.flat, row["clip_norm"])
        self.optimiser.step(row)
        if "ema_decay" in row:
            self.networks.average(1 - row["ema_decay"])
        if self._trace is None:
            self.logged = list(scalars)
            self._trace = torch.zeros(self.updates, len(scalars), device=self.device)
        with in_any_order(self.device):
            self._trace.index_copy_(0, self.update, torch.stack(list(scalars.values()))[None])
        self.update.add_(1)

    def _batch(self, size: int, magnitude: Tensor | None) -> Batch:
        form = self.networks.format
        return Batch({k: feed.samples(size, magnitude, form) for k, feed in self.feeds.items()})

    # Epochs.

    def epoch_steps(self) -> Task[None]:
        """Train one epoch and append its mean scalars to the curve; Diverged where not finite."""
        first, size = self._done, self.table.batches[self.epoch]
        steps = int(self.table.steps[self.epoch])
        # First, for an event may fill the pools that an epoch's order is drawn from.
        self._before(first)
        self.begin_epoch()
        values = yield from self._stacked(size, first, first + steps)
        if values is None:
            self.watch()
            for update in range(first, first + steps):
                if update > first:
                    self._before(update)
                yield from self.launch(size)
            values = yield from self.traced(first, first + steps)
        self.epoch += 1
        bad = ~np.isfinite(values).all(axis=1)
        if bad.any():
            raise Diverged(first + int(bad.argmax()))
        if self.finished:
            self._before(self.updates)
        self.curve["epoch"].append(self.epoch)
        for name, value in zip(self.logged, values.mean(axis=0), strict=True):
            self.curve.setdefault(f"train_{name}", []).append(float(value))

    def _stacked(self, size: int, first: int, last: int) -> Task[np.ndarray[Any, Any] | None]:
        """Make these updates as one of a pack; None where the run trains by itself."""
        if self._stack is None:
            return None
        ends = [*(u for u in sorted(self._events) if first < u < last), last]
        found = []
        for start, end in pairwise([first, *ends]):
            if start > first:
                self.watch()
                self._before(start)
            self.at = start
            values = yield from self._stack.train(self, size, end - start)
            if values is None and self._packed:
                raise UserError(
                    f"method: {self.method.name!r} changes modules in an `event` so that its runs "
                    "cannot train together any more; set `CAPTURE = False` in its file."
                )
            if values is None:
                return None
            self._packed = True
            found.append(values)
        return np.concatenate(found)

    def _beside(self, part: str) -> Task[np.ndarray[Any, Any] | None]:
        """Return the figures on a part as packs measure them; None where the run does it."""
        return None if self._stack is None else (yield from self._stack.figures(self, part))

    @cached_property
    def program(self) -> str | None:
        """What runs that train as one have in common; None where it trains by itself."""
        return program(self)

    def begin_epoch(self) -> None:
        """Draw the order and the numbers of an epoch."""
        for feed in self.feeds.values():
            feed.begin_epoch(self.table.batches[self.epoch])

    def watch(self) -> None:
        """From now on no step may draw from a global generator."""
        self._globals.mark()

    def _before(self, update: int) -> None:
        """Do what the method wants before an update; never part of a captured step."""
        if update in self._events:
            if self.device.type == "cpu" and update > self._done:
                # What steps of this epoch drew, before it is forgotten.
                self._globals.check("`step`", STEP_REMEDY)
            self._globals.mark()
            moment = Moment(self._inside, update, began=True)
            self.method.event(self.models, moment, self.method_settings)
            self._globals.check("`event`", DRAW_REMEDY)
            self.__dict__.pop("program", None)  # it may have changed modes

    def launch(self, size: int) -> Task[None]:
        """Make a step once the device has little left to do, and pause."""
        while self._ahead.full():
            yield Pause.WAIT
        if self._watched < WATCHED or (self.device.type == "cuda" and not self._replays.on):
            # On a GPU other runs have their turn in between; of a replay nothing can change.
            self._watched += 1
            self._globals.mark()
            self._replays.call(size, partial(self.step, size))
            self._globals.check("`step`", STEP_REMEDY)
        else:
            self._replays.call(size, partial(self.step, size))
        self._ahead.launched()
        yield Pause.NEXT

    def train_epoch(self) -> None:
        """Train one epoch without pausing."""
        drain(self.epoch_steps())

    def trace(self, first: int, last: int) -> np.ndarray[Any, Any]:
        """Return what ``traced`` does, without pausing."""
        return drain(self.traced(first, last))

    def traced(self, first: int, last: int) -> Task[np.ndarray[Any, Any]]:
        """Return the logged scalars [last - first, logged] of these updates, float64."""
        assert self._trace is not None, "no step has been made"
        if self.device.type == "cpu":
            # Since the epoch began, or since it was last read: a rare draw is found as well.
            self._globals.check("`step`", STEP_REMEDY)
        return (yield from fetch(self._trace[first:last]))

    # Evaluation: what drains does a generator's work without pausing.

    def evaluate(self, part: str) -> Figures:
        """Return the figures on the ids of ``part`` (train, validation or test), in eval mode.

        Diverged where the network's output is not finite: the last update can do it, after the
        last loss was seen.
        """
        return drain(self.evaluation(part))[""]

    def evaluation(self, part: str) -> Task[dict[str, Figures]]:
        """Return the figures of what is evaluated as ``""``.

        Where weights are averaged it is the averaged network, and the trained one is ``raw_``.
        """
        return (yield from self.measuring.evaluation(part, self._done))

    def evaluate_on_the_way(self) -> None:
        """Do ``evaluation_steps`` without pausing."""
        drain(self.evaluation_steps())

    def evaluation_steps(self) -> Task[None]:
        """Append an evaluation to the curve if this epoch is one of the run's evaluation points."""
        if self.epoch not in evaluation_epochs(self.settings):
            return
        found = yield from self.measuring.on_the_way(self.epoch, self._done, self.curve)
        self.curve["eval_epoch"].append(self.epoch)
        for name, value in found.items():
            self.curve.setdefault(name, []).append(value)

    def final(self) -> dict[str, Figure]:
        """Do ``final_steps`` without pausing."""
        return drain(self.final_steps())

    def final_steps(self) -> Task[dict[str, Figure]]:
        """Return the figures of the last state: the selection rule is the last checkpoint."""
        return (yield from self.measuring.final(self.epoch, self._done))

    @property
    def _done(self) -> int:
        """The updates that are done, as counted on the host."""
        return int(self.table.steps[: self.epoch].sum())

    # State.

    def weights(self) -> dict[str, Tensor]:
        """Return copies of the weights that are handed on, by name, contiguous."""
        state = self.networks.weights()
        return {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}

    def state(self) -> dict[str, Tensor]:
        """Return the complete state of the run, between epochs."""
        tensors = self.live()
        tensors |= {f"{name}_generator": x.get_state() for name, x in self.generators.items()}
        for name, feed in self.feeds.items():
            tensors |= {f"{name}.{k}": v for k, v in feed.state().items()}
        return {name: value.detach().cpu().clone() for name, value in tensors.items()}

    def load_state(
        self, state: dict[str, Tensor], epoch: int, curve: dict[str, list[float]]
    ) -> None:
        """Continue where ``state`` was taken, after ``epoch`` epochs."""
        self.epoch, self.curve = epoch, curve
        self.measuring.forget()
        with torch.no_grad():
            for name, tensor in self.live().items():
                tensor.copy_(state[name])
        for name, drawn in self.generators.items():
            drawn.set_state(state[f"{name}_generator"])
        for name, feed in self.feeds.items():
            start = f"{name}."
            feed.load_state(
                {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
            )

    def live(self) -> dict[str, Tensor]:
        """Return the live tensors that steps change, by name."""
        state = {f"optimiser.{name}": tensor for name, tensor in self.optimiser.state().items()}
        return {"update": self.update, **self.networks.tensors(), **state}
