"""Faults of whole reproductions: Snakemake killed, alone or with all that it started; two at once;
a clock that was set back."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from factories import kill as kills
from factories.engine import wait_for
from factories.fault import Properties, generator, note
from factories.graph import Copy

pytestmark = [pytest.mark.fault, pytest.mark.timeout(1200)]
DAY = 86_400
Folder = pytest.TempPathFactory


def tiny(folder: Path) -> Copy:
    """Return a graph of two levels that takes a few seconds to train, its target the report."""
    folder.mkdir(exist_ok=True)
    copy = Copy(folder)
    copy.tier["base"]["epochs"] = 40
    main, other = (copy.paper["experiments"][name]["arms"] for name in ("main", "other"))
    del main["smooth"]
    method = {"name": "kd", "temperature": 2}
    other["taught"] = {"method": method, "parents": {"teacher": "plain"}}
    copy.write("config/config.yaml", {"tier": "smoke", "device": "cpu", "resume_seconds": 0})
    copy.save()
    return copy


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: Folder) -> tuple[Copy, float]:
    """Return a finished reproduction, and the seconds that it took."""
    copy, began = tiny(tmp_path_factory.mktemp("calm")), time.monotonic()
    copy.snakemake("report")
    assert copy.trained() == 8
    return copy, time.monotonic() - began


@pytest.fixture(scope="module")
def calm(undisturbed: tuple[Copy, float]) -> Copy:
    return undisturbed[0]


def untimed(data: Any) -> Any:
    """Return evidence without what says how long it took, in figures or in words."""
    if isinstance(data, dict):
        timed = ("seconds", "seconds_to_settle", "reason")
        return {key: untimed(value) for key, value in data.items() if key not in timed}
    return [untimed(one) for one in data] if isinstance(data, list) else data


def same(copy: Copy, calm: Copy, more: bool = False) -> None:
    """Assert that a reproduction is whole, equals an undisturbed one and left no litter.

    ``more``: something else was made too.
    """
    assert copy.figures() == calm.figures()
    assert weights(copy) == weights(calm) != {}
    assert untimed(copy.evidence()) == untimed(calm.evidence())
    made, expected = (outputs(each.root / "results/smoke") for each in (copy, calm))
    if more:
        made &= expected
    assert made == expected
    assert not list(copy.root.rglob(".*.part"))
    assert not kills.resume_points(copy.root / "results/store")


def weights(copy: Copy) -> dict[str, bytes]:
    """Return the checkpoints in the run store."""
    found = (copy.root / "results/store").rglob("checkpoint.safetensors")
    return {path.parent.name: path.read_bytes() for path in found}


def outputs(folder: Path) -> set[str]:
    """Return the names of all that is made for people, and of the marks of jobs that run."""
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] not in ("logs", "benchmarks")
    }


class Disturbed:
    """A reproduction that is killed: ``alone`` Snakemake's own process, or all that it started."""

    def __init__(self, folder: Path, alone: bool) -> None:
        self.copy, self.alone = tiny(folder), alone
        self.store = folder / "results/store"
        self.said = folder / "said.txt"
        self.leaders: list[int] = []

    def begin(self) -> subprocess.Popen[bytes]:
        # As Snakemake asks its user to, where it was killed after it had locked the folder.
        if any((self.copy.root / ".snakemake/locks").glob("*")):
            self.copy.snakemake("--unlock", "report")
        command, environment = self.copy.command("report")
        with self.said.open("wb") as said:
            process = subprocess.Popen(
                command, cwd=self.copy.root, env=environment, start_new_session=True,
                stdout=said, stderr=said,
            )  # fmt: skip
        self.leaders.append(process.pid)
        return process

    def end(self, process: subprocess.Popen[bytes], seconds: float | None) -> int | None:
        try:
            code = process.wait(300 if seconds is None else seconds)
            assert code == 0, self.said.read_text()[-4000:]
            return code
        except subprocess.TimeoutExpired:
            assert seconds is not None, "it does not end"
        if self.alone:
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
            wait_for(lambda: not kills.group(process.pid))
        process.wait()
        return None

    def stop(self) -> None:
        """End what is left of it, after a failure."""
        for pid in (pid for leader in self.leaders for pid in kills.group(leader)):
            os.kill(pid, signal.SIGKILL)

    def suffer(self, moment: Callable[[], float], times: int, calm: Copy) -> kills.Toll:
        """Be killed at most so often, complete, and compare."""
        try:
            toll = kills.harassed(self.begin, self.end, self.store, moment, times)
            before = kills.finished(self.store)
            # Jobs of a killed Snakemake may still be at their last lines.
            wait_for(lambda: not any(map(kills.group, self.leaders)), seconds=60)
        finally:
            self.stop()
        toll.lost += kills.changed(self.store, before)
        same(self.copy, calm)
        assert "Nothing to be done" in self.copy.snakemake("report")
        return toll


