"""Every kind of contrast at planned looks: p, intervals, exploratory seeds and sensitivity."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from math import sqrt
from typing import Any, get_args

import numpy as np
import pytest
from factories.record import Json, Records, claim, experiment, key
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from scipy import stats as scipy_stats

from cyclery.evidence import verdict_text
from cyclery.evidence.comparison import Case
from cyclery.evidence.stats import (
    alpha_spending,
    contrasts,
    paired_tests,
    random_effects,
    sensitivity,
)
from cyclery.evidence.stats.paired_tests import ALPHA
from cyclery.evidence.verdicts import decide, judge
from cyclery.records.claims import Test

PLANNED = 20
VALUES = {"a": 1.0, "b": 2.0, "c": 4.0, "d": 7.0}
RNG = np.random.default_rng(11)
# Arms in order by chance in most seeds; 12 seeds, so that ten are looked at twice.
Y = {arm: list(80 + 0.8 * i + RNG.normal(0, 0.4, 12)) for i, arm in enumerate(VALUES)}
KINDS: dict[str, Json] = {
    "difference": {"arm": "d", "against": "a"},
    "interaction": {"arm": "d", "against": "a", "interaction": {"arm": "c", "against": "b"}},
    "trend": {"trend": {"values": VALUES, "scale": "log"}},
    "ordering": {"ordering": ["d", "c", "b", "a"]},
    "rank correlation": {"rank_correlation": {"values": VALUES}},
}


def judged(values: dict[str, list[float]], planned: int | None, **declared: Any) -> Json:
    filed: Records = {}
    exp = experiment("e", values, filed)
    one = {"experiment": "e", "metric": "test_accuracy", "test": "superiority", "margin": 0.0}
    [found] = judge([claim({**one, **declared}, planned_seeds=planned)], "smoke", [exp], filed)
    [row] = found["comparisons"]
    return dict(row)


def cut(values: dict[str, list[float]], seeds: int) -> dict[str, list[float]]:
    return {arm: column[:seeds] for arm, column in values.items()}


def samples(kind: str, seeds: int) -> list[np.ndarray]:
    """Return the contrasts [seeds] by numpy and scipy alone; of an ordering those of each step."""
    y = {arm: np.array(column[:seeds]) for arm, column in Y.items()}
    table = np.array(list(y.values()))
    x = np.array(list(VALUES.values()))
    if kind == "ordering":
        return [y[a] - y[b] for a, b in ("dc", "cb", "ba")]
    if kind == "rank correlation":
        return [np.array([scipy_stats.kendalltau(x, one).statistic for one in table.T])]
    if kind == "trend":
        rise = np.log(x).max() - np.log(x).min()
        return [np.array([scipy_stats.linregress(np.log(x), one).slope * rise for one in table.T])]
    if kind == "interaction":
        return [y["d"] - y["a"] - (y["c"] - y["b"])]
    return [y["d"] - y["a"]]


def error_of(p: float, look: int) -> float:
    """Return the error at whose boundary a look's p lies, by solving for it."""
    if p > alpha_spending.levels(0.3, PLANNED)[look]:
        return 1.0
    return float(
        optimize.brentq(
            lambda a: alpha_spending.levels(a, PLANNED)[look] - p, 1e-9, 0.3, xtol=1e-14
        )
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_verdict_at_the_second_look_by_hand(kind: str) -> None:
    row = judged(Y, PLANNED, **KINDS[kind])
    found = samples(kind, 10)
    ways, smallest = len(found), min(found, key=np.mean)
    assert (row["n"], row["look"]["number"], row["seeds"]) == (10, 2, list(range(10)))
    assert row["differences"] == pytest.approx(list(smallest))
    assert row["effect"] == pytest.approx(smallest.mean())

    def ends(tail: Any) -> tuple[float, float]:
        def reach(x: np.ndarray, error: float) -> float:
            return float(scipy_stats.t.isf(tail(error), 9) * scipy_stats.sem(x))

        low = min(x.mean() - reach(x, 0.025) for x in found)
        high = min(x.mean() + reach(x, 0.025 / ways) for x in found)
        return (max(low, -1.0), min(high, 1.0)) if kind == "rank correlation" else (low, high)

    assert row["ci95"] == pytest.approx(ends(lambda a: alpha_spending.levels(a, PLANNED)[1]))
    assert row["naive95"] == pytest.approx(ends(lambda a: a))
    tails = [
        max(scipy_stats.ttest_1samp(x, 0, alternative="greater").pvalue for x in samples(kind, n))
        for n in (5, 10)
    ]
    p = 2 * min(error_of(tail, look) for look, tail in enumerate(tails))
    assert row["p"] == pytest.approx(min(1.0, p), rel=6e-3)
    assert row["verdict"] == ("reproduced" if p < ALPHA and row["ci95"][0] > 0 else "inconclusive")
    # What stands beside it is of the same seeds; what came after decides nothing.
    assert row["beside"]["p_sign_flip"] == max(
        sensitivity.sign_flip(x, "superiority") for x in found
    )
    assert row["beside"]["iqm"][0] == pytest.approx(
        scipy_stats.trim_mean(Y["a" if kind in ("trend", "rank correlation") else "d"][:10], 0.25)
    )
    more, least = row["exploratory"], min(samples(kind, 12), key=np.mean)
    assert (more["seeds"], more["n"]) == ([10, 11], 12)
    assert more["effect"] == pytest.approx(least.mean())
    assert more["differences"] == pytest.approx(list(least[10:]))
    assert verdict_text.exploratory(row).startswith("Exploratory, 2 seeds after look 2 of 4")


@pytest.mark.parametrize("kind", KINDS)
def test_seeds_after_the_look_move_nothing_of_a_contrast(kind: str) -> None:
    row = judged(Y, PLANNED, **KINDS[kind])
    other = {arm: [*column[:10], 1.0 + i, 1.0] for i, (arm, column) in enumerate(Y.items())}
    same = ("verdict", "ci95", "ci90", "naive95", "bca95", "p", "n", "effect", "beside", "fragile",
            "detail", "differences")  # fmt: skip
    moved, short = (judged(x, PLANNED, **KINDS[kind]) for x in (other, cut(Y, 10)))
    assert [moved[name] for name in same] == [row[name] for name in same]
    assert [short[name] for name in same] == [row[name] for name in same]
    assert short["exploratory"] is None
    waiting = judged(cut(Y, 4), PLANNED, **KINDS[kind])
    assert (waiting["verdict"], waiting["ci95"], waiting["n"]) == ("inconclusive", None, 4)
    assert waiting["naive95"] is not None and waiting["beside"] is None
    assert waiting["reason"].startswith("No look yet: the first is after 5 seeds, of which 4")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "rank correlation"])
