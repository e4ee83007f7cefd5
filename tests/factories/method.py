"""Method files that a test writes: found by their name, as those of the package."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from cyclery import methods

HEAD = '''
"""A method of a test."""
from dataclasses import dataclass, field
from cyclery.common.lazy import F, torch
from cyclery.schedules import Quantity

VERSION = 1
TITLE = "Of a test"


@dataclass(frozen=True)
class Settings:
    temperature: Quantity = field(default=1.0, metadata={"doc": "divides logits", "above": 0.0})
    smoothing: float = field(default=0.0, metadata={"doc": "-", "low": 0.0})

'''
# Takes what stands before the cross-entropy and what is returned.
STEP = """

def step(models, batch, row, settings, generator):
    z = models["main"](batch.x).float() / row["temperature"]
    {before}
    loss = F.cross_entropy(z, batch.y, label_smoothing=settings.smoothing)
    return {returned}
"""


def text(before: str = "pass", returned: str = "loss, {}", more: str = "") -> str:
    """Return the file of a method whose step does something ``before`` it takes the loss."""
    return HEAD + dedent(more) + STEP.format(before=before, returned=returned)


Write = Callable[..., Path]


def writer(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Write:
    """Return what adds a file of this text to the methods there are, until the test is over."""
    folder.mkdir(exist_ok=True)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(folder)])

    def write(name: str, content: str) -> Path:
        path = folder / f"{name}.py"
        path.write_text(content)
        monkeypatch.delitem(sys.modules, f"cyclery.methods.{name}", raising=False)
        forget()
        return path

    return write


def forget() -> None:
    """Look for files anew."""
    for found in (methods.names, methods.load, methods._file.digest):
        getattr(found, "cache_clear", lambda: None)()
