"""Train several runs concurrently in one process, as generators that take turns.

A run's training is a generator that pauses wherever the host may turn to another run: after each
step that it has launched, and while it waits for the device. Alone it is drained; on a GPU several
run side by side, each on a stream of its own, so that the device always has work.
"""

from __future__ import annotations

import contextlib
import logging
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Generic, Protocol, TypeVar

from cyclery.common.errors import chain
from cyclery.engine.failures import Failure, RunFailed

log = logging.getLogger(__name__)

R = TypeVar("R")
Job = TypeVar("Job")
# How long the host sleeps when every run waits.
IDLE_SECONDS = 2e-4


class Pause(Enum):
    """Why a run lets others have their turn."""

    NEXT = auto()
    """It has more to launch at once."""
    WAIT = auto()
    """It can do nothing until the device, or another process, has gone on."""
    SETTLED = auto()
    """It holds all the memory that it will ever need; said once."""


Task = Generator[Pause, None, R]
# Makes what a task is resumed within: its stream.
Place = Callable[[], contextlib.AbstractContextManager[Any]]


def drain(task: Task[R]) -> R:
    """Let a task run alone to its end; return its result."""
    while True:
        try:
            if next(task) is Pause.WAIT:
                time.sleep(IDLE_SECONDS)
        except StopIteration as stop:
            result: R = stop.value
            return result


class Room(Protocol):
    """What decides whether another run fits beside those that are there."""

    def admits(self, kind: str, seats: int) -> bool:
        """Say whether a run of this kind may start beside ``seats`` others."""

    def starts(self, kind: str) -> None:
        """Hear that a run starts."""

    def settled(self, kind: str) -> None:
        """Hear that a run holds all that it needs."""

    def leaves(self, kind: str, settled: bool) -> None:
        """Hear that a run is over."""

    def overflows(self, error: BaseException, seats: int) -> bool:
        """Say whether an error means that a run was too many beside ``seats`` others.

        Then no more than these are admitted from now on.
        """


@dataclass(eq=False)
class _Seat(Generic[Job, R]):
    job: Job
    kind: str
    task: Task[R]
    place: Place
    settled: bool = False


class Cohort(Generic[Job, R]):
    """Takes jobs side by side, as many as ``room`` admits, and refills every place that is left.

    ``begin`` makes a job's task, ``kind`` says which jobs need as much as one another, ``place``
    gives a task its stream.
    """

    def __init__(
        self,
        begin: Callable[[Job], Task[R]],
        kind: Callable[[Job], str],
        room: Room,
        place: Callable[[], Place],
    ) -> None:
        self._begin, self._kind, self._room, self._place = begin, kind, room, place
        # Streams are few, so those of runs that are done serve again.
        self._places: list[Place] = []
        self._seats: list[_Seat[Job, R]] = []

    @property
    def size(self) -> int:
        """How many jobs are side by side now."""
        return len(self._seats)

    def results(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, R | Failure]]:
        """Yield each job with its result when it is there, or with why its run failed.

        Where another error comes, those beside it are finished before it is raised; none is begun.
        """
        waiting, failure = deque(jobs), None
        try:
            while self._seats or (waiting and failure is None):
                while waiting and failure is None:
                    kind = self._kind(waiting[0])
                    if not self._room.admits(kind, len(self._seats)):
                        break
                    job = waiting.popleft()
                    self._room.starts(kind)
                    place = self._places.pop() if self._places else self._place()
                    self._seats.append(_Seat(job, kind, self._begin(job), place))
                busy = False
                failed: list[tuple[Job, Failure]] = []
                for seat in list(self._seats):
                    try:
                        with seat.place():
                            pause = next(seat.task)
                    except StopIteration as stop:
                        self._leave(seat)
                        yield seat.job, stop.value
                        busy = True
                        continue
                    except Exception as error:
                        _forget(error)
                        self._leave(seat)
                        if self._seats and self._room.overflows(error, len(self._seats)):
                            log.info("a run did not fit beside %d others", len(self._seats))
                            waiting.appendleft(seat.job)
                        elif isinstance(error, RunFailed):
                            failed.append((seat.job, error.failure))
                        else:
                            failure = failure or error
                        continue
                    busy |= pause is not Pause.WAIT
                    if pause is Pause.SETTLED:
                        seat.settled = True
                        self._room.settled(seat.kind)
                yield from failed
                if not busy and not failed:
                    time.sleep(IDLE_SECONDS)
        finally:
            # Whoever listens may stop listening: locks are released, nothing is half done.
            for seat in list(self._seats):
                seat.task.close()
                self._leave(seat)
        if failure is not None:
            raise failure

    def _leave(self, seat: _Seat[Job, R]) -> None:
        self._seats.remove(seat)
        self._places.append(seat.place)
        seat.task.close()
        self._room.leaves(seat.kind, seat.settled)


def _forget(error: BaseException) -> None:
    """Let go of what the frames of an error hold: the run that failed, and its memory."""
    for each in chain(error):
        traceback.clear_frames(each.__traceback__)


class Width:
    """Room for a fixed number of runs."""

    def __init__(self, width: int) -> None:
        self._width = width

    def admits(self, kind: str, seats: int) -> bool:
        """Say whether there are fewer than the width."""
        return seats < self._width

    def starts(self, kind: str) -> None:
        """Do nothing."""

    def settled(self, kind: str) -> None:
        """Do nothing."""

    def leaves(self, kind: str, settled: bool) -> None:
        """Do nothing."""

    def overflows(self, error: BaseException, seats: int) -> bool:
        """Never mind: whoever sets a width is told when it is too large."""
        return False
