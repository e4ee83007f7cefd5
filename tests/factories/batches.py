"""What a method sees of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from factories import engine as factory


def watch(monkeypatch: pytest.MonkeyPatch, extra: Callable[[torch.Generator], None]) -> list[Any]:
    """Record the ids and views of every batch that a method sees; it draws ``extra`` first."""
    seen: list[Any] = []

    def step(
        inner: Any, models: Any, batch: Any, row: Any, settings: Any, generator: torch.Generator
    ) -> Any:
        extra(generator)
        seen.append((batch.ids.clone(), batch.x.clone()))
        return inner(models, batch, row, settings, generator)

    factory.use_step(monkeypatch, step)
    return seen
