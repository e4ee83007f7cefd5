"""Text of method files, for tests to write with ``factories.component``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

from cyclery import methods
from factories import component
from factories.component import Write

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


def written(tmp_path: Path) -> Iterator[Write]:
    """Yield what writes a method's file, which is gone after the test; a fixture for modules."""
    with component.written(methods, tmp_path / "methods") as writer:
        yield writer
