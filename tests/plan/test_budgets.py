"""What a comparison holds equal: samples, updates, images of all views, forward passes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from factories import component, pretraining
from factories.project import PAPER, TIER, arms, comparison, refused, write

from cyclery import methods
from cyclery.common.errors import UserError
from cyclery.config.load import load
from cyclery.plan.graph import Plan
from cyclery.plan.project_checks import check

Json = dict[str, Any]
# Four views of images at an update for each labelled sample.
RICH: Json = {
    "method": {"name": "mean_teacher"}, "ema_decay": 0.9, "mu": 1, "split": {"unlabelled": "all"},
}  # fmt: skip
STUDENT: Json = {"parents": {"teacher": "first"}, "method": "kd"}


def paper(equal: Json, **changes: Json) -> Json:
    """Return a paper whose arm `fast` is compared with `plain`, holding this `equal`."""
    found = copy.deepcopy(PAPER)
    for name, settings in changes.items():
        arms(found).setdefault(name, {}).update(settings)
    comparison(found).update(equal)
    return found


def planned(root: Path, declared: Json, seeds: int = 2, **tier: Any) -> Plan:
    write(root, {**copy.deepcopy(TIER), "seeds": seeds, **tier}, declared)
    return check(load(root, {}))


@pytest.mark.parametrize(
    ("equal", "said"),
    [
        ({}, "see different numbers of samples (fast 1,000, plain 500); make"),
        ({"equal": "updates"}, "make different numbers of updates (fast 20, plain 10); make"),
        ({"equal": "views"}, "see different numbers of images of all views (fast 1,000, plain 500"),
        ({"equal": "forwards"}, "make different numbers of forward passes (fast 1,000, plain 500"),
    ],
)
def test_a_difference_is_named_in_the_measure_that_is_asked_for(
    equal: Json, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, TIER, paper(equal, fast={"epochs": 10}))
    text = refused(tmp_path, capsys)
    assert f"claims.C-1.comparisons[0]: the arms {said}" in text
    held = f"this is {equal.get('equal', 'images')}, started)"
    assert held in text and "`equal`: forwards, images, updates, views;" in text
    assert "or give the reason as `unequal_budget`." in text
    planned(tmp_path, paper({**equal, "unequal_budget": "it is about length"}, fast={"epochs": 10}))


def test_what_is_equal_is_a_choice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Half the batch: as many samples in twice as many updates.
    half: Json = {"batch": 25}
    planned(tmp_path, paper({}, fast=half))
    planned(tmp_path, paper({"equal": "views"}, fast=half))
    write(tmp_path, TIER, paper({"equal": "updates"}, fast=half))
    assert "make different numbers of updates (fast 20, plain 10)" in refused(tmp_path, capsys)
    longer: Json = {"fast": {**half, "epochs": 1}, "plain": {"epochs": 2}}
    planned(tmp_path, paper({"equal": "updates"}, **longer))
    with pytest.raises(UserError, match=r"numbers of samples \(fast 100, plain 200\)"):
        planned(tmp_path, paper({}, **longer))
    # A labelled and an unlabelled sample, each in two views.
    write(tmp_path, TIER, paper({"equal": "views"}, fast=RICH))
    assert "images of all views (fast 2,000, plain 500)" in refused(tmp_path, capsys)
    planned(tmp_path, paper({"equal": "views"}, fast=RICH, plain={"epochs": 20}))


def test_teachers_count_where_all_ancestors_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first: Json = {"epochs": 7}
    planned(tmp_path, paper({}, first=first, fast=STUDENT))
    write(tmp_path, TIER, paper({"ancestors": "all"}, first=first, fast=STUDENT))
    said = refused(tmp_path, capsys)
    assert "samples (fast 1,200, of which 700 by all its ancestors, plain 500); make" in said
    planned(tmp_path, paper({"ancestors": "all"}, first=first, fast=STUDENT, plain={"epochs": 12}))
    started: Json = {"parents": {"start": "first"}, "init": "start"}
    planned(tmp_path, paper({"ancestors": "none"}, first=first, fast=started))


def test_members_of_an_ensemble_count_each_run_once(tmp_path: Path) -> None:
    # Seeds 2 s and 2 s + 1 of `taught` teach seed s; three of them have one teacher in turn.
    taught: Json = {**STUDENT, "split": {"share": 6}}
    taught["parents"] = {"teacher": {"arm": "first", "seeds": {"nested": 3}}}
    fast: Json = {**STUDENT, "split": {"share": 3}}
    fast["parents"] = {"teacher": {"arm": "taught", "seeds": {"members": 2}}}
    plain: Json = {"epochs": 20, "split": {"share": 3}}
    given: Json = {"first": {"split": {"share": 2}}, "taught": taught, "fast": fast, "plain": plain}
    arm = planned(tmp_path, paper({"unequal_budget": "-"}, **given)).arm("one", "main", "fast")
    assert [arm.spent("images", "all", seed) for seed in (0, 1)] == [2000, 2500]
    assert [len(arm.ancestors(seed)) for seed in (0, 1)] == [3, 4]
    assert arm.spent("images") == arm.spent("images", "none") == 500
    # A control that is equal in the first seed alone is not.
    with pytest.raises(
        UserError, match=r"\(fast 2,500, of which 2,000 by all its anc.*, plain 2,0"
    ):
        planned(tmp_path, paper({"ancestors": "all"}, **given))


def test_range_tests_and_trials_are_said_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    declared = paper({"ancestors": "all"}, first={"lr": "range", "epochs": 7}, fast=STUDENT)
    declared["experiments"]["main"]["range"] = {"low": 0.01, "high": 3, "epochs": 20, "seeds": 2}
    write(tmp_path, TIER, declared)
    said = refused(tmp_path, capsys)
    # Two sweeps of 20 epochs of 100 samples.
    assert "by all its ancestors, and 4,000 in range tests and tuning besides, plain 500)" in said


def test_trials_of_tuning_are_apart_with_what_they_descend_from(tmp_path: Path) -> None:
    declared = paper({}, first={"epochs": 7}, fast=STUDENT)
    declared["experiments"]["main"]["tune"] = {"lr": [0.5, 1]}
    plan = planned(tmp_path, declared, tuning=True, tuning_seeds=3)
    fast, plain = (plan.arm("one", "main", name) for name in ("fast", "plain"))
    assert plain.searched("images") == 2 * 3 * 500 and plain.spent("images", "all") == 500
    assert plain.searched("updates") == 2 * 3 * 10
    assert fast.spent("images", "all") == 500 + 700
    # Both trials of the student have one teacher for each seed of tuning.
    assert fast.searched("images") == 2 * 3 * 500 + 3 * 700


@pytest.fixture
def pretraining_method(tmp_path: Path) -> Iterator[str]:
    """Write a method that trains on unlabelled views alone; return its name."""
    with component.written(methods, tmp_path / "methods") as writer:
        writer(pretraining.NAME, pretraining.METHOD)
        yield pretraining.NAME


def test_pretraining_without_labels_is_in_the_budget(
    pretraining_method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The child and its control see the same labelled samples in as many epochs.
    for measure, before, own in (
        ("images", pretraining.IMAGES, 500), ("updates", pretraining.UPDATES, 10),
        ("views", pretraining.VIEWS, 500), ("forwards", pretraining.FORWARDS, 500),
    ):  # fmt: skip
        write(tmp_path, TIER, pretraining.paper(equal=measure))
        said = refused(tmp_path, capsys)
        assert (
            f"(fast {before + own:,}, of which {before:,} by the runs that it starts from, "
            f"plain {own})" in said
        )
    planned(tmp_path, pretraining.paper(unequal_budget="the claim is about pretraining"))
    planned(tmp_path, pretraining.paper(ancestors="none"))
