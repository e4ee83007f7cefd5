"""What the run store or the data folder has lost, or holds damaged, is made again or named."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import engine_factory as factory
import pytest

from cyclery.engine.train import Trainer
from cyclery.errors import UserError
from cyclery.store import Store

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
    trainer = Trainer(Store(tmp_path), {"digits": path}, device="cpu")
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
