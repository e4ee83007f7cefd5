"""What a method sees of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cyclery.engine.made import Made
from cyclery.engine.run import Run
from cyclery.engine.stream import Batch, Samples
from factories import engine as factory


def batch(
    views: Sequence[Tensor], y: Tensor, ids: Tensor | None = None, unlabelled: Samples | None = None
) -> Batch:
    """Return a batch of labelled samples, with unlabelled ones if there are any."""
    labelled = Samples(tuple(views), y, torch.arange(len(y)) if ids is None else ids)
    return Batch({"labelled": labelled, **({"unlabelled": unlabelled} if unlabelled else {})})


def made(net: nn.Module, classes: int, samples: int = 0) -> Made:
    """Return what `modules` of a method gets."""
    return Made(factory.settings(), (1, 8, 8), classes, net, samples)


def seen(run: Run) -> list[Batch]:
    """Train a run to its end; return every batch that its method saw."""
    found: list[Batch] = []
    make = run._batch

    def keep(size: int, magnitude: Tensor | None) -> Batch:
        found.append(make(size, magnitude))
        return found[-1]

    run._batch = keep  # type: ignore[method-assign]
    factory.finish(run)
    return found


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
