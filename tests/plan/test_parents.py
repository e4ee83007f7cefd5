"""Parents in a plan: which runs a seed takes, whose keys change, what the shards hold."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from factories import engine as factory
from factories.parents import CHAIN, KD, RULES, TEACHER, arm, planned, student

from cyclery.data import splits
from cyclery.plan.graph import Plan
from cyclery.plan.job_specs import shard_jobs, source_jobs
from cyclery.plan.model import Parent, needed_seeds

Json = dict[str, Any]


@pytest.mark.parametrize(
    ("kind", "count", "seeds"),
    [
        ("same", 1, [(0,), (1,), (2,), (3,), (4,)]),
        ("nested", 2, [(0,), (0,), (1,), (1,), (2,)]),
        ("nested", 3, [(0,), (0,), (0,), (1,), (1,)]),
        ("members", 1, [(0,), (1,), (2,), (3,), (4,)]),
        ("members", 2, [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]),
    ],
)
def test_which_seeds_of_a_parent_a_seed_takes(
    kind: str, count: int, seeds: list[tuple[int, ...]], tmp_path: Path
) -> None:
    parent = Parent(arm(planned(tmp_path, {}), "alone"), kind, count)
    assert [parent.seeds(seed) for seed in range(5)] == seeds


def test_a_run_names_the_runs_that_it_takes(tmp_path: Path) -> None:
    plan = planned(tmp_path, RULES, seeds=4)
    own, pool = (arm(plan, name, "teachers") for name in ("teacher", "pool"))
    other = arm(plan, "other").parents["teacher"].arm
    assert other.settings == {**own.settings, "draw": "other"}
    assert own.settings["draw"] is None and other.id == f"{own.id}~other"
    expected = {
        "same": lambda s: [own.key(s)],
        "other": lambda s: [other.key(s)],
        "nested": lambda s: [own.key(s // 2)],
        "members": lambda s: [pool.key(3 * s + m) for m in range(3)],
    }
    for name, keys in expected.items():
        for seed in range(4):
            assert arm(plan, name).run(seed)["parents"] == {"teacher": keys(seed)}, name
    assert not {own.key(s) for s in range(9)} & {other.key(s) for s in range(9)}
    assert {arm(plan, name).level for name in RULES} == {1}


def test_the_rule_is_part_of_the_run_key(tmp_path: Path) -> None:
    rules: list[Json] = [
        student(TEACHER),
        student(TEACHER, "other"),
        student("teachers/pool", split={"share": 3}),
        student("teachers/pool", {"members": 3}),
        student(TEACHER, {"nested": 2}, split={"share": 2}),
        student(TEACHER, {"nested": 3}, split={"share": 3}),
        {**student(TEACHER), "parents": {"teacher": TEACHER, "reference": TEACHER}},
    ]
    plan = planned(tmp_path, {f"a{n}": rule for n, rule in enumerate(rules)})
    found = [arm(plan, f"a{n}").digest for n in range(len(rules))]
    assert len(set(found)) == len(rules)
    # The rule that a name alone means, written out.
    short = planned(tmp_path, {"a0": {**KD, "parents": {"teacher": TEACHER}}})
    assert arm(short, "a0").digest == found[0]


def seeds_of(plan: Plan, group: str) -> dict[str, list[int]]:
    """Return the seeds of every arm in the shards of a group, each run once."""
    found: dict[str, list[int]] = {}
    for shard in plan.shards(group):
        for each, seed in shard.runs:
            found.setdefault(each.id.removeprefix("one/"), []).append(seed)
    return found


def test_shards_hold_exactly_the_seeds_of_ancestors_that_are_needed(tmp_path: Path) -> None:
    plan = planned(tmp_path, RULES, seeds=4)
    assert seeds_of(plan, "one.students") == {
        "teachers/teacher": [0, 1, 2, 3],
        "teachers/teacher~other": [0, 1, 2, 3],
        "teachers/pool": list(range(12)),
        **{f"students/{name}": [0, 1, 2, 3] for name in ("alone", *RULES)},
    }
    # On its own a group has only what it is asked for.
    assert seeds_of(plan, "one.teachers") == {
        "teachers/teacher": [0, 1, 2, 3], "teachers/pool": [0, 1, 2, 3],
    }  # fmt: skip
    nested = planned(tmp_path, {"nested": RULES["nested"]}, seeds=5)
    assert seeds_of(nested, "one.students")["teachers/teacher"] == [0, 1, 2]


def test_rules_follow_one_another_down_a_chain(tmp_path: Path) -> None:
    arms = {
        "assistant": student("teachers/pool", {"members": 3}),
        "small": student("assistant", {"nested": 2}, split={"share": 2}),
    }
    plan = planned(tmp_path, arms, seeds=4)
    needed = needed_seeds([(arm(plan, "small"), range(4))])
    assert needed[arm(plan, "assistant").digest] == {0, 1}
    assert needed[arm(plan, "pool", "teachers").digest] == set(range(6))
    assert [arm(plan, name).level for name in ("alone", "assistant", "small")] == [0, 1, 2]


@pytest.mark.parametrize("block", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2])
def test_more_seeds_only_append_shards(size: int, block: int, tmp_path: Path) -> None:
    change = {"block": block, "cells_per_job": size}
    before: list[tuple[str, str]] = []
    for seeds in (block, 2 * block, 4 * block):
        plan = planned(tmp_path, RULES, change, seeds=seeds)
        shards = {shard.id: shard.digest for shard in plan.shards("one.students")}
        assert before == [(name, shards[name]) for name, _ in before]
        before = list(shards.items())
        runs = [each.key(s) for shard in plan.shards("one.students") for each, s in shard.runs]
        assert len(set(runs)) == len(runs)
        assert all(len(shard.cells) <= size for shard in plan.shards("one.students"))
        cells = [cell for shard in plan.shards("one.students") for cell in shard.cells]
        assert all(len(cell.seeds) <= block for cell in cells)


def test_edges_lead_to_the_shards_that_hold_the_parents(tmp_path: Path) -> None:
    plan = planned(tmp_path, RULES, {"block": 2, "cells_per_job": 1}, seeds=4)
    for shard in plan.shards("one.students"):
        needs = {
            each.parents["teacher"].arm.key(s)
            for each, seed in shard.runs
            if each.parents
            for s in each.parents["teacher"].seeds(seed)
        }
        above = plan.parent_shards(shard)
        held = {each.key(s) for parent in above for each, s in parent.runs}
        assert needs <= held
        # None without one that is needed.
        assert all(needs & {each.key(s) for each, s in parent.runs} for parent in above)
        sources = {job["key"]: job for job in source_jobs(shard)}
        assert needs == sources.keys() and all(job["keep"] for job in sources.values())


def test_parents_are_asked_for_their_weights_at_every_seed(tmp_path: Path) -> None:
    plan = planned(tmp_path, RULES)
    kept = {job["label"]: job["keep"] for s in plan.shards("one.students") for job in shard_jobs(s)}
    assert all(kept[f"one/teachers/pool s{seed}"] for seed in range(6))
    assert kept["one/teachers/teacher~other s1"] and not kept["one/students/alone s0"]
    assert not any(kept[f"one/students/{name} s0"] for name in RULES)


def keys(plan: Plan) -> dict[str, list[str]]:
    return {
        name: [plan.arm("one", exp, name).key(seed) for seed in range(2)]
        for _, exp, name in plan.part_arms("one")
    }


def test_a_changed_assistant_changes_exactly_its_descendants(tmp_path: Path) -> None:
    before = keys(planned(tmp_path, CHAIN))
    changed = {**CHAIN, "assistant": student(TEACHER, lr=0.16)}
    after = keys(planned(tmp_path, changed))
    assert {name for name in before if before[name] != after[name]} == {
        "assistant", "small", "smallest", "copy",
    }  # fmt: skip
    # How it distils is part of it, and so is which runs of its teacher it takes.
    warmer = {**CHAIN["assistant"], "method": {"name": "kd", "temperature": 5.0}}
    for other in (student(TEACHER, "other", lr=0.15), warmer):
        after = keys(planned(tmp_path, {**CHAIN, "assistant": other}))
        assert {name for name in before if before[name] != after[name]} == {
            "assistant", "small", "smallest", "copy",
        }  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "split",
    [{}, {"labels": 60}, {"folds": 5, "fold": 2}, {"unlabelled": "rest"},
     {"imbalance": {"kind": "long_tail", "ratio": 0.5}}],
)  # fmt: skip
def test_no_parent_is_trained_on_what_its_child_is_tested_on(
    rule: str, split: Json, tmp_path: Path
) -> None:
    """Whatever the parent's own part of the training samples is."""
    wanted = copy.deepcopy(RULES[rule])
    wanted["split"] = {**wanted.get("split", {}), **split}
    plan, labels = planned(tmp_path, {"child": wanted}, seeds=4), factory.data().labels.numpy()
    child = arm(plan, "child")
    parent = child.parents["teacher"]
    for seed in range(4):
        mine = splits.split(labels, len(labels), 10, child.settings["split"], seed)
        held_out = {*mine["test"], *mine["validation"]}
        for each in parent.seeds(seed):
            theirs = splits.split(labels, len(labels), 10, parent.arm.settings["split"], each)
            assert {*theirs["test"], *theirs["validation"]} == held_out
            assert not held_out & {*theirs["train"]} and not held_out & {*mine["train"]}