@pytest.mark.parametrize(
    ("alone", "lanes", "times"),
    [
        (False, 1, 1),
        pytest.param(False, 2, 8, marks=pytest.mark.slow),
        pytest.param(True, 2, 8, marks=pytest.mark.slow),
    ],
)
def test_snakemake_killed_at_random_moments_loses_nothing(
    tmp_path: Path, undisturbed: tuple[Copy, float], alone: bool, lanes: int, times: int,
    record_property: Properties,
) -> None:  # fmt: skip
    calm, seconds = undisturbed

    def lane(number: int) -> kills.Toll:
        # From the parsing of the Snakefile to about the last training of a graph begun anew.
        moment = kills.within(generator(f"snakemake {alone} {times} {number}"), 0.6 * seconds)
        return kills.again_and_again(
            lambda left: Disturbed(tmp_path / f"{number}-{left}", alone).suffer(moment, left, calm),
            times,
        )

    with ThreadPoolExecutor(lanes) as pool:
        tolls = list(pool.map(lane, range(lanes)))
    toll = sum(tolls, kills.Toll())
    assert toll.kills == lanes * times and toll.lost == 0
    if lanes > 1:
        # Some kills found finished runs, which they could have cost.
        assert toll.later > 0
    what = "Snakemake alone; its jobs live on" if alone else "snakemake and all that it started"
    outcome = (
        "after `--unlock` the same command goes on; records, weights and evidence are the same"
    )
    note(record_property, f"kill -9 of {what}", outcome, toll.kills, toll.lost)


def together(*begun: tuple[Copy, str]) -> list[tuple[int, str]]:
    """Run snakemake for several targets at once; return exit codes and what was said, sorted."""
    pair = []
    for copy, target in begun:
        command, environment = copy.command(target)
        pair.append(
            subprocess.Popen(
                command, cwd=copy.root, env=environment, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )
        )  # fmt: skip
    said = [process.communicate(timeout=300)[0] for process in pair]
    return sorted((process.returncode, text) for process, text in zip(pair, said, strict=True))


@pytest.mark.parametrize(
    "targets",
    [("report", "report"), pytest.param(("tiny.T-1", "tiny.T-2"), marks=pytest.mark.slow)],
)
def test_two_snakemakes_at_once_in_one_folder(
    tmp_path: Path, calm: Copy, targets: tuple[str, str], record_property: Properties
) -> None:
    copy = tiny(tmp_path)
    (first, _), (second, said) = together(*((copy, target) for target in targets))
    # One works; the other is told that the folder is locked, or that nothing is left to do.
    assert first == 0
    if second:
        assert "cannot be locked" in said and "--unlock" in said and "Traceback" not in said
    before = kills.finished(copy.root / "results/store")
    copy.snakemake("report")
    lost = kills.changed(copy.root / "results/store", before)
    assert lost == 0
    same(copy, calm, more=targets[0] != "report")
    outcome = (
        "one works; the other is told that the folder is locked, or finds it done; "
        "repeated, it completes"
    )
    note(record_property, "two snakemake at once in one folder", outcome, lost=lost)


