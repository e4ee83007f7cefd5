"""Turn planned runs into jobs, which the trainer runs without the configuration."""

from __future__ import annotations

from collections.abc import Iterable

from cyclery.plan.model import ArmPlan, RangePlan, Shard, needed_seeds, range_tests, with_ancestors
from cyclery.records.record import Job


def range_jobs(tests: Iterable[RangePlan]) -> list[Job]:
    """Return one job per sweep."""
    return [
        {
            "key": test.run_key(seed),
            "label": f"range test ({test.label}) s{seed}",
            "kind": "range",
            "settings": test.run(seed),
            "images": test.views,
        }
        for test in tests
        for seed in test.seeds
    ]


def _run_job(arm: ArmPlan, seed: int, keep: bool) -> Job:
    job: Job = {
        "key": arm.key(seed),
        "label": f"{arm.id} s{seed}",
        "kind": "study" if "study" in arm.settings else "run",
        "settings": arm.run(seed),
        "keep": keep,
        "range_runs": [arm.range.run_key(s) for s in arm.range.seeds] if arm.range else [],
        "images": arm.cost["views"],
        "parent_models": {
            name: [len(parent.seeds(seed)), parent.arm.settings["model"]]
            for name, parent in arm.parents.items()
        },
    }
    if arm.trials:
        job["trials"] = [
            {
                "factors": trial.arm.factors,
                "runs": [trial.arm.key(each) for each in trial.at],
                "schedules": trial.arm.settings["schedules"],
            }
            for trial in arm.trials
        ]
    if arm.search:
        [study] = arm.search.seeds(seed)
        job["study_run"] = arm.search.arm.key(study)
        job["trials"] = [
            {"factors": trial["values"], "runs": [], "schedules": trial["schedules"]}
            for trial in arm.search.arm.settings["study"]["trials"]
        ]
    return job


def shard_jobs(shard: Shard) -> list[Job]:
    """Return one job per run of a shard."""
    return [_run_job(arm, seed, cell.keep) for cell in shard.cells for arm, seed in cell.runs]


def source_jobs(shard: Shard) -> list[Job]:
    """Return the jobs that a shard's runs depend on: parents, trials, studies and range tests."""
    family = list(with_ancestors(shard.arms))
    seeds = needed_seeds((cell.arm, cell.seeds) for cell in shard.cells)
    own = {arm.key(seed) for arm, seed in shard.runs}
    runs = {arm.key(seed): (arm, seed) for arm in family for seed in sorted(seeds[arm.digest])}
    # Of a trial only the figures are taken, of a parent its weights.
    parents = {parent.arm.digest for arm in family for parent in arm.parents.values()}
    return range_jobs(range_tests(family)) + [
        _run_job(arm, seed, keep=arm.digest in parents)
        for key, (arm, seed) in runs.items()
        if key not in own
    ]
