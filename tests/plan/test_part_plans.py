"""Starts from parts of a parent, frozen parts and rates: what a plan makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from factories.checkout import ROOT
from factories.parents import TEACHER, arm, planned
from factories.plan import planned as planned_main
from factories.project import arms
from factories.threads import one_thread

from cyclery.common.errors import UserError
from cyclery.config.parts import resolved
from cyclery.config.settings import Settings
from cyclery.engine import made
from cyclery.evidence.settings_text import describe
from cyclery.plan.model import ArmPlan

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

Json = dict[str, Any]
SGD: Json = {"optimiser": {"name": "sgd"}}


def child(root: Path, init: Any, **more: Any) -> ArmPlan:
    """Return an arm that starts from the teacher in this way."""
    arms = {"small": {"parents": {"start": TEACHER}, "init": init, **more}}
    return arm(planned(root, arms), "small")


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ("start", None),
        ({"from": "start"}, None),
        ({"from": "start", "head": "keep"}, None),
        ({"from": "start", "parts": ["head", "features"]}, None),
        ({"from": "start", "parts": ["features"], "head": "keep"}, None),
        ({"from": "start", "head": "fresh"}, ["features"]),
        ({"from": "start", "parts": ["features"], "head": "fresh"}, ["features"]),
        ({"from": "start", "parts": ["features"]}, ["features"]),
        ({"from": "start", "parts": ["main.body.1", "body.0"]}, ["body.0", "body.1"]),
        ({"from": "start", "parts": ["projector"], "head": "keep"}, ["head", "projector"]),
    ],
)
def test_what_is_the_same_has_one_form(given: Any, parts: list[str] | None) -> None:
    init = Settings(init=given).init
    found = resolved({**SGD, "init": init})
    assert found == {"init": "start", "init_share": 1.0, **({"init_parts": parts} if parts else {})}


def test_what_says_nothing_is_absent() -> None:
    nothing = {"init": None, "init_share": None}
    assert resolved(SGD) == nothing
    assert resolved({**SGD, "rates": {"head": 1.0, "features": 1.0}}) == nothing
    given = Settings(frozen=["stem", "head"], rates={"main.body": 2, "body.0": 1})
    found = resolved({**SGD, "frozen": given.frozen, "rates": given.rates})
    assert found["frozen"] == ["head", "stem"] and found["rates"] == {"body": 2.0, "body.0": 1.0}
    assert list(found["rates"]) == ["body", "body.0"]


def test_a_key_is_that_of_what_is_computed(tmp_path: Path) -> None:
    whole, long, kept, fresh = (
        child(tmp_path / str(n), {"from": "start", **more} if more is not None else "start")
        for n, more in enumerate((None, {}, {"head": "keep"}, {"head": "fresh"}))
    )
    assert whole.digest == long.digest == kept.digest != fresh.digest
    assert whole.spent("images") == fresh.spent("images") == 2 * whole.cost["images"]
    rated = child(tmp_path / "rated", "start", rates={"head": 2})
    frozen = child(tmp_path / "frozen", "start", frozen=["features"])
    assert len({each.digest for each in (whole, fresh, rated, frozen)}) == 4


@pytest.mark.parametrize("init", [{"head": "fresh"}, {"head": "keep"}, {"parts": ["body"]}])
def test_other_labels_are_no_matter_where_it_is_said_what_comes_along(
    init: Json, tmp_path: Path
) -> None:
    found = child(tmp_path, {"from": "start", **init}, split={"labels": 50})
    assert found.settings["split"]["labels"] == 50


@pytest.mark.parametrize(
    "seeds", ["other", {"nested": 2}], ids=["another draw", "one for several seeds"]
)
def test_the_same_labels_may_come_along_from_any_seed(seeds: Any, tmp_path: Path) -> None:
    """For these rules give parent and child the same split."""
    more = {} if seeds == "other" else {"split": {"share": 2}}
    small = {"parents": {"start": {"arm": TEACHER, "seeds": seeds}}, "init": "start", **more}
    assert arm(planned(tmp_path, {"small": small}), "small").settings["init"] == "start"


def test_features_may_be_those_of_another_dataset(tmp_path: Path) -> None:
    cifar = {"dataset": "cifar10", "split": {"test": None, "validation": 0, "labels": 100}}
    other = {"dataset": "cifar100", "split": {"test": None, "validation": 50, "labels": 500}}
    small = {"parents": {"start": "pretrained"}, "init": {"from": "start", "head": "fresh"}}
    plan = planned(tmp_path, {"pretrained": other, "small": {**small, **cifar}})
    found = arm(plan, "small")
    assert found.settings["init_parts"] == ["features"]
    assert found.parents["start"].arm.settings["dataset"]["name"] == "cifar100"


def test_no_ancestor_may_have_seen_what_is_held_out_here(tmp_path: Path) -> None:
    cifar = {"dataset": "cifar10", "split": {"test": None, "validation": 0, "labels": 100}}
    other = {"dataset": "cifar100", "split": {"test": None, "validation": 50, "labels": 500}}
    fresh = {"from": "start", "head": "fresh"}
    arms = {
        "first": {**cifar, "split": {**cifar["split"], "validation": 10}},
        "second": {**other, "parents": {"start": "first"}, "init": fresh},
        "small": {**cifar, "parents": {"start": "second"}, "init": fresh},
    }
    with pytest.raises(UserError, match=r"second descends from .*first, .* cifar10 as this arm is"):
        planned(tmp_path, arms)


def test_the_same_images_under_another_name_are_no_other_dataset(tmp_path: Path) -> None:
    """It may have been trained on what this one is tested on."""
    twin = tmp_path / "config/datasets/twin.yaml"
    twin.parent.mkdir(parents=True)
    twin.write_text((ROOT / "config/datasets/digits.yaml").read_text())
    small = {"parents": {"start": "pretrained"}, "init": {"from": "start", "head": "fresh"}}
    with pytest.raises(UserError, match=r"parents\.start: .* is trained on twin, this arm on dig"):
        planned(tmp_path, {"pretrained": {"dataset": "twin"}, "small": small})


def test_words_of_settings(tmp_path: Path) -> None:
    begun = child(tmp_path / "1", {"from": "start", "head": "fresh"}, frozen=["features"],
                  rates={"head": 10})  # fmt: skip
    words = describe([begun])
    assert words["starts from"] == "features of start"
    assert words["frozen"] == "features" and words["rates by part"] == "head 10.0"
    usual = describe([child(tmp_path / "2", "start")])
    assert usual["starts from"] == "start" and not {"frozen", "rates by part"} & usual.keys()


def test_usual_parts_are_planned_without_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How networks are made is asked only where a module is named."""
    asked: list[str] = []
    inner = made.layout

    def noted(*given: Any) -> Any:
        asked.append("")
        return inner(*given)

    monkeypatch.setattr(made, "layout", noted)
    child(tmp_path / "1", {"from": "start", "head": "fresh"}, frozen=["features"],
          rates={"head": 10})  # fmt: skip
    assert asked == []
    child(tmp_path / "2", "start", rates={"body": 10})
    assert asked


def test_a_range_test_takes_no_parts(tmp_path: Path) -> None:
    def change(tier: Json, paper: Json) -> None:
        paper["experiments"]["main"]["range"] = {"low": 0.01, "high": 1, "epochs": 10}
        begun = {"parents": {"start": "plain"}, "init": {"from": "start", "head": "fresh"}}
        arms(paper)["small"] = {**begun, "lr": "range", "rates": {"head": 2}}

    found = planned_main(tmp_path, change).arm("one", "main", "small")
    assert found.settings["init_parts"] == ["features"] and found.range is not None
    swept = found.range.settings
    assert swept["init"] is None and "init_parts" not in swept
    assert swept["rates"] == {"head": 2.0}
