"""Jobs for a trainer, and which of them it really trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cyclery.engine.train import Trainer
from factories import engine as factory

Json = dict[str, Any]


def keys(*jobs: Json) -> list[str]:
    """Return the run keys of jobs."""
    return [job["key"] for job in jobs]


def varied() -> list[Json]:
    """Return four jobs that differ in all that could rub off on a neighbour."""
    return [
        factory.job(factory.settings(seed=3)),
        factory.job(factory.settings("cyclical_focal", model="wrn")),
        factory.job(factory.everything("supervised", optimiser="adam")),
        factory.job(factory.settings(model="stochastic_depth"), keep=True),
    ]


def range_job(seed: int = 0) -> Json:
    """Return the job of a range test."""
    lr = {"kind": "linear", "start": 0.0, "end": 5.0}
    settings = factory.settings(lr=lr, seed=seed, evaluations=10, epochs=3)
    return factory.job(settings, kind="range")


def ranged_job(tests: list[Json]) -> Json:
    """Return a job whose learning rates these range tests find."""
    lr = {"kind": "triangular", "low": "range.base", "high": "range.max", "cycles": 1}
    settings = {**factory.settings(lr=lr), "range": "some range test"}
    return factory.job(settings, range_runs=keys(*tests))


def chain() -> list[Json]:
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


def note_trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], list[str]]:
    """Note the key of every job that is really trained, in whatever process; return a reader."""
    path = tmp_path / "trained"
    path.touch()
    for name in ("_run", "_sweep"):
        inner = getattr(Trainer, name)

        def noted(self: Trainer, job: Json, *rest: Any, _inner: Any = inner) -> Any:
            with path.open("a") as stream:
                stream.write(f"{job['key']}\n")
            return _inner(self, job, *rest)

        monkeypatch.setattr(Trainer, name, noted)

    def read() -> list[str]:
        found = path.read_text().split()
        path.write_text("")
        return found

    return read
