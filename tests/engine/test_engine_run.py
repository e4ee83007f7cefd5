"""A run: pairing across arms, schedules that drive what they should, steps without the host."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from factories import engine as factory
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cyclery import methods, schedules
from cyclery.common.errors import UserError
from cyclery.engine.run import Diverged, Run, evaluation_epochs
from cyclery.engine.stream import Stream, derive

SHIFT = {"op": "shift", "size": 1}
CYCLE = factory.cycle(8e-4, 2e-4)


# Pairing.


def watch(monkeypatch: pytest.MonkeyPatch, extra: Callable[[torch.Generator], None]) -> list[Any]:
    """Record the ids and views of every batch that a method sees; it draws ``extra`` first."""
    seen: list[Any] = []

    def step(inner, models, batch, row, settings, generator):
        extra(generator)
        seen.append((batch.ids.clone(), batch.x.clone()))
        return inner(models, batch, row, settings, generator)

    factory.use_step(monkeypatch, step)
    return seen


def by_epoch(run: Run, seen: list[Any]) -> list[tuple[Tensor, Tensor]]:
    """Join the batches of each epoch."""
    epochs, start = [], 0
    for steps in run.table.steps:
        part = seen[start : start + int(steps)]
        epochs.append((torch.cat([ids for ids, _ in part]), torch.cat([x for _, x in part])))
        start += int(steps)
    return epochs


def views(monkeypatch, settings, extra=lambda generator: None):
    seen = watch(monkeypatch, extra)
    run = factory.train(settings)
    return run, by_epoch(run, seen)


def draw_more(generator: torch.Generator) -> None:
    torch.rand(17, generator=generator)


@pytest.mark.parametrize(
    "other",
    [
        {"batch": 40},
        {"batch": factory.cycle(25, 100)},
        {"model": "wrn"},
        {"optimiser": "adam", "lr": 0.001, "evaluations": 3, "weight_decay": CYCLE},
    ],
    ids=["batch", "cyclical batch", "dropout", "optimiser"],
)
def test_arms_see_the_same_samples_in_the_same_views(monkeypatch, other):
    plain, expected = views(monkeypatch, factory.settings())
    arm, found = views(monkeypatch, factory.settings(**other), draw_more)
    for name, ids in plain.ids.items():
        assert torch.equal(arm.ids[name], ids)
    for (ids, x), (other_ids, other_x) in zip(expected, found, strict=True):
        assert len(ids) == 200
        assert torch.equal(other_ids, ids)
        assert torch.equal(other_x, x)
    # The control of this very test: another epoch, and another seed, look different.
    assert not torch.equal(expected[0][0], expected[1][0])


def test_augmentation_that_follows_leaves_the_views_before_it_alone(monkeypatch):
    taken: list[Tensor] = []
    take = Stream.take

    def record(self, size):
        ids, noise = take(self, size)
        taken.append(noise.clone())
        return ids, noise

    monkeypatch.setattr(Stream, "take", record)
    factory.train(factory.settings(augment=(SHIFT,)))
    short, taken[:] = list(taken), []
    factory.train(factory.settings(augment=(SHIFT, {"op": "randaugment", "n": 2, "m": 5.0})))
    assert taken[0].shape == (50, 4)
    for two, four in zip(short, taken, strict=True):
        assert torch.equal(two, four[:, :2])


def test_another_seed_sees_other_samples_views_and_weights(monkeypatch):
    one, first = views(monkeypatch, factory.settings())
    two, second = views(monkeypatch, factory.settings(seed=1))
    assert not torch.equal(one.ids["test"], two.ids["test"])
    assert not torch.equal(first[0][0], second[0][0])
    assert not torch.equal(
        factory.run(factory.settings()).flat.data, factory.run(factory.settings(seed=1)).flat.data
    )


def test_every_purpose_has_a_seed_of_its_own():
    purposes = ("order", "weak/0", "weak/1", "method", "network", "init")
    found = {derive(seed, purpose) for seed in range(50) for purpose in purposes}
    assert len(found) == 50 * len(purposes)


@pytest.mark.parametrize("method", methods.names())
def test_initial_weights_depend_on_the_seed_only(method):
    torch.manual_seed(5)
    plain = factory.run(factory.settings())
    torch.manual_seed(6)
    other = factory.run(factory.settings(method, batch=20, lr=0.5))
    assert torch.equal(plain.flat.data, other.flat.data)


@pytest.mark.parametrize("model", ["wrn", "stochastic_depth"])
def test_noise_in_a_network_is_the_runs_own(model):
    settings = factory.settings(model=model)
    alone = factory.train(settings)
    run = factory.run(settings)
    beside = factory.run(factory.settings(model=model, seed=1))
    while not run.finished:
        run.train_epoch()
        beside.train_epoch()
        torch.rand(3)
    assert torch.equal(run.flat.data, alone.flat.data)


def test_evaluating_more_often_changes_no_weight():
    seldom, often = (factory.settings(epochs=4, evaluations=n) for n in (1, 4))
    assert torch.equal(factory.train(seldom).flat.data, factory.train(often).flat.data)


# Schedules drive what they should.


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


# A step asks the host for nothing.

SYNCHRONISES = ("_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select",
                "unique", "bincount", "_unique2", "allclose")  # fmt: skip


class HostWatch(TorchDispatchMode):
    """Notes every operation that waits for the device, or whose shape depends on data."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        name = func.overloadpacket.__name__
        indices = args[1] if name in ("index", "index_put", "index_put_") else ()
        masks = any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices)
        if masks or name.removesuffix("_") in SYNCHRONISES or name in SYNCHRONISES:
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


