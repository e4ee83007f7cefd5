"""What the run store or the data folder has lost, or holds damaged, is made again or named."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from factories import engine as factory

from cyclery.common.errors import UserError
from cyclery.engine.execution import Execution
from cyclery.engine.export import export
from cyclery.engine.failures import naming
from cyclery.engine.train import Trainer
from cyclery.records.run_store import Store
from cyclery.records.shard_files import refresh, write_records

# As in test_trainer: numpy may have threads that sleep beside the forking process.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

Json = dict[str, Any]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the key of every job that is really trained."""
    keys: list[str] = []
    for name in ("_run", "_sweep"):
        inner = getattr(Trainer, name)

        def noted(self: Trainer, job: Json, *rest: Any, _inner: Any = inner) -> Any:
            keys.append(job["key"])
            return _inner(self, job, *rest)

        monkeypatch.setattr(Trainer, name, noted)
    return keys


def family() -> list[Json]:
    """Return a range test, a parent that takes its bounds, a child and a grandchild."""
    sweep = {"kind": "linear", "start": 0.0, "end": 5.0}
    test = factory.job(factory.settings(lr=sweep, evaluations=10), kind="range")
    lr = {"kind": "triangular", "low": "range.base", "high": "range.max", "cycles": 1}
    parent = factory.job(
        {**factory.settings(lr=lr), "range": "test"}, keep=True, range_runs=[test["key"]]
    )
    jobs = [test, parent]
    for rate in (0.05, 0.01):
        settings = factory.settings(lr=rate)
        settings |= {"init": "start", "init_share": 1.0, "parents": {"start": [jobs[-1]["key"]]}}
        jobs.append(factory.job(settings, keep=True))
    return jobs


def lose(trainer: Trainer, job: Json, *names: str) -> None:
    """Remove files of a run, all of them where none is named."""
    folder = trainer.store.folder(job["key"])
    for path in [folder / name for name in names] or list(folder.iterdir()):
        path.unlink()


