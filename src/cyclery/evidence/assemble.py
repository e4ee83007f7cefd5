"""Collect what evidence is built from: plan, records, range tests, printed figures."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import cast

import numpy as np

from cyclery import schedules
from cyclery.common import checksums
from cyclery.common.files import write_atomic
from cyclery.common.seals import seal
from cyclery.config.models import Claim
from cyclery.evidence import build as evidence
from cyclery.evidence import contracts, searched
from cyclery.evidence.benchmark_tables import Ours, tables
from cyclery.evidence.contracts import ArmRuns, ExperimentRuns, JudgedSweep
from cyclery.evidence.plots import metrics as plotted
from cyclery.evidence.plots import plots
from cyclery.evidence.settings_text import class_count, data, describe, network
from cyclery.plan.cost import claim_needs, elsewhere
from cyclery.plan.graph import RANGE_ARM, Plan
from cyclery.plan.model import ArmPlan, RangePlan, with_ancestors
from cyclery.plan.table_cells import resolve_all
from cyclery.records import range_bounds, trial_selection
from cyclery.records.evidence import ChainNode, Commands, Evidence, RangeTest, ScheduleLine, Tuned
from cyclery.records.readers import read_printed, read_records
from cyclery.records.record import RangeRecord, RunRecord

Runs = dict[str, RunRecord]
Sweeps = dict[str, RangeRecord]
# Points of a schedule plot; more cannot be seen.
POINTS = 240


@dataclass(frozen=True)
class Inputs:
    """What a part is judged from: declared claims, and experiments with their records."""

    experiments: list[ExperimentRuns]
    claims: list[contracts.Claim]
    # By run key: of runs, with those of ancestors, and of sweeps.
    records: dict[str, contracts.Record]
    tests: dict[str, RangePlan]
    sweeps: Sweeps


def read_inputs(plan: Plan, part: str) -> Inputs:
    """Return what a part is judged from; a UserError names a file that is not there or damaged."""
    folder = plan.project.results / plan.tier
    read = read_records(
        {
            folder / "records" / f"{shard.id}.jsonl": [job.key(seed) for job, seed in shard.runs]
            # With those of ancestors, which say what seeds share.
            for shard in plan.closure(part)
        }
    )
    runs = {key: record for key, record in read.items() if record["kind"] == "run"}
    studies = {key: record for key, record in read.items() if record["kind"] == "study"}
    groups = [group for group in plan.groups(part) if plan.ranges(group)]
    read = read_records(
        {
            folder / "lr-range" / f"{group}.jsonl": [
                test.run_key(seed) for test in plan.ranges(group) for seed in test.seeds
            ]
            for group in groups
        }
    )
    sweeps = {key: record for key, record in read.items() if record["kind"] == "range"}
    paper = part.partition(".")[0]
    experiments = [
        _experiment(plan, paper, experiment, part, runs, studies)
        for experiment in dict.fromkeys(exp for _, exp, _ in plan.part_arms(part))
    ]
    declared = plan.project.papers[paper].claims
    claims = [_claim(plan, key, claim) for key, claim in declared.items()]
    tests = {test.key: test for group in groups for test in plan.ranges(group)}
    known: dict[str, contracts.Record] = {**runs, **_judged_sweeps(tests.values(), sweeps)}
    return Inputs(experiments, claims, known, tests, sweeps)


def gather(plan: Plan, part: str, output: Path, table: Path | None) -> None:
    """Write the evidence of a part, and its tidy table."""
    found = read_inputs(plan, part)
    experiments, known = found.experiments, found.records
    paper_name, _, name = part.partition(".")
    paper = plan.project.papers[paper_name]
    printed = read_printed(plan.project.printed_file(paper_name))
    cells = resolve_all(paper, printed)
    others = elsewhere(plan)
    judged = evidence.build(
        plan.tier,
        part,
        {
            "id": paper_name,
            "title": paper.title,
            "authors": paper.authors,
            "year": paper.year,
            "arxiv": paper.arxiv,
            "venue": paper.venue,
            "family": paper.family,
            "summary": paper.summary,
            "deviations": paper.deviations,
        },
        experiments,
        found.claims,
        known,
        claim_needs(plan, paper_name, others),
        [
            _range_evidence(test, found.sweeps, _users(plan, part, test))
            for test in found.tests.values()
        ],
        printed,
        only=_only(paper.claims, name) if name else None,
        metrics={cell.metric for table in cells.values() for cell in table.cells} | plotted(paper),
    )
    ours = Ours(judged["experiments"], experiments, known)
    shown = tables(plan, paper_name, cells, ours, others)
    made: Evidence = {
        **judged, "tables": shown, "plots": plots(paper, judged["experiments"]),
        "commands": _commands(plan, part), "sha256": "",
    }  # fmt: skip
    if not made["plots"]:
        del made["plots"]
    if table is not None:
        # No list while what it lists is written.
        checksums.of_table(table).unlink(missing_ok=True)
    # In one line: with an indent json takes seconds, and a number a line.
    write_atomic(output, json.dumps(seal(evidence.rounded(made)), allow_nan=False) + "\n")
    if table is not None:
        evidence.write_csv(evidence.tidy(experiments, known), table)
        checksums.write(checksums.of_table(table), [table, output])


def _commands(plan: Plan, part: str) -> Commands:
    """Return the commands that make the part's evidence, and the report of all selected papers."""
    options = f"--config {_selected(plan, part.partition('.')[0])}"
    papers = ",".join(plan.project.selected())
    return {
        "part": f"snakemake --cores all {part} {options}",
        "report": f'snakemake --cores all report {options} "papers=[{papers}]"',
    }


