"""The private student that learns by MixMatch: from answers of teachers, and all other images.

D. Berthelot et al., MixMatch (arXiv 1905.02249, section 4.3); see ``_pate`` and ``mixmatch``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cyclery.common.lazy import torch
from cyclery.methods import Stream, _pate, mixmatch

VERSION = 1
TITLE = "PATE, student by MixMatch"


@dataclass(frozen=True)
class Settings(mixmatch.Settings, _pate.Votes):
    """Settings of the votes and of the loss."""


step, forwards = mixmatch.step, mixmatch.forwards
uses_ema, trains_ema = mixmatch.uses_ema, mixmatch.trains_ema
parents, voters, modules = _pate.parents, _pate.voters, _pate.modules


def streams(settings: Settings) -> dict[str, Stream]:
    """Return the streams of answered and of other public images."""
    return _pate.streams(mixmatch.streams(settings), settings)


def begin(models: dict[str, torch.nn.Module], moment: Any, settings: Settings) -> None:
    """Ask the teachers."""
    _pate.begin(models, moment, settings, streams(settings))


def ignored(settings: Settings) -> dict[str, str]:
    """Return what nothing reads of either, by name, and why."""
    return mixmatch.ignored(settings) | _pate.ignored(settings)


def measures(settings: Settings) -> tuple[str, ...]:
    """Return the names of the figures of both."""
    return (*mixmatch.measures(settings), *_pate.measures(settings))


def evaluate(
    models: Mapping[str, torch.nn.Module], measured: Any, settings: Settings
) -> dict[str, float]:
    """Return the figures of both."""
    own = mixmatch.evaluate(models, measured, settings)
    return own | _pate.evaluate(models, measured, settings)
