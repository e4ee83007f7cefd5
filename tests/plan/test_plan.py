"""Configuration becomes arms, cells, shards and run keys; what changes a key and what does not."""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from factories.jobs import part_jobs
from factories.project import PAPER, TIER, arms, write

from cyclery.common.source_hash import imported
from cyclery.config.load import load
from cyclery.methods import supervised
from cyclery.plan import snakemake_api
from cyclery.plan.graph import Plan
from cyclery.plan.job_specs import range_jobs, shard_jobs
from cyclery.plan.project_checks import check
from cyclery.plan.snakemake_api import JUDGING, Graph

Json = dict[str, Any]


def planned(
    root: Path, change: Callable[[Json, Json], object] | None = None, **overrides: Any
) -> Plan:
    tier, paper = copy.deepcopy(TIER), copy.deepcopy(PAPER)
    if change:
        change(tier, paper)
    write(root, tier, paper)
    return check(load(root, overrides))


def keys(plan: Plan, part: str = "one") -> dict[str, list[str]]:
    """Return the run keys of every arm of a part."""
    return {
        arm.id: [arm.key(seed) for seed in range(plan.project.seeds)]
        for arm in (plan.arm(*name) for name in plan.part_arms(part))
    }


SAME: dict[str, Callable[[Json, Json], object]] = {
    "a number or a constant schedule": lambda tier, paper: tier["base"].update(
        lr={"kind": "constant", "value": 0.1}
    ),
    "a default written out": lambda tier, paper: tier["base"].update(
        momentum=0.9, optimiser={"name": "sgd", "nesterov": True}
    ),
    "a whole number": lambda tier, paper: arms(paper)["fast"].update(weight_decay=0),
    "another label": lambda tier, paper: arms(paper)["fast"].update(label="x", role="method"),
    "another claim": lambda tier, paper: paper["claims"]["C-1"].update(statement="y"),
    "another title": lambda tier, paper: paper.update(title="z"),
    "keys in another order": lambda tier, paper: tier.update(
        base=dict(reversed(tier["base"].items()))
    ),
    "null, which is the default": lambda tier, paper: tier["base"].update(
        momentum=None, clip_norm=None, optimiser=None, augment=None, init=None
    ),
    "null over a value, and the value again": lambda tier, paper: (
        paper.update(base={"model": None, "split": None, "lr": None}),
        paper["experiments"]["main"].update(
            base={"model": "bn_mlp", "split": tier["base"]["split"], "lr": 0.1}
        ),
    ),
    "a method by name or with it": lambda tier, paper: arms(paper)["fast"].update(
        method={"name": "supervised"}
    ),
    "a component in two layers": lambda tier, paper: (
        tier["base"].update(model={"name": "bn_mlp", "hidden": [128, 128]}),
        arms(paper)["fast"].update(model={"activation": "relu"}),
    ),
    "a whole number with a point": lambda tier, paper: tier["base"].update(batch=50.0),
    "a clock that has no effect": lambda tier, paper: arms(paper)["fast"].update(
        lr={"kind": "constant", "value": 0.2, "clock": "epoch"}
    ),
    "images per second": lambda tier, paper: tier.update(images_per_second={"bn_mlp": 9}),
    "another experiment": lambda tier, paper: paper["experiments"].update(
        twin=copy.deepcopy(paper["experiments"]["main"])
    ),
    "set by the experiment instead": lambda tier, paper: paper["experiments"]["main"].update(
        base={"epochs": 5}
    ),
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_what_does_not_change_a_run(change: Callable[[Json, Json], object], tmp_path: Path) -> None:
    found = keys(planned(tmp_path, change))
    assert {arm: found[arm] for arm in found if "/main/" in arm} == keys(planned(tmp_path))


DIFFERENT: dict[str, Json] = {
    "lr": {"lr": 0.3},
    "method": {"method": {"name": "supervised", "label_smoothing": 0.1}},
    "quantity": {"method": {"name": "supervised", "temperature": 2.0}},
    "model": {"model": {"name": "bn_mlp", "hidden": [8]}},
    "optimiser": {"optimiser": {"name": "sgd", "nesterov": False}},
    "augment": {"augment": [{"op": "flip"}]},
    "precision": {"precision": "bf16"},
    "threads": {"threads": 2},
    "deterministic": {"deterministic": False},
    "evaluations": {"evaluations": 3},
    "split": {"split": {"choose": "first"}},
}


@pytest.mark.parametrize("setting", DIFFERENT.values(), ids=DIFFERENT)
def test_a_setting_changes_its_arm_only(setting: Json, tmp_path: Path) -> None:
    before = keys(planned(tmp_path))
    after = keys(planned(tmp_path, lambda tier, paper: arms(paper)["fast"].update(setting)))
    assert after["one/main/plain"] == before["one/main/plain"]
    assert not set(after["one/main/fast"]) & set(before["one/main/fast"])


def test_a_method_version_changes_its_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys(planned(tmp_path))
    from cyclery import methods

    methods.load.cache_clear()
    monkeypatch.setattr(supervised, "VERSION", supervised.VERSION + 1)
    try:
        after = keys(planned(tmp_path))
    finally:
        methods.load.cache_clear()
    assert all(set(after[arm]).isdisjoint(before[arm]) for arm in before)


def test_equal_runs_of_two_experiments_are_one(tmp_path: Path) -> None:
    def change(tier: Json, paper: Json) -> None:
        paper["experiments"]["twin"] = copy.deepcopy(paper["experiments"]["main"])

    plan = planned(tmp_path, change)
    found = keys(plan)
    assert found["one/main/fast"] == found["one/twin/fast"]
    [shard] = plan.shards("one")
    assert len(shard.cells) == 2


def test_more_seeds_append_blocks(tmp_path: Path) -> None:
    def change(tier: Json, paper: Json) -> None:
        tier.update(block=2, cells_per_job=1, shard_by="experiment")

    few, many = planned(tmp_path, change, seeds=4), planned(tmp_path, change, seeds=8)
    first, more = few.shards("one.main"), many.shards("one.main")
    assert len(first) == 4 and len(more) == 8
    assert [s.digest for s in more[:4]] == [s.digest for s in first]
    assert [s.id for s in more[:4]] == [s.id for s in first]
    assert keys(many)["one/main/fast"][:4] == keys(few)["one/main/fast"]


def test_more_seeds_append_shards_of_several_cells(tmp_path: Path) -> None:
    def change(tier: Json, paper: Json) -> None:
        arms(paper)["slow"] = {"lr": 0.01}
        tier.update(block=2, cells_per_job=2, shard_by="experiment")

    few, many = planned(tmp_path, change, seeds=2), planned(tmp_path, change, seeds=6)
    first, more = few.shards("one.main"), many.shards("one.main")
    assert [len(s.cells) for s in more] == [2, 1, 2, 1, 2, 1]
    assert [(s.id, s.digest) for s in more[:2]] == [(s.id, s.digest) for s in first]
    # A block that was not full is filled, and keeps its runs.
    odd = planned(tmp_path, change, seeds=3)
    kept = {key for found in keys(odd).values() for key in found}
    assert kept < {key for found in keys(many).values() for key in found}


def test_other_experiments_leave_shards_alone(tmp_path: Path) -> None:
    def by_experiment(tier: Json, paper: Json) -> None:
        tier.update(shard_by="experiment")

    def with_another_first(tier: Json, paper: Json) -> None:
        by_experiment(tier, paper)
        another = {"title": "-", "tiers": {"smoke": {}}, "arms": {"slow": {"lr": 0.01}}}
        paper["experiments"] = {"another": another, **paper["experiments"]}

    before = planned(tmp_path, by_experiment).shards("one.main")
    after = planned(tmp_path, with_another_first).shards("one.main")
    assert [(s.id, s.digest) for s in before] == [(s.id, s.digest) for s in after]


def chain(tier: Json, paper: Json) -> None:
    paper["experiments"]["main"]["arms"] |= {
        "assistant": {"lr": 0.3, "parents": {"teacher": "plain"}, "init": "teacher"},
        "student": {"lr": 0.4, "parents": {"teacher": "assistant"}, "init": "teacher"},
    }


def test_chains_have_levels_and_edges(tmp_path: Path) -> None:
    plan = planned(tmp_path, chain)
    levels = {cell.arm.name: cell.arm.level for s in plan.shards("one") for cell in s.cells}
    assert levels == {"plain": 0, "fast": 0, "assistant": 1, "student": 2}
    names = [shard.name for shard in plan.shards("one")]
    assert names == ["L0-0000", "L1-0000", "L2-0000"]
    parents = [[p.name for p in plan.parent_shards(shard)] for shard in plan.shards("one")]
    assert parents == [[], ["L0-0000"], ["L1-0000"]]
    student = plan.arm("one", "main", "student")
    assistant = plan.arm("one", "main", "assistant")
    assert student.run(1)["parents"] == {"teacher": [assistant.key(1)]}
    assert plan.is_parent(assistant) and not plan.is_parent(student)
    kept = {job["label"]: job["keep"] for s in plan.shards("one") for job in shard_jobs(s)}
    assert kept["one/main/plain s0"] and not kept["one/main/student s0"]


def test_a_run_that_becomes_a_parent_is_asked_for_its_weights(tmp_path: Path) -> None:
    def student(tier: Json, paper: Json) -> None:
        paper["experiments"]["students"] = {
            "title": "-",
            "tiers": {"smoke": {}},
            "arms": {"small": {"parents": {"teacher": "main/fast"}, "init": "teacher"}},
        }

    def by_experiment(tier: Json, paper: Json) -> None:
        tier.update(shard_by="experiment", cells_per_job=1)

    alone = planned(tmp_path, by_experiment).shards("one.main")
    both = planned(tmp_path, lambda t, p: (by_experiment(t, p), student(t, p)))
    before, after = ({s.cells[0].arm.name: s for s in x} for x in (alone, both.shards("one.main")))
    # Without a new hash the job would not run again, and its student would find no weights.
    assert before["fast"].digest != after["fast"].digest
    assert before["plain"].digest == after["plain"].digest
    assert [job["keep"] for job in shard_jobs(after["fast"])] == [True, True]
    everything = planned(tmp_path, by_experiment, checkpoints="all").shards("one.main")
    assert all(job["keep"] for shard in everything for job in shard_jobs(shard))


def test_long_chains_are_in_order(tmp_path: Path) -> None:
    def change(tier: Json, paper: Json) -> None:
        tier.update(shard_by="experiment")
        arms(paper).clear()
        for n in range(12):
            parents = {
                "init": "start",
                "parents": {"start": f"g{n - 1}", "reference": f"g{n // 2}"},
            }
            arms(paper)[f"g{n}"] = {"lr": 0.1 + n / 100, **(parents if n else {})}
        paper["claims"]["C-1"]["comparisons"][0].update(
            arm="g11", against="g0", unequal_budget="the chain is long"
        )

    plan = planned(tmp_path, change)
    assert [shard.level for shard in plan.closure("one.main")] == list(range(12))
    labels = [job["label"].split()[0] for job in part_jobs(plan, "one.main")]
    assert list(dict.fromkeys(labels)) == [f"one/main/g{n}" for n in range(12)]
    # Ancestors come once, however many ways lead to them.
    whole = planned(tmp_path, lambda t, p: (change(t, p), t.update(shard_by="paper")))
    assert sum(len(shard.cells) for shard in whole.shards("one")) == 12


def test_a_changed_parent_changes_its_descendants(tmp_path: Path) -> None:
    def change(tier: Json, paper: Json) -> None:
        chain(tier, paper)
        arms(paper)["assistant"]["lr"] = 0.35

    before, after = keys(planned(tmp_path, chain)), keys(planned(tmp_path, change))
    changed = {arm for arm in before if before[arm] != after[arm]}
    assert changed == {"one/main/assistant", "one/main/student"}


def test_parents_of_another_experiment(tmp_path: Path) -> None:
    def change(tier: Json, paper: Json) -> None:
        tier.update(shard_by="experiment")
        paper["experiments"]["students"] = {
            "title": "-",
            "tiers": {"smoke": {}},
            "arms": {"small": {"parents": {"teacher": "main/fast"}, "init": "teacher"}},
        }

    plan = planned(tmp_path, change)
    # The ancestors of a group are among its shards: no group waits for another.
    teacher, student = plan.shards("one.students")
    assert plan.parent_shards(student) == [teacher]
    assert {cell.arm.id for cell in teacher.cells} == {"one/main/fast"}
    labels = [job["label"] for job in part_jobs(plan, "one.students")]
    assert labels.index("one/main/fast s0") < labels.index("one/students/small s0")
    whole = planned(tmp_path, lambda t, p: (change(t, p), t.update(shard_by="paper")))
    assert {c.arm.name for s in whole.shards("one.students") for c in s.cells} == {"small", "fast"}


def test_parts(tmp_path: Path) -> None:
    def change(tier: Json, paper: Json) -> None:
        arms(paper)["extra"] = {"lr": 0.5}

    plan = planned(tmp_path, change)
    assert list(plan.parts()) == ["one", "one.main", "one.C-1"]
    assert {arm for *_, arm in plan.part_arms("one.main")} == {"plain", "fast", "extra"}
    assert {arm for *_, arm in plan.part_arms("one.C-1")} == {"plain", "fast"}


def test_tuning_multiplies_the_arms_own_values(tmp_path: Path) -> None:
    def change(tier: Json, paper: Json) -> None:
        tier.update(tuning=True)
        paper["experiments"]["main"]["tune"] = {"lr": [0.5, 1, 2]}

    plan = planned(tmp_path, change)
    tuned = plan.arm("one", "main", "fast")
    trials = [trial.arm for trial in tuned.trials]
    assert [trial.factors for trial in trials] == [{"lr": 0.5}, {"lr": 1}, {"lr": 2}]
    assert trials[1].digest == planned(tmp_path).arm("one", "main", "fast").digest
    assert len({trial.digest for trial in [tuned, *trials]}) == 4
    # The arms' own runs come after the trials that choose their values.
    first, second = plan.shards("one")
    assert (len(first.cells), len(second.cells)) == (6, 2)
    assert plan.parent_shards(second) == [first] and plan.parent_shards(first) == []


def test_students_take_a_tuned_teacher_as_declared(tmp_path: Path) -> None:
    def change(tier: Json, paper: Json) -> None:
        tier.update(tuning=True, shard_by="experiment")
        paper["experiments"]["main"]["tune"] = {"lr": [0.5, 1, 2]}
        paper["experiments"]["students"] = {
            "title": "-",
            "tiers": {"smoke": {}},
            "arms": {"small": {"parents": {"teacher": "main/fast"}, "init": "teacher"}},
        }

    plan = planned(tmp_path, change)
    teacher = plan.arm("one", "students", "small").parents["teacher"].arm
    assert teacher.factors == {"lr": 1}
    assert teacher.digest == planned(tmp_path).arm("one", "main", "fast").digest
    labels = [job["label"] for job in part_jobs(plan, "one.students")]
    assert "one/main/fast~lrx1 s0" in labels and "one/students/small s0" in labels


def test_two_quantities_are_tuned_together(tmp_path: Path) -> None:
    def change(tier: Json, paper: Json) -> None:
        tier.update(tuning=True)
        # Weight decay is 0 by default: its trials are the same run, trained once.
        paper["experiments"]["main"]["tune"] = {"lr": [1, 2], "weight_decay": [1, 3]}
        arms(paper)["fast"]["weight_decay"] = 1e-3

    plan = planned(tmp_path, change)
    factors = [trial.arm.factors for trial in plan.arm("one", "main", "fast").trials]
    assert factors == [{"lr": a, "weight_decay": b} for a in (1, 2) for b in (1, 3)]


def ranged(tier: Json, paper: Json) -> None:
    paper["experiments"]["main"]["range"] = {"low": 0.01, "high": 1, "epochs": 10, "seeds": 2}
    arms(paper)["found"] = {"lr": "range"}
    arms(paper)["half"] = {"lr": {"kind": "constant", "value": "range.max"}}


def test_arms_share_a_range_test(tmp_path: Path) -> None:
    plan = planned(tmp_path, ranged)
    [test] = plan.ranges("one")
    assert test.seeds == (0, 1)
    assert [job["key"] for job in range_jobs([test])] == [test.run_key(0), test.run_key(1)]
    [shard] = plan.shards("one")
    jobs = {job["label"]: job for job in shard_jobs(shard)}
    assert jobs["one/main/found s0"]["range_runs"] == [test.run_key(0), test.run_key(1)]
    assert jobs["one/main/plain s0"]["range_runs"] == []
    longer = planned(
        tmp_path,
        lambda t, p: (ranged(t, p), p["experiments"]["main"]["range"].update(epochs=12)),
    )
    assert keys(longer)["one/main/found"] != keys(plan)["one/main/found"]
    assert keys(longer)["one/main/plain"] == keys(plan)["one/main/plain"]


def test_range_tests_of_parents_come_along(tmp_path: Path) -> None:
    def change(tier: Json, paper: Json) -> None:
        ranged(tier, paper)
        tier.update(shard_by="experiment")
        paper["experiments"]["students"] = {
            "title": "-",
            "tiers": {"smoke": {}},
            "arms": {"small": {"parents": {"teacher": "main/found"}, "init": "teacher"}},
        }

    plan = planned(tmp_path, change)
    kinds = [job["kind"] for job in part_jobs(plan, "one.students")]
    assert kinds.count("range") == 2 and kinds[:2] == ["range", "range"]


def test_experiments_share_a_range_test(tmp_path: Path) -> None:
    def change(tier: Json, paper: Json) -> None:
        ranged(tier, paper)
        twin = copy.deepcopy(paper["experiments"]["main"])
        # Only the rate differs from the other experiment, and a sweep has its own.
        twin["base"] = {"momentum": 0.9, "lr": 0.7}
        paper["experiments"]["twin"] = twin
        other = copy.deepcopy(twin)
        other["base"] = {"momentum": 0.5}
        paper["experiments"]["other"] = other

    plan = planned(tmp_path, change)
    tests = [plan.arm("one", name, "found").range for name in ("main", "twin", "other")]
    assert len(plan.ranges("one")) == 2
    assert tests[0] == tests[1] != tests[2]


def test_a_claim_on_the_range_test_brings_an_arm_that_asks_for_it(tmp_path: Path) -> None:
    def change(tier: Json, paper: Json) -> None:
        ranged(tier, paper)
        paper["claims"]["C-2"] = {
            "statement": "-",
            "comparisons": [
                {
                    "experiment": "main",
                    "arm": "range-test",
                    "against": {"constant": 0},
                    "metric": "log10_max",
                }
            ],
        }
        paper["claims"]["C-3"] = {**paper["claims"]["C-1"], "not_run": {"smoke": "later"}}

    plan = planned(tmp_path, change)
    assert plan.part_arms("one.C-2") == [("one", "main", "found")]
    assert len(plan.ranges("one.C-2")) == 1
    # What is declared not to run is not trained.
    assert plan.part_arms("one.C-3") == [] and plan.part_shards("one.C-3") == []


def test_a_papers_reason_stands_for_claims_whose_arms_a_tier_lacks(tmp_path: Path) -> None:
    def change(tier: Json, paper: Json) -> None:
        claims, main = paper["claims"], paper["experiments"]["main"]
        main["arms"]["late"] = {"epochs": 5, "lr": 0.02}
        main["tiers"]["smoke"] = {"arms": ["plain", "fast"]}
        lacking = {"experiment": "main", "arm": "fast", "against": {"best_of": ["plain", "late"]}}
        claims["C-2"] = {"statement": "-", "comparisons": [*claims["C-1"]["comparisons"], lacking]}
        claims["C-3"] = {**claims["C-2"], "not_run": {"smoke": "its own"}}
        claims["C-4"] = {**claims["C-2"], "not_run": {"all": "nowhere"}}
        paper["not_run"] = {"smoke": "few arms run there"}

    plan = planned(tmp_path, change)
    given = {name: claim.not_run for name, claim in plan.project.papers["one"].claims.items()}
    assert given == {
        "C-1": {},
        "C-2": {"smoke": "few arms run there"},
        "C-3": {"smoke": "its own"},
        "C-4": {"all": "nowhere"},
    }
    assert plan.part_arms("one.C-2") == []


def test_the_graph_speaks_in_relative_paths(tmp_path: Path) -> None:
    planned(tmp_path, ranged)
    graph = Graph.load(tmp_path, {"tier": "smoke", "seeds": 3, "papers": ["one"]})
    assert graph.overrides == "--set 'papers=[\"one\"]' --set seeds=3"
    assert graph.record_files("one") == ["results/smoke/records/one/L0-0000.jsonl"]
    assert graph.range_files("one", "L0-0000") == ["results/smoke/lr-range/one.jsonl"]
    assert graph.part_range_files("one") == ["results/smoke/lr-range/one.jsonl"]
    assert graph.manifests("one") == ["results/data/digits.json"]
    assert graph.evidence_files() == ["results/smoke/evidence/one.json"]
    assert graph.parent_files("one", "L0-0000") == []


def test_a_job_asks_for_no_more_cores_than_it_has_runs(tmp_path: Path) -> None:
    planned(tmp_path, ranged)
    graph = Graph.load(tmp_path, {"seeds": 30, "device": "cpu"})
    # Two sweeps; many runs, of which a machine with as many cores trains 64 at once.
    assert graph.range_threads("one") == 2
    assert graph.shard_threads("one", "L0-0000") == 64
    few = Graph.load(tmp_path, {"seeds": 2, "device": "cpu"})
    assert few.shard_threads("one", "L0-0000") == 2 * len(few.plan.part_arms("one"))
    on_gpu = Graph.load(tmp_path, {"seeds": 30, "device": "cuda"})
    assert on_gpu.shard_threads("one", "L0-0000") == 1


def test_edited_rules_of_judging_repeat_the_verdicts(tmp_path: Path) -> None:
    planned(tmp_path)
    source = tmp_path / "package"
    package = Path(snakemake_api.__file__).parents[1]
    shutil.copytree(package, source, ignore=shutil.ignore_patterns("__pycache__"))

    def code() -> str:
        graph = Graph.load(tmp_path, {})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(snakemake_api, "__file__", str(source / "plan/snakemake_api.py"))
            return graph.code

    before = code()
    assert before == Graph.load(tmp_path, {}).code
    packages = {path.parent.name: path for path in source.glob("*/__init__.py")}
    assert set(JUDGING) < set(packages)
    for name in packages.keys() - set(JUDGING):
        packages[name].write_text("# Its version decides about training; or it decides nothing.")
    assert code() == before
    found = [before]
    templates = (source / "report").rglob("*.j2")
    for path in [
        *(packages[name] for name in JUDGING),
        *templates,
        *source.glob("evidence/stats/*.py"),
    ]:
        path.write_text("# other")
        found.append(code())
    assert len(set(found)) == len(found)


def test_the_packages_of_judging_are_what_evidence_and_report_import() -> None:
    package = Path(snakemake_api.__file__).parents[1]
    files = [path for name in ("evidence", "report") for path in (package / name).rglob("*.py")]
    found = {name.partition(".")[0] for path in files for name in imported(path, "cyclery")}
    assert found == set(JUDGING)


def test_what_is_said_of_a_part_changes_its_digest_only(tmp_path: Path) -> None:
    planned(tmp_path)
    before = Graph.load(tmp_path, {})
    planned(tmp_path, lambda tier, paper: arms(paper)["fast"].update(label="new"))
    after = Graph.load(tmp_path, {})
    assert before.shard_digest("one", "L0-0000") == after.shard_digest("one", "L0-0000")
    assert before.part_digest("one") != after.part_digest("one")


def test_a_tier_runs_the_arms_that_it_names(tmp_path: Path) -> None:
    def change(tier: Json, paper: Json) -> None:
        arms(paper)["dear"] = {"epochs": 500}
        paper["experiments"]["main"]["tiers"]["smoke"] = {
            "arms": ["plain", "fast"],
            "not_run": {"dear": "takes long"},
        }

    assert "one/main/dear" not in keys(planned(tmp_path, change))


COMMENTED = """
# What a person writes: comments, another order, numbers as in JSON.
tier: smoke   # a scale
"""


def test_comments_and_notation_change_nothing(tmp_path: Path) -> None:
    before = keys(planned(tmp_path, lambda t, p: t["base"].update(weight_decay=5e-4)))
    (tmp_path / "config/config.yaml").write_text(COMMENTED)
    (tmp_path / "config/tiers/smoke.yaml").write_text(
        """
base: {weight_decay: 5e-4, epochs: 5, batch: 50, lr: 1.0e-1, model: {name: bn_mlp},  # why
  split: {labels: 100, validation: 100, test: 200}, dataset: digits}
shard_by: paper
seeds: 2
title: tiny
"""
    )
    assert keys(check(load(tmp_path))) == before


def many(tmp_path: Path, arms_: int, seeds: int) -> Plan:
    def change(tier: Json, paper: Json) -> None:
        tier.update(shard_by="experiment", cells_per_job=1, block=1, seeds=seeds)
        tier["base"]["lr"] = {"kind": "cosine", "peak": 0.1, "warmup_epochs": 1}
        for n in range(arms_):
            cycle = {"kind": "cycle", "easy": 1e-4 * (n + 1), "hard": 1e-3}
            arms(paper)[f"arm{n}"] = {"weight_decay": cycle}

    return planned(tmp_path, change)


def test_every_arm_is_resolved_and_hashed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cyclery.plan import model as cells
    from cyclery.plan import resolve_arms as resolving

    counted = dict.fromkeys(("resolve", "digest"), 0)

    def counting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def count(*arguments: Any) -> Any:
            counted[name] += 1
            return function(*arguments)

        return count

    monkeypatch.setattr(resolving, "resolve", counting("resolve", resolving.resolve))
    monkeypatch.setattr(cells, "digest", counting("digest", cells.digest))
    plan = many(tmp_path, arms_=98, seeds=30)
    graph = Graph(plan, {})
    shards = [shard for part in plan.parts() for shard in plan.part_shards(part)]
    assert len({shard.id for shard in shards}) == 3000
    for shard in plan.part_shards("one"):
        graph.shard_digest(shard.group, shard.name)
        graph.parent_files(shard.group, shard.name)
    assert counted == {"resolve": 100, "digest": 100 + 3000}


def test_planning_imports_nothing_heavy(tmp_path: Path) -> None:
    planned(tmp_path, chain)
    script = (
        "import sys; from pathlib import Path; from cyclery.plan.snakemake_api import Graph; "
        f"g = Graph.load(Path({str(tmp_path)!r}), {{}}); g.parts(); g.record_files('one'); "
        "heavy = {'torch', 'torchvision', 'pandas', 'scipy', 'matplotlib', 'sklearn', 'jinja2', "
        "'snakemake'}; print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