def _selected(plan: Plan, paper: str) -> str:
    """Return tier and seeds as arguments of Snakemake; an allocation says the seeds itself."""
    config = plan.project.config
    found = f"tier={plan.tier}"
    if not plan.allocated(paper):
        found += f" seeds={plan.project.seeds}"
    if config.first_seed:
        found += f" first_seed={config.first_seed} results={config.results}"
    return found


def _claim(plan: Plan, name: str, claim: Claim) -> contracts.Claim:
    dumped = claim.model_dump(mode="json")
    found = {**dumped, "id": name, "planned_seeds": plan.planned(claim)}
    return cast(contracts.Claim, found)


def _only(claims: dict[str, Claim], name: str) -> set[str]:
    """Return the claims that an experiment or a claim by this name shows."""
    used = {
        key
        for key, claim in claims.items()
        if any(group.experiment == name for c in claim.comparisons for group in c.groups())
    }
    return {name} if name in claims else used


def _experiment(
    plan: Plan, paper: str, name: str, part: str, runs: Runs, studies: searched.Studies
) -> ExperimentRuns:
    declared = plan.project.papers[paper].experiments[name]
    first = plan.project.config.first_seed
    arms: list[ArmRuns] = []
    own: list[ArmPlan] = []
    shown: list[ArmPlan] = []
    for exp, arm_name in ((e, a) for _, e, a in plan.part_arms(part)):
        if exp != name:
            continue
        arm = plan.arm(paper, name, arm_name)
        tuned = _tuned(arm, runs)
        own.append(arm)
        if tuned:
            searched.leave_out_others(arm, dict.fromkeys(plan.seeds(arm), tuned["chosen"]), runs)
        # Settings and schedules are shown as the arm's runs took them.
        taken = next((t.arm.settings["schedules"] for t in arm.trials
                      if tuned and t.arm.factors == tuned["chosen"]), None)  # fmt: skip
        if taken:
            arm = replace(arm, settings={**arm.settings, "schedules": taken})
        found = searched.searched(arm, plan.seeds(arm), studies)
        if found:
            searched.leave_out_others(arm, searched.choices(found), runs)
            arm = searched.shown(arm, found)
        shown.append(arm)
        spec = declared.arms[arm_name]
        dataset = plan.project.datasets[arm.settings["dataset"]["name"]]
        arms.append(
            {
                "id": arm_name,
                "label": spec.label or arm_name,
                "role": spec.role,
                "own_definition": spec.own_definition,
                "method": str(arm.settings["method"]["name"]),
                "data": data(arm, dataset.title, dataset.classes),
                "network": network(arm),
                "runs": {seed: own[-1].key(seed) for seed in plan.seeds(arm)},
                "first_seed": first,
                "share": arm.share,
                "classes": class_count(arm.settings["split"], dataset.classes),
                "tuned": tuned,
                "searched": found,
                "schedules": _schedules(arm, runs.get(own[-1].key(first))),
            }
        )
    test = next((arm.range for arm in own if arm.range), None)
    if test and _speaks_of_range(plan, paper, name):
        keys = {seed: test.run_key(seed) for seed in test.seeds}
        arms.append({"id": RANGE_ARM, "label": "range test", "role": "method", "runs": keys,
                     "first_seed": first, "planned": len(test.seeds),
                     "own_definition": None, "tuned": None, "schedules": {}})  # fmt: skip
    _drop_common_schedules(arms)
    return {
        "id": name,
        "title": declared.title,
        "description": declared.description,
        "command": f"snakemake --cores all {paper}.{name} --config {_selected(plan, paper)}",
        "selection_rule": "last checkpoint",
        "settings": describe(shown),
        "not_run": declared.tiers[plan.tier].not_run,
        "arms": arms,
        "chain": _chain(own, {key: arm.label or key for key, arm in declared.arms.items()}),
    }


