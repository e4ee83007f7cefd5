"""What `cyclery status` reads out of files: of jobs that live, are killed, fail or lie."""

from __future__ import annotations

import copy
import io
import json
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import pytest
from factories import project as projects
from factories.engine import data, wait_for

from cyclery.cli.main import main
from cyclery.common.errors import UserError
from cyclery.config.load import load
from cyclery.monitor.command import view
from cyclery.monitor.snapshot import STATES, Watcher, finished
from cyclery.plan.graph import Plan
from cyclery.plan.run_list import expand
from cyclery.records.job_progress import EVERY, STALE, ProgressFile, progress_file
from cyclery.records.run_store import Store

Json = dict[str, Any]
JOB = "records/one/L0-0000"
CONFIG = {"tier": "smoke", "device": "cpu"}


def project(root: Path, **base: Any) -> Path:
    tier = copy.deepcopy(projects.TIER)
    tier["base"].update(base)
    projects.write(root, tier, projects.PAPER, CONFIG)
    return root


class Clocks:
    """The reader's two clocks, moved by hand."""

    def __init__(self) -> None:
        self.wall = self.steady = 0.0

    def watcher(self, root: Path) -> Watcher:
        return Watcher(
            root, expand(Plan(load(root, {})), []),
            clock=lambda: time.time() + self.wall, steady=lambda: 1000 + self.steady,
        )  # fmt: skip


def keys(root: Path) -> list[str]:
    return [key for own in expand(Plan(load(root, {})), []).parts.values() for key in own]


def jobs_of(*names: str) -> list[Json]:
    return [{"key": key, "label": f"run {key[:4]}", "images": 1000, "settings": {"epochs": 10}}
            for key in names]  # fmt: skip


def progress_of(root: Path, *running: str, job: str = JOB, **last: Any) -> Path:
    """Write the file of a job that trains these runs, as the trainer does."""
    path = progress_file(root / "results/smoke", job)
    status = ProgressFile(path, job)
    status.expect(jobs_of(*running))
    for key in running:
        status.running(key, 0.5)
    status.write(now=True, **last)
    return path


def rendered(found: Json) -> str:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=200)
    console.print(view(found))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def counts(found: Json) -> Json:
    return {state: found["parts"][-1][state] for state in STATES if found["parts"][-1][state]}


def test_before_anything_runs_all_is_queued(tmp_path: Path) -> None:
    found = Clocks().watcher(project(tmp_path)).read()
    assert counts(found) == {"queued": 4} and found["jobs"] == [] and found["finish"] is None
    assert "No job runs." in rendered(found)


def test_a_finished_project_is_done_and_its_jobs_leave_no_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = projects.trained()
    projects.run(root, "status", "--watch")  # ends by itself, because nothing is left
    said = capsys.readouterr().out
    found = Watcher(root, expand(Plan(load(root, {})), [])).read()
    total = found["parts"][-1]["runs"]
    assert finished(found) and f"All {total} runs are done." in said and "100%" in said
    assert not [path for path in (root / "results/smoke/progress").rglob("*") if path.is_file()]


def test_runs_that_diverged_are_counted_apart(tmp_path: Path) -> None:
    root = project(tmp_path)
    store = Store(root / "results/store")
    one, two, *_ = keys(root)
    store.write(one, {"status": "done", "label": '"status": "diverged"', "views": 1})
    store.write(two, {"status": "diverged", "versions": {"a": "b" * 900}, "views": 1})
    assert counts(Clocks().watcher(root).read()) == {"done": 1, "diverged": 1, "queued": 2}


