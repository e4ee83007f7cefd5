"""Trials of values and range tests in a plan: what they multiply, and who shares them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from factories.jobs import part_jobs
from factories.plan import keys, planned, ranged
from factories.project import arms

from cyclery.common.errors import UserError
from cyclery.plan.job_specs import range_jobs, shard_jobs

Json = dict[str, Any]


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


def test_trials_are_not_probed(tmp_path: Path) -> None:
    def change(tier: Json, paper: Json) -> None:
        tier.update(tuning=True)
        paper["experiments"]["main"]["tune"] = {"lr": [0.5, 1, 2]}
        arms(paper)["fast"]["probes"] = {"near": {"name": "nearest", "k": 5}}

    tuned = planned(tmp_path, change).arm("one", "main", "fast")
    assert "probes" in tuned.settings
    assert not any("probes" in trial.arm.settings for trial in tuned.trials)
    assert tuned.trials[1].arm.digest == planned(tmp_path).arm("one", "main", "fast").digest


def test_two_quantities_are_tuned_together(tmp_path: Path) -> None:
    def change(tier: Json, paper: Json) -> None:
        tier.update(tuning=True)
        # Weight decay is 0 by default: its trials are the same run, trained once.
        paper["experiments"]["main"]["tune"] = {"lr": [1, 2], "weight_decay": [1, 3]}
        arms(paper)["fast"]["weight_decay"] = 1e-3

    plan = planned(tmp_path, change)
    factors = [trial.arm.factors for trial in plan.arm("one", "main", "fast").trials]
    assert factors == [{"lr": a, "weight_decay": b} for a in (1, 2) for b in (1, 3)]


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


def in_blocks(tier: Json, paper: Json) -> None:
    """Let splits be blocks of Fashion-MNIST, which has 300 of them, one for each seed."""
    tier["base"] |= {"dataset": "fashion-mnist",
                     "split": {"choose": "blocks", "per_class": 10, "validation": 100}}  # fmt: skip


def test_blocks_have_no_split_for_trials(tmp_path: Path) -> None:
    def change(tier: Json, paper: Json) -> None:
        in_blocks(tier, paper)
        tier["tuning"] = True
        paper["experiments"]["main"]["tune"] = {"lr": [0.5, 1, 2]}

    with pytest.raises(
        UserError, match=r"split\.choose: must not be blocks where `tune` needs a s"
    ):
        planned(tmp_path, change)


def test_blocks_must_suffice_for_range_tests(tmp_path: Path) -> None:
    def change(tier: Json, paper: Json) -> None:
        in_blocks(tier, paper)
        test = {"low": 0.01, "high": 1, "epochs": 10, "seeds": 301}
        paper["experiments"]["main"]["range"] = test
        arms(paper)["fast"]["lr"] = "range"

    with pytest.raises(UserError, match=r"takes 301 x 20 samples of every class for 301 seeds"):
        planned(tmp_path, change)