def _chain(arms: list[ArmPlan], labels: dict[str, str]) -> list[ChainNode]:
    """Return the arms that descend from others, with all their ancestors, parents first."""
    own = {arm.digest: arm.name for arm in arms}
    family = list(with_ancestors((arm for arm in arms if arm.parents), tuning=False))

    def label(arm: ArmPlan) -> str:
        return labels.get(own.get(arm.digest, ""), arm.id)

    return [
        {
            "id": arm.digest, "arm": own.get(arm.digest), "label": label(arm), "level": arm.level,
            "parents": [
                {
                    "of": parent.arm.digest,
                    "label": f"{name}: {label(parent.arm)}",
                    "seeds": "" if parent.kind == "same" else f"{parent.kind} {parent.count}",
                }
                for name, parent in arm.parents.items()
            ],
        }
        for arm in family
    ]  # fmt: skip


def _tuned(arm: ArmPlan, runs: Runs) -> Tuned | None:
    """Return the outcomes of an arm's tuning trials and the choice; None where it is not tuned."""
    if not arm.trials:
        return None
    found = [
        trial_selection.outcome([runs.get(t.arm.key(seed)) for seed in t.at]) for t in arm.trials
    ]
    chosen = trial_selection.best([trial.arm.factors for trial in arm.trials], found)
    return {
        "metric": trial_selection.METRIC,
        "seeds": list(arm.trials[0].at),
        "trials": [
            {"factors": trial.arm.factors, **outcome}
            for trial, outcome in zip(arm.trials, found, strict=True)
        ],
        "chosen": arm.trials[chosen].arm.factors,
        # Without a trial that was finite for all seeds the values as declared were taken.
        "fallback": found[chosen]["val_accuracy"] is None,
    }


def _speaks_of_range(plan: Plan, paper: str, experiment: str) -> bool:
    return any(
        group.experiment == experiment and RANGE_ARM in group.arms
        for claim in plan.project.papers[paper].claims.values()
        for comparison in claim.comparisons
        for group in comparison.groups()
    )


