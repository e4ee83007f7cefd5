"""Training that is killed or told to stop, and then repeated, ends as if nothing had been."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import engine_factory as factory
import pytest

from cyclery.engine import __main__ as command

pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


def jobs(epochs=40):
    """Return a run with dropout, a parent and its child, and a range test."""
    parent = factory.job(factory.everything("supervised", epochs=epochs), keep=True)
    settings = factory.everything("cyclical_focal", epochs=epochs)
    settings |= {"init": "start", "init_share": 1.0, "parents": {"start": [parent["key"]]}}
    sweep = {"kind": "linear", "start": 0.0, "end": 3.0}
    return [
        factory.job(factory.settings(lr=sweep, evaluations=10), kind="range"),
        factory.job(factory.settings(model="wrn", epochs=epochs // 4), keep=True),
        parent,
        factory.job(settings, keep=True),
    ]


def results(root, wanted):
    """Return what must be the same, checkpoints' bytes included."""
    trainer = factory.trainer(root)
    found = []
    for job in wanted:
        record = trainer.lookup.finished(job)
        assert record is not None
        bounds = record.get("bounds")
        weights = trainer.store.checkpoint(job["key"])
        content = weights.read_bytes() if job["keep"] else None
        found.append((factory.figures(record), bounds, content))
    return found


def run_command(root, wanted, *options):
    """Run the command in this process, which has torch already."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "jobs.json").write_text(json.dumps(wanted))
    sys.argv = ["cyclery.engine", str(root / "jobs.json"), "--store", str(root / "store"),
                "--data", str(factory.manifest().parent), "--device", "cpu", *options]  # fmt: skip
    sys.exit(command.main())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Return the results of the jobs, and the seconds they took."""
    root = tmp_path_factory.mktemp("undisturbed")
    began = time.monotonic()
    factory.trainer(root).train(jobs())
    return results(root, jobs()), time.monotonic() - began


def resume_points(store):
    return {path.parent.name for path in store.glob("*/*/resume.safetensors")}


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_three_times_it_ends_with_the_same_numbers(tmp_path, undisturbed, workers):
    expected, seconds = undisturbed
    generator, halfway, store = random.Random(workers), 0, tmp_path / "store"
    options = ("--resume-seconds", "0", "--workers", str(workers))
    for _ in range(3):
        process = factory.forked(run_command, tmp_path, jobs(), *options)
        factory.wait_for(lambda p=process: resume_points(store) or not p.is_alive())
        time.sleep(seconds * generator.uniform(0, 0.25))
        process.kill()
        process.join()
        halfway += bool(resume_points(store))
    assert halfway > 0
    process = factory.forked(run_command, tmp_path, jobs(), *options)
    process.join(60)
    assert process.exitcode == 0
    assert results(store, jobs()) == expected
    assert not list(store.glob("*/*/.*.part"))
    assert resume_points(store) == set()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends processes with their parent")
def test_workers_end_with_their_parent(tmp_path):
    wanted = [factory.job(factory.settings(seed=s, epochs=10**5, evaluations=1)) for s in (0, 1)]
    process = factory.forked(run_command, tmp_path, wanted, "--workers", "2")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    store = factory.trainer(tmp_path / "store").store
    factory.wait_for(lambda: all(store.folder(job["key"]).exists() for job in wanted))
    workers = children.read_text().split()
    assert len(workers) == 2
    process.kill()
    process.join()
    try:
        factory.wait_for(lambda: not any(running(pid) for pid in workers), seconds=5)
    finally:
        for pid in filter(running, workers):
            os.kill(int(pid), signal.SIGKILL)
    with store.lock(wanted[0]["key"], wait=False) as held:
        assert held


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_saves_and_goes_on_later(tmp_path, undisturbed, number, workers):
    expected, seconds = undisturbed
    options = ("--workers", str(workers))
    process = factory.forked(run_command, tmp_path, jobs(), *options)
    store = factory.trainer(tmp_path / "store").store
    # The run with dropout has begun: its folder is there, its record is not.
    factory.wait_for(lambda: store.folder(jobs()[1]["key"]).exists())
    time.sleep(seconds * 0.1)
    os.kill(process.pid, number)
    process.join(30)
    assert process.exitcode == 143
    assert resume_points(tmp_path / "store")
    process = factory.forked(run_command, tmp_path, jobs(), *options)
    process.join(60)
    assert process.exitcode == 0
    assert results(tmp_path / "store", jobs()) == expected


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_command_killed_at_ten_random_moments(tmp_path, undisturbed, workers):
    """The real command, so that a kill may also fall into its start or its imports."""
    wanted = jobs(epochs=400)
    factory.trainer(tmp_path / "whole").train(wanted)
    options = ("--resume-seconds", "0", "--workers", str(workers))
    generator, halfway = random.Random(7), 0
    for _ in range(10):
        process = factory.start(wanted, tmp_path, *options)
        time.sleep(generator.uniform(0.5, 5.0))
        process.kill()
        process.communicate()
        halfway += bool(resume_points(tmp_path / "store"))
    assert halfway >= 3
    process = factory.start(wanted, tmp_path, *options)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert results(tmp_path / "store", wanted) == results(tmp_path / "whole", wanted)


@pytest.mark.slow
def test_a_command_that_is_terminated_says_143_and_resumes(tmp_path, undisturbed):
    expected, _ = undisturbed
    process = factory.start(jobs(epochs=40), tmp_path)
    factory.wait_for(lambda: list((tmp_path / "store").glob("*/*/lock")))
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143
    process = factory.start(jobs(epochs=40), tmp_path)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert results(tmp_path / "store", jobs()) == expected


def test_the_command_says_what_is_wrong_in_one_line(tmp_path, capsys):
    wanted = factory.job(factory.settings() | {"parents": {"start": ["ab" * 12]}})
    with pytest.raises(SystemExit) as caught:
        run_command(tmp_path, [wanted])
    assert caught.value.code == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("cyclery: ")
    assert "its parent 'start'" in message
