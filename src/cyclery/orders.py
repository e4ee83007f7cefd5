"""What training jobs need of the configuration, kept so that not each of them expands it all.

A graph of thousands of jobs would read, check and expand every paper as often. The first job keeps
what it found for its whole paper in ``.cyclery/<hash>/``; the hash is that of all it follows from:
configuration, overrides and the package's own code. A line that is not whole is not used, and
whatever is missing there is found anew.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclery.errors import UserError
from cyclery.files import write_atomic

if TYPE_CHECKING:
    from cyclery.plan import Plan

Json = dict[str, Any]
FOLDER = ".cyclery"
# Configurations that are kept: those of a few tiers and papers in turn.
KEPT = 8
# What a trainer is told of the main file.
_KEYS = ("results", "data", "device", "gpus", "jobs_per_gpu", "cohort", "capture", "resume_seconds")


@dataclass(frozen=True)
class Order:
    """The jobs of a shard, those of others that they take something from, and their setting."""

    digest: str
    jobs: list[Json]
    sources: list[Json]
    setting: Json


def setting(plan: Plan) -> Json:
    """Return the tier and what of the main file a trainer is told."""
    config = plan.project.config
    return {"tier": plan.tier, **{key: getattr(config, key) for key in _KEYS}}


def order(
    root: Path, overrides: Sequence[str], shard_id: str, load: Callable[[], Plan]
) -> Order:  # fmt: skip
    """Return the order of a shard as it was kept, or as the plan that ``load`` returns has it."""
    group, _, name = shard_id.rpartition("/")
    place = root / FOLDER / _fingerprint(root, overrides)
    with suppress(OSError, ValueError):
        return _read((place / f"{group}.jsonl").read_bytes(), name)
    plan = load()
    plan.shard(shard_id)
    texts = {each: _text(plan, each) for each in plan.groups(group.partition(".")[0])}
    # Where nothing can be kept, the job goes on all the same.
    with suppress(UserError, OSError):
        for each, text in texts.items():
            write_atomic(place / f"{each}.jsonl", text)
        _forget(place.parent)
    return _read(texts[group].encode(), name)


def _fingerprint(root: Path, overrides: Sequence[str]) -> str:
    """Return the hash of all that a plan follows from."""
    package = Path(__file__).parent
    found = sha256(json.dumps(list(overrides)).encode())
    files = [*sorted((root / "config").rglob("*.y*ml")), *sorted(package.rglob("*.py"))]
    for path in files:
        content = path.read_bytes()
        found.update(f"\n{path.name} {len(content)}\n".encode())
        found.update(content)
    return found.hexdigest()[:24]


def _line(name: str, value: Any) -> str:
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return f"{name}\t{sha256(f'{name}{text}'.encode()).hexdigest()}\t{text}\n"


def _text(plan: Plan, group: str) -> str:
    """Return all orders of a group; a job that several shards list stands there once."""
    from cyclery.jobs import shard_jobs, source_jobs

    jobs: dict[str, Json] = {}

    def listed(given: Iterable[Json]) -> Iterator[tuple[str, bool | None]]:
        for job in given:
            # Whether weights are kept differs between who trains a run and who takes from it.
            jobs.setdefault(job["key"], {name: job[name] for name in job if name != "keep"})
            yield job["key"], job.get("keep")

    shards = [
        _line(
            shard.name, [shard.digest, *(list(listed(f(shard))) for f in (shard_jobs, source_jobs))]
        )
        for shard in plan.shards(group)
    ]
    return "".join(
        ["\n", _line("setting", setting(plan)), *shards, *map(_line, jobs, jobs.values())]
    )


def _read(content: bytes, name: str) -> Order:
    """Return the order of a shard; ValueError where it is not there or not whole."""

    def value(name: str) -> Any:
        begin = content.index(f"\n{name}\t".encode()) + 1
        found, digest, text = content[begin : content.index(b"\n", begin)].decode().split("\t")
        if sha256(f"{found}{text}".encode()).hexdigest() != digest:
            raise ValueError(f"{name} was cut or altered")
        return json.loads(text)

    def job(key: str, keep: bool | None) -> Json:
        found: Json = value(key)
        return found if keep is None else {**found, "keep": keep}

    digest, *lists = value(name)
    jobs, sources = ([job(*each) for each in each_list] for each_list in lists)
    return Order(digest, jobs, sources, value("setting"))


def _forget(folder: Path) -> None:
    """Remove what was kept longest ago."""
    found = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in found[KEPT:]:
        shutil.rmtree(path, ignore_errors=True)
