"""Configuration becomes arms, cells, shards and run keys; what changes a key and what does not."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_bad_input import PAPER, TIER, arms, write

from cyclery.config.check import check
from cyclery.config.load import load
from cyclery.jobs import part_jobs, range_jobs, shard_jobs
from cyclery.methods import supervised
from cyclery.plan import Plan
from cyclery.workflow import Graph

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
        trial.id: [trial.key(seed) for seed in range(plan.project.seeds)]
        for name in plan.part_arms(part)
        for trial in plan.trials(*name)
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
    "set by the experiment instead": lambda tier, paper: paper["experiments"]["main"].update(
        base={"epochs": 5}
    ),
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_what_does_not_change_a_run(change: Callable[[Json, Json], object], tmp_path: Path) -> None:
    assert keys(planned(tmp_path, change)) == keys(planned(tmp_path))


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
    student = plan.trials("one", "main", "student")[0]
    assistant = plan.trials("one", "main", "assistant")[0]
    assert student.run(1)["parents"] == {"teacher": assistant.key(1)}
    assert plan.is_parent(assistant) and not plan.is_parent(student)
    kept = {job["label"]: job["keep"] for s in plan.shards("one") for job in shard_jobs(plan, s)}
    assert kept["one/main/plain s0"] and not kept["one/main/student s0"]


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
    [shard] = plan.shards("one.students")
    assert [parent.group for parent in plan.parent_shards(shard)] == ["one.main"]
    labels = [job["label"] for job in part_jobs(plan, "one.students")]
    assert labels.index("one/main/fast s0") < labels.index("one/students/small s0")
    # At a tier that shards by paper, a part brings its ancestors along.
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
    trials = plan.trials("one", "main", "fast")
    assert [trial.factors for trial in trials] == [{"lr": 0.5}, {"lr": 1}, {"lr": 2}]
    assert trials[1].digest == planned(tmp_path).trials("one", "main", "fast")[0].digest
    assert len({trial.digest for trial in trials}) == 3
    [shard] = plan.shards("one")
    assert len(shard.cells) == 6


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
    jobs = {job["label"]: job for job in shard_jobs(plan, shard)}
    assert jobs["one/main/found s0"]["range_runs"] == [test.run_key(0), test.run_key(1)]
    assert jobs["one/main/plain s0"]["range_runs"] == []
    longer = planned(
        tmp_path,
        lambda t, p: (ranged(t, p), p["experiments"]["main"]["range"].update(epochs=12)),
    )
    assert keys(longer)["one/main/found"] != keys(plan)["one/main/found"]
    assert keys(longer)["one/main/plain"] == keys(plan)["one/main/plain"]


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


def test_planning_imports_nothing_heavy(tmp_path: Path) -> None:
    planned(tmp_path, chain)
    script = (
        "import sys; from pathlib import Path; from cyclery.workflow import Graph; "
        f"g = Graph.load(Path({str(tmp_path)!r}), {{}}); g.parts(); g.record_files('one'); "
        "heavy = {'torch', 'torchvision', 'pandas', 'scipy', 'matplotlib', 'sklearn', 'jinja2', "
        "'snakemake'}; print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
