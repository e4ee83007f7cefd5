"""Projects that `cyclery decide` spends seeds on, trained in no time: records are made up."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cyclery.budget import batches
from cyclery.config.load import load
from cyclery.evidence.assemble import gather
from cyclery.plan.graph import Plan
from cyclery.records.run_store import Store
from cyclery.records.shard_files import write_records
from factories.project import PAPER, TIER, write
from factories.record import record

Json = dict[str, Any]

# Accuracies of arms in %, beside a control at 50; a run's noise has a spread of 1.
ARMS = {"plain": 50.0, "same": 50.0, "better": 53.0, "worse": 46.0}


def project(root: Path, change: Callable[[Json, Json], object] | None = None) -> Path:
    """Write a project with a claim for each arm beside the control; 20 seeds are planned."""
    tier, paper = copy.deepcopy(TIER), copy.deepcopy(PAPER)
    tier |= {"seeds": 20, "block": 5}
    # Each is a run of its own.
    paper["experiments"]["main"]["arms"] = {
        name: {"lr": 0.1 + number / 100} for number, name in enumerate([*ARMS, "idle"])
    }
    paper["claims"] = {
        name: {"statement": "-",
               "comparisons": [{"experiment": "main", "arm": name, "against": "plain"}]}
        for name in ("same", "better", "worse")
    }  # fmt: skip
    paper["claims"]["elsewhere"] = {"statement": "-", "not_run": {"smoke": "no"},
                                    "comparisons": []}  # fmt: skip
    if change:
        change(tier, paper)
    write(root, tier, paper, {"tier": "smoke", "device": "cpu"})
    return root


class Runner:
    """In place of Snakemake: files made-up records of all runs that the plan asks for.

    ``calls`` are the papers of each batch; ``stop`` ends a batch before its runs, as a kill does.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, accuracies: Mapping[str, float]) -> None:
        self.accuracies, self.calls, self.trained = accuracies, list[list[str]](), list[str]()
        self.stop: Callable[[int], object] = lambda number: None
        monkeypatch.setattr(batches, "run", self)

    def __call__(
        self, plan: Plan, papers: Sequence[str], cores: str, more: Sequence[str], log: Path,
        tick: Callable[[], object],
    ) -> None:  # fmt: skip
        tick()
        self.calls.append(list(papers))
        self.stop(len(self.calls))
        # As Snakemake's own process sees the project now.
        plan = Plan(load(plan.project.root, plan.project.overrides))
        results = plan.project.results
        store = Store(results / "store")
        for paper in papers:
            for shard in plan.closure(paper):
                found = []
                for arm, seed in shard.runs:
                    key = arm.key(seed)
                    made: Any = store.read(key)
                    if made is None:
                        self.trained.append(f"{arm.name} {seed}")
                        noise = np.random.default_rng([seed, *arm.name.encode()])
                        accuracy = self.accuracies.get(arm.name, 50.0) + noise.standard_normal()
                        made = store.write(key, record(key, seed, accuracy / 100))  # type: ignore[arg-type]
                    found.append(made)
                write_records(results / plan.tier / "records" / f"{shard.id}.jsonl", found)
            folder = results / plan.tier
            gather(plan, paper, folder / f"evidence/{paper}.json", folder / f"tables/{paper}.csv")
