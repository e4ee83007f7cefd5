"""Parents: which runs a seed takes, who is trained when, starts between networks, fidelity."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import engine as factory
from factories.jobs import part_jobs
from factories.project import PAPER, TIER, run, write
from factories.record import Records, claim, comparison, experiment, key
from scipy import stats as scipy_stats
from sklearn.metrics import accuracy_score, log_loss
from torch import Tensor, nn
from torch.distributions import Categorical, kl_divergence

from cyclery import models
from cyclery.common.errors import UserError
from cyclery.common.seals import file_sha256
from cyclery.config.load import load
from cyclery.data import splits
from cyclery.engine import metrics
from cyclery.engine.checkpoint import save_weights
from cyclery.engine.evaluation import Evaluation
from cyclery.engine.run import Run
from cyclery.engine.teachers import Trained, teacher
from cyclery.engine.teachers import load as load_weights
from cyclery.engine.train import Trainer
from cyclery.evidence import arm_tables
from cyclery.evidence.arm_tables import tidy
from cyclery.evidence.stats.pairing import collect
from cyclery.evidence.verdicts import judge
from cyclery.models.layers import batch_norms
from cyclery.plan.graph import Plan
from cyclery.plan.job_specs import shard_jobs, source_jobs
from cyclery.plan.model import ArmPlan, Parent, needed_seeds
from cyclery.plan.project_checks import check

Json = dict[str, Any]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # networks this small only wait for their threads
    yield
    torch.set_num_threads(before)


# Plans. The experiment `teachers` has the arms `teacher` and `pool`, `students` what a test adds.

TEACHER = "teachers/teacher"
KD: Json = {"method": "kd"}


def planned(root: Path, arms: Json, change: Json | None = None, **overrides: Any) -> Plan:
    """Return the plan of a project whose experiment `students` has these arms."""
    tier, paper = copy.deepcopy(TIER), copy.deepcopy(PAPER)
    tier.update(shard_by="experiment", **(change or {}))
    tier["base"].update(epochs=2, model={"name": "bn_mlp", "hidden": [16]})
    paper["experiments"] = {
        "teachers": {"title": "-", "tiers": {"smoke": {}}, "arms": {
            "teacher": {"lr": 0.2}, "pool": {"lr": 0.3, "split": {"share": 3}}}},
        "students": {"title": "-", "tiers": {"smoke": {}},
                     "arms": {"alone": {}, **copy.deepcopy(arms)}},
    }  # fmt: skip
    paper["claims"]["C-1"]["comparisons"] = [
        {"experiment": "teachers", "arm": "pool", "against": "teacher"}
    ]
    write(root, tier, paper, {"tier": "smoke", "device": "cpu"})
    return check(load(root, overrides))


def arm(plan: Plan, name: str, experiment: str = "students") -> ArmPlan:
    return plan.arm("one", experiment, name)


def student(parent: str, seeds: Any = "same", **more: Any) -> Json:
    return {**KD, "parents": {"teacher": {"arm": parent, "seeds": seeds}}, **more}


RULES: dict[str, Json] = {
    "same": student(TEACHER),
    "other": student(TEACHER, "other"),
    "nested": student(TEACHER, {"nested": 2}, split={"share": 2}),
    "members": student("teachers/pool", {"members": 3}),
}


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


CHAIN: Json = {
    "assistant": student(TEACHER, lr=0.15),
    "small": student("assistant", lr=0.12),
    "smallest": student("small", lr=0.11),
    "direct": student(TEACHER, lr=0.12),
    "copy": {"parents": {"reference": "assistant"}},
}


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


# Training.


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the label of every run that is really trained."""
    labels: list[str] = []
    inner = Trainer._run

    def noted(self: Trainer, job: Json, *rest: Any) -> Any:
        labels.append(job["label"].removeprefix("one/"))
        return inner(self, job, *rest)

    monkeypatch.setattr(Trainer, "_run", noted)
    return labels


def of(jobs: list[Json], *names: str) -> list[Json]:
    """Return the jobs whose label ends so."""
    found = [job for name in names for job in jobs if job["label"].endswith(name)]
    assert len(found) == len(names)
    return found


def test_a_chain_of_three_stages_is_trained_parents_once(
    tmp_path: Path, trained: list[str]
) -> None:
    plan = planned(tmp_path, CHAIN)
    jobs, trainer = part_jobs(plan, "one"), factory.trainer(tmp_path / "store")
    records = {job["label"]: r for job, r in zip(jobs, trainer.train(jobs), strict=True)}
    assert len(trained) == len(set(trained)) == 2 * 8
    assert all(record["status"] == "done" for record in records.values())
    for child, parent in (("small", "assistant"), ("smallest", "small")):
        for seed in (0, 1):
            [used] = records[f"one/students/{child} s{seed}"]["inputs"]["parents"]["teacher"]
            above = records[f"one/students/{parent} s{seed}"]
            assert used == {"key": above["key"], "sha256": above["checkpoint_sha256"]}
    # One shard after another, as jobs of their own would: nothing is left to train.
    trained.clear()
    for shard in plan.closure("one"):
        trainer.train(shard_jobs(shard), source_jobs(shard))
    assert trained == []
    # A child alone has its whole line trained, and nothing besides.
    alone = factory.trainer(tmp_path / "alone")
    [wanted] = of(jobs, "students/smallest s1")
    [record] = alone.train([wanted], [job for job in jobs if job is not wanted])
    line = ("teachers/teacher", "students/assistant", "students/small", "students/smallest")
    assert trained == [f"{name} s1" for name in line]
    assert factory.figures(record) == factory.figures(records[wanted["label"]])


