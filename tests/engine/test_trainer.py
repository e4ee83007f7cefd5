"""The trainer: what is trained and what is not, beside whom, after what went wrong."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import engine as factory
from factories.fault import note

from cyclery.common.errors import UserError
from cyclery.common.seals import is_sealed
from cyclery.common.signals import Stopped
from cyclery.engine import devices, processes, slots
from cyclery.engine.execution import Execution
from cyclery.engine.lookup import needs
from cyclery.engine.train import Trainer
from cyclery.records.shard_files import write_records

# Python 3.12 and later warn of forking beside threads; numpy may have some that sleep.
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """Note the key of every job that is really trained, in whatever process; return a reader."""
    path = tmp_path / "trained"
    path.touch()
    for name in ("_run", "_sweep"):
        inner = getattr(Trainer, name)

        def noted(self, job, *rest, _inner=inner):
            with path.open("a") as stream:
                stream.write(f"{job['key']}\n")
            return _inner(self, job, *rest)

        monkeypatch.setattr(Trainer, name, noted)

    def read():
        found = path.read_text().split()
        path.write_text("")
        return found

    return read


def keys(*jobs):
    return [job["key"] for job in jobs]


def varied():
    """Return four jobs that differ in all that could rub off on a neighbour."""
    return [
        factory.job(factory.settings(seed=3)),
        factory.job(factory.settings("cyclical_focal", model="wrn")),
        factory.job(factory.everything("supervised", optimiser="adam")),
        factory.job(factory.settings(model="stochastic_depth"), keep=True),
    ]


def range_job(seed=0):
    lr = {"kind": "linear", "start": 0.0, "end": 5.0}
    settings = factory.settings(lr=lr, seed=seed, evaluations=10, epochs=3)
    return factory.job(settings, kind="range")


def ranged_job(tests):
    lr = {"kind": "triangular", "low": "range.base", "high": "range.max", "cycles": 1}
    settings = {**factory.settings(lr=lr), "range": "some range test"}
    return factory.job(settings, range_runs=keys(*tests))


def chain():
    """Return a parent, its child and its grandchild."""
    parent = factory.job(factory.settings(seed=1), keep=True)
    jobs = [parent]
    for lr in (0.05, 0.01):
        settings = factory.settings(lr=lr)
        settings |= {
            "init": "start", "init_share": 1.0, "parents": {"start": [jobs[-1]["key"]]},
        }  # fmt: skip
        jobs.append(factory.job(settings, keep=True))
    return jobs


# Neighbours.


def test_results_do_not_depend_on_neighbours(tmp_path):
    jobs = varied()
    alone = [factory.trainer(tmp_path / f"alone{i}").train([job])[0] for i, job in enumerate(jobs)]
    expected = [factory.figures(record) for record in alone]
    assert all(record["final"]["test_accuracy"] > 0.1 for record in alone)
    for name, workers, order in (
        ("together", 1, jobs), ("two workers", 2, jobs), ("reversed", 1, jobs[::-1]),
        ("reversed, two workers", 2, jobs[::-1]),
    ):  # fmt: skip
        records = factory.trainer(tmp_path / name, workers=workers).train(order)
        found = {record["key"]: factory.figures(record) for record in records}
        assert [found[job["key"]] for job in jobs] == expected, name


def test_a_record_holds_what_the_report_reads(tmp_path):
    job = factory.job(factory.settings(), keep=True)
    trainer = factory.trainer(tmp_path, commit="abc")
    (record,) = trainer.train([job])
    assert is_sealed(record)
    assert record == trainer.store.read(job["key"])
    assert record["settings"] == job["settings"]
    assert (record["schema"], record["status"], record["commit"]) == (1, "done", "abc")
    assert (record["images"], record["updates"]) == (600, 12)
    assert record["seconds"] > 0
    assert record["images_per_second"] == pytest.approx(600 / record["seconds"])
    assert set(record["versions"]) == {"cyclery", "numpy", "python", "torch"}
    manifest = json.loads(factory.manifest().read_text())
    assert record["inputs"]["dataset"] == manifest["content_sha256"]
    assert len(record["final"]["test_class_accuracy"]) == 10
    assert not trainer.store.resume(job["key"]).exists()


# What is trained again, and what is not.


def test_finished_runs_are_not_trained_again(tmp_path, trained):
    jobs = varied()
    first = factory.trainer(tmp_path).train(jobs[:2])
    assert trained() == keys(*jobs[:2])
    again = factory.trainer(tmp_path).train([jobs[2], jobs[1], jobs[0], jobs[1]])
    assert trained() == keys(jobs[2])
    assert [again[2], again[1], again[3]] == [first[0], first[1], first[1]]
    factory.trainer(tmp_path, workers=2).train(jobs[:3])
    assert trained() == []


def test_looking_up_finished_runs_needs_no_torch(tmp_path):
    jobs = varied()[:2]
    factory.trainer(tmp_path / "store").train(jobs)
    code = (
        "import sys, cyclery.engine.__main__ as main; code = main.main(); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    source = Path(sys.modules["cyclery"].__file__ or "").parents[1]
    subprocess.run(
        [sys.executable, "-c", code, tmp_path / "jobs.json", "--store", tmp_path / "store",
         "--data", factory.manifest().parent],
        env={**os.environ, "PYTHONPATH": str(source)}, check=True,
    )  # fmt: skip


def test_a_checkpoint_has_the_same_bytes_when_its_run_is_trained_again(tmp_path, trained):
    job = factory.job(factory.settings(model="wrn"), keep=True)
    trainer = factory.trainer(tmp_path)
    (first,) = trainer.train([job])
    path = trainer.store.checkpoint(job["key"])
    content = path.read_bytes()
    path.unlink()
    (second,) = trainer.train([job])
    assert trained() == keys(job, job)
    assert path.read_bytes() == content
    assert factory.figures(second) == factory.figures(first)


def test_a_run_whose_weights_are_wanted_later_is_trained_again(tmp_path, trained):
    job = factory.job(factory.settings())
    trainer = factory.trainer(tmp_path)
    (first,) = trainer.train([job])
    assert not trainer.store.checkpoint(job["key"]).exists()
    (second,) = trainer.train([{**job, "keep": True}])
    assert trained() == keys(job, job)
    assert trainer.store.checkpoint(job["key"]).exists()
    assert (second["curve"], second["final"]) == (first["curve"], first["final"])


def test_a_damaged_record_is_set_aside_and_trained_again(tmp_path, trained, caplog):
    job = factory.job(factory.settings())
    trainer = factory.trainer(tmp_path)
    (first,) = trainer.train([job])
    path = trainer.store.folder(job["key"]) / "record.json"
    path.write_text(path.read_text().replace('"test_accuracy": 0.', '"test_accuracy": 0.9'))
    (second,) = trainer.train([job])
    assert trained() == keys(job, job)
    assert factory.figures(second) == factory.figures(first)
    assert path.with_name("record.json.damaged").exists()
    assert "cut or altered" in caplog.text


# Chains and range tests.


@pytest.mark.parametrize("workers", [1, 2])
def test_a_list_may_hold_parents_and_range_tests_in_any_order(tmp_path, workers, trained):
    tests = [range_job(0), range_job(1)]
    jobs = [*chain()[::-1], ranged_job(tests), *tests]
    records = factory.trainer(tmp_path, workers=workers).train(jobs)
    assert keys(*records) == keys(*jobs)
    assert sorted(trained()) == sorted(keys(*jobs))
    assert records[0]["inputs"]["parents"]["start"][0]["sha256"] == records[1]["checkpoint_sha256"]
    bounds = [test["bounds"] for test in records[4:]]
    found = records[3]["inputs"]["range"]
    for name in ("base", "max"):
        expected = math.sqrt(bounds[0][name] * bounds[1][name])
        assert found[name] == pytest.approx(expected)


def test_another_checkpoint_of_the_parent_makes_a_child_stale(tmp_path, trained):
    parent, child, grandchild = chain()
    trainer = factory.trainer(tmp_path)
    first = trainer.train([parent, child, grandchild])
    trained()
    # The same parent, trained elsewhere: other last bits.
    other = factory.trainer(tmp_path / "elsewhere")
    (record,) = other.train([factory.job(factory.settings(seed=2), keep=True)])
    path = trainer.store.checkpoint(parent["key"])
    path.write_bytes(other.store.checkpoint(record["key"]).read_bytes())
    digest = record["checkpoint_sha256"]
    trainer.store.write(parent["key"], {**first[0], "checkpoint_sha256": digest})
    trained()
    second = trainer.train([grandchild, child, parent])[::-1]
    assert trained() == keys(child, grandchild)
    assert second[1]["inputs"]["parents"]["start"][0]["sha256"] == digest
    assert second[1]["checkpoint_sha256"] != first[1]["checkpoint_sha256"]


def test_a_lost_parent_is_trained_again_and_its_children_are_not(tmp_path, trained):
    jobs = chain()
    trainer = factory.trainer(tmp_path)
    first = trainer.train(jobs)
    trained()
    trainer.store.checkpoint(jobs[0]["key"]).unlink()
    second = trainer.train(jobs)
    assert trained() == keys(jobs[0])
    assert second[1:] == first[1:]
    # The same where the record is gone too.
    for path in trainer.store.folder(jobs[0]["key"]).iterdir():
        path.unlink()
    assert trainer.train(jobs)[1:] == first[1:]
    assert trained() == keys(jobs[0])


def test_jobs_on_a_gpu_take_turns(tmp_path, monkeypatch):
    """Without a GPU: what torch says of one is made up, the slots are real."""
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: chosen.append(device.index))
    monkeypatch.setattr(slots, "folder", lambda: tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def taken(*gpus):
        return devices.taken(Execution(device="cuda", gpus=gpus))

    with taken(0, 2) as first, taken(0, 2) as second:
        assert [first, second] == [torch.device("cuda", 0), torch.device("cuda", 2)]
        monkeypatch.setattr(processes, "_STOP", [15])
        with pytest.raises(Stopped), taken(0, 2):
            pass
        monkeypatch.setattr(processes, "_STOP", [])
    with taken(0, 2) as third:
        assert third.index == 0
    assert chosen == [0, 2, 0]
    with (
        pytest.raises(UserError, match="gpus"),
        taken(7),
    ):
        pass


def test_a_missing_parent_is_named(tmp_path):
    parent, child, _ = chain()
    trainer = factory.trainer(tmp_path)
    with pytest.raises(UserError, match=r"its parent 'start' .* has no finished checkpoint"):
        trainer.train([child])
    trainer.train([{**parent, "keep": False}])
    with pytest.raises(UserError, match="train it first"):
        trainer.train([child])


def test_a_missing_range_test_is_named(tmp_path):
    tests = [range_job(0), range_job(1)]
    trainer = factory.trainer(tmp_path)
    trainer.train(tests[:1])
    with pytest.raises(UserError, match=f"range test .run {tests[1]['key']}. is not in the run"):
        trainer.train([ranged_job(tests)])


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cyclery prepare digits"), ("{", "cyclery prepare digits"),
     ('{"identity": "x", "content_sha256": "y"}', "was prepared from other files")],
)  # fmt: skip
def test_a_bad_manifest_is_named_with_the_remedy(tmp_path, content, message):
    path, job = tmp_path / "digits.json", factory.job(factory.settings())
    if content:
        path.write_text(content)
    trainer = Trainer(factory.trainer(tmp_path).store, {"digits": path}, Execution(device="cpu"))
    with pytest.raises(UserError, match=message) as caught:
        trainer.lookup.inputs(job)
    assert str(path) in str(caught.value)
    with pytest.raises(UserError, match="prepare the dataset") as caught:
        trainer.train([job])
    assert str(path) in str(caught.value)


# Divergence.


def test_a_diverged_run_is_recorded_and_the_others_go_on(tmp_path, trained):
    wild = factory.job(factory.settings(lr=1e6, epochs=20), keep=True)
    start = {"init": "start", "init_share": 1.0, "parents": {"start": [wild["key"]]}}
    settings = factory.settings() | start
    child, tame = factory.job(settings), factory.job(factory.settings())
    trainer = factory.trainer(tmp_path)
    records = trainer.train([wild, child, tame])
    assert [record["status"] for record in records] == ["diverged", "diverged", "done"]
    found = records[0]
    assert 0 < found["diverged_step"] < 80
    assert found["final"] == {}
    assert 0 < found["updates"] < 80
    assert found["images"] == 50 * found["updates"]
    assert records[1]["updates"] == 0
    assert not trainer.store.checkpoint(wild["key"]).exists()
    # Finite JSON only, and no second try.
    json.dumps(records, allow_nan=False)
    assert sorted(trained()) == sorted(keys(wild, tame))
    assert trainer.train([wild, child, tame]) == records
    assert trained() == []


# Several processes.


def train_and_exit(root, jobs, **options):
    factory.trainer(root, **options).train(jobs)


def train_and_say(root, jobs, path):
    """Write what a job of the graph writes."""
    write_records(path, factory.trainer(root).train(jobs))


@pytest.mark.fault
def test_a_run_that_two_processes_want_is_trained_once(tmp_path, trained, record_property):
    jobs = [factory.job(factory.settings(seed=s, epochs=20)) for s in range(4)]
    said = [tmp_path / "first", tmp_path / "second"]
    processes = [
        factory.forked(train_and_say, tmp_path / "store", order, path)
        for order, path in zip((jobs, jobs[::-1]), said, strict=True)
    ]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    often = trained()
    assert sorted(often) == sorted(keys(*jobs))
    first, second = (path.read_text().splitlines() for path in said)
    assert first == second[::-1] and len(first) == len(jobs)
    assert all(factory.trainer(tmp_path / "store").lookup.finished(job) for job in jobs)
    outcome = "every run is trained once, and both get the same records"
    note(record_property, "two trainers on the same runs", outcome, lost=len(often) - len(jobs))


def test_a_locked_run_comes_last_and_is_waited_for(tmp_path, trained):
    locked, free = (factory.job(factory.settings(seed=s)) for s in (0, 1))
    store = factory.trainer(tmp_path / "store").store
    with factory.locked(store, locked["key"]):
        process = factory.forked(train_and_exit, store.root, [locked, free])
        factory.wait_for(lambda: store.read(free["key"]))
        time.sleep(0.3)
        assert process.is_alive()
        assert store.read(locked["key"]) is None
    process.join(20)
    assert process.exitcode == 0
    assert trained() == keys(free, locked)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_process_that_waits_can_be_stopped(tmp_path, workers):
    waited, done = (factory.job(factory.settings(seed=s)) for s in (0, 1))
    store = factory.trainer(tmp_path).store
    with factory.locked(store, waited["key"]):
        process = factory.forked(train_or_143, tmp_path, [waited, done], workers)
        factory.wait_for(lambda: store.read(done["key"]))
        time.sleep(0.3)
        process.terminate()
        process.join(10)
        assert process.exitcode == 143


def train_or_143(root, jobs, workers):
    try:
        factory.trainer(root, workers=workers).train(jobs)
    except Stopped:
        sys.exit(143)


def test_a_worker_that_is_killed_is_reported(tmp_path, monkeypatch):
    def die(self, job, *rest):
        os.kill(os.getpid(), 9)

    monkeypatch.setattr(Trainer, "_run", die)
    with pytest.raises(UserError, match="out of memory"):
        factory.trainer(tmp_path, workers=2).train([factory.job(factory.settings())])


# Small things.


def test_records_are_written_one_a_line(tmp_path):
    write_records(tmp_path / "records.jsonl", [{"a": 1}, {"b": [0.5]}])
    lines = (tmp_path / "records.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"a": 1}, {"b": [0.5]}]


def test_a_jobs_needs_are_its_parents_and_range_tests():
    parent, child, _ = chain()
    assert needs(parent) == set()
    assert needs(child) == {parent["key"]}
    assert needs(ranged_job([range_job()])) == {range_job()["key"]}


def test_a_gpu_that_is_not_there_is_named(tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match="torch sees no GPU"):
        factory.trainer(tmp_path, device="cuda").train([factory.job(factory.settings())])


def test_a_network_that_cannot_be_compiled_is_one_clear_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo.exc import TorchDynamoException

    def fails(run: Any, size: int) -> None:
        raise TorchDynamoException("Cannot find a working triton installation.\nMore")

    monkeypatch.setattr("cyclery.engine.run.Run.step", fails)
    job = factory.job({**factory.settings(), "compile": True})
    with pytest.raises(UserError, match=r"compile is true.*working triton installation\. Mend"):
        factory.trainer(tmp_path).train([job])
    # Where nothing is compiled it is a defect, and told as one.
    with pytest.raises(UserError, match="TorchDynamoException: Cannot find"):
        factory.trainer(tmp_path).train([factory.job(factory.settings())])