def _schedules(arm: ArmPlan, first: RunRecord | None) -> dict[str, ScheduleLine]:
    """Return every quantity of an arm over the epochs, thinned out for a plot.

    ``first`` is the record of the first seed, which stands for all.
    """
    specs = dict(arm.settings["schedules"])
    batches = schedules.epoch_batches(specs.pop("batch"), arm.settings["epochs"])
    clock, steps = schedules.clock_for(batches, arm.cost["samples"])
    taken = first["inputs"]["range"] if first else None
    if not taken:
        # Until its range test has run, such a schedule cannot be drawn.
        specs = {name: spec for name, spec in specs.items() if not schedules.words(spec)}
    bounds = (taken["base"], taken["max"]) if taken else None
    shown = np.unique(np.linspace(0, clock.updates - 1, min(POINTS, clock.updates)).astype(int))
    at = clock.epoch[shown]
    within = (shown - np.concatenate([[0], np.cumsum(steps)])[at]) / steps[at]
    epochs = [float(e) for e in at + within]
    found: dict[str, ScheduleLine] = {
        name: {
            "epoch": epochs,
            "value": [float(v) for v in schedules.column(spec, clock, 0, bounds)[shown]],
        }
        for name, spec in specs.items()
    }
    if len(set(batches.tolist())) > 1:
        found["batch"] = {"epoch": epochs, "value": [float(batches[e]) for e in at]}
    return found


def _drop_common_schedules(arms: list[ArmRuns]) -> None:
    """Drop quantities that are constant and equal in all arms: these are settings."""
    names = sorted({name for arm in arms for name in arm["schedules"]})
    for name in names:
        values = [arm["schedules"][name]["value"] for arm in arms if name in arm["schedules"]]
        if all(len(set(v)) == 1 and v[0] == values[0][0] for v in values):
            for arm in arms:
                arm["schedules"].pop(name, None)


# Range tests.


def _judged_sweeps(tests: Iterable[RangePlan], sweeps: Sweeps) -> dict[str, JudgedSweep]:
    """Return sweeps as records whose figures a claim can test (OWN DEFINITION).

    ``range_deviation`` is the distance of a seed's bounds from their geometric mean over seeds,
    in decades: of base and upper bound the one further off.
    """
    found: dict[str, JudgedSweep] = {}
    for test in tests:
        records = {key: sweeps[key] for key in map(test.run_key, test.seeds) if key in sweeps}
        logs = {
            key: (math.log10(r["bounds"]["base"] or 1e-12), math.log10(r["bounds"]["max"]))
            for key, r in records.items()
        }
        centres = [fmean(bounds) for bounds in zip(*logs.values(), strict=True)]
        for key, bounds in logs.items():
            furthest = max(abs(x - centre) for x, centre in zip(bounds, centres, strict=True))
            found[key] = {
                **records[key],
                "final": {"log10_base": bounds[0], "log10_max": bounds[1],
                          "range_deviation": furthest},
                "curve": {},
            }  # fmt: skip
    return found


def _users(plan: Plan, part: str, test: RangePlan) -> list[str]:
    """Return the titles of the experiments that take their bounds from a range test."""
    return list(
        dict.fromkeys(
            plan.project.papers[paper].experiments[name].title
            for paper, name, arm in plan.part_arms(part)
            if (own := plan.arm(paper, name, arm).range) and own.key == test.key
        )
    )


def _range_evidence(test: RangePlan, sweeps: Sweeps, users: list[str]) -> RangeTest:
    found = [(seed, sweeps[test.run_key(seed)]) for seed in test.seeds
             if test.run_key(seed) in sweeps]  # fmt: skip
    combined = range_bounds.combine([record["bounds"] for _, record in found]) if found else None
    names = sorted({name for _, record in found for name in record["readings"]})
    readings: dict[str, float | None] = {}
    for name in names:
        values = [record["readings"].get(name) for _, record in found]
        known = [value for value in values if value]
        readings[name] = math.exp(fmean(map(math.log, known))) if known else None
    longest = max((record["lr"] for _, record in found), key=len, default=[])
    return {
        "key": test.key,
        "label": f"{', '.join(users)} ({test.label})" if users else test.label,
        "settings": {"sweep": test.settings["sweep"], "epochs": str(test.settings["epochs"])},
        "seeds": [seed for seed, _ in found],
        "lr": longest,
        "accuracy": [record["accuracy"] for _, record in found],
        "loss": [record["loss"] for _, record in found],
        "base": combined["base"] if combined else None,
        "max": combined["max"] if combined else None,
        "readings": readings,
        "flags": sorted({flag for _, record in found for flag in record["bounds"]["flags"]}),
    }
