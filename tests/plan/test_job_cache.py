"""The cache of shard jobs: always equal to what a new expansion of the configuration gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from factories.project import TIER, rich_paper, write

from cyclery.common.errors import UserError
from cyclery.config.load import load
from cyclery.plan import job_cache, run_list
from cyclery.plan.graph import Plan
from cyclery.plan.job_specs import shard_jobs, source_jobs
from cyclery.plan.project_checks import check

Json = dict[str, Any]


class Reading:
    """A project, and how often its whole configuration was read."""

    def __init__(self, root: Path) -> None:
        self.root, self.times = root, 0
        self.paper = rich_paper()
        self.write()

    def write(self, **changes: Any) -> None:
        tier = {**TIER, "shard_by": "experiment", "cells_per_job": 1, "block": 1, "tuning": True}
        tier |= changes
        write(self.root, tier, self.paper)

    def plan(self) -> Plan:
        self.times += 1
        return check(load(self.root))

    def jobs(self, shard: str, *overrides: str, expect: str | None = "") -> job_cache.ShardJobs:
        """Return the jobs of a shard, by default as its job requests them."""
        if expect == "":
            expect = check(load(self.root)).shard(shard).digest
        return job_cache.order(self.root, overrides, shard, expect, self.plan)


@pytest.fixture
def project(tmp_path: Path) -> Reading:
    return Reading(tmp_path)


def kept(root: Path) -> list[Path]:
    return sorted((root / ".cyclery").rglob("*.jsonl"))


def through_json(jobs: list[Json]) -> Any:
    return json.loads(json.dumps(jobs))


def test_cached_jobs_are_what_the_plan_says(project: Reading) -> None:
    plan = project.plan()
    shards = [shard for group in plan.groups("one") for shard in plan.shards(group)]
    assert any(source_jobs(shard) for shard in shards) and len(shards) > 5
    for shard in shards:
        found = project.jobs(shard.id)
        assert found.digest == shard.digest
        assert found.jobs == through_json(shard_jobs(shard))
        assert found.sources == through_json(source_jobs(shard))
        assert found.setting == job_cache.setting(plan)
    assert project.times == 2, "one for the comparison, one for all jobs"


def test_an_experiment_of_a_paper_that_is_trained_as_one_is_cached_too(project: Reading) -> None:
    project.write(shard_by="paper")
    assert project.plan().groups("one") == ["one"]
    for shard in ("one.main/L0-0000", "one/L0-0000"):
        assert project.jobs(shard).jobs == through_json(shard_jobs(project.plan().shard(shard)))
    read = project.times
    assert project.jobs("one.main/L0-0000").jobs and project.times == read


def test_a_changed_configuration_or_override_is_read_anew(project: Reading) -> None:
    shard = next(s.id for s in project.plan().shards(project.plan().groups("one")[0]))
    first, read = project.jobs(shard), project.times
    assert project.jobs(shard) == first and project.times == read
    # Who expects nothing, as by hand, is told nothing old.
    assert project.jobs(shard, expect=None) == first and project.times == read + 1
    read += 1
    project.jobs(shard, "device=cpu")
    assert project.times == read + 1
    experiment = project.paper["experiments"][shard.partition("/")[0].partition(".")[2]]
    experiment["base"] = {**experiment.get("base", {}), "epochs": 7}
    project.write()
    assert project.jobs(shard).digest != first.digest


def test_a_damaged_line_is_not_used(project: Reading) -> None:
    shard = project.plan().shards(project.plan().groups("one")[0])[0].id
    first, read = project.jobs(shard), project.times
    for content in (b'"epochs":5', b""):
        for path in kept(project.root):
            whole = path.read_bytes()
            assert content in whole
            path.write_bytes(whole.replace(content, b'"epochs":6') if content else b"")
        read += 1
        assert project.jobs(shard) == first and project.times == read


def test_a_job_goes_on_where_nothing_can_be_kept(project: Reading) -> None:
    shard = project.plan().shards(project.plan().groups("one")[0])[0].id
    (project.root / ".cyclery").write_text("in the way")
    assert project.jobs(shard).jobs
    with pytest.raises(UserError, match="no shard"):
        project.jobs("one/L9-0000", expect=None)


def test_old_configurations_are_forgotten(
    project: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_cache, "MOST_ENTRIES", 2)
    shard = project.plan().shards(project.plan().groups("one")[0])[0].id
    for text in ("a=1", "a=2", "a=3", "a=4"):
        project.jobs(shard, text)
    assert len(list((project.root / ".cyclery").iterdir())) == 2


def test_what_was_kept_counts_only_where_it_is_expected(
    project: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if two configurations had one hash."""
    monkeypatch.setattr(job_cache, "fingerprint", lambda *_: "same")
    group = project.plan().groups("one")[0]
    shard = project.plan().shards(group)[0].id
    first = project.jobs(shard)
    project.paper["experiments"]["main"]["base"] = {"epochs": 7}
    project.write()
    second = project.jobs(shard)
    assert second.digest != first.digest
    assert project.jobs(shard) == second


