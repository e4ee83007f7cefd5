"""Claims that are one mean over several comparisons."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from factories.record import (
    NOISE,
    Json,
    Records,
    claim,
    comparison,
    experiment,
    key,
    shifted,
)
from scipy import stats as scipy_stats

from cyclery.evidence.stats import paired_tests
from cyclery.evidence.verdicts import judge


def pooled_claim(names: str = "efgh", **changes: Any) -> Json:
    members = [comparison(experiment=name) for name in names]
    return claim(*members, pooled=True, **changes)


def several(effects: dict[str, float], records: Records) -> list[Json]:
    """Return one experiment per effect, with noise of its own."""
    rng = np.random.default_rng(1)
    return [
        experiment(name, {"a": [90 + x + e for e in rng.normal(0, 0.3, 5)], "b": [90.0] * 5},
                   records)
        for name, x in effects.items()
    ]  # fmt: skip


def test_pooled_claim_is_one_test() -> None:
    records: Records = {}
    exps = several({"e": 0.9, "f": 1.1, "g": 1.0, "h": 1.2}, records)
    other = claim(comparison(experiment="e"), name="C-2")
    found, single = judge([pooled_claim(), other], "smoke", exps, records)
    assert found["verdict"] == "reproduced"
    mean, *members = found["comparisons"]
    assert mean["pooled"]["k"] == 4 and len(members) == 4
    assert mean["label"] == "pooled over 4 experiments"
    assert [e["experiment"] for e in mean["pooled"]["experiments"]] == list("efgh")
    # two tests in the family, whatever the number of members
    raw = [mean["p"], single["comparisons"][0]["p"]]
    assert [mean["p_holm"], single["comparisons"][0]["p_holm"]] == paired_tests.holm(raw)
    # the members are corrected among themselves
    assert [row["p_holm"] for row in members] == paired_tests.holm([row["p"] for row in members])
    assert "4 experiments, at least n = 5 of 5 planned" in found["reason"]
    assert mean["ci95"][0] < mean["effect"] < mean["ci95"][1]


def test_comparisons_of_one_experiment_are_averaged_before_pooling() -> None:
    """They share the arm's runs: three of them are not three experiments."""
    records: Records = {}
    exp = experiment("e", {**shifted(0.5), "c": [89.0] * 5, "d": [88.0] * 5}, records)
    given = claim(*(comparison(other) for other in "bcd"), pooled=True)
    [found] = judge([given], "smoke", [exp], records)
    mean = found["comparisons"][0]
    assert mean["pooled"]["k"] == 1 and mean["label"] == "pooled over 1 experiment"
    average = [np.mean([0.5 + x, 1.5 + x, 2.5 + x]) for x in NOISE]
    assert mean["p"] == pytest.approx(scipy_stats.ttest_1samp(average, 0).pvalue)


def test_pooled_claim_with_gaps() -> None:
    records: Records = {}
    exps = several({"e": 0.9, "f": 1.1, "g": 1.0}, records)
    # h is not run at this tier, by declaration: pooled over the rest
    [found] = judge([pooled_claim()], "smoke", exps, records)
    mean = found["comparisons"][0]
    assert mean["pooled"]["k"] == 3 and mean["left_out"] == ["h: not run at this tier"]
    # g lost its data: the mean over the rest is not what was declared
    for seed in range(5):
        del records[key("g", "a", seed)]
    [found] = judge([pooled_claim()], "smoke", exps, records)
    assert found["verdict"] == "inconclusive"
    assert found["reason"].startswith("The mean over all needs data of g")
    [found] = judge([pooled_claim()], "smoke", exps, {})
    assert found["verdict"] == "not run"
    other = comparison(experiment="f", test="equivalence", margin=1.0)
    mixed = claim(comparison(experiment="e"), other, pooled=True)
    [found] = judge([mixed], "smoke", exps, records)
    assert "no common mean" in found["reason"]


def test_pooled_claim_without_spread_or_with_too_much() -> None:
    records: Records = {}
    flat = [experiment(name, {"a": [90.0] * 5, "b": [90.0] * 5}, records) for name in "ef"]
    [found] = judge([pooled_claim("ef")], "smoke", flat, records)
    assert found["reason"].startswith("No spread can be estimated")
    exps = several({"e": 3.0, "f": -2.0, "g": 0.1}, records)
    [found] = judge([pooled_claim("efg")], "smoke", exps, records)
    assert found["verdict"] == "inconclusive" and found["seeds_to_settle"] is None
    assert "more seeds alone would not settle it" in found["reason"]
