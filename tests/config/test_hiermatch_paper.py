"""What the arms of HIERMATCH share: all images, and as many that pass where claims say so."""

from __future__ import annotations

import numpy as np
import pytest
from factories import checkout
from factories import engine as factory

from cyclery.config.load import load
from cyclery.plan.graph import ArmPlan, Plan
from cyclery.plan.project_checks import check

# Four labels of each class, or what costs as much where a coarse one costs 1, 1/2, 1/4 and 1/10.
PRICES = {"coarse-20": 1.0, "coarse-40": 0.5, "coarse-80": 0.25, "coarse-200": 0.1}


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    root = checkout.copy(tmp_path_factory.mktemp("hiermatch"), "config")
    return check(load(root, {"tier": "smoke", "papers": ["hiermatch"]}))


def arms(plan: Plan, experiment: str) -> dict[str, ArmPlan]:
    names = plan.arm_names("hiermatch", experiment)
    return {name: plan.arm("hiermatch", experiment, name) for name in names}


@pytest.mark.parametrize("experiment", ["half", "half-fixmatch", "full"])
def test_every_arm_has_the_same_images(smoke: Plan, experiment: str) -> None:
    """Those without a label, or with a coarse one, are unlabelled for the classes."""
    every = []
    for arm in arms(smoke, experiment).values():
        parts = factory.data().split(arm.settings["split"], 3)
        assert not set(parts["train"]) & set(parts["unlabelled"])
        every.append(np.sort(np.concatenate([parts["train"], parts["unlabelled"]])).tolist())
        if arm.settings["split"].get("coarse"):
            assert set(parts["labelled.2"]) - set(parts["train"]) <= set(parts["unlabelled"])
    assert all(found == every[0] for found in every)


def test_fewer_labels_are_some_of_the_more(smoke: Plan) -> None:
    found = arms(smoke, "half")
    few, more = (
        set(factory.data().split(found[name].settings["split"], 3)["train"])
        for name in ("half", "fine")
    )
    assert len(few) == 20 and len(more) == 40 and few < more


@pytest.mark.parametrize("experiment", ["half", "half-fixmatch"])
def test_twice_the_updates_of_one_level_pass_as_many_images_as_two(
    smoke: Plan, experiment: str
) -> None:
    found = arms(smoke, experiment)
    cost = {name: arm.cost for name, arm in found.items()}
    assert cost["half-twice"]["updates"] == 2 * cost["half"]["updates"]
    for name in found:
        if "coarse" in name:
            assert cost[name]["forwards"] == cost["half-twice"]["forwards"]
            assert cost[name]["updates"] == cost["half"]["updates"] == cost["fine"]["updates"]


def test_labels_of_arms_cost_what_claims_say(smoke: Plan) -> None:
    found = arms(smoke, "half")
    for name, price in PRICES.items():
        split = found[name].settings["split"]
        [coarse] = split["coarse"]
        assert 10 * split["per_class"] + price * coarse == 40, name
    claims = smoke.project.papers["hiermatch"].claims
    for name, price in (("10", 0.1), ("25", 0.25), ("50", 0.5)):
        [comparison] = claims[f"HIERMATCH-1-cost-{name}"].comparisons
        assert PRICES[str(comparison.arm)] == price and comparison.against == "fine"
