"""No verdict by chance: families of comparisons, runs that diverged, shared teachers, sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from factories.record import Json, Records, claim, comparison, diverge, experiment, key
from scipy import stats as scipy_stats

from cyclery.evidence import verdict_text
from cyclery.evidence.stats import alpha_spending, paired_tests
from cyclery.evidence.verdicts import judge

NOISE = [0.1, -0.2, 0.05, 0.2, -0.15]
BASE = {"b": [90.0] * 5}


def family(effects: list[float], **changes: Any) -> tuple[list[Json], Json, Records]:
    """Return claims of one comparison each, with these effects, and their data."""
    records: Records = {}
    arms = {f"a{i}": [90 + by + x for x in NOISE] for i, by in enumerate(effects)}
    exp = experiment("e", arms | BASE, records)
    claims = [
        claim(comparison(arm=arm, **changes), name=f"C-{arm}", planned_seeds=5) for arm in arms
    ]
    return claims, exp, records


# A contradiction takes as much as a reproduction.


def test_a_contradiction_is_corrected_for_its_family() -> None:
    """One of 28 that alone would be refuted at p = .02 is open; strong ones stay contradicted."""
    effect = -0.26
    p = scipy_stats.ttest_1samp([effect + x for x in NOISE], 0).pvalue
    assert 0.01 < p < 0.05
    for size, expected in ((1, "contradicted"), (28, "inconclusive")):
        claims, exp, records = family([effect, *[0.01] * (size - 1)])
        found = judge(claims, "smoke", [exp], records)[0]
        [row] = found["comparisons"]
        assert found["verdict"] == row["verdict"] == expected
        assert row["p_opposite"] == row["p"] == pytest.approx(p)
        assert row["p_opposite_holm"] == pytest.approx(min(1, size * p))
    assert "lies below zero, but Holm-adjusted p = " in row["reason"]
    assert "of the opposite over 28 tests" in row["reason"]
    assert row["seeds_to_settle"] > 5
    claims, exp, records = family([-2.0, *[0.01] * 27])
    assert judge(claims, "smoke", [exp], records)[0]["verdict"] == "contradicted"


@pytest.mark.parametrize(
    ("test", "margin", "effect"),
    [("equivalence", 0.5, 0.9), ("equivalence", 0.5, -0.9), ("non-inferiority", 0.5, -0.9)],
)
def test_the_opposite_of_every_test(test: Any, margin: float, effect: float) -> None:
    claims, exp, records = family([effect, 0.01], test=test, margin=margin)
    row = judge(claims, "smoke", [exp], records)[0]["comparisons"][0]
    bound, side = (margin, "greater") if effect > 0 else (-margin, "less")
    tail = scipy_stats.ttest_1samp(row["differences"], bound, alternative=side).pvalue
    expected = 2 * tail if test == "equivalence" else tail
    assert row["p_opposite"] == pytest.approx(expected)
    assert row["p_opposite_holm"] == pytest.approx(2 * expected)
    assert row["verdict"] == "contradicted"
    assert "Holm-adjusted p" in row["reason"]


def test_seeds_to_settle_a_contradiction_reach_its_corrected_level() -> None:
    """Nearly as many as would settle the same effect in the claim's favour."""
    for test, margin, effect in (("superiority", 0.0, -0.5), ("equivalence", 0.2, 0.7)):
        needed = paired_tests.seeds_to_settle(effect, 1.0, margin, test, 0.05 / 28)
        alone = paired_tests.seeds_to_settle(effect, 1.0, margin, test, 0.05)
        assert needed is not None and alone is not None and needed > 1.5 * alone
    mirrored = paired_tests.seeds_to_settle(0.5, 1.0, 0.0, "superiority", 0.05 / 28)
    assert mirrored == paired_tests.seeds_to_settle(-0.5, 1.0, 0.0, "superiority", 0.05 / 28)


