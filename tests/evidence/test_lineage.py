"""What stands behind a run: its budget holds the run that it starts from, not its teachers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from factories.project import PAPER, TIER, arms, evidence, refused, trained, write
from factories.record import settings

from cyclery.config.load import load
from cyclery.evidence.stats import contrasts
from cyclery.evidence.stats.lineage import ancestors_images, budget
from cyclery.evidence.stats.pairing import Pairs
from cyclery.plan.project_checks import check

Json = dict[str, Any]


def paper(**changes: Json) -> Json:
    """Return a paper whose arm `fast` is compared with `plain`, with these arms besides."""
    found = copy.deepcopy(PAPER)
    arms(found).update(changes)
    return found


STARTED: Json = {"parents": {"start": "first"}, "init": "start"}


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_a_fine_tuned_arm_has_its_starts_samples_in_its_budget(
    share: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    declared = paper(first={"epochs": 7}, fast={**STARTED, "init_share": share})
    write(tmp_path, TIER, declared)
    said = refused(tmp_path, capsys)
    assert "different numbers of samples (fast 1,200, plain 500, with those of the runs" in said
    declared["claims"]["C-1"]["comparisons"][0]["unequal_budget"] = "it is about fine-tuning"
    write(tmp_path, TIER, declared)
    check(load(tmp_path, {}))


def test_starts_count_down_the_chain_and_may_be_made_equal(tmp_path: Path) -> None:
    second = {"parents": {"start": "second"}, "init": "start", "epochs": 1}
    chain = paper(first={"epochs": 7}, second={**STARTED, "epochs": 2}, fast=second,
                  plain={"epochs": 10})  # fmt: skip
    write(tmp_path, TIER, chain)
    plan = check(load(tmp_path, {}))
    assert plan.arm("one", "main", "fast").budget == 1000
    assert plan.arm("one", "main", "fast").cost["images"] == 100


def test_a_teacher_is_no_part_of_the_budget(tmp_path: Path) -> None:
    taught = {"parents": {"teacher": "first"}, "method": "kd"}
    write(tmp_path, TIER, paper(first={"epochs": 7}, fast=taught))
    assert check(load(tmp_path, {})).arm("one", "main", "fast").budget == 500


def record(images: float, init: str | None = None, **parents: list[str]) -> Json:
    given = {**settings(0), "init": init, "parents": parents}
    return {"status": "done", "images": images, "settings": given}


RECORDS = {
    "a": record(700),
    "b": record(200, "start", start=["a"], teacher=["t1", "t2"]),
    "c": record(100, "start", start=["b"], teacher=["t1"]),
    "t1": record(50),
    "t2": record(60),
    "other": record(300),
    "lost": record(10, "start", start=["nowhere"]),
}


def test_budgets_of_records() -> None:
    assert [budget(key, RECORDS) for key in ("a", "b", "c", "other")] == [700, 900, 1000, 300]
    assert budget("lost", RECORDS) is None and budget("nowhere", RECORDS) is None


def test_ancestors_of_records_count_once() -> None:
    found = [ancestors_images(key, RECORDS) for key in ("a", "b", "c", "other", "lost")]
    assert found == [0, 810, 1010, 0, None]


@pytest.mark.parametrize(
    ("other", "said"), [("a", "'fast' saw 1000 samples and its comparator 700"), ("lost", None)]
)
def test_a_report_names_a_start_that_is_not_declared(other: str, said: str | None) -> None:
    found = Pairs(keys=[["c", other]], columns=[("main", arm, "m") for arm in ("fast", "plain")])
    text = contrasts.unequal_images({}, found, RECORDS)
    assert (said is None and text is None) or (said is not None and said in str(text))
    assert contrasts.unequal_images({"unequal_budget": "why"}, found, RECORDS) is None


def test_the_evidence_has_what_ancestors_saw() -> None:
    shown = {arm["id"]: arm for arm in evidence(trained())["experiments"][0]["arms"]}
    assert shown["plain"]["ancestors_images"] == 0
    assert shown["student"]["ancestors_images"] == shown["plain"]["images"] > 0
