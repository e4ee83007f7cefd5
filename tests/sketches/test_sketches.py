"""Sketches of methods: each in one short file, trained, resumed and evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from factories import cards_semi_supervised, sketches
from factories import engine as factory
from factories.replay import Recorder

from cyclery.authoring.try_methods import try_methods

Json = dict[str, Any]
# Arms of each card on digits; the last one is what a claim would be about.
CARDS: dict[str, Json] = cards_semi_supervised.CARDS
CLAIMS: dict[str, list[Json]] = cards_semi_supervised.CLAIMS


@pytest.mark.parametrize("name", sketches.NAMES)
def test_a_sketch_is_one_short_file(name: str) -> None:
    assert len((sketches.FILES / f"{name}.py").read_text().splitlines()) < 60


@pytest.mark.parametrize("name", CARDS)
def test_a_sketch_trains_and_resumes_as_it_went_on(name: str, tmp_path: Path) -> None:
    plan = sketches.planned(tmp_path, CARDS[name], CLAIMS.get(name))
    whole = sketches.trained(tmp_path / "whole", plan)
    again = sketches.resumed(tmp_path / "again", plan)
    for arm, record in whole.items():
        assert record["status"] == "done"
        assert factory.figures(record) == factory.figures(again[arm]), arm


@pytest.mark.parametrize("name", CARDS)
def test_a_captured_sketch_computes_what_an_eager_one_does(name: str, tmp_path: Path) -> None:
    """With the stand-in for CUDA graphs: what a step decides on the host is decided for ever."""
    plan = sketches.planned(tmp_path, CARDS[name], CLAIMS.get(name))
    for arm in CARDS[name]:
        recorder = Recorder()
        eager = sketches.run(plan, arm, done=True)
        again = sketches.run(plan, arm, done=True, recorder=recorder)
        assert recorder.replays >= again.updates or not again.method.capture, arm
        state = again.state()
        for key, value in eager.state().items():
            assert torch.equal(value, state[key]), (arm, key)
        assert again.curve == eager.curve


@pytest.mark.parametrize("name", CARDS)
def test_a_sketch_keeps_the_rules_of_methods(name: str, tmp_path: Path) -> None:
    assert "all are good" in try_methods(sketches.planned(tmp_path, CARDS[name], CLAIMS.get(name)))
