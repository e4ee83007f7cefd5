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
    """Why a task yields to the other runs."""

    NEXT = auto()
    """It has more to launch at once."""
    WAIT = auto()
    """It can do nothing until the device, or another process, has gone on."""
    ALLOCATED = auto()
    """It has allocated all the memory that it will ever need; yielded once."""


Task = Generator[Pause, None, R]
# The context that a task is resumed in: its CUDA stream.
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


class Admission(Protocol):
    """Decides how many runs are trained at the same time."""

    def admits(self, kind: str, active: int) -> bool:
        """Say whether a run of this kind may start while ``active`` others run."""

    def started(self, kind: str) -> None:
        """Called when a run starts."""

    def allocated(self, kind: str) -> None:
        """Called when a run has allocated all that it needs."""

    def ended(self, kind: str, allocated: bool) -> None:
        """Called when a run is over."""

    def overflows(self, error: BaseException, active: int) -> bool:
        """Say whether an error means that one run more than ``active`` does not fit.

        If so, at most ``active`` are admitted from now on.
        """


@dataclass(eq=False)
class _Active(Generic[Job, R]):
    job: Job
    kind: str
    task: Task[R]
    place: Place
    allocated: bool = False


class Cohort(Generic[Job, R]):
    """Trains jobs concurrently, as many as ``admission`` allows, and starts one where one ends.

    ``begin`` makes a job's task, ``kind`` names jobs that need the same memory, ``place``
    makes the context of a task, its stream. ``idle`` is called when all of them wait; it returns
    whether it did something for them.
    """

    def __init__(
        self,
        begin: Callable[[Job], Task[R]],
        kind: Callable[[Job], str],
        admission: Admission,
        place: Callable[[], Place] = lambda: contextlib.nullcontext,
        idle: Callable[[], bool] = lambda: False,
    ) -> None:
        self._begin, self._kind, self._admission, self._place = begin, kind, admission, place
        self._idle = idle
        # Streams are few, so those of runs that are done serve again.
        self._places: list[Place] = []
        self._active: list[_Active[Job, R]] = []

    @property
    def size(self) -> int:
        """How many jobs are in training now."""
        return len(self._active)

    def results(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, R | Failure]]:
        """Yield each job with its result when it is there, or with why its run failed.

        Another error is raised once the runs in training are finished; no further one is begun.
        """
        waiting, failure = deque(jobs), None
        try:
            while self._active or (waiting and failure is None):
                while waiting and failure is None:
                    kind = self._kind(waiting[0])
                    if not self._admission.admits(kind, len(self._active)):
                        break
                    job = waiting.popleft()
                    self._admission.started(kind)
                    place = self._places.pop() if self._places else self._place()
                    self._active.append(_Active(job, kind, self._begin(job), place))
                busy = False
                failed: list[tuple[Job, Failure]] = []
                for run in list(self._active):
                    try:
                        with run.place():
                            pause = next(run.task)
                    except StopIteration as stop:
                        self._leave(run)
                        yield run.job, stop.value
                        busy = True
                        continue
                    except Exception as error:
                        _forget(error)
                        self._leave(run)
                        if self._active and self._admission.overflows(error, len(self._active)):
                            log.info("a run did not fit beside %d others", len(self._active))
                            waiting.appendleft(run.job)
                        elif isinstance(error, RunFailed):
                            failed.append((run.job, error.failure))
                        else:
                            failure = failure or error
                        continue
                    busy |= pause is not Pause.WAIT
                    if pause is Pause.ALLOCATED:
                        run.allocated = True
                        self._admission.allocated(run.kind)
                yield from failed
                if not busy and not failed and not self._idle():
                    time.sleep(IDLE_SECONDS)
        finally:
            # The caller may stop iterating: locks are released, nothing is left half done.
            for run in list(self._active):
                run.task.close()
                self._leave(run)
        if failure is not None:
            raise failure

    def _leave(self, run: _Active[Job, R]) -> None:
        self._active.remove(run)
        self._places.append(run.place)
        run.task.close()
        self._admission.ended(run.kind, run.allocated)


def _forget(error: BaseException) -> None:
    """Release what the frames of an error hold: the run that failed, and its memory."""
    for each in chain(error):
        traceback.clear_frames(each.__traceback__)


class FixedWidth:
    """Admission of a fixed number of runs."""

    def __init__(self, width: int) -> None:
        self.width = width

    def admits(self, kind: str, active: int) -> bool:
        """Say whether there are fewer than the width."""
        return active < self.width

    def started(self, kind: str) -> None:
        """Do nothing."""

    def allocated(self, kind: str) -> None:
        """Do nothing."""

    def ended(self, kind: str, allocated: bool) -> None:
        """Do nothing."""

    def overflows(self, error: BaseException, active: int) -> bool:
        """Return False: a width that was set and is too large is an error."""
        return False