def test_a_contrast_that_hangs_on_one_seed_says_so(kind: str) -> None:
    values = {arm: [80 + i + 0.05 * np.sin(7 * i + s * s) for s in range(10)]
              for i, arm in enumerate(VALUES)}  # fmt: skip
    values["d"] = [x + 1.0 for x in values["d"]]  # so that there is an interaction
    row = judged(values, 10, **KINDS[kind])
    assert row["verdict"] == "reproduced" and row["fragile"] == []
    values["a"][3], values["d"][3] = 120.0, 70.0
    row = judged(values, 10, **KINDS[kind])
    assert row["verdict"] == "inconclusive"
    assert row["fragile"] == [{"seeds": [3], "verdict": "reproduced"}]


def test_orders_that_are_alike_without_one_seed_hang_on_it() -> None:
    """Four perfect orders are no evidence; with a nearly perfect one there is a spread."""
    values = {arm: [80.0 + i] * 5 for i, arm in enumerate(VALUES)}
    values["a"][2] = 81.5
    row = judged(values, 5, **KINDS["rank correlation"])
    assert row["verdict"] == "reproduced"
    assert row["fragile"] == [{"seeds": [2], "verdict": "inconclusive"}]
    assert verdict_text.fragile(row) == "Fragile: without seed 2 inconclusive."


