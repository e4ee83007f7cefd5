"""Sketches never look at labels that are hidden."""

from __future__ import annotations

from pathlib import Path

import pytest
from factories import sketches
from factories.cards_self_supervised import CARDS, CLAIMS


@pytest.mark.parametrize(
    ("card", "arm"),
    [("annotation-efficient", "gist")],
)
def test_no_hidden_label_is_looked_at(
    card: str, arm: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plan = sketches.planned(tmp_path, CARDS[card], CLAIMS[card])
    sketches.assert_no_hidden_label_trains(plan, arm, monkeypatch)