def test_only_a_changed_assistant_and_its_descendants_are_trained(
    tmp_path: Path, trained: list[str]
) -> None:
    trainer = factory.trainer(tmp_path / "store")
    trainer.train(part_jobs(planned(tmp_path, CHAIN), "one"))
    trained.clear()
    changed = {**CHAIN, "assistant": student(TEACHER, lr=0.16)}
    trainer.train(part_jobs(planned(tmp_path, changed), "one"))
    assert sorted(trained) == sorted(
        f"students/{name} s{seed}"
        for name in ("assistant", "small", "smallest", "copy")
        for seed in (0, 1)
    )


def test_an_ensemble_of_five_and_three_generations(tmp_path: Path, trained: list[str]) -> None:
    arms = {
        "three": RULES["members"],
        "born": student(TEACHER),
        "again": student("born"),
        "thrice": student("again"),
        "ensemble": student("pool5", {"members": 5}),
        "pool5": {"lr": 0.3, "split": {"share": 5}},
        # The same pool for another student: it is trained once.
        "beside": {**RULES["members"], "method": {"name": "kd", "soft": 0.5}},
    }
    plan = planned(tmp_path, arms)
    jobs, trainer = part_jobs(plan, "one"), factory.trainer(tmp_path / "store")
    records = {job["label"]: r for job, r in zip(jobs, trainer.train(jobs), strict=True)}
    # pool: seeds 0 to 5 of three members each, pool5: 0 to 9; the others two seeds each.
    assert len(trained) == len(set(trained)) == 6 + 10 + 2 * (2 + 6)
    for seed in (0, 1):
        used = records[f"one/students/ensemble s{seed}"]["inputs"]["parents"]["teacher"]
        pool = [records[f"one/students/pool5 s{5 * seed + m}"] for m in range(5)]
        assert [each["key"] for each in used] == [record["key"] for record in pool]
        assert [each["sha256"] for each in used] == [r["checkpoint_sha256"] for r in pool]
    assert [arm(plan, name).level for name in ("born", "again", "thrice")] == [1, 2, 3]
    final = records["one/students/thrice s0"]["final"]
    assert {"test_agreement", "test_kl", "val_agreement", "train_kl"} <= final.keys()


def lose(trainer: Trainer, job: Json) -> None:
    for path in trainer.store.folder(job["key"]).iterdir():
        path.unlink()


def test_a_lost_assistant_is_trained_again_and_its_descendants_stand(
    tmp_path: Path, trained: list[str]
) -> None:
    jobs = part_jobs(planned(tmp_path, CHAIN, seeds=1), "one")
    trainer = factory.trainer(tmp_path / "store")
    first = trainer.train(jobs)
    [assistant] = of(jobs, "students/assistant s0")
    content = trainer.store.checkpoint(assistant["key"]).read_bytes()
    lose(trainer, assistant)
    trained.clear()
    again = trainer.train(jobs)
    assert trained == ["students/assistant s0"]
    assert trainer.store.checkpoint(assistant["key"]).read_bytes() == content
    assert list(map(factory.figures, again)) == list(map(factory.figures, first))