@contextmanager
def host_watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[HostWatch]:
    """Watch what torch dispatches, and what it does not."""
    watch = HostWatch()
    with monkeypatch.context() as patch, watch:
        for name in ("tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__"):
            inner = getattr(Tensor, name)

            def noted(self, *given, _inner=inner, _name=name, **named):
                watch.found.append(_name)
                return _inner(self, *given, **named)

            patch.setattr(Tensor, name, noted)
        yield watch


CASES = [factory.everything(name) for name in methods.names()] + [
    factory.everything("supervised", model="wrn"),
    factory.everything("supervised", model="stochastic_depth"),
    factory.everything("supervised", model="small_cnn", optimiser="adam"),
    factory.everything("cyclical_focal", method_settings={"control": "scale_matched"}),
    factory.everything("cyclical_focal", method_settings={"control": "mean_weight"}),
    factory.everything("supervised", optimiser="adamw"),
    factory.everything("supervised", augment=({"op": "cutout", "size": 4}, {"op": "erasing"})),
]


@pytest.mark.parametrize(
    "settings", CASES, ids=lambda s: "-".join((s["method"]["name"], s["model"]["name"]))
)
def test_a_step_never_waits_for_the_host(settings, monkeypatch):
    run = factory.run(settings)
    run.begin_epoch()
    with host_watch(monkeypatch) as watch:
        run.step(25)
        run.step(25)
    assert watch.found == []
    assert watch.count > 100


@pytest.mark.parametrize(
    "ask",
    [lambda t: t.item(), float, bool, lambda t: t.tolist(), lambda t: t[t > 0], torch.nonzero,
     lambda t: t.view(1).numpy()],
)  # fmt: skip
def test_the_watch_sees_a_step_that_asks(ask, monkeypatch):
    def step(inner, *given):
        loss, logs = inner(*given)
        ask(loss.detach())
        return loss, logs

    factory.use_step(monkeypatch, step)
    run = factory.run(factory.settings())
    run.begin_epoch()
    with host_watch(monkeypatch) as watch:
        run.step(50)
    assert watch.found


# Divergence.


def test_a_diverging_run_says_at_which_update():
    run = factory.run(factory.settings(epochs=20, lr=1e6))
    with pytest.raises(Diverged) as caught:
        factory.finish(run)
    losses = run.trace(0, run.updates)[:, 0]
    assert not math.isfinite(losses[caught.value.update])
    assert np.isfinite(losses[: caught.value.update]).all()
    assert len(run.curve["epoch"]) == run.epoch - 1


