"""The rule of verdicts, branch by branch, and everything on the way from records to a claim."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from factories.record import Json, Records, claim, comparison, diverge, experiment, key, record
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from cyclery.evidence import verdict_text
from cyclery.evidence.stats import paired_tests
from cyclery.evidence.stats.pairing import collect
from cyclery.evidence.verdicts import combine, decide, judge
from cyclery.records import metrics as metrics_derived

NOISE = [0.1, -0.2, 0.05, 0.2, -0.15]


def judged(
    values: dict[str, list[float | None]], *claims: Json, records: Records | None = None,
    **changes: Any,
) -> list[Json]:  # fmt: skip
    """Judge claims on one experiment ``e``."""
    filed: Records = {} if records is None else records
    exp = experiment("e", values, filed, **changes)
    return judge(list(claims), "smoke", [exp], filed)


def one(values: dict[str, list[float | None]], **changes: Any) -> Json:
    """Judge one comparison of a against b, with as many seeds planned as there are."""
    planned = max(map(len, values.values()))
    [found] = judged(values, claim(comparison(**changes), planned_seeds=planned))
    [row] = found["comparisons"]
    assert found["verdict"] == row["verdict"]
    return row


def shifted(by: float, base: float = 90.0) -> dict[str, list[float | None]]:
    """Return arms a and b with this effect and the same noise."""
    return {"a": [base + by + x for x in NOISE], "b": [base] * len(NOISE)}


# The rule.


@pytest.mark.parametrize(
    ("test", "margin", "ci95", "ci90", "p", "opposite", "expected"),
    [
        ("superiority", 0, (0.1, 0.9), (0.2, 0.8), 0.01, 0.01, "reproduced"),
        ("superiority", 0, (0.1, 0.9), (0.2, 0.8), 0.05, 0.05, "inconclusive"),
        ("superiority", 0, (0.0, 0.9), (0.1, 0.8), 0.01, 0.01, "inconclusive"),
        ("superiority", 0, (-0.1, 0.9), (0.1, 0.8), 0.01, 0.01, "inconclusive"),
        ("superiority", 0, (-0.9, -0.1), (-0.8, -0.2), 0.01, 0.01, "contradicted"),
        ("superiority", 0, (-0.9, -0.1), (-0.8, -0.2), 0.05, 0.05, "inconclusive"),
        ("superiority", 0, (-0.9, 0.0), (-0.8, -0.1), 0.01, 0.01, "inconclusive"),
        ("superiority", 0.5, (0.6, 0.9), (0.65, 0.8), 0.01, 0.01, "reproduced"),
        ("superiority", 0.5, (0.1, 0.4), (0.2, 0.3), 0.01, 0.01, "contradicted"),
        ("superiority", 0.5, (0.1, 0.9), (0.2, 0.8), 0.01, 0.01, "inconclusive"),
        ("equivalence", 0.5, (-0.6, 0.6), (-0.4, 0.4), 0.01, 1.0, "reproduced"),
        ("equivalence", 0.5, (-0.6, 0.6), (-0.4, 0.4), 0.06, 1.0, "inconclusive"),
        ("equivalence", 0.5, (-0.6, 0.6), (-0.5, 0.4), 0.01, 1.0, "inconclusive"),
        ("equivalence", 0.5, (0.3, 1.0), (0.4, 0.9), 0.01, 0.01, "inconclusive"),
        ("equivalence", 0.5, (0.4, 1.0), (0.6, 0.9), 0.9, 0.01, "contradicted"),
        ("equivalence", 0.5, (0.4, 1.0), (0.6, 0.9), 0.9, 0.06, "inconclusive"),
        ("equivalence", 0.5, (-1.0, -0.4), (-0.9, -0.6), 0.9, 0.01, "contradicted"),
        ("equivalence", 0.5, (-1.0, 1.0), (-0.9, 0.9), 0.9, 0.01, "inconclusive"),
        ("non-inferiority", 0.5, (-0.4, 0.2), (-0.3, 0.1), 0.01, 1.0, "reproduced"),
        ("non-inferiority", 0.5, (-0.4, 0.2), (-0.3, 0.1), 0.06, 1.0, "inconclusive"),
        ("non-inferiority", 0.5, (-0.6, 0.2), (-0.4, 0.1), 0.01, 1.0, "inconclusive"),
        ("non-inferiority", 0.5, (-0.9, -0.6), (-0.8, -0.7), 1.0, 0.01, "contradicted"),
        ("non-inferiority", 0.5, (-0.9, -0.6), (-0.8, -0.7), 1.0, 0.06, "inconclusive"),
        ("superiority", 0, None, None, 1.0, 1.0, "inconclusive"),
        ("equivalence", 0.5, None, None, 0.0, 0.0, "inconclusive"),
    ],
)
def test_rule_of_one_comparison(
    test: Any, margin: float, ci95: Any, ci90: Any, p: float, opposite: float, expected: str
) -> None:
    assert decide(test, margin, ci95, ci90, p, opposite) == expected


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["reproduced"], "reproduced"),
        (["reproduced", "reproduced"], "reproduced"),
        (["reproduced", "inconclusive"], "partly"),
        (["reproduced", "contradicted"], "partly"),
        (["reproduced", "not run"], "partly"),
        (["contradicted"], "contradicted"),
        (["contradicted", "inconclusive"], "contradicted"),
        (["contradicted", "not run"], "contradicted"),
        (["inconclusive", "not run"], "inconclusive"),
        (["not run", "not run"], "not run"),
    ],
)
def test_rule_of_a_claim(verdicts: list[str], expected: str) -> None:
    assert combine(verdicts) == expected


# One comparison, from records.


def test_reproduced_with_every_figure() -> None:
    values = shifted(1.0)
    [found] = judged(values, claim(comparison()))
    [row] = found["comparisons"]
    expected = scipy_stats.ttest_rel(values["a"], values["b"])
    assert (row["verdict"], row["n"], row["seeds"]) == ("reproduced", 5, [0, 1, 2, 3, 4])
    assert row["p"] == row["p_holm"] == pytest.approx(expected.pvalue)
    assert row["ci95"] == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert row["ci90"] == pytest.approx(tuple(expected.confidence_interval(0.90)))
    assert row["differences"] == pytest.approx([1.0 + x for x in NOISE])
    assert row["sd"] == pytest.approx(np.std(NOISE, ddof=1))
    assert row["keys"] == [[key("e", "a", s), key("e", "b", s)] for s in range(5)]
    assert (row["unit"], row["label"], row["chosen"]) == ("pp", "A against B", None)
    assert row["bca95"] is None and row["units"] is None
    assert (found["n"], found["planned_seeds"], found["seeds_to_settle"]) == (5, 5, None)
    assert found["reason"] == (
        "+1.00 pp (95 % interval +0.79 to +1.21); Holm-adjusted p < 0.001, n = 5 of 5 planned."
    )


def test_other_verdicts_and_their_reasons() -> None:
    row = one(shifted(-1.0))
    assert row["verdict"] == "contradicted"
    assert row["reason"].endswith("lies below zero; Holm-adjusted p < 0.001, n = 5 of 5 planned.")
    row = one(shifted(0.02))
    assert row["verdict"] == "inconclusive" and "spans zero" in row["reason"]
    row = one(shifted(0.0), test="equivalence", margin=0.5)
    assert row["verdict"] == "reproduced" and "90 % interval" in row["reason"]
    row = one(shifted(1.0), test="equivalence", margin=0.5)
    assert row["verdict"] == "contradicted" and "outside +/-0.50 pp" in row["reason"]
    row = one(shifted(0.5), test="equivalence", margin=0.5)
    assert "neither inside nor outside +/-0.50 pp" in row["reason"]
    assert row["seeds_to_settle"] is None
    assert "more than 10000 seeds would be needed" in row["reason"]
    assert one(shifted(-0.1), test="non-inferiority", margin=0.5)["verdict"] == "reproduced"
    row = one(shifted(-1.0), test="non-inferiority", margin=0.5)
    assert row["verdict"] == "contradicted" and "below -0.50 pp" in row["reason"]
    row = one(shifted(1.0), margin=2.0)
    assert row["verdict"] == "contradicted" and "the margin of 2.00 pp" in row["reason"]


def test_inconclusive_says_what_would_settle_it() -> None:
    values: dict[str, list[float | None]] = {
        "a": [90.1, 90.5, 89.9, 90.6, 90.0], "b": [90.0] * 5,
    }  # fmt: skip
    [found] = judged(values, claim(comparison()), seconds=30.0)
    [row] = found["comparisons"]
    assert found["verdict"] == "inconclusive"
    needed = found["seeds_to_settle"]
    assert needed > 5 and needed == row["seeds_to_settle"]
    # two arms of 30 s each for every further seed
    assert found["seconds_to_settle"] == pytest.approx((needed - 5) * 60)
    assert (
        f"about {needed} seeds ({verdict_text.duration((needed - 5) * 60)} more)" in found["reason"]
    )
    assert "n = 5 of 5 planned" in found["reason"] and "80 % power" in found["reason"]


@pytest.mark.parametrize("test", ["superiority", "equivalence", "non-inferiority"])
@pytest.mark.parametrize("effect", [0.0, 0.5, -0.5])
def test_identical_differences_decide_nothing(test: str, effect: float) -> None:
    values: dict[str, list[float | None]] = {
        "a": [x + effect for x in (90.0, 91.0, 92.3)], "b": [90.0, 91.0, 92.3],
    }  # fmt: skip
    row = one(values, test=test, margin=1.0)
    assert (row["verdict"], row["p"], row["p_holm"], row["ci95"]) == ("inconclusive", *[None] * 3)
    assert row["effect"] == pytest.approx(effect) and row["sd"] == 0.0
    assert "all 3 differences are" in row["reason"].lower()


def test_one_pair_decides_nothing() -> None:
    row = one({"a": [91.0], "b": [90.0]})
    assert (row["verdict"], row["n"], row["sd"], row["ci95"]) == ("inconclusive", 1, None, None)
    assert row["effect"] == pytest.approx(1.0)
    assert row["reason"] == "One pair has no spread: at least 2 are needed; n = 1 of 1 planned."


def test_lower_is_better_flips_and_the_unit_is_the_metrics() -> None:
    records: Records = {}
    exp = experiment("e", {"a": [90.0] * 5, "b": [90.0] * 5}, records)
    for seed, noise in enumerate(NOISE):
        records[key("e", "a", seed)]["final"]["test_nll"] = 0.1 + noise / 10
    down = claim(comparison(metric="test_nll", lower_is_better=True))
    up = claim(comparison(metric="test_nll"), name="C-2")
    better, worse = judge([down, up], "smoke", [exp], records)
    assert (better["verdict"], worse["verdict"]) == ("reproduced", "contradicted")
    row, other = better["comparisons"][0], worse["comparisons"][0]
    assert row["effect"] == pytest.approx(0.1) == -other["effect"]
    assert row["unit"] == "" and "pp" not in row["reason"]


@settings(deadline=None)  # the first of a plan works out its boundaries
@given(st.floats(-5, 5), st.lists(st.floats(-2, 2), min_size=3, max_size=8))
def test_shifting_both_arms_changes_nothing_and_swapping_negates(
    shift: float, noise: list[float]
) -> None:
    base = {"a": [90 + x for x in noise], "b": [90 - x / 3 for x in noise]}
    moved = {arm: [x + shift for x in column] for arm, column in base.items()}
    here, there = one(dict(base)), one(dict(moved))
    back = one({"a": list(base["b"]), "b": list(base["a"])})
    assert there["effect"] == pytest.approx(here["effect"], abs=1e-9)
    assert back["effect"] == pytest.approx(-here["effect"], abs=1e-9)
    if here["ci95"] and there["ci95"] and min(map(abs, here["ci95"])) > 1e-6:
        assert there["ci95"] == pytest.approx(here["ci95"], abs=1e-6)
        assert there["verdict"] == here["verdict"]
        swap = {"reproduced": "contradicted", "contradicted": "reproduced"}
        assert back["verdict"] == swap.get(here["verdict"], here["verdict"])


def test_bca_stands_beside_from_ten_pairs() -> None:
    row = one({"a": [90 + x for x in NOISE * 2], "b": [89.0] * 10})
    low, high = row["bca95"]
    assert row["ci95"][0] < low < 1.0 < high < row["ci95"][1]
    assert row["reason"].endswith("n = 10 of 10 planned, look 2 of 2.")


# What is left out.


def test_diverged_missing_and_nan_runs_are_left_out_and_named() -> None:
    records: Records = {}
    exp = experiment("e", {"a": [91.0, 91.2, 91.1, 91.0, 91.3, None], "b": [90.0] * 7}, records)
    diverge(records, key("e", "a", 1), step=12)
    records[key("e", "b", 2)]["final"]["test_accuracy"] = float("nan")
    [found] = judge([claim(comparison())], "smoke", [exp], records)
    [row] = found["comparisons"]
    assert (row["n"], row["seeds"]) == (3, [0, 3, 4])
    assert row["left_out"] == [
        "seed 1: 'a' diverged at step 12", "seed 2: 'b' has no finite test_accuracy",
        "seed 5: 'a' is not run", "seed 6: 'a' has no such seed",
    ]  # fmt: skip
    assert row["reason"].endswith(f"Left out: {'; '.join(row['left_out'])}.")
    assert "n = 3 of 5 planned" in row["reason"]


def test_a_record_of_another_run_never_gives_a_number() -> None:
    records: Records = {}
    exp = experiment("e", shifted(1.0), records)
    records[key("e", "a", 0)]["settings"]["seed"] = 3
    records[key("e", "a", 1)]["key"] = "another"
    records[key("e", "a", 2)]["status"] = "running"
    [found] = judge([claim(comparison())], "smoke", [exp], records)
    [row] = found["comparisons"]
    assert row["seeds"] == [3, 4]
    assert row["left_out"] == [
        "seeds 0, 1: 'a' has the record of another run",
        "seed 2: 'a' has a record that is not of a finished run",
    ]


def test_all_diverged_is_inconclusive_but_no_record_is_not_run() -> None:
    records: Records = {}
    exp = experiment("e", shifted(1.0), records)
    for seed in range(5):
        diverge(records, key("e", "a", seed))
    [found] = judge([claim(comparison())], "smoke", [exp], records)
    assert found["verdict"] == "inconclusive" and found["n"] == 0
    assert found["reason"].startswith("No usable pair of runs; n = 0 of 5 planned.")
    assert "seeds 0, 1, 2, 3 and 1 more: 'a' diverged at step 7" in found["reason"]
    row = one({"a": [None] * 3, "b": [90.0] * 3})
    assert (row["verdict"], row["effect"], row["reason"]) == ("not run", None, "No run of 'a' yet.")
    assert one({"a": [91.0] * 3, "b": [None] * 3})["verdict"] == "not run"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"experiment": "x"}, "Experiment 'x' is not run at this tier."),
     ({"arm": "x"}, "Arm 'x' of 'e' is not run at this tier."),
     ({"against": "x"}, "Arm 'x' of 'e' is not run at this tier.")],
)  # fmt: skip
def test_what_the_tier_does_not_run(changes: Json, reason: str) -> None:
    row = one(shifted(1.0), **changes)
    assert (row["verdict"], row["reason"]) == ("not run", reason)


def test_seeds_that_share_a_parent_count_once() -> None:
    records: Records = {}
    exp = experiment("e", {"a": [91.0, 91.2, 92.0, 92.2, 91.5], "b": [90.0] * 5}, records)
    for seed, teacher in enumerate(["t0", "t0", "t1", "t1", "t2"]):
        for arm in "ab":
            inputs = records[key("e", arm, seed)]["inputs"]
            inputs["parents"] = {"teacher": [{"key": teacher, "sha256": "x"}]}
    [found] = judge([claim(comparison())], "smoke", [exp], records)
    [row] = found["comparisons"]
    assert row["n"] == 3 and row["units"] == [[0, 1], [2, 3], [4]]
    expected = scipy_stats.ttest_1samp([1.1, 2.1, 1.5], 0)
    assert row["p"] == pytest.approx(expected.pvalue)
    assert len(row["differences"]) == 5
    assert "n = 3 parents of 5 seeds" in row["reason"]
    for each in records.values():
        each["inputs"]["parents"] = {"teacher": [{"key": "t", "sha256": "x"}]}
    [found] = judge([claim(comparison())], "smoke", [exp], records)
    assert found["reason"].startswith("All seeds share one parent: at least 2 are needed")


def test_parents_chain_seeds_together() -> None:
    records: Records = {}
    exp = experiment("e", {"a": [91.0, 91.1, 91.2, 91.3], "b": [90.0] * 4}, records)
    pairs = {("a", 0): "t", ("a", 1): "u", ("b", 0): "v", ("b", 1): "v", ("a", 3): "t"}
    for (arm, seed), parent in pairs.items():
        parents = {"p": [{"key": parent, "sha256": ""}]}
        records[key("e", arm, seed)]["inputs"]["parents"] = parents
    found = collect(comparison(), {"e": exp}, records)
    assert found.units == [[0, 1, 3], [2]]


def test_an_arm_against_itself_is_no_comparison() -> None:
    records: Records = {}
    exp = experiment("e", shifted(1.0), records)
    exp["arms"][1]["runs"] = exp["arms"][0]["runs"]
    [found] = judge([claim(comparison())], "smoke", [exp], records)
    assert found["verdict"] == "inconclusive"
    assert found["reason"].startswith("Both arms are the same runs, so there is nothing to compare")
    # but one metric against another of the same runs is
    late = comparison("a", metric="test_accuracy", against_metric="test_accuracy@0.5")
    [found] = judge([claim(late)], "smoke", [exp], records)
    assert found["verdict"] == "reproduced"


def test_against_a_constant() -> None:
    row = one(shifted(1.0), against={"constant": 90.5})
    assert row["verdict"] == "reproduced" and row["against"] == "90.5"
    assert row["effect"] == pytest.approx(0.5)
    assert row["keys"][0] == [key("e", "a", 0), None]


# The best of several controls.

BEST = {"best_of": ["b", "c"], "by": "val_accuracy"}


def test_best_control_is_chosen_on_validation_not_on_test() -> None:
    records: Records = {}
    exp = experiment("e", {**shifted(1.0), "c": [89.0] * 5}, records)
    for seed in range(5):
        records[key("e", "c", seed)]["final"]["val_accuracy"] = 0.95
    [found] = judge([claim(comparison(BEST))], "smoke", [exp], records)
    [row] = found["comparisons"]
    assert (row["chosen"], row["against"]) == ("c", "best of b, c")
    assert row["effect"] == pytest.approx(2.0)
    assert row["keys"][0][1] == key("e", "c", 0)
    # equal on validation: the first declared
    for each in records.values():
        each["final"]["val_accuracy"] = 0.9
    assert judge([claim(comparison(BEST))], "smoke", [exp], records)[0]["comparisons"][0][
        "chosen"
    ] == "b"  # fmt: skip


def test_best_control_by_a_loss_and_on_common_seeds() -> None:
    records: Records = {}
    exp = experiment("e", {**shifted(1.0), "c": [88.0, 88.0, 88.0, 88.0, None]}, records)
    for seed in range(4):
        records[key("e", "b", seed)]["final"]["val_nll"] = 0.3
        records[key("e", "c", seed)]["final"]["val_nll"] = 0.2
    records[key("e", "b", 4)]["final"]["val_nll"] = -99.0
    best = {"best_of": ["b", "c"], "by": "val_nll"}
    pairs = collect(comparison(best), {"e": exp}, records)
    assert (pairs.chosen, pairs.seeds) == ("c", [0, 1, 2, 3])
    for arm in "bc":
        records[key("e", arm, 0)]["final"].pop("val_nll")
    assert collect(comparison({**best, "by": "nothing"}), {"e": exp}, records).problem == (
        "the best control is unknown: no seed has nothing in all of them"
    )


def test_best_control_unknown_or_unstable() -> None:
    records: Records = {}
    exp = experiment("e", {**shifted(1.0), "c": [95.0] * 5, "d": [None] * 5}, records)
    for seed in range(5):
        records[key("e", "a", seed)]["seconds"] = 10.0
    three = {"best_of": ["b", "c", "d"], "by": "val_accuracy"}
    [found] = judge([claim(comparison(three))], "smoke", [exp], records)
    assert found["verdict"] == "inconclusive"
    assert found["reason"].startswith("The best control is unknown: no run of d")
    # c is better, but a tuned control does not diverge
    diverge(records, key("e", "c", 0))
    pairs = collect(comparison(BEST), {"e": exp}, records)
    assert (pairs.chosen, pairs.left_out) == ("b", ["c set aside for diverged runs"])
    diverge(records, key("e", "b", 1))
    assert collect(comparison(BEST), {"e": exp}, records).chosen == "c"


# Families, claims, costs.


def test_holm_runs_over_every_declared_comparison() -> None:
    values = {**shifted(0.28), "c": [85.0] * 5}
    alone = judged(values, claim(comparison()))[0]["comparisons"][0]
    assert alone["verdict"] == "reproduced" and 0.02 < alone["p"] < 0.05
    absent = claim(comparison(experiment="x"), comparison(experiment="y"), name="C-2")
    first, second = judged(values, claim(comparison()), absent)
    [row] = first["comparisons"]
    assert second["verdict"] == "not run"
    assert row["p"] == alone["p"] and row["p_holm"] == pytest.approx(3 * alone["p"])
    assert row["verdict"] == "inconclusive"
    assert f"clears zero, but Holm-adjusted p = {3 * alone['p']:.3f} over 3 tests" in row["reason"]
    assert row["seeds_to_settle"] > 5
    # a claim that is not declared for the tier is no part of the family
    other = claim(comparison("c"), name="C-2", not_run={"smoke": "Too slow."})
    assert judged(values, claim(comparison()), other)[0]["verdict"] == "reproduced"


def test_claim_that_needs_all_its_comparisons() -> None:
    values = {**shifted(1.0), "c": [91.02] * 5, "d": [95.0] * 5, "f": [None] * 5}
    both, some, mixed, against = judged(
        values,
        claim(comparison(), comparison("b", label="again"), name="all"),
        claim(comparison(), comparison("c"), comparison("f"), name="some"),
        claim(comparison(), comparison("d"), name="mixed"),
        claim(comparison("c"), comparison("d"), name="against"),
    )
    assert both["verdict"] == "reproduced" and both["reason"] == "Of 2 comparisons: 2 reproduced."
    assert some["verdict"] == "partly"
    assert some["reason"].startswith(
        "Of 3 comparisons: 1 reproduced, 1 inconclusive, 1 not run. "
        "Not reproduced: A against C (inconclusive); A against F (not run). n = 5 of 5 planned;"
    )
    assert some["seeds_to_settle"] == some["comparisons"][1]["seeds_to_settle"]
    assert mixed["verdict"] == "partly"
    assert against["verdict"] == "contradicted"


def test_one_weak_contradiction_among_many_does_not_contradict() -> None:
    values = {**shifted(-0.24), **{name: [90.0] * 5 for name in "cdfgh"}}
    assert judged(values, claim(comparison()))[0]["verdict"] == "contradicted"
    for name in "cdfgh":  # no clear difference
        values[name] = [90 - 0.24 + 2 * x for x in (0.3, -0.2, 0.1, -0.3, 0.12)]
    [found] = judged(values, claim(comparison(), *(comparison(name) for name in "cdfgh")))
    assert [row["verdict"] for row in found["comparisons"]] == ["inconclusive"] * 6
    assert found["verdict"] == "inconclusive"


def test_cost_counts_each_arm_once() -> None:
    values: dict[str, list[float | None]] = {
        "a": [90 + x for x in NOISE], "b": [89.95] * 5, "c": [89.9] * 5,
    }  # fmt: skip
    [found] = judged(values, claim(comparison("b"), comparison("c")), seconds=10.0)
    rows = found["comparisons"]
    assert [row["verdict"] for row in rows] == ["inconclusive"] * 2
    extra = [row["seeds_to_settle"] - 5 for row in rows]
    assert found["seeds_to_settle"] == max(extra) + 5
    assert found["seconds_to_settle"] == pytest.approx(10 * (max(extra) + sum(extra)))
    assert rows[0]["seconds_to_settle"] == pytest.approx(20 * extra[0])
    # every arm that the choice among controls needs is trained further
    [found] = judged(values, claim(comparison(BEST)), seconds=10.0)
    assert found["seconds_to_settle"] == pytest.approx(30 * (found["seeds_to_settle"] - 5))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"not_run": {"smoke": "Needs ImageNet."}}, "Needs ImageNet."),
     ({"not_run": {"all": "No code."}}, "No code."),
     ({"comparisons": []}, "no comparison is declared")],
)  # fmt: skip
def test_claims_that_are_not_tested(changes: Json, reason: str) -> None:
    given = {**claim(comparison()), **changes}
    [found] = judge([given], "smoke", [], {}, {"C-1": "takes a day"})
    assert (found["verdict"], found["n"]) == ("not run", 0)
    assert found["reason"] == f"{reason}; takes a day" and found["seconds_to_settle"] is None
    assert all(row["verdict"] == "not run" for row in found["comparisons"])


# Pooled claims.


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


def test_false_reproduced_rate_of_the_whole_rule() -> None:
    """A/A records judged through the best of two controls and Holm: claims hold too rarely."""
    rng, false, runs = np.random.default_rng(4), 0, 300
    for _ in range(runs):
        arms = {name: list(90 + rng.lognormal(0, 0.8, 5)) for name in "abc"}
        found = judged(arms, claim(comparison(BEST)), claim(comparison("c"), name="C-2"))
        false += any(each["verdict"] == "reproduced" for each in found)
    assert false <= runs * 0.05 + 3 * np.sqrt(runs * 0.05 * 0.95)


# Metrics.


def test_metrics_of_a_record() -> None:
    made = record("k", 0, 0.9, final={
        "test_class_accuracy": [0.9, 0.8, 0.7, 0.6, None], "test_ece": float("inf"),
        "train_class_count": [50, 30, 50, 30, 30], "flag": True,
    })  # fmt: skip
    value = metrics_derived.value
    assert value(made, "test_accuracy") == 0.9
    assert metrics_derived.shown(made, "test_accuracy") == pytest.approx(90)
    assert metrics_derived.shown(made, "test_nll") == 0.2
    assert value(made, "test_ece") is None and value(made, "flag") is None
    assert value(made, "unheard_of") is None and value({}, "test_accuracy") is None
    assert value(made, "seconds") == 2.0
    assert value(made, "log:seconds") == pytest.approx(np.log(2))
    assert value({"seconds": 0}, "log:seconds") is None
    # the last class has no test sample
    assert value(made, "minority_accuracy") == pytest.approx(0.7)
    assert value(made, "many_accuracy") == pytest.approx(0.8)
    assert value(made, "medium_accuracy") == pytest.approx(0.7)
    assert value(made, "few_accuracy") is None
    assert metrics_derived.unit("log:test_accuracy") == ""
    assert metrics_derived.unit("test_accuracy@0.5") == "pp"


@pytest.mark.parametrize(
    ("count", "last"), [(1, 1), (4, 1), (5, 2), (12, 3), (20, 5), (80, 20), (1024, 20)]
)
def test_reporting_rules_of_semi_supervised_papers(count: int, last: int) -> None:
    """Median and mean of the last 20 evaluations, and of no more than their last quarter."""
    values = [((7 * k) % 11) / 100 + k / 2000 for k in range(count)]
    accuracy = {"test_accuracy": values, "raw_test_accuracy": [v / 2 for v in values]}
    made = {"curve": {"eval_epoch": list(range(1, count + 1)), **accuracy}}
    value = metrics_derived.value
    late = values[count - last :]
    assert value(made, "test_accuracy_median20") == pytest.approx(np.median(late))
    assert value(made, "test_accuracy_mean20") == pytest.approx(np.mean(late))
    assert value(made, "raw_test_accuracy_mean20") == pytest.approx(np.mean(late) / 2)
    assert value(made, "test_accuracy_best") == max(values)
    assert value(made, "val_accuracy_median20") is None
    # A value that is missing at the end is missed, one before it is not.
    accuracy["test_accuracy"][-1] = None
    assert value(made, "test_accuracy_median20") is None
    if count > last:
        values[:] = [None, *values[1:-1], 0.5]
        assert value(made, "test_accuracy_median20") is not None


def test_accuracy_of_pseudo_labels_is_that_of_those_used() -> None:
    curve = {"epoch": [1, 2, 3], "train_pseudo_correct": [0.0, 0.1, 0.6],
             "train_mask_rate": [0.0, 0.4, 0.8]}  # fmt: skip
    made = {"settings": {"epochs": 3}, "curve": curve}
    value = metrics_derived.value
    assert value(made, "train_pseudo_accuracy@1") == pytest.approx(0.75)
    assert value(made, "train_pseudo_accuracy@0.67") == pytest.approx(0.25)
    assert value(made, "train_pseudo_accuracy@0.33") is None  # none was used
    assert value({"curve": {"epoch": [1]}}, "train_pseudo_accuracy@1") is None


def test_thirds_of_a_long_tail() -> None:
    count = [int(100 * 0.01 ** (k / 9)) for k in range(10)]
    final = {"train_class_count": count[::-1], "test_class_accuracy": [k / 10 for k in range(10)]}
    made = {"final": final}
    value = metrics_derived.value
    assert value(made, "many_accuracy") == pytest.approx(np.mean([0.9, 0.8, 0.7, 0.6]))
    assert value(made, "medium_accuracy") == pytest.approx(np.mean([0.5, 0.4, 0.3]))
    assert value(made, "few_accuracy") == pytest.approx(np.mean([0.2, 0.1, 0.0]))
    balanced = {"final": {"train_class_count": [5, 5], "test_class_accuracy": [1.0, 0.0]}}
    assert value(balanced, "minority_accuracy") is None
    assert value({"final": {"train_class_count": [5]}}, "minority_accuracy") is None


@pytest.mark.parametrize("first", [0, 1])
def test_curve_at_a_fraction_of_the_run(first: int) -> None:
    """Epochs count from 0 or 1; the last evaluation is the end of the run."""
    made = {
        "settings": {"epochs": 40},
        "curve": {"eval_epoch": [e - 1 + first for e in (10, 20, 30, 40)],
                  "test_accuracy": [0.1, 0.2, 0.3, 0.4],
                  "epoch": [e + first for e in range(40)], "loss": list(range(40))},
    }  # fmt: skip
    value = metrics_derived.value
    assert value(made, "test_accuracy@1") == 0.4
    assert value(made, "test_accuracy@0.36") == 0.1  # 0.25 is nearer than 0.5
    assert value(made, "test_accuracy@0.375") == 0.1  # as near: the earlier
    assert value(made, "test_accuracy@0.9") == 0.4
    assert value(made, "loss@0.5") == 19
    assert value(made, "nothing@0.5") is None
