"""Let runs wait for one another, and train as packs those that ask for the same."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cyclery.engine.chunks import WIDEST
from cyclery.engine.cohort import FixedWidth, Pause, Task
from cyclery.engine.packs import NotStacked, Pack, reason
from cyclery.engine.stackable import Stackable

# What the runs of a pack may take together, in bytes.
MEMORY = 256 << 20
# Of what steps change in a run; a step of more is bound by arithmetic.
LARGE = 64 << 20


@dataclass(eq=False)
class _Request:
    """What a run waits for; requests of one program with the same ``what`` are served together.

    ``serve`` does it for a pack, and returns what each run gets.
    """

    run: Stackable
    what: tuple[Any, ...]
    serve: Callable[[Pack], np.ndarray[Any, Any]]
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
        self._program = ""

    def admits(self, kind: str, active: int) -> bool:
        """Say whether a run of this kind may start."""
        return active < self._widths.get(kind, 1)

    def started(self, kind: str) -> None:
        """Remember which kind is in training."""
        self._kind = kind

    def train(self, run: Stackable, size: int, updates: int) -> Task[np.ndarray[Any, Any] | None]:
        """Train a run for so many updates beside others; return what it logs, [T, logged].

        None where it must train by itself.
        """
        # A pool may have changed, and the room of a stream with it.
        room = tuple(feed.size(size) for feed in run.feeds.values())

        def serve(pack: Pack) -> np.ndarray[Any, Any]:
            return pack.train(size, [run.at for run in pack.runs], updates)

        return (yield from self._served(_Request(run, ("train", size, updates, room), serve)))

    def figures(self, run: Stackable, part: str) -> Task[np.ndarray[Any, Any] | None]:
        """Return what ``Evaluation.figures`` does, measured beside others.

        None where the run must do it by itself.
        """
        what = ("figures", part, len(run.ids[part]))
        return (yield from self._served(_Request(run, what, lambda pack: pack.figures(part))))

    def _served(self, request: _Request) -> Task[np.ndarray[Any, Any] | None]:
        run, began = request.run, time.monotonic()
        if run.program is None or run.program in self._refused:
            return None
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
            groups.setdefault((request.run.program, *request.what), []).append(request)
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
                    self._serve(group)
            except Exception as error:
                for request in group:
                    request.error, request.done = error, True
            for request in group:
                request.seconds += (time.monotonic() - began) / len(group)
        return bool(groups)

    def _serve(self, group: list[_Request]) -> None:
        runs = [request.run for request in group]
        program = f"{group[0].run.program}"
        if self._pack is None or self._pack.runs != runs or program != self._program:
            self._pack, self._program = Pack(runs), program
            self._pack.take_in()
        for request, values in zip(group, group[0].serve(self._pack), strict=True):
            request.values, request.done = values, True

    def _try(self, group: list[_Request]) -> None:
        run = group[0].run
        assert run.program is not None, "it would not have asked"
        try:
            if sum(x.numel() * x.element_size() for x in run.live().values()) > LARGE:
                raise NotStacked("its network is too large to gain by it")
            self._bytes[run.program] = Pack([run]).try_()
        except Exception as error:
            # Whatever it is: where it is the method's own mistake, its step says so next.
            self._refused.add(run.program)
            self.refusals[run.method.name] = reason(error)
            for request in group:
                request.done = True
