"""Random search as it is declared: configurations that are drawn, and mistakes that are named."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats

from cyclery.config.models import Experiment
from cyclery.config.search import Span, changes, configurations

Json = dict[str, Any]
SPACE: Json = {
    "lr": Span(low=1e-4, high=1e-1),
    "weight_decay": Span(low=1e-5, high=1e-1),
    "batch": [10.0, 25.0, 50.0],
}
GIVEN: Json = {
    "title": "-",
    "tiers": {"smoke": {"search": {"trials": 4}}, "desk": {}},
    "arms": {"a": {"search_also": {"weight": [0.1, 1]}}, "b": {"searched": False}},
    "search": {
        "trials": 30,
        "grace_epochs": 10,
        "space": {"lr": {"low": 1e-4, "high": 0.1}, "batch": [10, 25, 50]},
        "tied": {"weight_decay_norm": "lr"},
    },
}


def test_values_are_log_uniform_and_sizes_uniform() -> None:
    drawn = configurations(SPACE, 1000)
    for name in ("lr", "weight_decay"):
        span = SPACE[name]
        values = [math.log(each[name]) for each in drawn]
        low, high = math.log(span.low), math.log(span.high)
        assert stats.kstest(values, "uniform", args=(low, high - low)).pvalue > 0.01
        assert span.low <= min(each[name] for each in drawn)
    counts = np.unique([each["batch"] for each in drawn], return_counts=True)[1]
    assert stats.chisquare(counts).pvalue > 0.01
    # Each by itself.
    rates, decays = ([each[name] for each in drawn] for name in ("lr", "weight_decay"))
    assert abs(stats.spearmanr(rates, decays).statistic) < 0.1


def test_a_linear_scale_is_uniform() -> None:
    space = {"weight": Span(low=1.0, high=3.0, scale="linear")}
    values = [each["weight"] for each in configurations(space, 1000)]
    assert stats.kstest(values, "uniform", args=(1.0, 2.0)).pvalue > 0.01


def test_draws_depend_on_space_and_number_alone() -> None:
    drawn = configurations(SPACE, 20)
    assert configurations(SPACE, 30)[:20] == drawn
    more = configurations({**SPACE, "weight": [0.1, 1.0]}, 20)
    assert [{k: v for k, v in each.items() if k != "weight"} for each in more] == drawn
    wider = configurations({**SPACE, "lr": Span(low=1e-4, high=1.0)}, 20)
    assert [each["lr"] for each in wider] != [each["lr"] for each in drawn]
    assert [each["batch"] for each in wider] == [each["batch"] for each in drawn]
    assert all(float(f"{each['lr']:.6g}") == each["lr"] for each in drawn)


def test_a_tier_changes_what_it_names() -> None:
    exp = Experiment.model_validate(GIVEN)
    assert exp.search and exp.tiers["smoke"].search
    found = exp.tiers["smoke"].search.over(exp.search)
    assert (found.trials, found.grace_epochs, found.last, found.per) == (4, 10, 5, "split")
    assert found.space == exp.search.space and found.tied == exp.search.tied


def test_tied_quantities_take_the_value_of_another() -> None:
    assert changes({"lr": 0.1, "batch": 5.0}, {"weight_decay_norm": "lr"}) == {
        "lr": 0.1, "batch": 5.0, "weight_decay_norm": 0.1
    }  # fmt: skip


def _space(**wanted: Any) -> Json:
    return {"search": {**GIVEN["search"], "space": wanted, "tied": {}}}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tune": {"lr": [1, 2]}}, r"search: must be null beside `tune`"),
        ({"search": None, "arms": {"b": {}}}, r"tiers.smoke.search: needs the experiment's own"),
        ({"search": None, "tiers": {"smoke": {}}}, r"arms.a.search_also: must be empty, for this"),
        ({"arms": {"b": {"searched": False, "search_also": {"w": [1, 2]}}}}, r"not searched"),
        ({"arms": {"a": {"search_also": {"lr": [1, 2]}}}}, r"'lr' is in the space of all arms"),
        (_space(momentum=[0.5, 0.9]), r"cannot search 'momentum'. All arms have: batch, clip_norm"),
        (_space(lr=0.1), r"must be a list of values, or a mapping with `low` and `high`"),
        (_space(lr=[0.1]), r"at least two different values \(found \[0.1\]\)"),
        (_space(lr={"low": 0, "high": 1}), r"low: must be above 0 on a logarithmic scale"),
        (_space(lr={"low": 2, "high": 1}), r"low: must be below `high`, 1.0 \(found 2.0\)"),
        (_space(batch={"low": 5, "high": 10}), r"batch: must be a list of whole numbers"),
        (_space(batch=[2.5, 10]), r"batch: must be a list of whole numbers.*2.5"),
        (_space(), r"must have at least one quantity"),
        (_space(lr={"low": 1, "high": 2, "step": 1}), r"unknown key 'step'"),
        (
            {"tiers": {"smoke": {"search": {"space": {"batch": [5, 10]}}}}},
            r"smoke.search.space: must have 'lr' and not 'weight_decay_norm'.*\(found batch\)",
        ),
        (
            {
                "tiers": {
                    "smoke": {"search": {"space": {"lr": [1, 2], "weight_decay_norm": [1, 2]}}}
                }
            },
            r"tiers.smoke.search.space: must have 'lr' and not 'weight_decay_norm'",
        ),
        (
            {"search": {**GIVEN["search"], "tied": {"lr": "batch"}}},
            r"tied: must name quantities that the space does not have",
        ),
        (
            {"search": {**GIVEN["search"], "tied": {"weight_decay": "x"}}},
            r"tied.weight_decay: must be a quantity of the space, batch, lr \(found 'x'\)",
        ),
    ],
)
def test_mistakes_are_named(changed: Json, message: str) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        Experiment.model_validate({**copy.deepcopy(GIVEN), **changed})
    assert caught.value.error_count() == 1


@pytest.mark.parametrize(
    ("wanted", "key"),
    [({"low": "a", "high": 1}, ("space", "lr", "<span>", "low")), (["a", 1], ("lr", "<list>", 0))],
)
def test_branches_of_a_dimension_are_no_keys(wanted: Any, key: tuple[Any, ...]) -> None:
    """Names in angle brackets are left out of messages."""
    with pytest.raises(ValidationError) as caught:
        Experiment.model_validate({**copy.deepcopy(GIVEN), **_space(lr=wanted)})
    [problem] = caught.value.errors()
    assert problem["loc"][-len(key) :] == key