def test_exactly_the_descendants_follow_where_a_lost_assistant_comes_back_as_another(
    tmp_path: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on another machine, whose last bits differ."""
    jobs = part_jobs(planned(tmp_path, CHAIN, seeds=1), "one")
    trainer = factory.trainer(tmp_path / "store")
    trainer.train(jobs)
    [assistant] = of(jobs, "students/assistant s0")
    lose(trainer, assistant)
    trained.clear()
    inner = Run.weights

    def weights(self: Run) -> dict[str, Tensor]:
        found = inner(self)
        if self.settings == assistant["settings"]:
            found["head.bias"] += 1e-6
        return found

    monkeypatch.setattr(Run, "weights", weights)
    trainer.train(jobs)
    descendants = [f"students/{name} s0" for name in ("small", "smallest", "copy")]
    assert trained[0] == "students/assistant s0" and sorted(trained[1:]) == sorted(descendants)
    trained.clear()
    trainer.train(jobs)
    assert trained == []


def test_of_an_ensemble_only_the_lost_member_is_trained_again(
    tmp_path: Path, trained: list[str]
) -> None:
    jobs = part_jobs(planned(tmp_path, {"five": RULES["members"]}), "one")
    trainer = factory.trainer(tmp_path / "store")
    first = trainer.train(jobs)
    child, member = of(jobs, "students/five s1", "teachers/pool s4")
    for job in (child, member):
        lose(trainer, job)
    trained.clear()
    [record] = trainer.train([child], [job for job in jobs if job is not child])
    assert trained == ["teachers/pool s4", "students/five s1"]
    assert factory.figures(record) == factory.figures(first[jobs.index(child)])


def test_a_student_of_a_member_that_diverged_is_not_trained(
    tmp_path: Path, trained: list[str]
) -> None:
    jobs = part_jobs(planned(tmp_path, {"five": RULES["members"]}), "one")
    trainer = factory.trainer(tmp_path / "store")
    trainer.train(jobs)
    [member] = of(jobs, "teachers/pool s4")
    record = trainer.store.read(member["key"])
    trainer.store.write(member["key"], {**record, "status": "diverged", "diverged_step": 3})
    trained.clear()
    again = {job["label"]: r for job, r in zip(jobs, trainer.train(jobs), strict=True)}
    assert trained == []
    assert again["one/students/five s1"]["status"] == "diverged"
    assert again["one/students/five s0"]["status"] == "done"


# Another draw.


def test_another_draw_has_the_same_samples_and_all_else_its_own() -> None:
    given = factory.settings(model="wrn", augment=({"op": "shift", "size": 1},))
    runs = [factory.run({**given, "draw": draw}) for draw in (None, "other", "other")]
    for part, ids in runs[0].ids.items():
        assert torch.equal(ids, runs[1].ids[part]), part
    assert not torch.equal(runs[0].flat.data, runs[1].flat.data)
    assert torch.equal(runs[1].flat.data, runs[2].flat.data)
    batches = []
    for each in runs:
        each.begin_epoch()
        batches.append(each.feeds["labelled"].take(50))
    assert batches[0][0].tolist() != batches[1][0].tolist()
    assert not torch.equal(batches[0][1], batches[1][1])
    assert torch.equal(batches[1][0], batches[2][0])
    for name, generator in runs[0].generators.items():
        assert generator.initial_seed() != runs[1].generators[name].initial_seed(), name
    # Not the draw of another seed.
    assert not torch.equal(factory.run({**given, "seed": 1}).flat.data, runs[1].flat.data)


def test_a_plans_other_teacher_is_that_draw(tmp_path: Path) -> None:
    plan = planned(tmp_path, {"other": RULES["other"], "named": {
        **student(TEACHER, "other"), "draw": "mine"}})  # fmt: skip
    first, second = (arm(plan, name).parents["teacher"].arm for name in ("other", "named"))
    assert first.digest == second.digest and first.settings["draw"] == "other"
    own = planned(tmp_path, {"a": {"draw": "mine"}, "b": student("a", "other")})
    assert arm(own, "b").parents["teacher"].arm.settings["draw"] == "mineother"


def test_an_independent_teacher_shares_no_ancestor(tmp_path: Path) -> None:
    """Drawn anew it has a teacher of its own, by the same rules, and so has that one."""
    arms = {
        "second": student("teachers/pool", {"members": 3}, draw="second"),
        "third": {**student("second"), "init": "start",
                  "parents": {"teacher": "second", "start": TEACHER, "reference": TEACHER}},
        "small": student("third"),
        "other": student("third", "other"),
        # Of an independent teacher an independent student, and another one of that.
        "again": student("other", "other"),
    }  # fmt: skip
    plan = planned(tmp_path, arms, seeds=2)

    def line(child: str, depth: int) -> dict[str, ArmPlan]:
        """Return the ancestors of an arm's teacher that are trained, by their depth and name."""
        found: dict[str, ArmPlan] = {}

        def visit(each: ArmPlan, at: str) -> None:
            found[at] = each
            for name, parent in each.parents.items():
                visit(parent.arm, f"{at}.{name}")

        visit(arm(plan, child).parents["teacher"].arm, "teacher")
        assert len(found) == depth
        return found

    own, other = line("small", 5), line("other", 5)
    assert own.keys() == other.keys()
    for at, each in own.items():
        anew = other[at]
        draw = f"{each.settings['draw'] or ''}other"
        assert anew.settings == {**each.settings, "draw": draw}, at
        assert anew.id == f"{each.id}~other" and anew.level == each.level
        rules = [{name: (p.kind, p.count) for name, p in a.parents.items()} for a in (each, anew)]
        assert rules[0] == rules[1]
    assert not {each.digest for each in own.values()} & {each.digest for each in other.values()}
    # What two parents of a run share they go on sharing.
    assert other["teacher.start"].digest == other["teacher.reference"].digest
    twice = line("again", 6)
    assert twice["teacher.teacher"].id == "one/students/third~other~other"
    assert twice["teacher.teacher"].settings["draw"] == "otherother"
    kept = plan.kept()
    names = {each.id for _, each, _ in kept.values()}
    assert {"one/teachers/pool~other", "one/teachers/pool~other~other"} <= names
    # A name of files for each run.
    assert len(kept) == len({(each.digest, seed) for _, each, seed in kept.values()})


def test_a_student_of_an_independent_teacher_learns_from_that_line(
    tmp_path: Path, trained: list[str]
) -> None:
    arms = {"assistant": student(TEACHER), "small": student("assistant", "other")}
    jobs = part_jobs(planned(tmp_path, arms, seeds=1), "one.students")
    [small] = of(jobs, "students/small s0")
    [record] = factory.trainer(tmp_path / "store").train([small], [j for j in jobs if j != small])
    assert record["status"] == "done"
    assert trained == [
        "teachers/teacher~other s0", "students/assistant~other s0", "students/small s0",
    ]  # fmt: skip


# Starts between a network and a parent.


@cache
def parent_of(model: str = "wrn", **settings: Any) -> Trained:
    """Return a network that is trained a little: its statistics are not those of a new one."""
    given = {"depth": 10, "width": 1, "dropout": 0.3} if model == "wrn" else None
    if model == "preresnet":
        given = {"depth": 8, "width": 4, "norm": "layer"}
    return factory.trained(
        factory.train(factory.settings(model=model, model_settings=given, seed=5, epochs=2,
                                       **settings))
    )  # fmt: skip


def started(model: str = "wrn", share: float | None = 0.25, **changes: Any) -> Run:
    """Return a run at its start, ``share`` of the way to its parent."""
    parent = parent_of(model)
    given = factory.settings(model=model, model_settings=parent.settings["model"]["settings"],
                             **changes)  # fmt: skip
    if share is not None:
        given |= {"init": "start", "init_share": share}
    return factory.run(given, parents={"start": [parent]})


def state(run: Run) -> dict[str, Tensor]:
    return run.models["main"].state_dict()


STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@pytest.mark.parametrize("share", [0.25, 0.75])
@pytest.mark.parametrize("model", ["wrn", "preresnet", "small_cnn"])
def test_a_start_lies_between_a_new_network_and_the_parent(model: str, share: float) -> None:
    fresh, found, parent = (
        state(started(model, None)),
        state(started(model, share)),
        parent_of(model),
    )
    for name, value in found.items():
        if not name.endswith(STATISTICS):
            between = (1 - share) * fresh[name].double() + share * parent.weights[name].double()
            torch.testing.assert_close(value.double(), between, rtol=1e-5, atol=1e-7)
    assert model == "preresnet" or any(name.endswith(STATISTICS) for name in found)


def test_all_of_the_way_is_the_parent_itself() -> None:
    for name, value in state(started(share=1.0)).items():
        assert torch.equal(value, parent_of().weights[name]), name


def test_buffers_that_are_numbers_lie_between_and_counters_stay_its_own() -> None:
    class Net(nn.Module):
        def __init__(self, value: float, count: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.full((3,), value))
            self.register_buffer("mean", torch.full((2,), value))
            self.register_buffer("count", torch.tensor(count))

    own, parent = Net(1.0, 7), Net(3.0, 9)
    load_weights(own, parent.state_dict(), "init", 0.25)
    assert own.weight.tolist() == [1.5] * 3 and own.mean.tolist() == [1.5] * 2
    assert own.count == 7
    load_weights(own, parent.state_dict(), "init")
    assert own.weight.tolist() == [3.0] * 3 and own.count == 9


def measured(run: Run) -> dict[str, Tensor]:
    """Return the statistics of the training samples, not augmented, by one pass over all."""
    net = copy.deepcopy(run.models["main"])
    for module in net.modules():
        if hasattr(module, "p"):
            module.p = 0.0
    for norm in batch_norms(net):
        norm.momentum = 1.0
    with torch.no_grad():
        net(run.plain(run.data.images[run.ids["train"]]))
    return dict(net.named_buffers())


@pytest.mark.parametrize("model", ["bn_mlp", "small_cnn"])
@pytest.mark.parametrize("labels", [200, 1001, 1397])
def test_batch_norm_is_measured_anew_between_two_networks(model: str, labels: int) -> None:
    """However many passes the samples take: none is of a single one, and all count alike."""
    split = {"test": 300, "validation": 100, "labels": labels}
    run, plain = started(model, split=split), started(model, None, split=split)
    assert len(run.ids["train"]) == labels
    expected, between = measured(run), 0
    for name, buffer in run.models["main"].named_buffers():
        if name.endswith(STATISTICS[:2]):
            torch.testing.assert_close(buffer, expected[name], rtol=0.02, atol=0.02)
            lerp = torch.lerp(state(plain)[name], parent_of(model).weights[name], 0.25)
            between += torch.allclose(buffer, lerp, rtol=0.02, atol=0.02)
    assert between == 0
    assert {norm.momentum for norm in batch_norms(run.models["main"])} == {0.1}
    assert run.models["main"].training


def test_measuring_anew_is_exact_where_one_pass_holds_all() -> None:
    run = started("bn_mlp")
    for name, value in measured(run).items():
        if name.endswith(STATISTICS[:2]):
            found = dict(run.models["main"].named_buffers())[name]
            torch.testing.assert_close(found, value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("buffers", ["shared", "average", "own"])
def test_an_average_begins_where_the_network_does(buffers: str) -> None:
    run = started("small_cnn", ema_decay=0.9, ema_buffers=buffers)
    main, average = run.models["main"].state_dict(), run.models["ema"].state_dict()
    for name, value in main.items():
        assert torch.equal(value, average[name]), name


def test_networks_without_batch_norm_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    monkeypatch.setattr(Evaluation, "outputs", lambda self, net, ids: passes.append(1))
    started("preresnet")
    assert passes == []
    started("bn_mlp")
    assert passes == [1]


def test_a_start_leaves_the_samples_and_their_views_alone() -> None:
    seen = []
    for share in (None, 0.5, 1.0):
        run, ids = started("small_cnn", share), []
        run.begin_epoch()
        for _ in range(3):
            ids.append(run._batch(50, None))
        seen.append(ids)
    for other in seen[1:]:
        for one, two in zip(seen[0], other, strict=True):
            assert torch.equal(one.ids, two.ids) and torch.equal(one.x, two.x)


def test_a_start_between_resumes_as_it_went_on() -> None:
    whole, half = started(epochs=3), started(epochs=3)
    factory.finish(whole)
    half.train_epoch()
    half.evaluate_on_the_way()
    rest = started(epochs=3)
    rest.load_state(half.state(), 1, {key: list(v) for key, v in half.curve.items()})
    factory.finish(rest)
    for name, value in whole.state().items():
        assert torch.equal(value, rest.state()[name]), name


@pytest.mark.parametrize("model", ["preresnet", "resnet"])
def test_networks_with_layer_norm_start_learn_and_teach(model: str) -> None:
    settings = {"depth": 8, "norm": "layer"}
    given = {"model": model, "model_settings": settings, "lr": 0.05, "epochs": 3}
    parent = factory.trained(factory.train(factory.settings(**given)))
    assert not any("running" in name for name in parent.weights)
    wanted = factory.settings("kd", **given) | {"init": "teacher", "init_share": 0.75}
    run = factory.run(wanted, parents={"teacher": [parent]})
    # Nothing but weights decides what it says, so close weights mean close answers.
    start = run.final()["test_kl"]
    far = factory.run(factory.settings("kd", **given), parents={"teacher": [parent]})
    assert start < far.final()["test_kl"]
    factory.finish(run)
    assert run.curve["train_loss"][-1] < run.curve["train_loss"][0]


# Figures.


def logits(seed: int, rows: int = 400, classes: int = 7) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(rows, classes, generator=g)


def test_fidelity_is_that_of_other_libraries() -> None:
    student, answer = logits(0), (logits(0) + logits(1) / 2).double().log_softmax(1)
    agreement, divergence = metrics.fidelity(student, answer).tolist()
    assert agreement == pytest.approx(accuracy_score(answer.argmax(1), student.argmax(1)))
    assert 0.3 < agreement < 0.95
    laws = [Categorical(logits=z.double()) for z in (answer, student)]
    assert divergence == pytest.approx(kl_divergence(*laws).mean().item(), rel=1e-10)
    # The teacher comes first.
    assert divergence != pytest.approx(kl_divergence(*laws[::-1]).mean().item(), rel=1e-2)
    assert metrics.fidelity(answer, answer).tolist() == pytest.approx([1.0, 0.0], abs=1e-12)


def by_hand(run: Run, net: nn.Module, part: str) -> Tensor:
    """Return what a network says of a part, in evaluation mode and not augmented."""
    net = copy.deepcopy(net).eval()
    with torch.no_grad():
        found: Tensor = net(run.plain(run.data.images[run.ids[part]]))
    return found


def assert_fidelity(run: Run, student: nn.Module, copied: nn.Module) -> None:
    final = run.final()
    for part, prefix in (("test", "test"), ("validation", "val"), ("train", "train")):
        mine, theirs = by_hand(run, student, part), by_hand(run, copied, part)
        same = accuracy_score(theirs.argmax(1), mine.argmax(1))
        laws = [Categorical(logits=z.double()) for z in (theirs, mine)]
        assert final[f"{prefix}_agreement"] == pytest.approx(same)
        assert final[f"{prefix}_kl"] == pytest.approx(kl_divergence(*laws).mean().item(), rel=1e-4)


def test_a_run_says_how_well_it_copies_its_teacher() -> None:
    parents = {"teacher": [parent_of("wrn"), parent_of("small_cnn")]}
    plain = factory.train(factory.settings("kd"), parents=parents)
    assert_fidelity(plain, plain.models["main"], plain.models["teacher"])
    # The averaged network is the one that is evaluated.
    given = factory.settings("kd", ema_decay=0.9, lr=0.2)
    averaged = factory.train(given, parents=parents)
    assert_fidelity(averaged, averaged.models["ema"], averaged.models["teacher"])
    assert averaged.final()["test_kl"] != pytest.approx(
        metrics.fidelity(
            by_hand(averaged, averaged.models["main"], "test"),
            by_hand(averaged, averaged.models["teacher"], "test"),
        )[1].item(),
        rel=1e-3,
    )


def test_a_reference_is_what_figures_are_compared_with() -> None:
    """And it changes nothing of what is trained."""
    parents = {"teacher": [parent_of("wrn")], "reference": [parent_of("small_cnn")]}
    run = factory.train(factory.settings("kd"), parents=parents)
    assert_fidelity(run, run.models["main"], run.models["reference"])
    alone = factory.train(factory.settings("kd"), parents={"teacher": parents["teacher"]})
    assert torch.equal(run.flat.data, alone.flat.data)
    assert run.final()["test_accuracy"] == alone.final()["test_accuracy"]
    plain = factory.train(factory.settings(), parents={"reference": [parent_of("wrn")]})
    assert_fidelity(plain, plain.models["main"], plain.models["reference"])
    nobody = factory.train(factory.settings()).final()
    assert not any(name.endswith(("_agreement", "_kl")) for name in nobody)


def test_without_validation_there_are_no_such_figures() -> None:
    given = factory.settings("kd", split={"validation": 0})
    final = factory.train(given, parents={"teacher": [parent_of("wrn")]}).final()
    names = {name for name in final if name.endswith(("_agreement", "_kl"))}
    assert names == {"test_agreement", "test_kl", "train_agreement", "train_kl"}


@pytest.mark.parametrize("ema", [{}, {"ema_decay": 0.8}])
def test_figures_of_the_training_samples_are_of_the_end_and_not_augmented(ema: Json) -> None:
    run = factory.train(factory.settings(augment=({"op": "cutout", "size": 5},), **ema))
    final, y = run.final(), run.data.labels[run.ids["train"]]
    z = by_hand(run, run.models["ema" if ema else "main"], "train").double()
    assert final["train_accuracy"] == pytest.approx(accuracy_score(y, z.argmax(1)))
    assert final["train_nll"] == pytest.approx(
        log_loss(y, z.softmax(1), labels=list(range(10))), rel=1e-5
    )
    expected = metrics.figures(z, y)["ece"]
    assert final["train_ece"] == pytest.approx(expected, rel=1e-5)


# What is drawn independently.


def with_parents(records: Records, arm: str, parents: Callable[[int], list[str]]) -> None:
    for seed in range(6):
        used = [{"key": name, "sha256": "x"} for name in parents(seed)]
        records[key("e", arm, seed)]["inputs"]["parents"] = {"teacher": used}


VALUES = [91.0, 91.2, 92.0, 92.2, 91.5, 91.1]


@pytest.mark.parametrize(
    ("parents", "units"),
    [
        (lambda s: [f"t{s}"], [[0], [1], [2], [3], [4], [5]]),
        (lambda s: [f"t{s // 2}"], [[0, 1], [2, 3], [4, 5]]),
        (lambda s: [f"t{s // 3}"], [[0, 1, 2], [3, 4, 5]]),
        (lambda s: [f"t{3 * s + m}" for m in range(3)], [[0], [1], [2], [3], [4], [5]]),
        # Members that seeds share join them.
        (lambda s: [f"t{(s + m) % 4}" for m in range(2)], [[0, 1, 2, 3, 4, 5]]),
    ],
)
def test_the_unit_is_the_teacher(parents: Any, units: list[list[int]]) -> None:
    records: Records = {}
    exp = experiment("e", {"a": VALUES, "b": [90.0] * 6}, records)
    with_parents(records, "a", parents)
    found = collect(comparison(), {"e": exp}, records)
    assert found.units == units
    means = [np.mean([VALUES[s] - 90.0 for s in unit]) for unit in units]
    assert found.by_unit == pytest.approx(means)
    if len(units) == 3:
        unplanned = claim(comparison(), planned_seeds=None)
        [judged] = judge([unplanned], "smoke", [exp], records)
        expected = scipy_stats.ttest_1samp(means, 0)
        assert judged["comparisons"][0]["p"] == pytest.approx(expected.pvalue)


def test_a_run_that_teaches_other_seeds_joins_them() -> None:
    records: Records = {}
    exp = experiment("e", {"student": VALUES, "teacher": [90.0] * 6}, records)
    with_parents(records, "student", lambda s: [key("e", "teacher", s // 2)])
    found = collect(comparison("teacher", arm="student"), {"e": exp}, records)
    # Teacher 1 is the other side of seed 1, and taught seeds 2 and 3.
    assert found.units == [[0, 1, 2, 3, 4, 5]]


def test_seeds_that_share_a_split_count_once() -> None:
    records: Records = {}
    exp = experiment("e", {"a": VALUES, "b": [90.0] * 6}, records)
    for record in records.values():
        record["settings"]["split"]["share"] = 3
    assert collect(comparison(), {"e": exp}, records).units == [[0, 1, 2], [3, 4, 5]]


def test_intervals_of_an_arm_are_over_what_was_drawn() -> None:
    records: Records = {}
    exp = experiment("e", {"a": VALUES}, records)
    with_parents(records, "a", lambda s: [f"t{s // 2}"])
    [arm] = arm_tables.arms(exp, tidy([exp], records), records)
    means = np.array(VALUES).reshape(3, 2).mean(axis=1) / 100
    figure = arm["metrics"]["test_accuracy"]
    low, high = scipy_stats.t.interval(0.95, 2, means.mean(), scipy_stats.sem(means))
    assert figure["ci95"] == pytest.approx([low, high])
    assert (arm["n"], arm["units"], len(figure["values"])) == (6, 3, 6)
    band = next(c for c in arm_tables.curves(exp, records) if c["metric"] == "test_accuracy")
    assert [band["low"][-1], band["high"][-1]] == pytest.approx([low, high])
    assert band["n"] == 6


def test_the_teacher_of_a_teacher_is_shared_too() -> None:
    records: Records = {}
    exp = experiment("e", {"a": VALUES, "b": [90.0] * 6}, records)
    with_parents(records, "a", lambda s: [f"assistant-{s}"])
    for seed in range(6):
        used = {"teacher": [{"key": f"t{seed // 2}", "sha256": "x"}]}
        records[f"assistant-{seed}"] = {"inputs": {"parents": used}}
    assert collect(comparison(), {"e": exp}, records).units == [[0, 1], [2, 3], [4, 5]]


def test_evidence_knows_the_teachers_of_teachers(tmp_path: Path) -> None:
    """Though they are arms of another experiment, whose records the part does not show."""
    arms = {
        "assistant": student(TEACHER, {"nested": 2}, split={"share": 2}),
        "small": student("assistant", split={"share": 2}),
        "alone": {"split": {"share": 2}},
    }
    plan = planned(tmp_path, arms, seeds=4)
    out = tmp_path / "results/smoke"
    path = tmp_path / "config/papers/one.yaml"
    path.write_text(path.read_text().replace("experiment: teachers", "experiment: students")
                    .replace("arm: pool", "arm: small").replace("against: teacher",
                                                                "against: alone"))  # fmt: skip
    run(tmp_path, "prepare", "digits")
    for shard in plan.shards("one.students"):
        run(tmp_path, "train", shard.id, "--set", "seeds=4", "--output",
            f"{out}/records/{shard.id}.jsonl")  # fmt: skip
    run(tmp_path, "evidence", "one.students", "--set", "seeds=4", "--set", "planned=4",
        "--output", f"{out}/e.json")  # fmt: skip
    found = json.loads((out / "e.json").read_bytes())
    [row] = found["claims"][0]["comparisons"]
    assert (row["n"], row["units"]) == (2, [[0, 1], [2, 3]])


# What does not fit.


def test_weights_of_another_network_are_named() -> None:
    parent = parent_of("small_cnn")
    with pytest.raises(UserError, match=r"^init: the parent's weights do not fit .*first: "):
        factory.run({**factory.settings(), "init": "start", "init_share": 1.0},
                    parents={"start": [parent]})  # fmt: skip
    foreign = Trained(factory.settings(), parent.weights)
    with pytest.raises(UserError, match=r"^parents\.teacher: the checkpoint has .* bn_mlp"):
        teacher("teacher", [foreign], (1, 8, 8), 10)


def taught(tmp_path: Path, **arms: Json) -> tuple[Trainer, list[Json], list[Json]]:
    """Return a trainer that has trained the parents of seed 0, their jobs and their children's."""
    plan = planned(tmp_path, arms or {"small": student(TEACHER)}, seeds=1)
    jobs = part_jobs(plan, "one.students")
    children = [job for job in jobs if job["settings"]["parents"]]
    parents = [job for job in jobs if job not in children]
    trainer = factory.trainer(tmp_path / "store")
    trainer.train(parents)
    return trainer, parents, children


def refused(trainer: Trainer, child: Json, message: str, updates: list[int]) -> None:
    with pytest.raises(UserError, match=message) as caught:
        trainer.train([child])
    assert "\n" not in str(caught.value)
    assert updates == [] and trainer.store.read(child["key"]) is None


@pytest.fixture
def updates(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note every update that is made from here on."""
    made: list[int] = []
    inner = Run.step
    monkeypatch.setattr(Run, "step", lambda self, size: made.append(size) or inner(self, size))
    return made


def test_a_checkpoint_that_is_not_the_teachers_is_one_message_before_any_update(
    tmp_path: Path, updates: list[int]
) -> None:
    trainer, parents, [child] = taught(tmp_path)
    [parent] = of(parents, "teachers/teacher s0")
    record, path = trainer.store.read(parent["key"]), trainer.store.checkpoint(parent["key"])
    content = path.read_bytes()
    updates.clear()

    # Another file in its place.
    path.write_bytes(content[:-4] + b"\0\0\0\1")
    refused(trainer, child, rf"{path}: the checkpoint is not the one .* record describes", updates)

    # No file, and nobody to train it again.
    path.unlink()
    refused(trainer, child, rf"{path}: the checkpoint is missing; train its run again", updates)

    # That of another network, with a record that says so.
    save_weights(parent_of("small_cnn").weights, path)
    trainer.store.write(parent["key"], {**record, "checkpoint_sha256": file_sha256(path)})
    message = r"^one/students/small s0: parents\.teacher: the checkpoint has other weights than"
    refused(trainer, child, message, updates)

    # No safetensors at all.
    path.write_bytes(b"PK\3\4")
    trainer.store.write(parent["key"], {**record, "checkpoint_sha256": file_sha256(path)})
    refused(trainer, child, rf"{path}: not a complete safetensors file", updates)

    path.write_bytes(content)
    trainer.store.write(parent["key"], record)
    [found] = trainer.train([child])
    assert found["status"] == "done" and updates == [50] * 4


def test_a_start_may_differ_in_what_matters_in_training_alone(tmp_path: Path) -> None:
    """Whose list is right where no network says anything else for it in evaluation mode."""
    start = {"parents": {"start": TEACHER}, "init": "start", "model": {"dropout": 0.3}}
    planned(tmp_path, {"small": start})
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for name in models.names():
        kind = models.settings_type(name)
        changed = [f.name for f in dataclasses.fields(kind) if f.name in kind.TRAINING_ONLY]
        extra = {"hidden": 1} if name == "vgg" else {}
        answers = []
        for values in ({}, dict.fromkeys(changed, 0.3)):
            if changed:
                torch.manual_seed(0)
                net = models.build(name, {**extra, **values}, (1, 8, 8), 10).eval()
                answers.append(net(x))
        assert not changed or torch.equal(*answers), name


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


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ([{}] * 5, r"parents\.fold-0: must leave out .* has split folds null, fold null"),
        ([{"folds": 5, "fold": n % 4} for n in range(5)],
         r"parents\.fold-4: must leave out .* \(one/students/out4 has split folds 5, fold 0\)"),
        ([{"folds": 6, "fold": n} for n in range(5)],
         r"parents\.fold-0: .* one of 5, .* folds 6, fold 0\); set split\.folds 5 .* 0 to 4"),
        ([{"folds": 5, "fold": n, "labels": 80} for n in range(5)],
         r"parents\.fold-0: one/students/out0 has split\.labels 80, this arm 100; both must"),
    ],
    ids=["none", "one twice", "of another number", "of other samples"],
)  # fmt: skip
def test_folds_that_do_not_leave_each_sample_to_one_are_refused(
    splits: list[Json], message: str, tmp_path: Path
) -> None:
    parents = {f"fold-{n}": f"out{n}" for n in range(5)} | dict.fromkeys(
        ("expert-1", "expert-2"), TEACHER
    )
    arms = {f"out{n}": {"split": each, "batch": 40} for n, each in enumerate(splits)}
    arms["curriculum"] = {"method": {"name": "ces_kd", "experts": 2}, "parents": parents}
    with pytest.raises(UserError, match=rf"experiments\.students\.arms\.curriculum\.{message}"):
        planned(tmp_path, arms)
    # Whose part is whose does not matter.
    good = {f"out{n}": {"split": {"folds": 5, "fold": 4 - n}, "batch": 40} for n in range(5)}
    planned(tmp_path, {**arms, **good})


def test_experts_and_folds_train_from_configuration_alone(
    tmp_path: Path, trained: list[str]
) -> None:
    folds = {f"out{fold}": {"split": {"folds": 5, "fold": fold}, "batch": 40} for fold in range(5)}
    parents = {f"fold-{fold}": f"out{fold}" for fold in range(5)}
    parents |= {"expert-1": "assistant", "expert-2": TEACHER, "reference": TEACHER}
    arms = {**folds, "assistant": student(TEACHER)}
    for assignment in ("curriculum", "random", "reversed"):
        method = {"name": "ces_kd", "experts": 2, "assignment": assignment}
        arms[assignment] = {"method": method, "parents": parents}
    plan = planned(tmp_path, arms)
    jobs = part_jobs(plan, "one.students")
    records = factory.trainer(tmp_path / "store").train(jobs)
    assert len(trained) == len(set(trained)) == 2 * (1 + 1 + 5 + 1 + 3)
    assert {record["status"] for record in records} == {"done"}
    found = {job["label"]: r for job, r in zip(jobs, records, strict=True)}
    final = found["one/students/curriculum s1"]["final"]
    assert 0 < final["test_agreement"] <= 1