def train(root: Path) -> None:
    out = root / f"results/smoke/{JOB}.jsonl"
    os._exit(main(["--root", str(root), "train", "one/L0-0000", "--output", str(out),
                   "--workers", "2", "--log", str(root / "log.txt")]))  # fmt: skip


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_killed_trainer_gives_no_sign_of_life(tmp_path: Path) -> None:
    root = project(tmp_path, epochs=50_001, evaluations=1)
    projects.run(root, "prepare", "digits", "--log", str(root / "log.txt"))
    data()
    process = multiprocessing.get_context("fork").Process(target=train, args=(root,))
    process.start()
    clocks = Clocks()
    watcher = clocks.watcher(root)
    try:
        wait_for(lambda: counts(watcher.read()).get("running") == 4, seconds=60)
        wait_for(lambda: watcher.read()["images_per_second"] > 0, seconds=60)
        [job] = watcher.read()["jobs"]
        assert job["state"] == "running" and job["host"] and job["total"] == 4
        assert "one/main/plain s0: epoch" in rendered(watcher.read())
        assert watcher.read()["finish"] > time.time()
        path = progress_file(root / "results/smoke", JOB)
        first = json.loads(path.read_bytes())["beat"]
        wait_for(lambda: json.loads(path.read_bytes())["beat"] > first, seconds=30)
    finally:
        process.kill()
        process.join()
    # At once nobody can know.
    assert counts(watcher.read()) == {"running": 4}
    clocks.steady += STALE + 1
    # Nor does a watcher that comes later need to have seen it alive.
    clocks.wall += STALE + 1
    for each in (watcher, clocks.watcher(root)):
        found = each.read()
        assert counts(found) == {"lost": 4} and found["finish"] is None
        text = rendered(found)
        assert "no update since" in text and job["host"] in text
    # Whoever finishes those runs settles it.
    store = Store(root / "results/store")
    for key in keys(root):
        store.write(key, {"status": "done", "views": 1})
    found = watcher.read()
    assert found["jobs"] == [] and finished(found)


def test_a_clock_set_back(tmp_path: Path) -> None:
    root = project(tmp_path)
    own = keys(root)
    path = progress_of(root, own[0])
    # The reader's clock is an hour behind: the file comes from the future.
    clocks = Clocks()
    clocks.wall = -3600
    watcher = clocks.watcher(root)
    found = watcher.read()
    assert counts(found) == {"running": 1, "queued": 3}
    assert "clocks differ" in rendered(found) and "60 min ahead" in rendered(found)
    # It beats on, with times before those that it wrote earlier.
    clocks.steady += STALE + 1
    content = json.loads(path.read_bytes())
    path.write_text(json.dumps({**content, "beat": content["beat"] + 1, "time": 5.0}))
    os.utime(path, (5.0, 5.0))
    assert counts(watcher.read()) == {"running": 1, "queued": 3}
    # It stops: the watcher's own steady clock tells.
    clocks.steady += STALE + 1
    assert counts(watcher.read()) == {"lost": 1, "queued": 3}


def test_time_left_shrinks_between_two_beats(tmp_path: Path) -> None:
    root, clocks = project(tmp_path), Clocks()
    progress_of(root, keys(root)[0], left=50.0)
    watcher = clocks.watcher(root)
    before = watcher.read()["jobs"][0]["left"]
    clocks.steady += 10
    assert watcher.read()["jobs"][0]["left"] == pytest.approx(before - 10)


GOOD = json.loads(
    json.dumps(
        {
            "schema": 1, "state": "running", "error": None, "host": "h", "pid": 1,
            "slurm_job": None, "started": 0.0, "time": 0.0, "beat": 1, "every": 2.0, "ready": 0,
            "total": 1, "done": 0, "diverged": 0, "seconds": 1.0, "images": 5,
            "images_total": 10, "images_per_second": 5.0, "left": 1.0, "running": [],
        }
    )
)  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"\xff\xfe", b"[]", b"null", json.dumps(GOOD)[:-9].encode(),
        *(json.dumps({**GOOD, **change}).encode() for change in (
            {"schema": 2}, {"total": "1"}, {"beat": None}, {"images_per_second": float("nan")},
            {"running": {}}, {"running": [1]}, {"running": [{"key": "k", "share": 7}]},
            {"state": "sleeping"}, {"left": []},
        )),
    ],
)  # fmt: skip
def test_a_cut_or_foreign_file_is_named_and_ends_nothing(tmp_path: Path, content: bytes) -> None:
    root = project(tmp_path)
    path = progress_file(root / "results/smoke", JOB)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    # What a killed writer leaves is not taken for a job.
    path.with_name(f".{path.name}.part").write_bytes(b"{")
    found = Clocks().watcher(root).read()
    [job] = found["jobs"]
    assert counts(found) == {"queued": 4}
    assert str(path) in job["error"] and "cannot be read" in rendered(found)


def test_names_out_of_files_are_text_and_no_commands(tmp_path: Path) -> None:
    root = project(tmp_path)
    path = progress_file(root / "results/smoke", JOB)
    path.parent.mkdir(parents=True)
    run = {"key": "k", "share": 0.5, "label": "[red]\x1b[31m\u202elabel", "epochs": 10}
    path.write_text(json.dumps({**GOOD, "host": "[bold]h\x07", "running": [run]}))
    text = rendered(Clocks().watcher(root).read())
    assert "[bold]h?" in text and "[red]?[31m?label: epoch 5/10" in text
    assert "\x1b" not in text and "\u202e" not in text


