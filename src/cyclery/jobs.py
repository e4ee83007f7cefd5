"""Turn planned runs into jobs: the plain dicts that the trainer understands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cyclery.cells import RangePlan, Shard
from cyclery.config.resolve import budget
from cyclery.plan import Plan


def range_jobs(tests: Iterable[RangePlan]) -> list[dict[str, Any]]:
    """Return one job per sweep."""
    return [
        {
            "key": test.run_key(seed),
            "label": f"range test ({test.label}) s{seed}",
            "kind": "range",
            "settings": test.run(seed),
            "images": budget(test.settings, test.label)["images"],
        }
        for test in tests
        for seed in test.seeds
    ]


def shard_jobs(plan: Plan, shard: Shard) -> list[dict[str, Any]]:
    """Return one job per run of a shard."""
    everything = plan.project.config.checkpoints == "all"
    return [
        {
            "key": arm.key(seed),
            "label": f"{arm.id} s{seed}",
            "kind": "run",
            "settings": arm.run(seed),
            "keep": everything or plan.is_parent(arm),
            "range_runs": [arm.range.run_key(s) for s in arm.range.seeds] if arm.range else [],
            "images": arm.cost["images"],
        }
        for cell in shard.cells
        for arm, seed in cell.runs
    ]


def part_jobs(plan: Plan, part: str) -> list[dict[str, Any]]:
    """Return every job of a part, in an order in which they can be trained."""
    jobs = {}
    for group in plan.groups(part):
        for job in range_jobs(plan.ranges(group)):
            jobs[job["key"]] = job
    for shard in sorted(_with_parents(plan, plan.part_shards(part)), key=lambda s: s.name):
        for job in shard_jobs(plan, shard):
            jobs[job["key"]] = job
    return list(jobs.values())


def _with_parents(plan: Plan, shards: Iterable[Shard]) -> list[Shard]:
    found = {}
    for shard in shards:
        for parent in _with_parents(plan, plan.parent_shards(shard)):
            found[parent.id] = parent
        found[shard.id] = shard
    return list(found.values())