def test_the_smallest_step_is_the_one_of_the_look() -> None:
    values = {
        "a": [80.0 + 0.1 * (s % 3) for s in range(8)],
        "b": [80.5 + 0.1 * (s % 2) for s in range(8)],
        "c": [82.0 - 0.1 * (s % 2) for s in range(5)] + [70.0] * 3,
    }
    row = judged(values, 10, ordering=["c", "b", "a"])
    assert "B against A" in row["detail"] and row["seeds"] == [0, 1, 2, 3, 4]
    assert row["exploratory"]["effect"] < 0 and row["effect"] > 0


def test_perfect_orders_at_looks_have_the_bounds_at_their_level() -> None:
    perfect = {arm: [80.0 + i] * 10 for i, arm in enumerate(VALUES)}
    early = judged(cut(perfect, 5), 10, rank_correlation={"values": VALUES})
    level = alpha_spending.levels(0.025, 10)
    assert early["ci95"] == pytest.approx((2 * level[0] ** (1 / 5) - 1, 1.0))
    assert early["naive95"] == pytest.approx((2 * 0.025 ** (1 / 5) - 1, 1.0))
    assert early["verdict"] == "inconclusive"
    late = judged(perfect, 10, rank_correlation={"values": VALUES})
    assert late["ci95"] == pytest.approx((2 * level[1] ** (1 / 10) - 1, 1.0))
    assert late["verdict"] == "reproduced" and late["p"] < early["p"]


def test_a_pooled_trend_has_looks() -> None:
    filed: Records = {}
    exps = [experiment(name, {arm: [x + shift for x in Y[arm]] for arm in Y}, filed)
            for name, shift in (("e", 0.0), ("f", 1.0))]  # fmt: skip
    both = [{"experiment": name, "metric": "test_accuracy", "test": "superiority", "margin": 0.0,
             "trend": {"values": VALUES}} for name in "ef"]  # fmt: skip
    [found] = judge([claim(*both, pooled=True, planned_seeds=PLANNED)], "smoke", exps, filed)
    mean = found["comparisons"][0]
    assert (mean["look"]["number"], mean["n"], mean["kind"]) == (2, 10, "trend")
    assert mean["ci95"][0] < mean["naive95"][0]
    del filed[key("f", "c", 7)]
    [found] = judge([claim(*both, pooled=True, planned_seeds=PLANNED)], "smoke", exps, filed)
    assert (found["comparisons"][0]["look"]["number"], found["comparisons"][0]["n"]) == (1, 5)


# One-sided tests and limits of every source.

FLOATS = st.lists(st.floats(-0.9, 0.9), min_size=3, max_size=6)


def sources(values: list[float]) -> list[paired_tests.Source]:
    x = np.array(values)
    columns = [x, x[::-1] ** 2 - 0.2, 0.3 - x**3]
    found: list[dict[int, float]] = [dict(enumerate(map(float, one))) for one in columns]
    pool = random_effects.pool(found)
    alike = contrasts.coefficient([dict.fromkeys(range(len(values)), values[0])])
    singles = [contrasts.mean(found[:1]), contrasts.coefficient(found[:1]), alike]
    return [*singles, contrasts.order(found), *([pool] if pool else [])]


@given(FLOATS, st.floats(1e-6, 0.4), st.floats(1e-6, 0.4), st.floats(-0.95, 0.95))
@settings(deadline=None)
def test_limits_and_tails_of_every_source_agree_and_are_monotone(
    values: list[float], one: float, other: float, bound: float
) -> None:
    small, large = sorted((one, other))
    for source in sources(values):
        wide, narrow = source.limits(small, small), source.limits(large, large)
        if wide is None or narrow is None:
            assert source.tail(bound, True) == source.tail(bound, False) == 1.0
            continue
        assert wide[0] <= narrow[0] and narrow[1] <= wide[1]
        assert source.tail(bound, True) <= source.tail(bound + 0.03, True)
        assert source.tail(bound, False) >= source.tail(bound + 0.03, False)
        for above, end in ((True, wide[0]), (False, wide[1])):
            clear = end - bound if above else bound - end
            if abs(clear) > 1e-9 and abs(end) < 1:
                assert (source.tail(bound, above) < small) == (clear > 0)