@pytest.mark.slow
def test_a_family_of_true_nulls_is_rarely_contradicted() -> None:
    """28 comparisons that share a baseline, no effect: some is decided in at most 5 % of papers."""
    rng = np.random.default_rng(0)
    wrong, papers = {"contradicted": 0, "reproduced": 0}, 150
    for _ in range(papers):
        records: Records = {}
        arms = {f"a{i}": list(90 + rng.standard_normal(5)) for i in range(28)}
        exp = experiment("e", arms | {"b": list(90 + rng.standard_normal(5))}, records)
        claims = [claim(comparison(arm=arm), name=arm) for arm in arms]
        found = {each["verdict"] for each in judge(claims, "smoke", [exp], records)}
        for verdict in wrong:
            wrong[verdict] += verdict in found
    limit = papers * 0.05 + 3 * (papers * 0.05 * 0.95) ** 0.5
    assert wrong["contradicted"] <= limit and wrong["reproduced"] <= limit


# Runs that diverged.


def diverged(arm: str, seeds: range | list[int], classes: int | None, **changes: Any) -> Json:
    """Judge a against b, 10 seeds, a 1 pp better; runs of an arm diverged in some of them."""
    records: Records = {}
    exp = experiment("e", {"a": [91 + x for x in NOISE * 2], "b": [90.0] * 10}, records)
    for each in exp["arms"]:
        each["classes"] = classes
    for seed in range(10):
        records[key("e", "a", seed)]["final"]["test_nll"] = 0.1 + NOISE[seed % 5] / 10
    for seed in seeds:
        diverge(records, key("e", arm, seed))
    claims = [claim(comparison(**changes), planned_seeds=10)]
    row: Json = judge(claims, "smoke", [exp], records)[0]["comparisons"][0]
    return row


def test_a_method_that_diverges_in_half_of_its_seeds_is_not_reproduced() -> None:
    assert diverged("a", [], 10)["verdict"] == "reproduced"
    row = diverged("a", range(5), 10)
    assert row["verdict"] == "contradicted" and row["n"] == 10
    assert row["effect"] == pytest.approx(np.mean([10 - 90] * 5 + [1 + x for x in NOISE]))
    assert row["differences"][:5] == [-80.0] * 5
    assert (
        "Diverged: 'A' in seeds 0, 1, 2, 3 and 1 more (counted as chance, 10 %)." in row["reason"]
    )
    assert not row["left_out"] and row["beside"]["improvement"] == 0.5
    # Its rival's divergence counts as well: an arm that trains beats one that never does.
    row = diverged("b", range(10), 10)
    assert row["verdict"] == "reproduced" and row["effect"] == pytest.approx(81.0)
    assert row["beside"]["iqm"][1] == pytest.approx(10.0)
    assert (
        diverged("a", range(10), 10)["verdict"] == "inconclusive"
    )  # all alike but for noise: none


@pytest.mark.parametrize("classes", [10, None])
def test_where_no_chance_is_known_the_verdict_is_held_back(classes: int | None) -> None:
    metric: Json = {"metric": "test_nll", "lower_is_better": True}
    row = diverged("a", [], classes, **metric)
    assert row["verdict"] == "reproduced" and row["held_back"] is None
    row = diverged("a", [3, 4], classes, **metric)
    assert (row["verdict"], row["held_back"], row["n"]) == ("inconclusive", "reproduced", 8)
    assert "would be reproduced, but runs that diverged are left out, unequally" in row["reason"]
    assert "'A' in seeds 3, 4 (left out)" in row["reason"]
    # The rival's losses can only have hidden more of the claim.
    row = diverged("b", [3, 4], classes, **metric)
    assert row["verdict"] == "reproduced"
    # And an arm is not contradicted by the survivors of its rival.
    worse: Json = {"metric": "test_nll"}
    assert diverged("b", [], classes, **worse)["verdict"] == "contradicted"
    row = diverged("b", [3, 4], classes, **worse)
    assert (row["verdict"], row["held_back"]) == ("inconclusive", "contradicted")
    assert diverged("a", [3, 4], classes, **worse)["verdict"] == "contradicted"


