"""The trainer beside others: runs that two want, locks, stops, killed workers, turns on a GPU."""

from __future__ import annotations

import os
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch
from factories import engine as factory
from factories.fault import note
from factories.trainer import keys, note_trained

from cyclery.common.errors import UserError
from cyclery.common.signals import Stopped
from cyclery.engine import devices, processes, slots
from cyclery.engine.execution import Execution
from cyclery.engine.train import Trainer
from cyclery.records.shard_files import write_records

trained = pytest.fixture(note_trained)

# Python 3.12 and later warn of forking beside threads; numpy may have some that sleep.
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


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
    given = (tmp_path, [waited, done], workers)
    with (
        factory.locked(store, waited["key"]),
        factory.forked_until_the_end(train_or_143, *given) as process,
    ):
        factory.wait_for(lambda: store.read(done["key"]))
        time.sleep(0.3)
        process.terminate()
        process.join(10)
        assert process.exitcode == 143


def test_a_signal_that_comes_while_workers_start_stops_them(tmp_path):
    jobs = [factory.job(factory.settings(seed=s, epochs=10**5, evaluations=1)) for s in (0, 1)]
    with factory.forked_until_the_end(stopped_at_the_start, tmp_path, jobs) as process:
        process.join(30)
        assert process.exitcode == 143


def stopped_at_the_start(root, jobs):
    submit = ProcessPoolExecutor.submit

    def signalled(self, *given):
        future = submit(self, *given)
        os.kill(os.getpid(), signal.SIGTERM)
        return future

    ProcessPoolExecutor.submit = signalled
    train_or_143(root, jobs, 2)


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
