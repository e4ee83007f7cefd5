"""The runs of a project by part and job, cached: who asks every few seconds need not plan anew.

Planning 15,000 runs takes most of what ``cyclery status`` takes. The entry lies beside those of the
job cache, under the same hash of configuration, overrides and code.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from cyclery.common.errors import UserError
from cyclery.common.files import read_regular, write_atomic
from cyclery.plan import allocation, job_cache

if TYPE_CHECKING:
    from cyclery.plan.graph import Plan


@dataclass(frozen=True)
class RunList:
    """The runs of a tier: images of all views by run key for each part, and run keys by job."""

    tier: str
    results: str
    """The folder of results, relative to the project's root."""
    parts: dict[str, dict[str, float]]
    jobs: dict[str, list[str]]
    allocation: str | None
    """SHA-256 of the file that says how many seeds single arms have, as it was then."""


def expand(plan: Plan, parts: Sequence[str]) -> RunList:
    """Return the runs of parts, of all selected papers by default; a UserError for an unknown."""
    found: dict[str, dict[str, float]] = {}
    jobs: dict[str, list[str]] = {}
    for part in parts or plan.project.selected():
        own = found.setdefault(part, {})
        for shard in plan.closure(part):
            views = {arm.key(seed): arm.cost["views"] for arm, seed in shard.runs}
            own |= views
            jobs[f"records/{shard.id}"] = list(views)
    results = plan.project.config.results
    allocated = _allocated(plan.project.root / results, plan.tier)
    return RunList(plan.tier, results, found, jobs, allocated)


def _allocated(results: Path, tier: str) -> str | None:
    try:
        return sha256(read_regular(allocation.place(results, tier))).hexdigest()
    except FileNotFoundError:
        return None


def run_list(
    root: Path, overrides: Sequence[str], parts: Sequence[str], load: Callable[[], Plan]
) -> RunList:
    """Return the runs of parts from the cache, or else plan them and fill the cache."""
    before = job_cache.fingerprint(root, overrides)
    name = f"runs-{sha256(json.dumps(list(parts)).encode()).hexdigest()[:16]}.json"
    path = root / job_cache.FOLDER / str(before) / name
    if before:
        with suppress(OSError, ValueError, TypeError):
            digest, _, text = path.read_text(encoding="utf-8").partition("\n")
            if sha256(text.encode()).hexdigest() == digest:
                known = RunList(**json.loads(text))
                if known.allocation == _allocated(root / known.results, known.tier):
                    return known
    plan = load()
    found = expand(plan, parts)
    # Images of one's own folders, which keys follow from, are not in the hash.
    own = any(dataset.folder is not None for dataset in plan.project.datasets.values())
    # It may have been edited while it was read.
    if before and not own and before == job_cache.fingerprint(root, overrides):
        text = json.dumps(asdict(found), separators=(",", ":"))
        with suppress(UserError, OSError):
            write_atomic(path, f"{sha256(text.encode()).hexdigest()}\n{text}")
            job_cache.forget(root / job_cache.FOLDER)
    return found