def test_a_failure_leaves_its_last_words_until_the_job_is_repeated(tmp_path: Path) -> None:
    root = project(tmp_path)
    path = progress_file(root / "results/smoke", JOB)
    status = ProgressFile(path, JOB)
    status.expect(jobs_of(*keys(root)))
    with pytest.raises(UserError), status.lifetime():
        assert path.exists()
        raise UserError("no space on disk")
    clocks = Clocks()
    clocks.wall = 1e6
    found = clocks.watcher(root).read()
    assert counts(found) == {"failed": 4} and "failed: no space on disk" in rendered(found)
    with ProgressFile(path, JOB).lifetime():
        assert counts(Clocks().watcher(root).read()) == {"queued": 4}
    assert not path.exists()


def test_asked_to_stop_it_leaves_nothing(tmp_path: Path) -> None:
    from cyclery.common.signals import Stopped

    for error in (Stopped, KeyboardInterrupt, SystemExit):
        status = ProgressFile(tmp_path / "a.json", JOB)
        with pytest.raises(error), status.lifetime():
            assert status.path is not None and status.path.exists()
            raise error
        assert list(tmp_path.iterdir()) == []


def test_beats_are_rare_and_a_folder_that_cannot_be_written_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("cyclery.records.job_progress.time.monotonic", lambda: now[0])
    status = ProgressFile(tmp_path / "a.json", JOB)
    seen = set()
    for _ in range(1000):
        status.write()
        seen.add(json.loads((tmp_path / "a.json").read_bytes())["beat"])
        now[0] += EVERY / 100
    assert len(seen) == 10
    (tmp_path / "file").write_text("")
    ProgressFile(tmp_path / "file/a.json", JOB).write(now=True)
    ProgressFile(None).write(now=True)


def test_a_resumed_run_is_no_faster_for_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("cyclery.records.job_progress.time.monotonic", lambda: now[0])
    status = ProgressFile(tmp_path / "a.json", JOB)
    status.expect(jobs_of("k", "other"))
    status.running("k", 0.5, resumed=True)
    now[0] = 10.0
    status.running("k", 0.75)
    content = status.content()
    assert content["images"] == 750 and content["images_per_second"] == pytest.approx(25)
    assert content["left"] == pytest.approx(1250 / 25)
    # Further runs keep what is known of the first ones.
    status.expect(jobs_of("k", "third"))
    assert status.content()["images"] == 750 and status.content()["total"] == 3


def test_json_parts_and_slurm_jobs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    progress_of(root, keys(root)[0])
    projects.run(root, "status", "one.C-1", "one.main", "--json")
    found = json.loads(capsys.readouterr().out)
    assert [row["part"] for row in found["parts"]] == ["one.C-1", "one.main", "all"]
    assert found["parts"][-1]["runs"] == 4 and found["jobs"][0]["slurm_job"] == "4711"
    projects.run(root, "status")
    assert "SLURM 4711" in capsys.readouterr().out
    projects.run(root, "status", "one.nothing", expect=2)
    assert "no experiment or claim 'nothing'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--root", str(root), "status", "--watch", "0"])
    assert "must be 0.1 to 86400 seconds" in capsys.readouterr().err


def test_fifteen_thousand_cells_are_counted(tmp_path: Path) -> None:
    tier, paper = copy.deepcopy(projects.TIER), copy.deepcopy(projects.PAPER)
    tier |= {"seeds": 50, "block": 5, "cells_per_job": 1, "shard_by": "experiment"}
    arms = {"plain": {}, "fast": {"lr": 0.2}}
    projects.arms(paper).update({f"a{i}": {"lr": 0.3 + 0.001 * i} for i in range(1498)} | arms)
    projects.write(tmp_path, tier, paper, CONFIG)
    store = Store(tmp_path / "results/store")
    for key in keys(tmp_path)[:2000]:
        folder = store.folder(key)
        folder.mkdir(parents=True)
        (folder / "record.json").write_text('{\n "status": "done",\n "views": 1\n}\n')
    found = Watcher(tmp_path, expand(Plan(load(tmp_path, {})), [])).read()
    assert counts(found) == {"done": 2000, "queued": 73_000}
