"""Runs side by side: independent of width, order and neighbours. Here on a CPU, without streams."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import engine as factory

from cyclery import methods
from cyclery.common.errors import UserError
from cyclery.common.signals import Stopped
from cyclery.engine.cohort import Cohort, FixedWidth, Pause, Task, drain
from cyclery.engine.cuda import RESERVE, FreeMemory
from cyclery.engine.failures import Failure
from cyclery.engine.lookup import kind
from cyclery.records.record import Job, Record
from cyclery.records.run_store import Store

NETS = [("bn_mlp", "supervised"), ("small_cnn", "cyclical_focal"), ("wrn", "fixmatch")]


@pytest.fixture(scope="module")
def jobs() -> list[Job]:
    """Return runs that differ in all that may differ: network, method, length, seed."""
    return [
        factory.job(
            factory.settings(method, model=model, seed=seed, epochs=2 + seed, batch=25,
                             split={"labels": 50}, evaluations=1),
            keep=True,
        )
        for seed in (0, 1)
        for model, method in NETS
    ]  # fmt: skip


@pytest.fixture(scope="module")
def alone(jobs: list[Job], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("alone")
    found = [next(side_by_side(root / job["key"], [job], 1)) for job in jobs]
    return {job["key"]: factory.figures(record) for job, record in found}


def side_by_side(root: Path, jobs: list[Job], width: int) -> Iterator[tuple[Job, Record]]:
    trainer = factory.trainer(root, cohort=width)
    return trainer._side_by_side(jobs, False, factory.CPU)


@pytest.mark.parametrize("width", [1, 2, 4, 8])
@pytest.mark.parametrize("turn", [1, -1])
def test_results_depend_on_neither_width_nor_order(
    jobs: list[Job], alone: dict[str, Any], tmp_path: Path, width: int, turn: int
) -> None:
    found = {job["key"]: record for job, record in side_by_side(tmp_path, jobs[::turn], width)}
    assert {key: factory.figures(record) for key, record in found.items()} == alone
    assert max(record["cohort"] for record in found.values()) == min(width, len(jobs))


def test_a_diverging_run_leaves_its_neighbours_alone(
    jobs: list[Job], alone: dict[str, Any], tmp_path: Path
) -> None:
    bad = factory.job(factory.settings(lr=1e30, epochs=4))
    found = {j["key"]: r for j, r in side_by_side(tmp_path, [jobs[0], bad, *jobs[1:3]], 4)}
    assert found[bad["key"]]["status"] == "diverged"
    for job in jobs[:3]:
        assert factory.figures(found[job["key"]]) == alone[job["key"]]


def test_what_concerns_all_runs_is_raised_after_its_neighbours_are_done(
    jobs: list[Job], alone: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = factory.job(factory.settings(seed=9))
    inner = Store.lock

    def lock(self: Store, key: str, wait: bool) -> Any:
        if key == refused["key"]:
            raise UserError("cannot write: Read-only file system")
        return inner(self, key, wait)

    monkeypatch.setattr(Store, "lock", lock)
    found = {}
    with pytest.raises(UserError, match="Read-only file system"):
        for job, record in side_by_side(tmp_path, [jobs[0], refused, jobs[1], jobs[2]], 3):
            found[job["key"]] = factory.figures(record)
    # The fourth is not begun: there is nobody left whom it could help.
    assert found == {job["key"]: alone[job["key"]] for job in jobs[:2]}


def test_a_run_without_its_parent_fails_alone(
    jobs: list[Job], alone: dict[str, Any], tmp_path: Path
) -> None:
    start = {"init": "start", "init_share": 1.0, "parents": {"start": ["f" * 24]}}
    orphan = factory.job({**factory.settings(), **start})
    listed = [jobs[0], orphan, jobs[1], jobs[2]]
    found = {job["key"]: record for job, record in side_by_side(tmp_path, listed, 3)}
    failure = found.pop(orphan["key"])
    assert isinstance(failure, Failure) and failure.text.startswith("its parent 'start'")
    assert {key: factory.figures(record) for key, record in found.items()} == {
        job["key"]: alone[job["key"]] for job in jobs[:3]
    }


def test_range_tests_and_students_run_side_by_side(tmp_path: Path) -> None:
    teacher = factory.job(factory.settings(), keep=True)
    sweep = factory.settings(lr={"kind": "linear", "start": 0.0, "end": 5.0}, evaluations=10)
    # As `cyclery.plan.job_specs` makes them: a range test has no parents.
    del sweep["parents"], sweep["range"]
    students = [
        factory.job(
            factory.settings(method, seed=1) | {"parents": {"teacher": [teacher["key"]]}},
            parent_models={"teacher": [1, teacher["settings"]["model"]]},
        )
        for method in ("kd", "soteacher")
        if "teacher" in methods.parents_of({"name": method, "settings": {}})
    ]
    jobs = [factory.job(sweep, kind="range"), *students]
    factory.trainer(tmp_path / "alone").train([teacher])
    expected = [next(side_by_side(tmp_path / "alone", [job], 1))[1] for job in jobs]
    factory.trainer(tmp_path / "beside").train([teacher])
    found = {job["key"]: record for job, record in side_by_side(tmp_path / "beside", jobs, 3)}
    ranged = ("lr", "accuracy", "loss", "bounds")
    assert [found[jobs[0]["key"]][k] for k in ranged] == [expected[0][k] for k in ranged]
    for job, record in zip(students, expected[1:], strict=True):
        assert factory.figures(found[job["key"]]) == factory.figures(record)


def test_teachers_of_another_size_are_another_need_of_memory() -> None:
    settings = factory.settings("kd") | {"parents": {"teacher": ["a"]}}
    small, large, two = (
        factory.job(settings, parent_models={"teacher": parent})
        for parent in ([1, {"depth": 20}], [1, {"depth": 56}], [2, {"depth": 20}])
    )
    again = factory.job(
        settings | {"parents": {"teacher": ["b"]}, "seed": 7},
        parent_models={"teacher": [1, {"depth": 20}]},
    )
    assert kind(small) == kind(again)
    assert len({kind(small), kind(large), kind(two)}) == 3


def test_runs_that_differ_in_determinism_are_never_side_by_side(tmp_path: Path) -> None:
    mixed = [
        factory.job({**factory.settings(seed=s, epochs=2), "deterministic": s % 2 == 0})
        for s in range(4)
    ]
    order = [j["settings"]["deterministic"] for j, _ in side_by_side(tmp_path, mixed, 4)]
    assert order == [True, True, False, False]


def test_a_stop_saves_every_run_at_the_end_of_its_epoch(
    jobs: list[Job], alone: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cyclery.engine import processes

    monkeypatch.setattr(processes, "_STOP", [])
    trainer = factory.trainer(tmp_path, cohort=3)
    cohort = trainer._side_by_side(jobs[3:], False, factory.CPU)
    monkeypatch.setattr(
        "cyclery.engine.run.Run.evaluation_steps",
        lambda self: iter([processes._STOP.append(15)] if self.epoch == 1 else []),
    )
    with pytest.raises(Stopped):
        list(cohort)
    assert all(trainer.store.resume(job["key"]).exists() for job in jobs[3:])
    monkeypatch.undo()
    found = {j["key"]: r for j, r in side_by_side(tmp_path, jobs[3:], 2)}
    assert {k: factory.figures(r) for k, r in found.items()} == {
        job["key"]: alone[job["key"]] for job in jobs[3:]
    }


# The cohort itself.


def count(job: int, log: list[str]) -> Task[int]:
    log.append(f"+{job}")
    for _ in range(job):
        yield Pause.NEXT
    log.append(f"-{job}")
    return job * job


def cohort_of(width: int, log: list[str], begin: Any = count) -> Cohort[int, int]:
    return Cohort(
        lambda job: begin(job, log), str, FixedWidth(width), lambda: contextlib.nullcontext
    )


def test_a_place_is_refilled_when_its_run_is_done() -> None:
    log: list[str] = []
    results = list(cohort_of(2, log).results([3, 1, 1, 2]))
    assert sorted(results) == [(1, 1), (1, 1), (2, 4), (3, 9)]
    assert log[:4] == ["+3", "+1", "-1", "+1"]


def test_whoever_stops_listening_leaves_nothing_open() -> None:
    closed: list[int] = []

    def begin(job: int, log: list[str]) -> Task[int]:
        try:
            yield from count(job, log)
        finally:
            closed.append(job)
        return job

    results = cohort_of(3, [], begin).results([1, 5, 5])
    next(results)
    results.close()
    assert sorted(closed) == [1, 5, 5]


def test_waiting_is_no_busy_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("cyclery.engine.cohort.time.sleep", slept.append)

    def begin(job: int, log: list[str]) -> Task[int]:
        yield from (Pause.WAIT, Pause.NEXT, Pause.WAIT)
        return job

    assert list(cohort_of(2, [], begin).results([1, 2])) == [(1, 1), (2, 2)]
    assert len(slept) == 2
    slept.clear()
    assert drain(begin(1, [])) == 1
    assert len(slept) == 2


# Memory.


class Card(FreeMemory):
    """A device of 100 units."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"), most=4)
        self.taken = 0

    def _free(self) -> tuple[int, int]:
        return 100 - self.taken, 100

    def _reserved(self) -> int:
        return self.taken

    def _release(self) -> None:
        pass


