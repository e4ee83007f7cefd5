"""Packs in the benchmark: runs that are stacked are measured as such, and nothing else is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from factories import engine as factory

from cyclery.bench import cases, measure
from cyclery.bench.cases import BN_MLP, LOOP, Case, packs
from cyclery.bench.contenders import Engine, synthetic

CPU = torch.device("cpu")
(THREE,) = packs(3)
CASES = [replace(case, steps=3) for case in cases.rows("cpu", 2, True) if case.net is BN_MLP]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.method)
def test_each_run_of_a_pack_trains_an_epoch_a_turn(case: Case) -> None:
    """The losses are those of runs that train alone, each with data and weights of its own."""
    data = synthetic(case, CPU)
    engine = Engine(case, THREE, data, CPU)
    train = engine.pack(3)
    for _ in range(2):
        train()
    assert [run.epoch for run in engine.runs] == [2, 2, 2]
    losses = [run.curve["train_loss"] for run in engine.runs]
    alone = Engine(case, cases.EAGER, data, CPU)
    alone.grow(3)
    for _ in range(2):
        alone.train(3)
    for run, found in zip(alone.runs, losses, strict=True):
        assert found == pytest.approx(run.curve["train_loss"], rel=1e-3)
    assert len({loss[0] for loss in losses}) == 3


def test_a_row_with_packs() -> None:
    case = replace(CASES[0], variants=(LOOP, cases.EAGER, *packs(1, 4)))
    found = measure.row(case, CPU, 0)["variants"]
    assert list(found) == ["loop fp32", "engine eager fp32", "pack of 1", "pack of 4"]
    four = found["pack of 4"]
    # All its runs count: 4 x 3 updates of 50 images in each turn.
    rates = sorted(4 * 3 * 50 / seconds for seconds in four["seconds"])
    assert four["width"] == 4
    assert four["images_per_second"]["median"] == pytest.approx(rates[1], rel=0.01)


def test_what_cannot_be_stacked_is_not_measured_as_a_pack(monkeypatch: pytest.MonkeyPatch) -> None:
    def draws(inner: Any, *given: Any) -> Any:
        torch.zeros(1).normal_(generator=given[-1])
        return inner(*given)

    factory.use_step(monkeypatch, draws)
    case = replace(CASES[0], variants=(LOOP, THREE))
    with pytest.raises(RuntimeError, match=r"not stacked.*random"):
        measure.row(case, CPU, 0)