@pytest.mark.slow
def test_two_working_copies_with_one_run_store(
    tmp_path: Path, calm: Copy, record_property: Properties
) -> None:
    pair = [tiny(tmp_path / name) for name in ("a", "b")]
    (tmp_path / "store").mkdir()
    for copy in pair:
        (copy.root / "results").mkdir()
        (copy.root / "results/store").symlink_to(tmp_path / "store")
    codes = [code for code, _ in together(*((copy, "report") for copy in pair))]
    assert codes == [0, 0]
    found = [path.parent.name for path in (tmp_path / "store").rglob("record.json")]
    trained = sum(copy.trained() for copy in pair)
    sweeps = len(found) - 8
    assert trained == 8 and sweeps > 0
    records = [copy.records("tiny", level) for copy in pair for level in ("L0", "L1")]
    assert records[:2] == records[2:]
    for copy in pair:
        assert untimed(copy.evidence()) == untimed(calm.evidence())
    outcome = "both complete with the same records; every run was trained once"
    note(record_property, "two snakemake of two working copies, one run store", outcome,
         lost=trained - 8)  # fmt: skip


def shift(folder: Path, seconds: float) -> int:
    """Move the times of all files of a folder; return how many."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    now = time.time()
    for path in paths:
        os.utime(path, (now + seconds, now + seconds))
    return len(paths)


@pytest.fixture
def done(tmp_path: Path, calm: Copy) -> Copy:
    """Return a copy of the finished reproduction."""
    copy = tiny(tmp_path / "copy")
    for name in ("results", ".snakemake"):
        shutil.copytree(calm.root / name, copy.root / name, dirs_exist_ok=True)
    copy.forget_logs()
    return copy


@pytest.mark.slow
def test_inputs_from_the_future_and_outputs_from_the_past_repeat_nothing(
    done: Copy, record_property: Properties
) -> None:
    results, orders = done.root / "results", 0
    first, last = ("data", "store", "smoke/lr-range", "smoke/records"), ("smoke/evidence",)
    for future, past in ((first, last), (last, first), ((".",), ()), ((), (".",))):
        for seconds, names in ((DAY, future), (-DAY, past)):
            for name in names:
                assert shift(results / name, seconds)
        orders += 1
        assert "Nothing to be done" in done.snakemake("report")
    for name in ("data/digits.json", "smoke/lr-range/tiny.jsonl"):
        path = results / name
        assert path.stat().st_mtime < time.time()
        os.utime(path, (time.time() + DAY,) * 2)
        orders += 1
        assert "Nothing to be done" in done.snakemake("report")
    outcome = "nothing to be done: files are compared by content where their times disagree"
    note(record_property, "clock set back after a reproduction", outcome, orders, done.trained())


@pytest.mark.slow
def test_work_after_the_clock_was_set_back_trains_only_what_is_new(
    done: Copy, record_property: Properties
) -> None:
    """All that there is comes from the future, and what is made now seems older than it."""
    assert shift(done.root / "results", DAY)
    store = done.root / "results/store"
    before = kills.finished(store)
    done.paper["experiments"]["other"]["arms"]["fast"]["lr"] = 0.3
    done.save()
    said = done.snakemake("report")
    assert "were from the future, as after a clock was set back" in said
    assert done.trained() == 2
    # At most cheap jobs are repeated, and none for ever.
    done.forget_logs()
    done.snakemake("report")
    assert done.trained() == 0
    assert "Nothing to be done" in done.snakemake("report")
    lost = kills.changed(store, before)
    assert lost == 0
    outcome = "only the runs that a changed setting touches are trained"
    note(record_property, "clock set back between two reproductions", outcome, lost=lost)
