"""Whole runs of distillation: what teachers keep, guidance in cycles, replay and resuming."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import torch
from factories import engine as factory
from factories.kd import each_path, watch
from factories.replay import Recorder
from factories.threads import one_thread
from torch import Tensor

from cyclery import methods, schedules
from cyclery.engine.run import Run
from cyclery.engine.teachers import Trained

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)


@cache
def taught_by(model: str, seed: int = 5) -> Trained:
    """Return a network that is trained a little: its statistics are not those of a new one."""
    return factory.trained(factory.train(factory.settings(model=model, seed=seed, epochs=1)))


def settings(given: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    return factory.settings("kd", method_settings=given or {}, **changes)


def ensemble() -> dict[str, list[Trained]]:
    # With dropout, and with statistics of maps and of vectors.
    return {"teacher": [taught_by("wrn"), taught_by("bn_mlp")]}


def storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def test_a_teacher_is_frozen_through_a_whole_run():
    run = factory.run(settings(epochs=2, ema_decay=0.9, model="small_cnn"), parents=ensemble())
    teacher = run.models["teacher"]
    before = copy.deepcopy(teacher.state_dict())
    modes: list[tuple[bool, bool]] = []
    for module in teacher.members.modules():
        module.register_forward_pre_hook(
            lambda m, _: modes.append((m.training, torch.is_grad_enabled()))
        )
    factory.finish(run)
    run.final()
    assert set(modes) == {(False, False)}
    assert not any(module.training for module in teacher.modules())
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert teacher.state_dict().keys() == before.keys()
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, before[name]), name
    # Each member is what was trained, to the last bit.
    for member, parent in zip(teacher.members, ensemble()["teacher"], strict=True):
        for name, value in member.parts["main"].state_dict().items():
            assert torch.equal(value, parent.weights[name]), name


def test_a_teacher_is_neither_trained_nor_averaged_nor_kept():
    run = factory.train(settings(epochs=1, ema_decay=0.9, optimiser="adam", lr=0.01),
                        parents=ensemble())  # fmt: skip
    plain = factory.train(factory.settings(epochs=1, ema_decay=0.9, optimiser="adam", lr=0.01))
    teacher = run.models["teacher"]
    frozen = {storage(value) for value in teacher.state_dict().values()}
    live = [*run.networks.tensors().values(), *run.live().values(), run.flat.grad]
    assert not frozen & {storage(tensor) for tensor in live}
    assert not frozen & {storage(p) for p in run.models["ema"].parameters()}
    assert set(run.models) == {"main", "ema", "teacher"}
    assert set(run.networks.models) == {"main", "ema"}
    # What is kept and saved is as of a run without a teacher.
    assert len(run.flat) == len(plain.flat)
    assert run.networks.tensors().keys() == plain.networks.tensors().keys()
    assert run.state().keys() == plain.state().keys()
    assert run.weights().keys() == plain.weights().keys()


@pytest.mark.parametrize("given", [{}, {"mixup": 1.0, "hard": 0.0}, {"inputs": "both"}])
def test_both_networks_see_the_same_augmented_tensor_in_a_run(given):
    run = factory.run(settings(given, epochs=1, augment=({"op": "shift", "size": 1},)))
    students, teachers = watch(run.models["main"]), watch(run.models["teacher"])
    run.train_epoch()
    assert len(students) == len(teachers) == 4
    assert all(a is b for a, b in zip(students, teachers, strict=True))
    assert len({id(seen) for seen in students}) == 4


def test_a_method_that_draws_more_sees_the_same_samples_in_the_same_views():
    seen = []
    for given in ({}, {"mixup": 1.0, "hard": 0.0}, {"targets": "permuted"}):
        run, batches = factory.run(settings(given, epochs=2)), []
        made = run._batch
        run._batch = lambda *a, made=made, batches=batches: batches.append(made(*a)) or batches[-1]
        factory.finish(run)
        seen.append(batches)
    for batches in seen[1:]:
        for one, other in zip(seen[0], batches, strict=True):
            assert torch.equal(one.ids, other.ids) and torch.equal(one.x, other.x)


@pytest.mark.parametrize("hard", [None, 0.25])
def test_a_cycle_of_guidance_reaches_the_step_by_its_row(monkeypatch, hard):
    cycle = factory.cycle(1.0, 0.2)
    given = settings({"hard": hard}, epochs=6, soft=cycle,
                     temperature={"kind": "linear", "start": 2.0, "end": 6.0})  # fmt: skip
    rows: list[tuple[float, float]] = []
    losses: list[tuple[float, float, float]] = []
    declared = methods.load("kd")

    def step(models, batch, row, chosen, generator):
        loss, logs = declared.step(models, batch, row, chosen, generator)
        rows.append((row["soft"].item(), row["temperature"].item()))
        losses.append((loss.item(), logs["loss_hard"].item(), logs["loss_soft"].item()))
        return loss, logs

    factory.use_method(monkeypatch, "kd", step=step)
    run = factory.train(given)
    clock = run.table.clock
    expected = schedules.column(schedules.normalise(cycle), clock)
    assert [row[0] for row in rows] == pytest.approx(expected.tolist(), rel=1e-6)
    assert len(set(expected.tolist())) > 3 and expected[0] == expected.max()
    assert [row[1] for row in rows] == pytest.approx((2 + 4 * clock.t / clock.updates).tolist())
    for (weight, _), (loss, first, second) in zip(rows, losses, strict=True):
        own = 1 - weight if hard is None else hard
        assert loss == pytest.approx(own * first + weight * second, rel=1e-5)


def test_without_guidance_it_is_supervised_to_the_last_bit():
    plain, off = factory.train(factory.settings()), factory.train(settings(soft=0.0))
    assert torch.equal(plain.flat.data, off.flat.data)
    on = factory.train(settings(soft=0.5))
    assert not torch.equal(plain.flat.data, on.flat.data)


def varied(given: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return settings in which both quantities, and all of the engine's, follow schedules."""
    return factory.everything(
        "kd", method_settings=given, epochs=4, temperature=factory.cycle(8.0, 2.0),
        soft=factory.cycle(1.0, 0.3), **changes,
    )  # fmt: skip


