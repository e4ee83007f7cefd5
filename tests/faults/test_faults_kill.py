"""kill -9 of the trainer at random moments, and of whoever is writing a file."""

from __future__ import annotations

import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from factories import engine as factory
from factories import kill as kills
from factories.fault import Properties, generator, note

from cyclery.common import files
from cyclery.common.files import write_atomic, writing
from cyclery.common.logs import log_to

pytestmark = [
    pytest.mark.fault,
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),
]
SAME = "the repeated command goes on and ends with the same records and checkpoints"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return kills.undisturbed(tmp_path_factory.mktemp("undisturbed"), kills.jobs())


@pytest.mark.parametrize(
    ("workers", "times"),
    [
        (2, 6),
        pytest.param(1, 32, marks=pytest.mark.slow),
        pytest.param(2, 32, marks=pytest.mark.slow),
    ],
)
def test_the_trainer_killed_at_random_moments_ends_with_the_same_numbers(
    tmp_path: Path, undisturbed: Any, workers: int, times: int, record_property: Properties
) -> None:
    expected, seconds = undisturbed
    options = ("--resume-seconds", "0", "--workers", str(workers))
    moment = kills.within(generator(f"trainer {workers} {times}"), seconds)

    def attempt(left: int) -> kills.Toll:
        root = tmp_path / str(left)
        store = root / "store"
        toll = kills.harassed(
            lambda: factory.forked(kills.run_command, root, kills.jobs(), *options),
            kills.end_fork, store, moment, left,
        )  # fmt: skip
        assert kills.results(store, kills.jobs()) == expected
        assert not list(store.glob("*/*/.*.part"))
        assert kills.resume_points(store) == set()
        return toll

    toll = kills.again_and_again(attempt, times)
    assert toll.lost == 0
    # A busy machine may begin slower than the undisturbed run did: early kills then meet nothing.
    assert toll.halfway > times // 8
    note(record_property, "kill -9 of the trainer", SAME, toll.kills, toll.lost)


@pytest.mark.slow
def test_the_command_killed_at_random_moments_from_its_start_on(
    tmp_path: Path, record_property: Properties
) -> None:
    """A process of its own, so that a kill may also fall into its start or its imports."""
    wanted = kills.jobs(epochs=160)
    options = ("--resume-seconds", "0", "--workers", "2")
    began = time.monotonic()
    whole = tmp_path / "whole"
    assert kills.end_command(factory.start(wanted, whole, *options), None) == 0
    # Imports take most of it on a busy machine, and a fixed window would see nothing else.
    moment = kills.within(generator("command"), time.monotonic() - began)
    expected = kills.results(whole / "store", wanted)

    def attempt(left: int) -> kills.Toll:
        root = tmp_path / str(left)
        toll = kills.harassed(
            lambda: factory.start(wanted, root, *options),
            kills.end_command, root / "store", moment, left,
        )  # fmt: skip
        assert kills.results(root / "store", wanted) == expected
        return toll

    toll = kills.again_and_again(attempt, 12)
    assert toll.halfway >= 1 and toll.lost == 0
    note(record_property, "kill -9 of the trainer, imports included", SAME, toll.kills, toll.lost)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_packs_that_draw_and_teachers_that_vote_end_with_the_same_numbers(
    tmp_path: Path, workers: int, record_property: Properties
) -> None:
    wanted = kills.jobs_with_draws()
    expected, seconds = kills.undisturbed(tmp_path / "whole", wanted)
    options = ("--resume-seconds", "0", "--workers", str(workers))
    moment = kills.within(generator(f"draws {workers}"), seconds)

    def attempt(left: int) -> kills.Toll:
        root = tmp_path / str(left)
        toll = kills.harassed(
            lambda: factory.forked(kills.run_command, root, wanted, *options),
            kills.end_fork, root / "store", moment, left,
        )  # fmt: skip
        assert kills.results(root / "store", wanted) == expected
        assert kills.resume_points(root / "store") == set()
        return toll

    toll = kills.again_and_again(attempt, 8)
    assert toll.lost == 0 and toll.halfway > 2
    note(record_property, "kill -9 of packs that draw", SAME, toll.kills, toll.lost)


def cut(path: Path) -> None:
    """Die in the middle of a file."""
    with writing(path) as stream:
        stream.write(b"half")
        stream.flush()
        os.kill(os.getpid(), signal.SIGKILL)


def slow_writer(path: Path, ready: Path, go: Path) -> None:
    """Begin a file and finish it when told to."""
    with writing(path) as stream:
        stream.write(b"theirs")
        ready.touch()
        factory.wait_for(go.exists)


def test_what_a_killed_writer_left_goes_with_the_next_write_of_that_file(
    tmp_path: Path, record_property: Properties
) -> None:
    path = tmp_path / "index.html"
    write_atomic(path, "whole")
    for _ in range(3):
        process = factory.forked(cut, path)
        process.join()
        assert process.exitcode == -signal.SIGKILL
    assert path.read_text() == "whole" and len(list(tmp_path.glob(".*.part"))) == 1
    # That of a writer who lives stays, and so does that of another file.
    ready, go = tmp_path / "ready", tmp_path / "go"
    living = factory.forked(slow_writer, path, ready, go)
    factory.wait_for(ready.exists)
    other = tmp_path / ".index.html.css.abc.txt"
    other.touch()
    write_atomic(path, "ours")
    assert path.read_text() == "ours" and len(list(tmp_path.glob(".*.part"))) == 1
    go.touch()
    living.join()
    assert living.exitcode == 0
    assert path.read_text() == "theirs" and not list(tmp_path.glob(".*.part")) and other.exists()
    outcome = "the file is as it was before, and the next write clears up"
    note(record_property, "kill -9 in the middle of a file", outcome, injected=3)


def test_a_whole_file_is_its_writers_until_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, replace = tmp_path / "index.html", files.replace

    def beside_another(temporary: Path, target: Path) -> None:
        monkeypatch.setattr(files, "replace", replace)
        write_atomic(path, "theirs")
        replace(temporary, target)

    monkeypatch.setattr(files, "replace", beside_another)
    write_atomic(path, "ours")
    assert path.read_text() == "ours" and not list(tmp_path.glob(".*.part"))


def log_of_a_job(path: Path, said: Path, go: Path) -> None:
    """Log a line, wait, and log another."""
    log_to(path, False)
    logging.getLogger("cyclery").info("first")
    said.touch()
    factory.wait_for(go.exists)
    logging.getLogger("cyclery").info("last")


def test_a_job_that_outlives_snakemake_and_its_repetition_share_a_log(tmp_path: Path) -> None:
    path = tmp_path / "job.log"
    path.write_text("of an earlier job\n")
    go = [tmp_path / "go0", tmp_path / "go1"]
    jobs = []
    for i in range(2):
        jobs.append(factory.forked(log_of_a_job, path, tmp_path / f"said{i}", go[i]))
        factory.wait_for((tmp_path / f"said{i}").exists)
    for job, signal_ in zip(jobs, go, strict=True):
        signal_.touch()
        job.join()
    said = [line.split()[-1] for line in path.read_text().splitlines()]
    assert said == ["first", "last", "last"]
