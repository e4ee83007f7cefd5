"""The private student that learns by VAT: from answers of teachers, and from all other images.

The student of PATE (arXiv 1610.05755; arXiv 1802.08908, section 5) that MixMatch's is compared with
(arXiv 1905.02249, section 4.3); see ``_pate`` and ``vat``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cyclery.common.lazy import torch
from cyclery.methods import Stream, _pate, vat

VERSION = 1
TITLE = "PATE, student by VAT"


@dataclass(frozen=True)
class Settings(vat.Settings, _pate.Votes):
    """Settings of the votes and of the loss."""


step, forwards = vat.step, vat.forwards
parents, voters, modules = _pate.parents, _pate.voters, _pate.modules
measures, evaluate, ignored = _pate.measures, _pate.evaluate, _pate.ignored


def streams(settings: Settings) -> dict[str, Stream]:
    """Return the streams of answered and of other public images."""
    return _pate.streams(vat.streams(settings), settings)


def begin(models: dict[str, torch.nn.Module], moment: Any, settings: Settings) -> None:
    """Ask the teachers."""
    _pate.begin(models, moment, settings, streams(settings))
