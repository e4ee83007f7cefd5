"""Schedules drive what they should in a run: each update gets its row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from factories import engine as factory
from factories.batches import watch

from cyclery import methods, schedules
from cyclery.engine.run import Run


def spy(run: Run, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Record the row and the gradient's norm that every update of the optimiser gets."""
    rows: list[dict[str, Any]] = []
    step = run.optimiser.step

    def record(row):
        norm = run.flat.grad.norm().item()
        rows.append({"norm": norm, **{name: value.item() for name, value in row.items()}})
        step(row)

    monkeypatch.setattr(run.optimiser, "step", record)
    return rows


@pytest.mark.parametrize("method", methods.names())
def test_every_update_gets_its_row(method, monkeypatch):
    settings = factory.everything(method)
    run = factory.run(settings)
    rows = spy(run, monkeypatch)
    factory.finish(run)
    assert len(rows) == run.updates == run.table.clock.updates
    for name, column in run.table.columns.items():
        expected = schedules.column(settings["schedules"][name], run.table.clock)
        assert np.array_equal(column, expected)
        assert [row[name] for row in rows] == pytest.approx(expected, rel=1e-6)
        assert len(set(expected)) > 1


def test_batch_sizes_are_those_of_the_schedule_and_images_are_counted(monkeypatch):
    seen = watch(monkeypatch, lambda generator: None)
    run = factory.train(factory.settings(epochs=5, batch=factory.cycle(25, 100)))
    sizes = [25, 62, 100, 62, 25]
    assert [len(ids) for ids, _ in seen] == [s for s in sizes for _ in range(200 // s)]
    assert run.images == sum(200 // s * s for s in sizes)
    assert len(set(torch.cat([ids for ids, _ in seen[:8]]).tolist())) == 200


def test_clipping_is_torchs(monkeypatch):
    batches = watch(monkeypatch, lambda generator: None)
    run = factory.run(factory.settings(lr=0.0, clip_norm=0.5, weight_decay=0.0))
    mirror = factory.run(run.settings).models["main"]
    rows = spy(run, monkeypatch)
    run.begin_epoch()
    run.step(50)
    ((ids, x),) = batches
    loss = F.cross_entropy(mirror(x), run.data.labels[ids])
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(mirror.parameters(), 0.5)
    assert norm > 0.5
    assert rows[0]["norm"] <= 0.5 * (1 + 1e-6)
    clipped = torch.cat([p.grad.flatten() for p in mirror.parameters()]).norm().item()
    assert rows[0]["norm"] == pytest.approx(clipped, rel=1e-5)
    assert run.trace(0, 1)[0].tolist() == pytest.approx([loss.item(), 1.0], rel=1e-5)


def test_clipping_follows_its_schedule(monkeypatch):
    run = factory.run(factory.settings(epochs=5, clip_norm=factory.cycle(2.0, 0.25)))
    rows = spy(run, monkeypatch)
    factory.finish(run)
    assert all(row["norm"] <= row["clip_norm"] * (1 + 1e-6) for row in rows)
    clipped = run.trace(0, run.updates)[:, run.logged.index("clipped")]
    assert 0 < clipped.mean() < 1
    assert [row["norm"] for row, was in zip(rows, clipped, strict=True) if was] == pytest.approx(
        [row["clip_norm"] for row, was in zip(rows, clipped, strict=True) if was], rel=1e-4
    )


def test_temperature_divides_the_logits_of_its_update():
    def losses(temperature: Any) -> np.ndarray:
        # lr 0: the same weights throughout, so that only the temperature moves the loss.
        run = factory.train(factory.settings(epochs=5, lr=0.0, augment=(), temperature=temperature))
        return run.trace(0, run.updates)[:, 0].reshape(5, -1)

    cycled = losses(factory.cycle(0.5, 2.0))
    for epoch, temperature in enumerate((0.5, 1.25, 2.0, 1.25, 0.5)):
        assert cycled[epoch] == pytest.approx(losses(temperature)[epoch], rel=1e-6)
    assert cycled[0].mean() > cycled[2].mean()


def test_magnitude_reaches_the_augmentation(monkeypatch):
    settings = factory.settings(
        epochs=5, augment=({"op": "randaugment", "n": 2},), magnitude=factory.cycle(0.0, 8.0)
    )
    run = factory.run(settings)
    given = []
    feed = run.feeds["labelled"]
    (pipeline,) = feed.pipelines

    def watched(images, u, magnitude):
        given.append(magnitude.item())
        return pipeline(images, u, magnitude)

    watched.columns = pipeline.columns
    feed.pipelines[:] = [watched]
    factory.finish(run)
    assert given == pytest.approx(np.repeat([0.0, 4.0, 8.0, 4.0, 0.0], 4))


def test_a_learning_rate_of_zero_moves_nothing():
    run = factory.run(factory.settings(epochs=2, lr=factory.cycle(0.1, 0.0, order="easy-hard")))
    before = run.flat.data.clone()
    run.train_epoch()
    halfway = run.flat.data.clone()
    assert not torch.equal(before, halfway)
    run.train_epoch()
    assert torch.equal(halfway, run.flat.data)


@pytest.mark.parametrize(
    ("momentum", "columns", "weight", "rest"),
    [
        (0.9, {"weight_decay": 0.01}, 1.9962, 2.0),
        (0.0, {"weight_decay": 0.01}, 1.998, 2.0),
        (0.9, {"weight_decay": 0.0, "weight_decay_norm": 0.01}, 2.0, 1.9962),
        (0.9, {"weight_decay": 0.01, "weight_decay_norm": 0.01}, 1.9962, 1.9962),
    ],
)
def test_decay_of_a_first_step_without_gradient(monkeypatch, momentum, columns, weight, rest):
    def no_gradient(inner, *given):
        loss, logs = inner(*given)
        return 0 * loss, logs

    factory.use_step(monkeypatch, no_gradient)
    run = factory.run(factory.settings(lr=0.1, momentum=momentum, **columns))
    for value in run.flat.views(run.flat.data).values():
        value.fill_(2.0)
    run.begin_epoch()
    run.step(50)
    for name, value in run.models["main"].named_parameters():
        expected = weight if value.ndim > 1 else rest
        assert value.detach().numpy() == pytest.approx(expected, abs=1e-6), name
    assert {value.ndim > 1 for value in run.models["main"].parameters()} == {True, False}


def test_range_words_take_the_bounds_of_the_range_test():
    lr = {"kind": "triangular", "low": "range.base", "high": "range.max", "cycles": 1}
    run = factory.run(factory.settings(lr=lr), bounds=(0.02, 0.3))
    assert run.table.columns["lr"].min() == pytest.approx(0.02)
    assert run.table.columns["lr"].max() == pytest.approx(0.3)
