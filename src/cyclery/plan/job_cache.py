"""Cache of resolved shard jobs, keyed by a hash of configuration and code.

Without it each of thousands of jobs would read, validate and expand every paper. The first job
stores the jobs of its whole paper in ``.cyclery/<hash>/``; the hash covers configuration, overrides
and the package's code. An entry is used only if it has the digest that the graph expects; what is
missing, damaged or stale is resolved again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cyclery.common.errors import UserError
from cyclery.common.files import write_atomic
from cyclery.common.settings import plain
from cyclery.engine.execution import Execution

if TYPE_CHECKING:
    from cyclery.plan.graph import Plan
    from cyclery.records.record import Job

FOLDER = ".cyclery"
# Cached configurations: those of a few tiers and papers in turn.
MOST_ENTRIES = 8
# Keys of a run that differ between shards: its label, and whether its weights are kept.
_OWN = ("key", "label", "keep")


@dataclass(frozen=True)
class ShardJobs:
    """The resolved jobs of a shard, the jobs that they depend on, and the execution settings."""

    digest: str
    jobs: list[Job]
    sources: list[Job]
    setting: dict[str, Any]


def setting(plan: Plan) -> dict[str, Any]:
    """Return the tier and the keys of the main file that a trainer needs."""
    config = plain(plan.project.config)
    return {
        "tier": plan.tier,
        **{key: config[key] for key in ("results", "data")},
        "execution": {item.name: config[item.name] for item in fields(Execution)},
    }


def order(
    root: Path,
    overrides: Sequence[str],
    shard_id: str,
    expect: str | None,
    load: Callable[[], Plan],
) -> ShardJobs:
    """Return the jobs of a shard from the cache, or else resolve them and fill the cache.

    Args:
        root: the project's root.
        overrides: what the command line changed of the main file.
        shard_id: group and name of the shard.
        expect: the digest that the graph planned; None, as in a call by hand, ignores the cache.
        load: expands the configuration into a plan.
    """
    group, _, name = shard_id.rpartition("/")
    before = fingerprint(root, overrides)
    if expect and before:
        with suppress(OSError, ValueError):
            cached = (root / FOLDER / before / f"{group}.jsonl").read_bytes()
            if (found := _read(cached, name)).digest == expect:
                return found
    plan = load()
    plan.shard(shard_id)
    # An experiment that is asked for by name may have shards of its own.
    groups = dict.fromkeys([*plan.groups(group.partition(".")[0]), group])
    texts = {each: _text(plan, each) for each in groups}
    # It may have been edited while it was read.
    if before and before == fingerprint(root, overrides):
        # Where the cache cannot be written, the job goes on all the same.
        with suppress(UserError, OSError):
            for each, text in texts.items():
                write_atomic(root / FOLDER / before / f"{each}.jsonl", text)
            forget(root / FOLDER)
    return _read(texts[group].encode(), name)


def fingerprint(root: Path, overrides: Sequence[str]) -> str | None:
    """Return the cache key: hash of configuration and code; None where these cannot be read."""
    config, package = root / "config", Path(__file__).parents[1]
    found = sha256(json.dumps(list(overrides)).encode())
    try:
        code = sorted(package.rglob("*.py"))
        for path in [
            *sorted(
                path
                for place in ("", "datasets/", "papers/", "tiers/")
                for path in config.glob(f"{place}*.y*ml")
            ),
            *code,
        ]:
            # Hidden files are those of editors, which configuration and imports pass over, too.
            if not path.name.startswith("."):
                content = path.read_bytes()
                found.update(f"\n{path} {len(content)}\n".encode())
                found.update(content)
    except OSError:
        return None
    return found.hexdigest()[:24] if code else None


def _line(name: str, value: Any) -> str:
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return f"{name}\t{sha256(f'{name}{text}'.encode()).hexdigest()}\t{text}\n"


def _text(plan: Plan, group: str) -> str:
    """Serialise the jobs of all shards of a group; what shards share of a run is stored once."""
    from cyclery.plan.job_specs import shard_jobs, source_jobs

    runs: dict[str, dict[str, object]] = {}

    def listed(given: Collection[Job]) -> list[dict[str, object]]:
        for job in given:
            shared = {name: value for name, value in job.items() if name not in _OWN}
            runs.setdefault(job["key"], shared)
        return [{k: job.get(k) for k in _OWN if k in job} for job in given]

    shards = [
        _line(
            f"shard {each.name}", [each.digest, listed(shard_jobs(each)), listed(source_jobs(each))]
        )
        for each in plan.shards(group)
    ]
    shared = [_line(f"run {key}", run) for key, run in runs.items()]
    return "".join(["\n", _line("setting", setting(plan)), *shards, *shared])


def _read(content: bytes, name: str) -> ShardJobs:
    """Return the jobs of a shard; ValueError where the entry is missing or damaged."""

    def value(name: str) -> Any:
        begin = content.index(f"\n{name}\t".encode()) + 1
        found, digest, text = content[begin : content.index(b"\n", begin)].decode().split("\t")
        if sha256(f"{found}{text}".encode()).hexdigest() != digest:
            raise ValueError(f"{name} was cut or altered")
        return json.loads(text)

    digest, *lists = value(f"shard {name}")
    jobs, sources = (
        [cast("Job", {**value(f"run {own['key']}"), **own}) for own in each] for each in lists
    )
    return ShardJobs(digest, jobs, sources, value("setting"))


def forget(folder: Path) -> None:
    """Remove the oldest entries."""
    folders = (path for path in folder.iterdir() if path.is_dir())
    found = sorted(folders, key=lambda path: path.stat().st_mtime, reverse=True)
    for path in found[MOST_ENTRIES:]:
        shutil.rmtree(path, ignore_errors=True)
