"""All jobs of a part in one list, which no shard holds."""

from __future__ import annotations

from typing import Any

from cyclery.plan.graph import Plan
from cyclery.plan.job_specs import range_jobs, shard_jobs
from cyclery.plan.model import range_tests


def part_jobs(plan: Plan, part: str) -> list[dict[str, Any]]:
    """Return every job of a part, in an order in which they can be trained."""
    # Parents lie at lower levels.
    shards = sorted(plan.closure(part), key=lambda s: (s.level, s.id))
    tests = range_tests(arm for shard in shards for arm in shard.arms)
    jobs = range_jobs(tests) + [job for shard in shards for job in shard_jobs(shard)]
    return list({job["key"]: job for job in jobs}.values())
