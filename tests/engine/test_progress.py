"""How far a list of jobs is said to be."""

from __future__ import annotations

import builtins
import logging
import threading
from typing import Any

import pytest

from cyclery.engine.progress import Progress

JOB = {"images": 100}


def test_lines_are_rare_but_the_last_always_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(
        "cyclery.engine.progress.log.log",
        lambda level, text, *values: said.append(text % values) if level == logging.INFO else None,
    )
    with Progress(3, 300, every=3600) as progress:
        for status in ("done", "diverged", "done"):
            progress.done(JOB, {"status": status})
    [line] = said
    assert line.startswith("3 of 3 runs trained (1 diverged), ") and line.endswith("0.0 s left")


def test_a_bar_moves_and_leaves(capsys: pytest.CaptureFixture[str]) -> None:
    threads = threading.active_count()
    with Progress(2, 200, every=0, bar=True) as progress:
        # Workers are forked meanwhile, which is not safe beside a thread that writes.
        assert threading.active_count() == threads
        progress.done(JOB, {"status": "done"})
        task = progress._shown.tasks[0]
        assert (task.completed, task.total) == (1, 2) and task.fields["left"].endswith("s")
    assert progress._shown.live.is_started is False


def test_without_rich_there_are_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_rich(name: str, *rest: Any) -> Any:
        if name.startswith("rich"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_rich)
    with Progress(1, 100, every=0, bar=True) as progress:
        progress.done(JOB, {"status": "done"})
    assert progress._shown is None