def test_an_unknown_kind_is_measured_before_a_second_one_starts() -> None:
    card = Card()
    assert card.admits("wrn", 0)
    card.started("wrn")
    assert not card.admits("wrn", 1)
    card.taken = 20
    card.allocated("wrn")
    assert card.admits("wrn", 1)
    # Its share is promised before it is taken.
    for active in (1, 2, 3):
        assert card.admits("wrn", active) == (80 - 20 * (active - 1) >= RESERVE * 20)
        card.started("wrn")
    assert not card.admits("wrn", 4)


def test_a_first_run_is_admitted_however_little_is_free() -> None:
    card = Card()
    card.taken = 99
    assert card.admits("wrn", 0) and not card.admits("wrn", 1)


def test_a_run_too_many_waits_until_another_is_done() -> None:
    card, log, tries = Card(), [], []

    def begin(job: int, log: list[str]) -> Task[int]:
        yield Pause.ALLOCATED
        if job == 2 and not tries:
            tries.append(job)
            raise torch.OutOfMemoryError("out of memory")
        yield from count(job, log)
        return job

    cohort = Cohort(
        lambda job: begin(job, log), lambda job: "wrn", card, lambda: contextlib.nullcontext
    )
    assert sorted(cohort.results([1, 2, 3])) == [(1, 1), (2, 2), (3, 3)]
    # One was beside it: no more than one from then on.
    assert tries == [2] and card.admits("wrn", 0) and not card.admits("wrn", 1)