@pytest.mark.parametrize("arm", ["a", "b"])
def test_an_equivalence_is_held_back_whoever_lost_more(arm: str) -> None:
    """Survivors of either arm can be equal, or unequal, by what was left out."""
    metric: Json = {"metric": "test_nll", "lower_is_better": True, "test": "equivalence"}
    assert diverged(arm, [], 10, **metric, margin=0.2)["verdict"] == "reproduced"
    row = diverged(arm, [1, 2], 10, **metric, margin=0.2)
    assert (row["verdict"], row["held_back"]) == ("inconclusive", "reproduced")
    assert diverged(arm, [], 10, **metric, margin=0.01)["verdict"] == "contradicted"
    row = diverged(arm, [1, 2], 10, **metric, margin=0.01)
    assert (row["verdict"], row["held_back"]) == ("inconclusive", "contradicted")


def test_a_correlation_with_a_metric_without_chance_is_held_back() -> None:
    """The seeds of a diverged arm have one of both metrics only, so they are left out, and said."""
    records: Records = {}
    rng = np.random.default_rng(1)
    arms = {name: list(80 + 4 * place + rng.random(20)) for place, name in enumerate("abc")}
    exp = experiment("e", arms, records)
    for arm in exp["arms"]:
        arm["classes"] = 10
        for seed, name in arm["runs"].items():
            records[name]["final"]["test_nll"] = -records[name]["final"]["test_accuracy"] - seed
    ranks = {"experiment": "e", "metric": "test_accuracy", "test": "superiority", "margin": 0.0,
             "rank_correlation": {"arms": list("abc"), "metric": "test_nll"},
             "lower_is_better": True}  # fmt: skip
    [row] = judge([claim(ranks, planned_seeds=20)], "smoke", [exp], records)[0]["comparisons"]
    assert row["verdict"] == "reproduced"
    for seed in range(10):
        diverge(records, key("e", "a", seed))
    [row] = judge([claim(ranks, planned_seeds=20)], "smoke", [exp], records)[0]["comparisons"]
    assert (row["verdict"], row["held_back"], row["n"]) == ("inconclusive", "reproduced", 10)
    assert "(left out)" in row["reason"] and "counted as chance" not in row["reason"]


# Looks by what is drawn independently.


def test_looks_are_spent_by_teachers() -> None:
    """20 seeds of 3 to a teacher are 7 teachers: looks at 3, 5 and 7 of them."""
    assert alpha_spending.looks(20, 3) == (9, 15, 20) and alpha_spending.units(20, 3) == (3, 5, 7)
    assert alpha_spending.looks(15, 3) == (9, 15) and alpha_spending.looks(10, 10) == (10,)
    assert alpha_spending.looks(20, 2) == (10, 14, 20)  # two units would have no spread to speak of
    assert alpha_spending.looks(20, 1) == (5, 10, 15, 20) == alpha_spending.units(20)
    records: Records = {}
    rng = np.random.default_rng(5)
    values = {"a": list(90.6 + rng.standard_normal(20)), "b": list(90 + rng.standard_normal(20))}
    exp = experiment("e", values, records)
    for arm in exp["arms"]:
        arm["share"] = 3
        for seed in range(20):
            parents = {"teacher": [{"key": f"t{seed // 3}", "sha256": "x"}]}
            records[key("e", arm["id"], seed)]["inputs"]["parents"] = parents
    [row] = judge([claim(comparison(), planned_seeds=20)], "smoke", [exp], records)[0][
        "comparisons"
    ]
    assert row["n"] == 7 and row["look"]["number"] == row["look"]["of"] == 3
    by_teacher = [float(np.mean(row["differences"][i : i + 3])) for i in range(0, 20, 3)]
    spent = []
    for look, units in enumerate((3, 5, 7)):
        tail = scipy_stats.ttest_1samp(by_teacher[:units], 0, alternative="greater").pvalue
        spent.append(2 * alpha_spending.overall(tail, 20, look, 3))
    assert row["p"] == pytest.approx(min(spent))
    level = alpha_spending.levels(0.025, 20, 3)[2]
    t = scipy_stats.t.isf(level, 6) * np.std(by_teacher, ddof=1) / 7**0.5
    assert row["ci95"] == pytest.approx((row["effect"] - t, row["effect"] + t))
    for arm in exp["arms"]:
        arm["runs"] = {seed: k for seed, k in arm["runs"].items() if seed < 8}
    [row] = judge([claim(comparison(), planned_seeds=20)], "smoke", [exp], records)[0][
        "comparisons"
    ]
    assert row["verdict"] == "inconclusive" and "the first is after 9 seeds" in row["reason"]


