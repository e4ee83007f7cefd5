"""Seeds of single arms: what they change in a plan, what not, and files that are none."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from factories.plan import chain, planned

from cyclery.common.errors import UserError
from cyclery.plan import allocation
from cyclery.plan.graph import Plan
from cyclery.plan.snakemake_api import Graph

Json = dict[str, Any]


def place(root: Path) -> Path:
    return allocation.place(root / "results", "smoke")


def runs(plan: Plan, group: str = "one") -> dict[str, list[int]]:
    """Return the seeds of every arm in the shards."""
    found: dict[str, set[int]] = {}
    for arm, seed in (run for shard in plan.shards(group) for run in shard.runs):
        found.setdefault(arm.name, set()).add(seed)
    return {name: sorted(seeds) for name, seeds in found.items()}


def by_experiment(tier: Json, paper: Json) -> None:
    """Let every cell of two experiments be a job."""
    tier.update(seeds=4, block=2, shard_by="experiment", cells_per_job=1)
    twin = {"title": "twin", "tiers": {"smoke": {}}, "arms": {"plain": {}, "slow": {"lr": 0.01}}}
    paper["experiments"]["twin"] = twin


def test_an_arm_has_its_own_number_and_the_others_the_tiers(tmp_path: Path) -> None:
    allocation.write(place(tmp_path), {"one.main.fast": 5, "gone.main.fast": 9})
    plan = planned(tmp_path)
    assert runs(plan) == {"plain": [0, 1], "fast": [0, 1, 2, 3, 4]}
    assert plan.allocated("one") and not plan.allocated("two")
    allocation.write(place(tmp_path), {"one.main.fast": 0, "one.main.plain": 3})
    assert runs(planned(tmp_path)) == {"plain": [0, 1, 2]}
    # What is asked for as `seeds` every arm has.
    assert runs(planned(tmp_path, seeds=2)) == {"plain": [0, 1, 2], "fast": [0, 1]}
    allocation.write(place(tmp_path), {"one.main.fast": 0, "one.main.plain": 0})
    assert runs(planned(tmp_path)) == {} and Graph(planned(tmp_path), {}).record_files("one") == []


def test_seeds_of_one_experiment_leave_shards_of_others_as_they_are(tmp_path: Path) -> None:
    before = planned(tmp_path, by_experiment)
    kept = {shard.id: shard.digest for name in ("main", "twin")
            for shard in before.shards(f"one.{name}")}  # fmt: skip
    allocation.write(place(tmp_path), {"one.main.fast": 8, "one.main.plain": 8})
    after = planned(tmp_path, by_experiment)
    found = {shard.id: shard.digest for name in ("main", "twin")
             for shard in after.shards(f"one.{name}")}  # fmt: skip
    assert found.items() > kept.items()
    assert {name.partition("/")[0] for name in found.keys() - kept} == {"one.main"}
    first, last = (plan.arm("one", "main", "fast").key(0) for plan in (before, after))
    assert first == last
    digests = [Graph(plan, {}).part_digest("one.twin") for plan in (before, after)]
    assert digests[0] == digests[1]
    digests = [Graph(plan, {}).part_digest("one") for plan in (before, after)]
    assert digests[0] != digests[1]


def test_ancestors_have_what_is_needed_of_them(tmp_path: Path) -> None:
    allocation.write(place(tmp_path), {"one.main.student": 3, "one.main.plain": 0,
                                       "one.main.assistant": 1, "one.main.fast": 1})  # fmt: skip
    plan = planned(tmp_path, chain)
    assert runs(plan) == {
        "plain": [0, 1, 2], "assistant": [0, 1, 2], "student": [0, 1, 2], "fast": [0],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "not valid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "must be keys and values"),
        ('{"format": 2, "tier": "smoke", "seeds": {}}', "format: "),
        ('{"format": 1, "tier": "desk", "seeds": {}}', "tier: must be 'smoke'"),
        ('{"format": 1, "tier": "smoke"}', "seeds: missing"),
        ('{"format": 1, "tier": "smoke", "seeds": {}, "more": 1}', "unknown key 'more'"),
        ('{"format": 1, "tier": "smoke", "seeds": {"one.main.fast": -1}}', "at least 0"),
        ('{"format": 1, "tier": "smoke", "seeds": {"one.main.fast": 1e9}}', "whole number"),
        ('{"format": 1, "tier": "smoke", "seeds": {"one.main.fast": 1001}}', "at most 1000"),
        ('{"format": 1, "tier": "smoke", "seeds": {"one.main.fast": true}}', "whole number"),
        ('{"format": 1, "tier": "smoke", "seeds": {"one.main.fast": NaN}}', "whole number"),
        ('{"format": 1, "tier": "smoke", "seeds": {"one.main.fast\\u001b[31m": 1}}', "seeds"),
        ('{"format": 1, "tier": "smoke", "seeds": {"../../etc": 1}}', "seeds"),
        (b"\xff\xfe", "not valid JSON"),
    ],
)
def test_a_file_that_is_no_allocation_is_refused_in_one_message(
    tmp_path: Path, content: str | bytes, said: str
) -> None:
    path = place(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as refused:
        allocation.read(path)
    message = str(refused.value)
    assert said in message and str(path) in message and "delete it" in message
    assert message.replace("\n", "").isprintable()
    with pytest.raises(UserError, match="delete it"):
        planned(tmp_path).shards("one")


def test_a_pipe_a_folder_and_a_huge_file_are_refused(tmp_path: Path) -> None:
    path = place(tmp_path)
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    with pytest.raises(UserError, match="no regular file"):
        allocation.read(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match="delete it"):
        allocation.read(path)
    path.rmdir()
    path.write_text(" " * 10_000_001)
    with pytest.raises(UserError, match="more than 10,000,000 bytes"):
        allocation.read(path)


def test_the_same_seeds_give_the_same_bytes(tmp_path: Path) -> None:
    path = place(tmp_path)
    allocation.write(path, {"b.c.d": 2, "a.b.c": 1})
    once = path.read_bytes()
    allocation.write(path, {"a.b.c": 1, "b.c.d": 2})
    assert path.read_bytes() == once and json.loads(once)["tier"] == "smoke"
    assert allocation.read(path) == {"a.b.c": 1, "b.c.d": 2}
    assert allocation.read(tmp_path / "nothing.json") == {}
