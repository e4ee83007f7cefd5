"""Training in several worker processes, and stopping on a signal."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import platform
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from cyclery.common.errors import UserError
from cyclery.common.signals import Stopped

Job = TypeVar("Job")
Result = TypeVar("Result")

# Between two questions whether to stop, where workers train.
WAIT_SECONDS = 0.5
# Set by a signal; read at the end of every epoch, and while waiting for workers.
_STOP: list[int] = []
# What a worker calls: inherited by forking, so that no data are sent with a job.
_FUNCTION: list[Callable[[Any], Any]] = []


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """Turn SIGTERM and SIGINT (a preempted node, Ctrl-C) into a stop at the next epoch's end.

    Where SIGINT is ignored at the start, as nohup and ``&`` in a script have it, it stays so: a
    Ctrl-C at that terminal is meant for what runs in the foreground.
    """

    def stop(number: int, _frame: Any) -> None:
        # Only noted: raised in the middle of starting a worker, it would leave one that none ends.
        _STOP.append(number)

    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        numbers.append(signal.SIGINT)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        _STOP.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


def asked_to_stop() -> bool:
    """Return whether a signal has come."""
    return bool(_STOP)


def stop_if_asked() -> None:
    """Raise Stopped where a signal has come."""
    if _STOP:
        raise Stopped


def in_processes(
    function: Callable[[Job], Result],
    jobs: list[Job],
    workers: int,
    meanwhile: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Job, Result]]:
    """Call ``function`` on every job in forked processes; yield each result when it is there.

    The processes share the caller's memory as it is now: torch and the data are there already.
    ``meanwhile`` is called about twice a second until all are done.
    """
    context, workers = multiprocessing.get_context("fork"), min(workers, len(jobs))
    with ProcessPoolExecutor(workers, context, _start_worker, (function, os.getpid())) as pool:
        futures = {pool.submit(_call, job): job for job in jobs}
        try:
            left = set(futures)
            while left:
                # Workers have the handler, too, but only this process may have got the signal.
                stop_if_asked()
                done, left = wait(left, timeout=WAIT_SECONDS, return_when=FIRST_COMPLETED)
                for future in done:
                    yield futures[future], future.result()
                meanwhile()
        except BrokenProcessPool:
            raise UserError(
                "a training process was killed (out of memory?); what was finished is kept, "
                "repeat the command to go on"
            ) from None
        except BaseException:
            for child in multiprocessing.active_children():
                child.terminate()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def ended(results: Iterable[Result]) -> tuple[list[Result], Exception | None]:
    """Return results and the error that ended them, if any: a worker sends both home."""
    found: list[Result] = []
    try:
        found.extend(results)
    except Exception as error:
        return found, error
    return found, None


def _start_worker(function: Callable[[Any], Any], parent: int) -> None:
    _FUNCTION.append(function)
    # End with the parent, however it ends: kill -9 must leave no one training.
    if platform.system() == "Linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    # A parent that died before it was watched sends no signal.
    if os.getppid() != parent:
        os._exit(1)


def _call(job: Any) -> Any:
    return _FUNCTION[-1](job)