def test_an_edit_while_the_configuration_is_read_is_not_kept(project: Reading) -> None:
    shard = project.plan().shards(project.plan().groups("one")[0])[0].id
    expected = check(load(project.root)).shard(shard).digest

    def disturbed() -> Plan:
        found = project.plan()
        (project.root / "config/papers/two.yaml").write_text("half an edit")
        return found

    job_cache.order(project.root, (), shard, expected, disturbed)
    assert not kept(project.root)


def test_what_decides_is_in_the_hash_and_what_editors_leave_is_not(
    project: Reading, tmp_path: Path
) -> None:
    papers = project.root / "config/papers"
    before = job_cache.fingerprint(project.root, ())
    (papers / ".#one.yaml").symlink_to("somebody@somewhere")
    assert job_cache.fingerprint(project.root, ()) == before is not None
    (papers / "one.yaml").rename(papers / "two.yaml")
    renamed = job_cache.fingerprint(project.root, ())
    assert renamed != before
    # A folder of papers may lie elsewhere.
    elsewhere = tmp_path / "elsewhere"
    papers.rename(elsewhere)
    papers.symlink_to(elsewhere)
    assert job_cache.fingerprint(project.root, ()) == renamed
    (elsewhere / "two.yaml").write_text("other")
    assert job_cache.fingerprint(project.root, ()) != renamed
    (papers / "two.yaml").unlink()
    (papers / "two.yaml").symlink_to("nowhere")
    assert job_cache.fingerprint(project.root, ()) is None


@pytest.mark.parametrize("name", ["setting", "run"])
def test_only_shards_have_jobs(project: Reading, name: str) -> None:
    group = project.plan().groups("one")[0]
    project.jobs(project.plan().shards(group)[0].id)
    with pytest.raises(UserError, match="no shard"):
        project.jobs(f"{group}/{name}", expect="0")


def test_the_list_of_runs_is_planned_once(project: Reading) -> None:
    """And anew after an edit, for other parts, and where the entry is damaged."""
    count = 0

    def load_plan() -> Plan:
        nonlocal count
        count += 1
        return project.plan()

    def ask(*parts: str) -> run_list.RunList:
        return run_list.run_list(project.root, (), parts, load_plan)

    first = ask()
    assert first == ask() == run_list.expand(project.plan(), []) and count == 1
    assert ask("one") == run_list.expand(project.plan(), ["one"]) and count == 2
    for _ in range(2):
        with pytest.raises(UserError, match="nowhere"):
            ask("nowhere")
    assert count == 4
    for path in (project.root / ".cyclery").rglob("runs-*.json"):
        path.write_text(path.read_text().replace("one", "two"))
    assert ask() == first and count == 5
    project.paper["experiments"]["main"]["base"] = {"epochs": 7}
    project.write()
    assert ask() != first and count == 6
