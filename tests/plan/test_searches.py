"""Random searches in a plan: what studies try, who takes from which, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from factories.jobs import part_jobs
from factories.plan import keys, planned
from factories.project import arms
from factories.searches import SEARCH, searched

from cyclery.common.errors import UserError
from cyclery.plan.model import with_ancestors

Json = dict[str, Any]


def study(plan: Any, arm: str) -> Json:
    found: Json = plan.arm("one", "main", arm).search.arm.settings["study"]
    return found


def test_all_arms_try_the_same_configurations(tmp_path: Path) -> None:
    def change(tier: Json, paper: Json) -> None:
        searched(tier, paper)
        arms(paper)["focal"]["search_also"] = {"eta": [0.5, 1.0]}

    plan = planned(tmp_path, change)
    fast, focal = (study(plan, name)["trials"] for name in ("fast", "focal"))
    assert len(fast) == 6 and len({str(t["values"]) for t in fast}) == 6
    common = [{k: v for k, v in t["values"].items() if k != "eta"} for t in focal]
    assert common == [t["values"] for t in fast]
    assert {t["schedules"]["eta"]["peak"] for t in focal} == {0.5, 1.0}
    assert plan.arm("one", "main", "plain").search is None


def test_a_value_replaces_a_number_and_is_the_peak_of_a_schedule(tmp_path: Path) -> None:
    plan = planned(tmp_path, searched)
    for trial in study(plan, "fast")["trials"]:
        values, schedules = trial["values"], trial["schedules"]
        lr = schedules["lr"]
        assert (lr["kind"], lr["peak"], lr["of"]["kind"]) == ("scaled", values["lr"], "cosine")
        assert schedules["batch"] == {"kind": "constant", "value": values["batch"]}
        for name in ("weight_decay", "weight_decay_norm"):
            assert schedules[name] == {"kind": "constant", "value": values["weight_decay"]}
    lr = study(plan, "focal")["trials"][0]["schedules"]["lr"]
    assert lr == {"kind": "constant", "value": study(plan, "fast")["trials"][0]["values"]["lr"]}


def test_runs_of_a_split_take_from_its_study(tmp_path: Path) -> None:
    arm = planned(tmp_path, searched).arm("one", "main", "fast")
    assert arm.search and [arm.search.seeds(seed) for seed in range(5)] == [
        (0,), (0,), (2,), (2,), (4,)
    ]  # fmt: skip
    split, own = arm.search.arm.settings["split"], arm.settings["split"]
    assert own["retrain"] and split == {k: v for k, v in own.items() if k != "retrain"}
    assert arm.run(3)["searched"] == arm.search.arm.key(2)
    assert arm.search.arm.settings["draw"] == "search"
    assert arm.search.arm.settings["evaluations"] == arm.settings["epochs"]


def test_one_study_for_all_runs_is_on_a_split_of_its_own(tmp_path: Path) -> None:
    def change(tier: Json, paper: Json) -> None:
        searched(tier, paper)
        paper["experiments"]["main"]["search"]["per"] = "arm"

    arm = planned(tmp_path, change).arm("one", "main", "fast")
    assert arm.search and {arm.search.seeds(seed) for seed in range(5)} == {(1_000_000,)}


def test_studies_come_first_and_cost_what_halving_leaves(tmp_path: Path) -> None:
    plan = planned(tmp_path, searched)
    first, second = plan.shards("one")
    assert [cell.arm.id for cell in first.cells] == [
        "one/main/plain", "one/main/fast~search", "one/main/focal~search"
    ]  # fmt: skip
    assert plan.parent_shards(second) == [first]
    kinds = [(job["label"], job["kind"]) for job in part_jobs(plan, "one")]
    assert ("one/main/fast~search s0", "study") in kinds
    assert kinds[-1] == ("one/main/focal s1", "run")
    arm = plan.arm("one", "main", "fast")
    assert arm.search
    # 6 trials of 100 samples, 6 epochs: all train 2, half of them 2 more, a quarter the last 2.
    assert arm.search.arm.cost["images"] == 6 * 100 * (2 + 2 / 2 + 2 / 4)
    assert arm.searched("images") == arm.search.arm.cost["images"]
    assert arm.cost["images"] == 6 * 200


def test_a_tier_without_it_runs_arms_as_declared(tmp_path: Path) -> None:
    def without(tier: Json, paper: Json) -> None:
        searched(tier, paper)
        del paper["experiments"]["main"]["tiers"]["smoke"]["search"]

    def never(tier: Json, paper: Json) -> None:
        without(tier, paper)
        del paper["experiments"]["main"]["search"]

    plan = planned(tmp_path, without)
    assert all(
        arm.search is None for arm in (plan.arm("one", "main", x) for x in ("fast", "focal"))
    )
    assert keys(plan) == keys(planned(tmp_path, never))
    assert keys(plan)["one/main/fast"] != keys(planned(tmp_path, searched))["one/main/fast"]
    assert keys(plan)["one/main/plain"] == keys(planned(tmp_path, searched))["one/main/plain"]


def students(tier: Json, paper: Json) -> None:
    searched(tier, paper)
    arms(paper)["student"] = {"parents": {"teacher": "fast"}, "init": "teacher"}


def test_no_ancestor_of_a_trial_was_trained_on_validation_samples(tmp_path: Path) -> None:
    plan = planned(tmp_path, students)
    student = plan.arm("one", "main", "student")
    assert student.search and student.parents["teacher"].arm == plan.arm("one", "main", "fast")
    family = list(with_ancestors([student.search.arm]))
    assert len(family) == 3  # the study, its teacher, and the study of that
    assert not any(arm.settings["split"].get("retrain") for arm in family)
    teacher = student.search.arm.parents["teacher"].arm
    assert teacher.id == "one/main/fast~held-out" and teacher.cost["samples"] == 100
    assert teacher.search == plan.arm("one", "main", "fast").search


def test_a_parent_that_retrains_needs_a_child_that_does(tmp_path: Path) -> None:
    def change(tier: Json, paper: Json) -> None:
        students(tier, paper)
        arms(paper)["student"]["split"] = {"retrain": False}

    with pytest.raises(UserError, match=r"fast has split\.retrain true, this arm false"):
        planned(tmp_path, change)


def declare(**search: Any) -> Any:
    def change(paper: Json) -> None:
        paper["experiments"]["main"]["search"] = {**SEARCH, **search}

    return change


def arm(name: str, **settings: Any) -> Any:
    def change(paper: Json) -> None:
        arms(paper)[name] |= settings

    return change


def base(**split: Any) -> Any:
    def change(paper: Json) -> None:
        paper["experiments"]["main"]["base"]["split"] |= split

    return change


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            declare(grace_epochs=7),
            r"experiments.main.search.grace_epochs: must be at most 6, the epochs of the arm",
        ),
        (base(validation=0, retrain=False), r"split.validation: must be above 0 where arms are s"),
        (
            arm("fast", search_also={"weight": [1, 2]}),
            r"arms.fast.search_also: the method 'supervised' has no quantity 'weight'",
        ),
        (
            arm("fast", batch={"kind": "cycle", "easy": 25, "hard": 50, "factor": 2}),
            r"batch: must be a number where a search draws it, not a schedule",
        ),
        (
            declare(space={"clip_norm": [1, 2]}, tied={}),
            r"search.space.clip_norm: is not set in this arm; set it to any value",
        ),
        (
            declare(space={"batch": [10, 150]}, tied={}),
            r"one.yaml: experiments.main.search.space: batch 150 does not suit the arm: batch: "
            r"must be at most 100, the labelled samples of an epoch \(found 150\)",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused(tmp_path: Path, changed: Any, message: str) -> None:
    def change(tier: Json, paper: Json) -> None:
        searched(tier, paper)
        changed(paper)

    with pytest.raises(UserError, match=message):
        planned(tmp_path, change)


def test_methods_without_a_head_say_how_to_leave_the_search_out(tmp_path: Path) -> None:
    def change(tier: Json, paper: Json) -> None:
        searched(tier, paper)
        arms(paper)["fast"] |= {
            "method": "byol", "model": "bn_mlp", "strong": [{"op": "cutout", "size": 3}],
            "ema_decay": 0.9,
        }  # fmt: skip
        paper["experiments"]["main"]["base"]["split"]["unlabelled"] = "all"

    with pytest.raises(UserError, match="trains no head; set `searched: false` in the arm"):
        planned(tmp_path, change)


def test_validation_figures_of_arms_that_retrain_are_refused(tmp_path: Path) -> None:
    def change(tier: Json, paper: Json) -> None:
        searched(tier, paper)
        paper["claims"]["C-1"]["comparisons"][0]["metric"] = "val_accuracy"

    with pytest.raises(UserError, match="'val_accuracy' needs a validation split; 'fast' has none"):
        planned(tmp_path, change)
