"""Configuration becomes arms, cells, shards and run keys; what changes a key and what does not."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from factories.plan import chain, keys, planned
from factories.project import arms

from cyclery.config.load import load
from cyclery.methods import supervised
from cyclery.plan import resolve_arms
from cyclery.plan.graph import Plan
from cyclery.plan.project_checks import check
from cyclery.plan.snakemake_api import Graph

Json = dict[str, Any]

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


def test_parts(tmp_path: Path) -> None:
    def change(tier: Json, paper: Json) -> None:
        arms(paper)["extra"] = {"lr": 0.5}

    plan = planned(tmp_path, change)
    assert list(plan.parts()) == ["one", "one.main", "one.C-1"]
    assert {arm for *_, arm in plan.part_arms("one.main")} == {"plain", "fast", "extra"}
    assert {arm for *_, arm in plan.part_arms("one.C-1")} == {"plain", "fast"}


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


def test_a_checked_plan_is_the_same_without_its_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(tmp_path, chain)

    def again(*arguments: Any, **options: Any) -> None:
        raise AssertionError("checked again")

    for name in ("check_parts", "check_parents"):
        monkeypatch.setattr(resolve_arms, name, again)
    project = load(tmp_path, {})
    found = Plan(project, checked=True)
    assert keys(found) == keys(plan)
    assert Graph(found, {}).part_digest("one") == Graph(plan, {}).part_digest("one")
    with pytest.raises(AssertionError, match="checked again"):
        keys(Plan(project))


def test_planning_imports_nothing_heavy(tmp_path: Path) -> None:
    planned(tmp_path, chain)
    script = (
        "import sys; from pathlib import Path; from cyclery.config.load import load; "
        "from cyclery.plan.snakemake_api import Graph; "
        f"g = Graph.of(load(Path({str(tmp_path)!r}), {{}})); g.parts(); g.record_files('one'); "
        "heavy = {'torch', 'torchvision', 'pandas', 'scipy', 'matplotlib', 'sklearn', 'jinja2', "
        "'snakemake'}; print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
