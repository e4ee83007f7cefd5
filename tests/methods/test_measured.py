"""What is evaluated of a method with an average, and figures that cannot be had."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from factories import component
from factories import engine as factory

from cyclery import methods
from cyclery.common.errors import UserError
from cyclery.engine.failures import Diverged

METHOD = """
    from dataclasses import dataclass
    from cyclery.common.lazy import F
    VERSION, TITLE = 1, "Measured"
    @dataclass(frozen=True)
    class Settings:
        averages: bool = False
        figure: str = "1.0"
        classifies: bool = True
    def averages(settings):
        return settings.averages
    def classifies(settings):
        return settings.classifies
    def measures(settings):
        return ("test_collapse",)
    def evaluate(models, measured, settings):
        return {"test_collapse": float(settings.figure)} if settings.figure else {}
    def step(models, batch, row, settings, generator):
        return F.cross_entropy(models["main"](batch.x).float(), batch.y), {}
"""


@pytest.fixture(autouse=True)
def _method(tmp_path: Path) -> Iterator[None]:
    with component.written(methods, tmp_path / "own") as write:
        write("measured", METHOD)
        yield


def test_an_average_that_is_an_aid_is_neither_evaluated_nor_handed_on() -> None:
    own, plain = (
        factory.train(factory.settings(name, ema_decay=decay, epochs=2))
        for name, decay in (("measured", 0.99), ("measured", 0.5))
    )
    found, other = own.final(), plain.final()
    assert found == other and not [name for name in found if name.startswith("raw_")]
    weights = own.weights()
    assert all(torch.equal(v, weights[k]) for k, v in own.models["main"].state_dict().items())
    chosen = factory.settings(
        "measured", ema_decay=0.99, epochs=2, method_settings={"averages": True}
    )
    averaged = factory.train(chosen).final()
    assert averaged["raw_test_accuracy"] == found["test_accuracy"] != averaged["test_accuracy"]


def test_a_figure_that_cannot_be_had_is_left_out_or_refused() -> None:
    def finished(figure: str) -> set[str]:
        return set(
            factory.train(factory.settings("measured", method_settings={"figure": figure})).final()
        )

    assert finished("0.5") - finished("") == {"test_collapse"}
    with pytest.raises(UserError, match="returns nan as 'test_collapse', though all weights are"):
        finished("nan")
    with pytest.raises(Diverged):
        finished("inf")


def test_a_run_whose_weights_are_no_numbers_has_diverged() -> None:
    chosen = {"figure": "nan", "classifies": False}
    run = factory.run(factory.settings("measured", evaluations=3, method_settings=chosen))
    run.train_epoch()
    run.flat.data[0] = float("nan")
    with pytest.raises(Diverged):
        run.evaluate_on_the_way()
