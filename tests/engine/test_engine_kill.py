"""Training that is killed or told to stop, and then repeated, ends as if nothing had been."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from factories import engine as factory
from factories import kill as kills
from factories.kill import jobs, results, resume_points, run_command, running

from cyclery.cli import jobs as cli_jobs
from cyclery.cli.main import main

pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Return the results of the jobs, and the seconds they took."""
    return kills.undisturbed(tmp_path_factory.mktemp("undisturbed"), jobs())


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


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_saves_and_goes_on_later(tmp_path, undisturbed, number, workers):
    expected, seconds = undisturbed
    options = ("--workers", str(workers))
    with factory.forked_until_the_end(run_command, tmp_path, jobs(), *options) as process:
        store = factory.trainer(tmp_path / "store").store
        # The run with dropout has begun: its folder is there, its record is not.
        factory.wait_for(lambda: store.folder(jobs()[1]["key"]).exists())
        time.sleep(seconds * 0.1)
        os.kill(process.pid, number)
        process.join(30)
        assert process.exitcode == 143
    assert resume_points(tmp_path / "store")
    with factory.forked_until_the_end(run_command, tmp_path, jobs(), *options) as process:
        process.join(60)
        assert process.exitcode == 0
    assert results(tmp_path / "store", jobs()) == expected


def ignoring_ctrl_c(*arguments):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    run_command(*arguments)


@pytest.mark.parametrize("workers", [1, 2])
def test_where_ctrl_c_is_ignored_at_the_start_it_stays_so(tmp_path, workers):
    """As nohup and `&` in a script have it: the Ctrl-C is for what runs in the foreground."""
    wanted = [factory.job(factory.settings(seed=s, epochs=10**5, evaluations=1)) for s in (0, 1)]
    options = ("--workers", str(workers))
    with factory.forked_until_the_end(ignoring_ctrl_c, tmp_path, wanted, *options) as process:
        store = factory.trainer(tmp_path / "store").store
        factory.wait_for(lambda: store.folder(wanted[workers - 1]["key"]).exists())
        os.kill(process.pid, signal.SIGINT)
        process.join(1)
        assert process.exitcode is None
        process.terminate()
        process.join(30)
        assert process.exitcode == 143
    assert resume_points(tmp_path / "store")


def test_sigterm_before_anything_is_trained_is_said(tmp_path, monkeypatch, capsys):
    """While modules are imported, configuration is read or runs are looked up."""
    before = signal.getsignal(signal.SIGTERM)

    def told(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("it went on")

    monkeypatch.setattr(cli_jobs, "load_plan", told)
    log = tmp_path / "log.txt"
    code = main(["train", "one/L0-0000", "--output", "records", "--log", str(log)])
    assert "SIGTERM" in log.read_text()
    said = capsys.readouterr().err
    assert code == 143 and said.splitlines()[-1].startswith("cyclery: stopped as asked, by SIGTERM")
    assert signal.getsignal(signal.SIGTERM) is before


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
