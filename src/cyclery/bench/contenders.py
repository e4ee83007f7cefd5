"""The contenders: the hand-written loop, and the engine in each of its modes.

A contender is a function that trains one epoch of each of its runs, or whole runs, and returns
once the device is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from cyclery import models
from cyclery.bench import plain
from cyclery.bench.cases import CLASSES, EAGER, Case, Variant
from cyclery.bench.children import Children, spec
from cyclery.data import splits
from cyclery.engine.cohort import Admission, Cohort, FixedWidth, Task
from cyclery.engine.cuda import Graphs, own_stream
from cyclery.engine.replay import Recorder
from cyclery.engine.run import Data, Run
from cyclery.engine.stack import Stack
from cyclery.engine.teachers import Trained

Contender = Callable[[], Any]
T = TypeVar("T")
Place = Callable[[], AbstractContextManager[Any]]


def synthetic(case: Case, device: torch.device) -> Data:
    """Return images that are made up: every class is a pattern of its own under noise."""
    manifest = case.manifest
    drawn = torch.Generator(device).manual_seed(0)
    labels = torch.arange(manifest["n_train"], device=device) % CLASSES
    patterns = torch.rand(CLASSES, *manifest["shape"], generator=drawn, device=device)
    noise = torch.rand(len(labels), *manifest["shape"], generator=drawn, device=device)
    images = noise.mul_(0.5).add_(patterns[labels], alpha=0.5).mul_(manifest["max_value"] + 1)
    return Data(images.to(torch.uint8), labels, manifest)


def teachers(case: Case, data: Data, seed: int) -> dict[str, list[Trained]]:
    """Return the parents of a run by name: where it has a teacher, one with random weights."""
    if case.teacher is None:
        return {}
    taught = replace(case, net=case.teacher, method="supervised", teacher=None)
    settings = taught.settings(EAGER, seed)
    model = settings["model"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = models.build(model["name"], model["settings"], data.shape, data.classes)
    return {"teacher": [Trained(settings, net.state_dict(), data.classes)]}


class Counted:
    """A recorder that counts what it has recorded."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorded, self._recorder, self.refused = 0, recorder, recorder.refused

    def __call__(
        self, function: Callable[[], T], generators: Iterable[torch.Generator]
    ) -> tuple[Callable[[], None], T]:
        """Record a function, as the recorder does."""
        found = self._recorder(function, generators)
        self.recorded += 1
        return found


class Engine:
    """Runs of the engine, side by side, each within a place of its own: its stream on a GPU."""

    def __init__(self, case: Case, variant: Variant, data: Data, device: torch.device) -> None:
        self._case, self._variant, self._data, self._device = case, variant, data, device
        self._recorders: list[Counted] = []
        self._stack: Stack | None = None
        self.places: list[Place] = []
        self.runs: list[Run] = []

    def run(self, seed: int) -> Run:
        """Return a new run; called within its place."""
        recorder = None
        if self._variant.capture:
            recorder = Counted(Graphs())
            self._recorders.append(recorder)
        settings = self._case.settings(self._variant, seed)
        parents = teachers(self._case, self._data, seed)
        run = Run(settings, self._data, self._device, None, parents, recorder, self._stack)
        run.prepare()
        return run

    def grow(self, width: int) -> None:
        """Make as many places, and runs unless each turn makes its own, as are missing."""
        for seed in range(len(self.places), width):
            self.places.append(own_stream(self._device))
            if not self._case.whole:
                with self.places[-1]():
                    self.runs.append(self.run(seed))

    def train(self, width: int) -> None:
        """Train the first ``width`` runs for an epoch, or so many whole runs."""
        tasks: list[Callable[[], Task[None]]] = [run.epoch_steps for run in self.runs[:width]]
        if self._case.whole:
            tasks = [partial(self._whole, seed) for seed in range(width)]
        self._side_by_side(tasks, FixedWidth(width))
        if not all(recorder.recorded for recorder in self._recorders):
            raise RuntimeError("a step was not captured: what ran is not what should be measured")

    def pack(self, width: int) -> Contender:
        """Return what trains ``width`` new runs, stacked, for an epoch."""
        stack = self._stack = Stack(width)
        self.grow(width)

        def train() -> None:
            self._side_by_side([run.epoch_steps for run in self.runs], stack, stack.advance)
            for reason in stack.refusals.values():
                raise RuntimeError(f"not stacked, so what ran is not what is measured: {reason}")

        return train

    def _whole(self, seed: int) -> Task[None]:
        run = self.run(seed)
        while not run.finished:
            yield from run.epoch_steps()
            yield from run.evaluation_steps()
        yield from run.final_steps()

    def _side_by_side(
        self,
        tasks: Sequence[Callable[[], Task[None]]],
        admission: Admission,
        idle: Callable[[], bool] = lambda: False,
    ) -> None:
        places = iter(self.places)
        cohort: Cohort[Callable[[], Task[None]], None] = Cohort(
            begin=lambda task: task(),
            kind=lambda task: "",
            admission=admission,
            place=lambda: next(places),
            idle=idle,
        )
        for _ in cohort.results(tasks):
            pass


def by_hand(case: Case, variant: Variant, data: Data) -> Contender:
    """Return what trains an epoch, or a whole run, with the loop written by hand."""
    labels = data.labels.cpu().numpy()
    split = case.settings(variant, 0)["split"]
    chosen = splits.split(labels, len(labels), CLASSES, split, 0)
    ids: dict[str, Tensor] = {
        name: torch.from_numpy(rows).to(data.labels.device) for name, rows in chosen.items()
    }

    def begin() -> plain.Supervised:
        return plain.LOOPS[case.method](data.images, data.labels, case.task(variant) | ids)

    def whole() -> None:
        loop = begin()
        for _ in range(case.whole):
            loop.epoch()
            for part in ("validation", "test"):
                loop.evaluate(ids[part])

    if case.whole:
        return whole
    return begin().epoch


@contextmanager
def contenders(case: Case, device: torch.device) -> Iterator[Iterator[tuple[Variant, Contender]]]:
    """Give every variant with its contender, which is set up when it is asked for."""
    data = synthetic(case, device)
    with ExitStack() as ended:
        yield _each(case, device, data, ended)


def _each(
    case: Case, device: torch.device, data: Data, ended: ExitStack
) -> Iterator[tuple[Variant, Contender]]:
    # Those that differ in their width alone share runs.
    engines: dict[tuple[str, bool, bool], Engine] = {}
    for variant in case.variants:
        if variant.kind == "loop":
            yield variant, by_hand(case, variant, data)
        elif variant.processes:
            children = Children([spec(case, variant, device)] * variant.width)
            ended.callback(children.close)
            children.answers()
            yield variant, children.train
        elif variant.pack:
            # Of their own, for packs of other widths have moved the weights of theirs.
            yield variant, Engine(case, variant, data, device).pack(variant.width)
        else:
            key = (variant.precision, variant.capture, variant.compiled)
            engine = engines.setdefault(key, Engine(case, variant, data, device))
            engine.grow(variant.width)
            yield variant, partial(engine.train, variant.width)
