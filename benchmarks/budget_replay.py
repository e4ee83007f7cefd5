"""What `cyclery decide` would have decided of a finished tier, against equal seeds for all.

    python benchmarks/budget_replay.py FOLDER TIER PAPER...

The records of a tier that has run with all planned seeds are dealt out again, by the allocation
and in blocks for all arms in turn, and judged by the package at every batch. Time is what the runs
took, ancestors included. Nothing is trained, and nothing is written.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cyclery.budget.choice import Run, choose
from cyclery.budget.standing import DECIDED, Costs, Stand, of_paper, wanted
from cyclery.config.load import load
from cyclery.evidence import assemble, contracts, verdicts
from cyclery.evidence.contracts import ExperimentRuns
from cyclery.plan.graph import Plan
from cyclery.records.readers import read_records

BATCHES = 24
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)


class Replay(Costs):
    """The runs of a paper that are dealt out, and what they took."""

    def __init__(self, plan: Plan, paper: str) -> None:
        super().__init__(plan)
        self.paper, self.claims = paper, wanted(plan, [paper])[paper]
        folder = plan.project.results / plan.tier
        read = read_records(
            {
                folder / "records" / f"{shard.id}.jsonl": [arm.key(s) for arm, s in shard.runs]
                for shard in plan.closure(paper)
            }
            | {
                folder / "lr-range" / f"{group}.jsonl": [
                    test.run_key(s) for test in plan.ranges(group) for s in test.seeds
                ]
                for group in plan.groups(paper) if plan.ranges(group)
            }
        )  # fmt: skip
        runs: Any = {key: record for key, record in read.items() if record["kind"] == "run"}
        sweeps: Any = {key: record for key, record in read.items() if record["kind"] == "range"}
        tests = [test for group in plan.groups(paper) for test in plan.ranges(group)]
        self.records: dict[str, contracts.Record] = {
            **runs, **assemble._judged_sweeps(tests, sweeps),
        }  # fmt: skip
        self.took = {key: float(record["seconds"]) for key, record in runs.items()}
        self.experiments = [
            assemble._experiment(plan, paper, name, paper, runs, {})
            for name in dict.fromkeys(exp for _, exp, _ in plan.part_arms(paper))
        ]
        self.arms = [".".join(name) for name in plan.part_arms(paper)]

    def missing(self, name: str, seeds: int) -> dict[Run, float]:
        """Return the runs that were not dealt out yet, with the seconds that they took."""
        lacking = super().missing(name, seeds)
        return {key: self.took.get(str(key), 0.0) for key in lacking if isinstance(key, str)}

    def deal(self, seeds: dict[str, int]) -> float:
        """Deal out what seeds of arms need; return the seconds that it took."""
        runs = {run: cost for arm, count in seeds.items()
                for run, cost in self.missing(arm, count).items()}  # fmt: skip
        self._done |= {str(run) for run in runs}
        self._missing.clear()
        return sum(runs.values())

    def _ended(self, key: str) -> bool:
        return key in self._done

    def stands(self, seeds: dict[str, int]) -> list[Stand]:
        """Return what the claims stand at with these seeds."""
        plan, declared = self.plan, self.plan.project.papers[self.paper].claims
        dealt = [self._cut(experiment, seeds) for experiment in self.experiments]
        claims = [assemble._claim(plan, key, claim) for key, claim in declared.items()]
        judged = verdicts.judge(claims, plan.tier, dealt, self.records)
        return list(of_paper(plan, self.paper, self.claims, judged))

    def _cut(self, experiment: ExperimentRuns, seeds: dict[str, int]) -> ExperimentRuns:
        def count(arm: str) -> int:
            return seeds.get(f"{self.paper}.{experiment['id']}.{arm}", 1000)

        arms: Any = [
            {**arm, "runs": {s: key for s, key in arm["runs"].items() if s < count(arm["id"])}}
            for arm in experiment["arms"]
        ]
        return {**experiment, "arms": arms}


def allocated(replay: Replay, whole: float) -> Iterator[tuple[float, list[Stand]]]:
    """Yield seconds and claims after every batch of `cyclery decide`."""
    seeds, spent = dict.fromkeys(replay.arms, 0), 0.0
    while True:
        found = replay.stands(seeds)
        yield spent, found
        questions = [question for stand in found for question in stand.questions]
        asked = choose(questions, seeds, replay.missing, whole / BATCHES)
        if asked == seeds:
            return
        seeds = asked
        spent += replay.deal(seeds)


def equal(replay: Replay, planned: int) -> Iterator[tuple[float, list[Stand]]]:
    """Yield seconds and claims with a block for all arms, experiment by experiment."""
    seeds, spent = dict.fromkeys(replay.arms, 0), 0.0
    yield spent, replay.stands(seeds)
    for end in (*range(5, planned, 5), planned):
        for name in dict.fromkeys(arm.rpartition(".")[0] for arm in replay.arms):
            seeds |= {arm: end for arm in replay.arms if arm.rpartition(".")[0] == name}
            spent += replay.deal(seeds)
            yield spent, replay.stands(seeds)


def main() -> None:
    """Print, for each paper, the claims decided within shares of the time of all seeds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("tier")
    parser.add_argument("paper", nargs="+")
    options = parser.parse_args()
    # It decides nothing, and takes most of the time.
    verdicts._fragile = lambda *_: []
    plan = Plan(load(options.root, {"tier": options.tier}))
    for paper in options.paper:
        claims = plan.project.papers[paper].claims.values()
        planned = max(plan.planned(claim) for claim in claims)
        course = list(equal(Replay(plan, paper), planned))
        whole = course[-1][0]
        courses = [list(allocated(Replay(plan, paper), whole)), course]
        print(f"{paper}: {whole:.0f} s of runs in all; decide ends at "
              f"{100 * courses[0][-1][0] / whole:.0f} %")  # fmt: skip
        for share in SHARES:
            counts = [
                sum(stand.verdict in DECIDED for stand in
                    [found for spent, found in each if spent <= share * whole + 1e-6][-1])
                for each in courses
            ]  # fmt: skip
            print(f"  {100 * share:3.0f} %: {counts[0]} decided, {counts[1]} by equal seeds")


if __name__ == "__main__":
    main()