@pytest.mark.parametrize(("planned", "share"), [(20, 3), (15, 3), (50, 5)])
def test_looks_at_teachers_keep_the_error(planned: int, share: int) -> None:
    """Students who share a teacher's draw: false verdicts over all looks stay at 5 %."""
    rng, runs = np.random.default_rng(planned), 4000
    ends, units = alpha_spending.looks(planned, share), alpha_spending.units(planned, share)
    teachers = rng.standard_normal((runs, units[-1]))
    own = rng.standard_normal((runs, planned))
    wrong = np.zeros(runs, dtype=bool)
    for look, end in enumerate(ends):
        starts = np.arange(0, end, share)
        sizes = np.minimum(share, end - starts)
        means = np.add.reduceat(own[:, :end], starts, axis=1) / sizes + teachers[:, : len(starts)]
        assert len(starts) == units[look]
        t = means.mean(1) / (means.std(1, ddof=1) / len(starts) ** 0.5)
        level = alpha_spending.levels(0.025, planned, share)[look]
        wrong |= abs(t) > scipy_stats.t.isf(level, len(starts) - 1)
    assert wrong.mean() <= 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5


def test_pooled_members_look_together() -> None:
    """A mean over experiments of which one shares teachers has its looks at whole teachers."""
    records: Records = {}
    rng = np.random.default_rng(2)
    made = [
        experiment(name, {"a": list(90.9 + rng.standard_normal(20)), "b": [90.0] * 20}, records)
        for name in "ef"
    ]
    for arm in made[1]["arms"]:
        arm["share"] = 3
    both = [comparison(), comparison(experiment="f")]
    found = judge([claim(*both, pooled=True, planned_seeds=20)], "smoke", made, records)[0]
    assert [row["look"]["of"] for row in found["comparisons"]] == [3, 3, 3]


def test_a_look_that_may_spend_nothing_has_no_bounds() -> None:
    """Of thousands of planned seeds the first may spend less than the smallest number."""
    assert alpha_spending.levels(1e-9, 1000)[0] == 0.0
    found = paired_tests.estimate([1.0, 2.0, 1.5])
    assert found.limits(0.0, 0.0) == (-np.inf, np.inf)
    assert verdict_text.ends((-np.inf, 1.0), "pp") == "no bound to +1.00"


# Direction and size.


def test_size_is_told_apart_from_direction() -> None:
    records: Records = {}
    exp = experiment("e", {"a": [91 + x for x in NOISE]} | BASE, records)
    for value, unit, share in ((2.0, "pp", 0.5), (-2.0, "pp", -0.5), (2.0, "%", None)):
        printed = {"value": value, "unit": unit, "source": "Table 1", "confidence": "read"}
        one = claim(comparison(printed=printed), planned_seeds=5)
        [row] = judge([one], "smoke", [exp], records)[0]["comparisons"]
        assert row["verdict"] == "reproduced"
        if share is None:
            assert row["of_printed"] is None
        else:
            assert row["of_printed"]["share"] == pytest.approx(share)
            low, high = row["of_printed"]["ci95"]
            assert low < share < high
            assert (low, high) == pytest.approx(tuple(sorted(x / value for x in row["ci95"])))
