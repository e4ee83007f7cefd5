"""Which seeds come next: dear ones late, hopeless and decided ones never, shared ones once."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from cyclery.budget.choice import FUTILE, Question, Run, choose, decided

ENDS = (5, 10, 15, 20)
LIKELY, UNLIKELY = (0.0, 0.3, 0.6, 0.8), (0.0, 0.02, 0.1, 0.2)


def question(
    name: str, chances: tuple[float, ...] = LIKELY, *arms: str, **more: object
) -> Question:
    return Question(name, name, arms or (name,), ENDS[-len(chances):], chances, **more)  # type: ignore[arg-type]  # fmt: skip


def chosen(
    questions: list[Question], costs: Mapping[str, float], batch: float = 0.0,
    seeds: Mapping[str, int] | None = None, **more: float,
) -> dict[str, int]:  # fmt: skip
    """Return the arms that get seeds; what a seed of each costs says which arms there are."""
    before = dict.fromkeys(costs, 0) | dict(seeds or {})

    def missing(arm: str, end: int) -> dict[Run, float]:
        return {(arm, seed): costs[arm] for seed in range(before[arm], end)}

    after = choose(questions, before, missing, batch, **more)
    return {arm: count for arm, count in after.items() if count != before[arm]}


def test_the_cheaper_and_the_likelier_come_first() -> None:
    both = [question("a"), question("b")]
    assert chosen(both, {"a": 2, "b": 1}) == {"b": 5}
    assert chosen([question("a"), question("b", UNLIKELY)], {"a": 2, "b": 1}) == {"a": 5}
    # What is on disk costs nothing, and one look comes at a time.
    ahead = [question("a"), question("b", LIKELY[1:])]
    assert chosen(ahead, {"a": 1, "b": 1}, seeds={"b": 5}) == {"b": 10}


def test_a_first_look_that_decides_nothing_is_not_starved() -> None:
    """Its chance is 0 and that of the other is not; the looks after it count."""
    assert chosen([question("a"), question("b", (0.001,) * 4)], {"a": 1, "b": 1}, futile=0.0) == {
        "a": 5
    }


def test_hopeless_questions_get_nothing_unless_all_are_wanted() -> None:
    hopeless = question("a", (0.0, FUTILE / 2))
    assert chosen([hopeless], {"a": 1}, 100) == {}
    assert chosen([hopeless], {"a": 1}, 100, futile=0.0) == {"a": 15}
    assert chosen([], {"a": 1}, 100) == {}
    assert chosen([question("a", ())], {"a": 1}, 100) == {}


def test_a_batch_is_filled_and_what_cannot_end_in_time_is_passed_over() -> None:
    three, costs = [question(name) for name in "abc"], {"a": 1.0, "b": 2.0, "c": 4.0}
    assert chosen(three, costs, 15) == {"a": 5, "b": 5}
    # The best step is taken though it is longer than a batch, but not if there is no time for it.
    assert chosen(three, costs, 1) == {"a": 5}
    assert chosen(three, {"a": 1.0, "b": 1.0, "c": 0.1}, 1, most=0.4) == {}
    dear = [question("a", (0.9, 0.99)), question("b", (0.1, 0.2))]
    begun = {"a": 10, "b": 10}
    assert chosen(dear, {"a": 2.0, "b": 1.0}, 1, seeds=begun) == {"a": 15}
    assert chosen(dear, {"a": 2.0, "b": 1.0}, 1, seeds=begun, most=6) == {"b": 15}


def test_arms_that_are_shared_count_for_all_their_questions() -> None:
    alone = question("alone")
    sharing = [question(name, LIKELY, name, "control") for name in "abc"]
    costs = {"alone": 1.5, "control": 1.0, "a": 1.0, "b": 1.0, "c": 1.0}
    assert chosen([alone, sharing[0]], costs) == {"alone": 5}
    # Once the control has its seeds the others cost half.
    begun = {"control": 5}
    assert chosen([alone, *sharing], costs | {"alone": 2.5}, 15, seeds=begun) == {
        "a": 5, "b": 5, "c": 5,
    }  # fmt: skip
    # Two questions about the same arms are decided by the same seeds.
    twice = [question("x", LIKELY, "a", "control"), question("y", LIKELY, "a", "control")]
    assert chosen([alone, *twice], costs) == {"a": 5, "control": 5}


def test_a_claim_counts_half_by_its_first_verdict() -> None:
    two = [Question("claim", f"{i}", ("a",), (5,), (0.5,), 2) for i in range(2)]
    assert decided(two, {"a": 5}) == pytest.approx((0.75 + 0.5) / 2)
    assert decided(two, {"a": 4}) == 0
    rest = Question("claim", "0", ("a",), (5,), (0.5,), 2, first=False)
    assert decided([rest], {"a": 5}) == pytest.approx(0.125)