def test_memory_that_another_run_gives_back_does_not_hide_what_a_run_takes() -> None:
    class Giving(Card):
        def _release(self) -> None:
            self.taken -= 30

    card = Giving()
    card._need["wide"] = 30
    card.started("wide")
    card.taken = 30
    card.started("wrn")
    card.taken += 20
    card.allocated("wide")
    card.ended("wide", allocated=True)
    card.allocated("wrn")
    assert card._need["wrn"] == 20


def test_a_run_that_failed_is_let_go_before_its_memory_is_asked_for() -> None:
    class Heavy:
        """What a run holds."""

    held: list[weakref.ref[Heavy]] = []
    alive: list[bool] = []

    class Watched(Card):
        def ended(self, kind: str, allocated: bool) -> None:
            alive.append(held[0]() is not None)
            super().ended(kind, allocated)

    def begin(job: int, log: list[str]) -> Task[int]:
        heavy = Heavy()
        held.append(weakref.ref(heavy))
        yield Pause.NEXT
        raise torch.OutOfMemoryError(f"out of memory beside {heavy}")

    cohort = Cohort(lambda job: begin(job, []), str, Watched(), lambda: contextlib.nullcontext)
    with pytest.raises(torch.OutOfMemoryError):
        list(cohort.results([1]))
    assert alive == [False]


def test_out_of_memory_alone_is_an_error() -> None:
    def begin(job: int, log: list[str]) -> Task[int]:
        yield Pause.NEXT
        raise torch.OutOfMemoryError("out of memory")

    cohort = Cohort(lambda job: begin(job, []), str, Card(), lambda: contextlib.nullcontext)
    with pytest.raises(torch.OutOfMemoryError):
        list(cohort.results([1]))
