"""Sketches of twelve methods: each in one short file, trained, resumed and evaluated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from factories import engine as factory
from factories import sketches
from factories.threads import one_thread
from sketches import cards_semi_supervised

from cyclery.authoring.try_methods import try_methods

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

Json = dict[str, Any]
SEVERAL = (cards_semi_supervised,)
LINEAR: Json = {"name": "linear", "l2": [0.01]}
HIDDEN: Json = {"test": 200, "validation": 100, "per_class": 10, "unlabelled": "all"}

# Arms of each sketch on digits; the last one is what a claim would be about.
CARDS: dict[str, Json] = {
    "simclr": {
        "encoder": {"method": {"name": "simclr", "pool": "unlabelled"}, "split": HIDDEN,
                    "epoch_images": 400, "probes": {"h": LINEAR, "z": {**LINEAR, "of": "z"}}},
    },
    **{name: arms for cards in SEVERAL for name, arms in cards.CARDS.items()},
}  # fmt: skip
CLAIMS: dict[str, list[Json]] = {
    "simclr": [{"experiment": "main", "arm": "encoder", "against": "encoder",
                "metric": "test_h_accuracy", "against_metric": "test_z_accuracy"}],
    **{name: claims for cards in SEVERAL for name, claims in cards.CLAIMS.items()},
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with sketches.written(tmp_path_factory.mktemp("methods")):
        yield


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
def test_a_sketch_keeps_the_rules_of_methods(name: str, tmp_path: Path) -> None:
    assert "all are good" in try_methods(sketches.planned(tmp_path, CARDS[name], CLAIMS.get(name)))