def other_bytes(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, weights are saved as another machine would: with other last bits."""
    from cyclery.engine.run import Run

    inner = Run.weights
    monkeypatch.setattr(
        Run, "weights", lambda self: {k: v * (1 + 1e-6) for k, v in inner(self).items()}
    )


def test_children_of_a_parent_that_comes_back_with_other_weights_follow_at_once(
    tmp_path: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = factory.job(factory.settings(), keep=True)
    old, new = (
        factory.job(
            {**factory.settings(lr=rate), "init": "start", "init_share": 1.0,
             "parents": {"start": [parent["key"]]}}
        )
        for rate in (0.05, 0.01)
    )  # fmt: skip
    trainer = factory.trainer(tmp_path)
    [first, _] = trainer.train([parent, old])
    lose(trainer, parent, "checkpoint.safetensors")
    other_bytes(trainer, monkeypatch)
    trained.clear()
    # One child is done; that the other is missing brings its parent back.
    records = trainer.train([old, new], [parent])
    assert trained[0] == parent["key"] and sorted(trained[1:]) == sorted([old["key"], new["key"]])
    again = trainer.store.read(parent["key"])
    assert again and again["checkpoint_sha256"] != first["checkpoint_sha256"]
    for record in records:
        [used] = record["inputs"]["parents"]["start"]
        assert used["sha256"] == again["checkpoint_sha256"]
    assert trainer.trained.keys() == {job["key"] for job in (parent, old, new)}


def test_files_of_records_are_written_anew_where_a_run_in_them_was(tmp_path: Path) -> None:
    ours, other, absent = (tmp_path / name for name in ("ours", "other", "absent"))
    write_records(ours, [{"key": "a", "n": 1}, {"key": "b", "n": 1}])
    ours.write_text(ours.read_text() + "damaged\n")
    write_records(other, [{"key": "b", "n": 1}])
    before = other.stat().st_mtime_ns
    refresh([ours, other, absent], {"a": {"key": "a", "n": 2}, "c": {"key": "c"}})
    assert ours.read_text() == '{"key": "a", "n": 2}\n{"key": "b", "n": 1}\ndamaged\n'
    assert other.stat().st_mtime_ns == before and not absent.exists()


@pytest.mark.parametrize("fault", ["lost", "damaged", "whole"])
def test_weights_are_exported_from_the_store(
    fault: str, tmp_path: Path, trained: list[str]
) -> None:
    jobs, trainer = family(), factory.trainer(tmp_path)
    records = {record["key"]: record for record in trainer.train(jobs)}
    child, path = jobs[2], trainer.store.checkpoint(jobs[2]["key"])
    whole = path.read_bytes()
    if fault == "lost":
        lose(trainer, child)
    elif fault == "damaged":
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    trained.clear()
    found: dict[str, Json] = {}
    export(trainer, child, jobs[:2], tmp_path / "out.safetensors", found)
    assert (tmp_path / "out.safetensors").read_bytes() == whole
    assert trained == ([] if fault == "whole" else [child["key"]])
    assert found.keys() == {child["key"]}
    same = factory.figures(found[child["key"]])
    assert same == factory.figures(records[child["key"]])


def test_a_run_that_diverged_has_no_weights_to_export(tmp_path: Path) -> None:
    job = factory.job(factory.settings(lr=1e30), keep=True)
    with pytest.raises(UserError, match="diverged, so it has no weights"):
        export(factory.trainer(tmp_path), job, [], tmp_path / "out.safetensors", {})
    assert not (tmp_path / "out.safetensors").exists()


def test_an_export_that_fails_says_what_was_trained_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, trainer = family(), factory.trainer(tmp_path)
    trainer.train(jobs)
    for job in jobs[2:]:
        lose(trainer, job)
    inner = Trainer._run

    def failing(self: Trainer, job: Json, *rest: Any) -> Any:
        with naming(job):
            if job["key"] == jobs[3]["key"]:
                raise ValueError("boom")
        return inner(self, job, *rest)

    monkeypatch.setattr(Trainer, "_run", failing)
    found: dict[str, Json] = {}
    with pytest.raises(UserError, match="boom"):
        export(trainer, jobs[3], jobs[:3], tmp_path / "out.safetensors", found)
    assert found.keys() == {jobs[2]["key"]}


Lose = Callable[[Trainer, list[Json]], object]


@pytest.mark.parametrize(
    ("loss", "again"),
    [
        (lambda t, jobs: None, [3]),
        (lambda t, jobs: lose(t, jobs[2]), [2, 3]),
        (lambda t, jobs: lose(t, jobs[2], "checkpoint.safetensors"), [2, 3]),
        (lambda t, jobs: [lose(t, job) for job in jobs[:3]], [0, 1, 2, 3]),
        # The child has its weights, so nobody needs its parent's.
        (lambda t, jobs: lose(t, jobs[1]), [3]),
        # Kept at first for nobody: the record is there, but it has no weights.
        (lambda t, jobs: t.train([{**jobs[2], "keep": False}]), [3]),
    ],
    ids=["nothing", "record", "weights", "everything", "grandparent", "none"],
)
def test_only_what_a_missing_run_needs(
    tmp_path: Path, trained: list[str], loss: Lose, again: list[int]
) -> None:
    jobs, trainer = family(), factory.trainer(tmp_path)
    first = trainer.train(jobs)
    loss(trainer, jobs)
    lose(trainer, jobs[3])
    trained.clear()
    [record] = trainer.train(jobs[3:], jobs[:3])
    assert trained == [jobs[i]["key"] for i in again]
    assert factory.figures(record) == factory.figures(first[3])


def test_a_complete_run_needs_no_weights_of_its_parent(tmp_path: Path, trained: list[str]) -> None:
    jobs, trainer = family(), factory.trainer(tmp_path)
    first = trainer.train(jobs)
    lose(trainer, jobs[2], "checkpoint.safetensors")
    trained.clear()
    assert trainer.train(jobs[3:], jobs[:3]) == first[3:]
    assert trained == []


def test_a_lost_record_is_made_again_to_judge_what_was_made_from_it(
    tmp_path: Path, trained: list[str]
) -> None:
    jobs, trainer = family(), factory.trainer(tmp_path)
    first = trainer.train(jobs)
    lose(trainer, jobs[2])
    trained.clear()
    # The same parent again, so the child that was made from it stands.
    assert trainer.train(jobs[3:], jobs[:3]) == first[3:]
    assert trained == [jobs[2]["key"]]


@pytest.mark.parametrize("content", ["{}", "[]", '{"identity": 3}'])
def test_a_manifest_without_its_keys_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "digits.json"
    path.write_text(content)
    trainer = Trainer(Store(tmp_path), {"digits": path}, Execution(device="cpu"))
    with pytest.raises(UserError, match=r"digits.json: is damaged; delete it and run"):
        trainer.lookup.inputs(factory.job(factory.settings()))


def test_a_damaged_record_that_cannot_be_moved_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    store.write("0" * 24, {"status": "done"})
    (store.folder("0" * 24) / "record.json").write_text("{")

    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(UserError, match=r"record.json.damaged: Read-only file system"):
        store.read("0" * 24)
