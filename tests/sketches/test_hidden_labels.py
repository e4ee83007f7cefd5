"""Sketches never look at labels that are hidden."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import sketches
from factories.cards_self_supervised import CARDS, CLAIMS

from cyclery.engine.stream import Data


@pytest.mark.parametrize(
    ("card", "arm"),
    [("annotation-efficient", "gist"), ("small-data", "distilled")],
)
def test_no_hidden_label_is_looked_at(
    card: str, arm: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plan = sketches.planned(tmp_path, CARDS[card], CLAIMS[card])
    weights = sketches.run(plan, arm, done=True).weights()
    honest = Data.trained_on

    def hidden(data: Data, settings: Any, seed: int, ids: Any) -> Data:
        found = honest(data, settings, seed, ids)
        # The dataset itself is shared by all runs.
        found = replace(found, labels=found.labels.clone())
        shown = torch.cat([torch.from_numpy(ids[p]) for p in ("train", "validation", "test")])
        lost = torch.ones(len(found.labels), dtype=torch.bool)
        lost[shown] = False
        # Which are of unknown classes decides what is drawn, and is measured.
        lost &= found.labels >= 0
        found.labels[lost] = (found.labels[lost] + 1).remainder(found.manifest["classes"])
        return found

    monkeypatch.setattr(Data, "trained_on", hidden)
    for name, value in sketches.run(plan, arm, done=True).weights().items():
        assert torch.equal(value, weights[name]), name
