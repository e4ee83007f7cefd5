"""SIGTERM as an exception: a terminated command reports it and exits with code 143.

While runs are trained, ``cyclery.engine.processes.stopping`` takes over: they save where they are.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

EXIT_CODE = 128 + signal.SIGTERM


class Terminated(BaseException):
    """The process got SIGTERM; like KeyboardInterrupt, no handler of errors catches it."""


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Raise Terminated on SIGTERM, which would end the process without a message."""
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread may say what a signal does.
        yield
        return

    def stop(_number: int, _frame: Any) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Stopped(Exception):
    """The process was asked to stop; unfinished runs have saved where they are."""