def test_a_run_whose_last_update_ruins_the_weights_diverged(monkeypatch):
    # The last loss is still finite: only the evaluation can see it.
    run = factory.run(factory.settings(epochs=2, evaluations=1))
    run.train_epoch()
    run.evaluate_on_the_way()
    run.train_epoch()
    next(iter(run.flat.views(run.flat.data).values())).fill_(math.nan)
    with pytest.raises(Diverged) as caught:
        run.evaluate_on_the_way()
    assert caught.value.update == run.updates - 1
    assert run.curve["eval_epoch"] == []


# Other promises.


def test_evaluations_are_spread_evenly_and_include_the_last_epoch():
    for epochs in range(1, 30):
        for count in (1, 2, 5, 10):
            found = evaluation_epochs({"epochs": epochs, "evaluations": count})
            assert max(found) == epochs
            assert min(found) >= 1
            assert len(found) == min(count, epochs)


def test_the_curve_holds_the_mean_loss_and_the_evaluations():
    run = factory.train(factory.settings(epochs=4, evaluations=2))
    assert run.curve["epoch"] == [1, 2, 3, 4]
    assert run.curve["eval_epoch"] == [2, 4]
    losses = run.trace(0, run.updates)[:, 0].reshape(4, -1).mean(1)
    assert run.curve["train_loss"] == pytest.approx(losses)
    final = run.final()
    for name in ("val_accuracy", "val_nll", "test_accuracy", "test_nll"):
        assert len(run.curve[name]) == 2
        assert run.curve[name][-1] == final[name]
    assert final["test_accuracy"] > 0.4
    assert sum(final["train_class_count"]) == 200


def test_a_run_starts_from_its_parents_weights():
    parent = factory.train(factory.settings())
    start = {"init": "start", "init_share": 1.0}
    parents = {"start": [factory.trained(parent)]}
    child = factory.run({**factory.settings(epochs=1), **start}, parents=parents)
    found = child.weights()
    assert all(torch.equal(found[name], value) for name, value in parent.weights().items())
    assert any("running_mean" in name for name in found)


def test_weights_that_do_not_fit_are_named():
    parent = factory.run(factory.settings(model_settings={"hidden": [16]}))
    with pytest.raises(UserError, match=r"do not fit this network \(first: .*weight\)"):
        start = {"init": "start", "init_share": 1.0}
        factory.run({**factory.settings(), **start}, parents={"start": [factory.trained(parent)]})


def test_the_engine_trains_what_torch_trains():
    """A loop with ``torch.optim.SGD`` on the same batches ends at the same weights."""
    settings = factory.settings(
        epochs=3, augment=(), lr={"kind": "cosine", "peak": 0.1}, weight_decay=0.01, clip_norm=1.0
    )
    run, net = factory.train(settings), factory.run(settings).models["main"]
    groups: list[dict[str, Any]] = [{"params": [], "weight_decay": w} for w in (0.01, 0.0)]
    for p in net.parameters():
        fresh = nn.Parameter(p.detach().clone())
        p.data, p.grad = fresh.data, None
        groups[p.ndim <= 1]["params"].append(p)
    optimiser = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
    mirror = factory.run(settings).feeds["labelled"]
    images, labels, manifest = run.data.images, run.data.labels, run.data.manifest
    update = 0
    for _ in range(3):
        mirror.begin_epoch()
        for _ in range(4):
            ids, _ = mirror.take(50)
            x = (images[ids] / manifest["max_value"] - manifest["mean"][0]) / manifest["std"][0]
            optimiser.zero_grad()
            F.cross_entropy(net(x), labels[ids]).backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            for group in optimiser.param_groups:
                group["lr"] = 0.05 * (1 + math.cos(math.pi * update / 12))
            optimiser.step()
            update += 1
    for name, value in run.models["main"].state_dict().items():
        assert torch.allclose(value, net.state_dict()[name], atol=1e-5), name