def assert_same(one: Run, other: Run) -> None:
    first, second = one.state(), other.state()
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    assert one.curve == other.curve


@each_path
def test_a_replayed_run_equals_an_eager_one(given):
    eager = factory.train(varied(given), parents=ensemble())
    recorder = Recorder()
    replayed = factory.train(varied(given), parents=ensemble(), recorder=recorder)
    assert_same(eager, replayed)
    assert recorder.replays and not recorder.refused
    assert eager.final() == replayed.final()


@each_path
def test_a_resumed_run_equals_one_that_was_not_interrupted(given):
    whole, half = (factory.run(varied(given), parents=ensemble()) for _ in range(2))
    factory.finish(whole)
    for _ in range(2):
        half.train_epoch()
        half.evaluate_on_the_way()
    rest = factory.run(varied(given), parents=ensemble())
    rest.load_state(half.state(), 2, {key: list(values) for key, values in half.curve.items()})
    factory.finish(rest)
    assert_same(whole, rest)


def test_a_student_without_labels_copies_its_teacher():
    parent = factory.trained(factory.train(factory.settings(epochs=20)))
    runs = [
        factory.train(
            settings({"hard": 0.0, **given}, epochs=20, soft=1.0, lr=0.02, model="bn_mlp",
                     **{"split": {"unlabelled": "all"}} if given else {}),
            parents={"teacher": [parent]},
        )
        for given in ({}, {"inputs": "both"}, {"targets": "permuted"})
    ]  # fmt: skip
    plain, more, permuted = (run.final()["test_agreement"] for run in runs)
    assert plain > 0.8 and more > plain - 0.02
    assert permuted < plain


@pytest.mark.parametrize(
    "given",
    [{}, {"hard": 0.0}, {"inputs": "unlabelled"}, {"inputs": "unlabelled", "hard": 0.0},
     {"inputs": "both"}, {"inputs": "both", "hard": 0.0, "mixup": 1.0}],
    ids=str,
)  # fmt: skip
def test_forward_passes_are_counted_as_they_are_made(given):
    run = factory.run(factory.settings("kd", method_settings=given, epochs=1, mu=3))
    passed: list[int] = []
    for net in (run.models["main"], run.models["teacher"]):
        net.register_forward_hook(lambda module, inputs, output: passed.append(len(inputs[0])))
    run.train_epoch()
    assert run.spent() == (run.spent()[0], sum(passed))
