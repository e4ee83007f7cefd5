"""The private student that learns from answers alone: cross-entropy on labels that teachers gave.

The control of PATE with semi-supervised students; see ``_pate``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cyclery.common.lazy import torch
from cyclery.methods import Stream, _pate, supervised

VERSION = 1
TITLE = "PATE, student supervised"


@dataclass(frozen=True)
class Settings(supervised.Settings, _pate.Votes):
    """Settings of the votes and of the loss."""


step = supervised.step
parents, voters, modules = _pate.parents, _pate.voters, _pate.modules
measures, evaluate, ignored = _pate.measures, _pate.evaluate, _pate.ignored


def streams(settings: Settings) -> dict[str, Stream]:
    """Return the stream of answered images."""
    return _pate.streams({"labelled": ("weak",)}, settings)


def begin(models: dict[str, torch.nn.Module], moment: Any, settings: Settings) -> None:
    """Ask the teachers."""
    _pate.begin(models, moment, settings, streams(settings))
