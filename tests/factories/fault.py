"""What a test of a fault says of it: how often it was injected, what it cost, how it ended.

`benchmarks/faults.py` reads these words from pytest's own report, and makes docs/faults.md of them.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# pytest's fixture `record_property`.
Properties = Callable[[str, object], None]


def note(
    record: Properties, fault: str, outcome: str, injected: int = 1, lost: int | None = None
) -> None:
    """Note what has been shown, once it has been; the last lines of a test.

    Args:
        record: the test's fixture ``record_property``.
        fault: what was done, such as "kill -9 of the trainer"; tests of one fault add up.
        outcome: how it ended, as its user meets it, in one clause.
        injected: how many times it was done.
        lost: finished runs that were trained again although nothing had damaged them, and finished
            files that were made again likewise; None where the fault meets nothing finished.
    """
    for name, value in (
        ("fault", fault), ("outcome", outcome), ("injected", injected), ("lost", lost),
    ):  # fmt: skip
        if value is not None:
            record(name, value)


def generator(name: str) -> random.Random:
    """Return what draws the moments of a test: the same for the same CYCLERY_FAULT_SEED."""
    return random.Random(f"{os.environ.get('CYCLERY_FAULT_SEED', '0')} {name}")


@contextmanager
def pipe(path: Path) -> Iterator[None]:
    """Let a pipe that nobody writes to lie at a path; who waits for it fails, and does not hang."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    began = time.monotonic()

    def let_go() -> None:
        with suppress(OSError):  # nobody waits
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))

    timer = threading.Timer(4, let_go)
    timer.daemon = True
    timer.start()
    try:
        yield
        assert time.monotonic() - began < 3.5, f"{path} was waited for"
    finally:
        timer.cancel()
        timer.join()
