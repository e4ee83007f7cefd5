"""A clock that runs backwards while runs are trained, killed and resumed."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from itertools import count
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from factories import engine as factory
from factories import kill as kills
from factories.fault import Properties, generator, note

from cyclery.common import mtimes
from cyclery.engine import train

pytestmark = [
    pytest.mark.fault,
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),
]


class Backwards(datetime):
    """Says an hour less each time."""

    looks = count()

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        """Return a time before all that it returned."""
        return datetime(2026, 1, 1, tzinfo=UTC) - timedelta(hours=next(cls.looks))


def train_with_progress(root: Path, wanted: list[dict[str, Any]]) -> None:
    """Train with a progress file, which holds the time."""
    changes = {"progress": root / "progress/job.json", "resume_seconds": 0}
    factory.trainer(root / "store", **changes).train(wanted)


def test_training_does_not_ask_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Properties
) -> None:
    wanted, store = kills.jobs(), tmp_path / "store"
    expected, seconds = kills.undisturbed(tmp_path / "whole", wanted)
    looks = count()
    monkeypatch.setattr(time, "time", lambda: 1.7e9 - 3600 * next(looks))
    monkeypatch.setattr(train, "datetime", Backwards)
    began = time.monotonic()
    starts = 0

    def begin() -> BaseProcess:
        nonlocal starts
        starts += 1
        for path in store.glob("*/*/resume.safetensors"):
            # Saved before the clock was set back.
            os.utime(path, (2e9, 2e9))
        return factory.forked(train_with_progress, tmp_path, wanted)

    moment = kills.within(generator("clock"), seconds)
    toll = kills.harassed(begin, kills.end_fork, store, moment, 3)
    elapsed = time.monotonic() - began
    assert kills.results(store, wanted) == expected and toll.lost == 0
    for job in wanted:
        record = factory.trainer(store).store.read(job["key"])
        assert record is not None and record["started"] < "2026-01-01T01"
        assert 0 < record["seconds"] < elapsed and record["images_per_second"] > 0
    outcome = "the same records and checkpoints, with true seconds; killed runs resume"
    note(record_property, "clock set back while training", outcome, starts, toll.lost)


def test_only_files_of_the_folders_themselves_are_settled(tmp_path: Path) -> None:
    folder, now = tmp_path / "records/paper", time.time()
    folder.mkdir(parents=True)
    times = {"future": now + 3600, "past": now - 3600, "soon": now + mtimes.TOLERATED / 2}
    for name, at in times.items():
        (folder / name).touch()
        os.utime(folder / name, (at, at))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.touch()
    os.utime(elsewhere, (now + 3600, now + 3600))
    (folder / "link").symlink_to(elsewhere)
    assert mtimes.reset_future([tmp_path / "records", tmp_path / "absent"]) == 1
    found = {name: (folder / name).stat().st_mtime for name in times}
    assert found["past"] == pytest.approx(now - 3600) and found["soon"] > now
    assert found["future"] < now + mtimes.TOLERATED < elsewhere.stat().st_mtime