@given(st.lists(FLOATS, min_size=4, max_size=4), st.sampled_from(get_args(Test)))
@settings(deadline=None, max_examples=50)
def test_sequential_p_of_every_source_never_rises_on_one_side(
    blocks: list[list[float]], test: paired_tests.Test
) -> None:
    x = np.concatenate([(block * 3)[:5] for block in blocks])
    row = {"test": test, "margin": 0.1}
    for estimator, k in ((contrasts.mean, 1), (contrasts.coefficient, 1), (contrasts.order, 3)):
        stages = [
            [dict(enumerate(map(float, x[:end] + 0.1 * i))) for i in range(k)]
            for end in alpha_spending.looks(PLANNED)
        ]
        cases = [Case(row, [], stages[: i + 1], 5, estimator, planned=PLANNED) for i in range(4)]
        found = [(c.p_value(), c.source is not None and c.source.effect > 0.1) for c in cases]
        for (before, side), (after, then) in pairwise(found):
            assert 0 <= after <= 1
            if test != "superiority" or side == then:
                assert after <= before


# False verdicts at the edge of the null, under looks.

RUNS = 600
LIMIT = ALPHA + 3 * sqrt(ALPHA * (1 - ALPHA) / RUNS)


def ever(estimator: Any, x: np.ndarray, planned: int, wanted: str, margin: float = 0.0) -> float:
    """Return how often any look at [runs, seeds, columns] has a verdict, by the package's rule."""
    row: Json = {"test": "superiority", "margin": margin}
    count = 0
    for data in x:
        stages = [
            [dict(enumerate(map(float, column))) for column in data[:end].T]
            for end in alpha_spending.looks(planned)
        ]
        for i in range(len(stages)):
            case = Case(row, [], stages[: i + 1], 5, estimator, planned=planned)
            ci95, ci90 = case.interval(0.95), case.interval(0.9)
            p = case.p_value(), case.p_value(opposite=True)
            if decide("superiority", margin, ci95, ci90, *p) == wanted:
                count += 1
                break
    return count / len(x)


def arms(rng: np.random.Generator, planned: int) -> np.ndarray:
    return rng.standard_normal((RUNS, planned, 4))


def weighted(weights: Any, rng: np.random.Generator, planned: int) -> np.ndarray:
    return (arms(rng, planned) @ np.asarray(weights, dtype=float))[..., None]


def ranks(rng: np.random.Generator, planned: int) -> np.ndarray:
    y = arms(rng, planned)
    found = [[contrasts.rank_correlation([1, 2, 4, 7], one) for one in seeds] for seeds in y]
    return np.array(found)[..., None]


def doubtful(rng: np.random.Generator, planned: int) -> np.ndarray:
    return rng.standard_normal((RUNS, planned, 3)) + np.array([0.0, 30.0, 30.0])


def two_valued(rng: np.random.Generator, planned: int) -> np.ndarray:
    """Draw coefficients of -1 and 1 with mean 0, which are often all alike."""
    return rng.choice([-1.0, 1.0], (RUNS, planned, 1))


NULLS: dict[str, tuple[Any, Any]] = {
    "interaction": (contrasts.mean, partial(weighted, [1, -1, -1, 1])),
    "trend": (contrasts.mean, partial(weighted, contrasts.trend_weights([1, 2, 4, 7], "log"))),
    "ordering": (contrasts.order, doubtful),
    "rank correlation": (contrasts.coefficient, ranks),
    "rank correlation of two values": (contrasts.coefficient, two_valued),
}


@pytest.mark.parametrize("planned", [10, 20])
@pytest.mark.parametrize("kind", NULLS)
def test_false_reproduced_of_contrasts_under_looks(kind: str, planned: int) -> None:
    estimator, draw = NULLS[kind]
    x = draw(np.random.default_rng(planned), planned)
    assert ever(estimator, x, planned, "reproduced") <= LIMIT


@pytest.mark.parametrize("planned", [10, 20])
def test_an_order_that_just_holds_is_rarely_contradicted_at_any_look(planned: int) -> None:
    x = np.random.default_rng(planned).standard_normal((RUNS, planned, 5))
    limit = ALPHA / 2 + 3 * sqrt(ALPHA / 2 * (1 - ALPHA / 2) / RUNS)
    assert ever(contrasts.order, x, planned, "contradicted") <= limit
