"""Chains of arms in a plan: levels, edges between shards, whose weights are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from factories.jobs import part_jobs
from factories.plan import chain, keys, planned
from factories.project import arms

from cyclery.plan.job_specs import shard_jobs

Json = dict[str, Any]


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
