"""Sketches in packs: the same at any width, or refused, for a reason that is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from factories import cards_self_supervised, cards_semi_supervised, packs, sketches
from factories import engine as factory

from cyclery.engine.run import Run

Json = dict[str, Any]
CARDS: dict[str, Json] = cards_self_supervised.CARDS | cards_semi_supervised.CARDS
CLAIMS: dict[str, Any] = cards_self_supervised.CLAIMS | cards_semi_supervised.CLAIMS
# What trains one by one, and why: so that a change is seen.
REFUSED: dict[tuple[str, str], str] = {
    # Convolutions.
    ("annotation-efficient", "coarse"): "not asked",
}


@pytest.mark.parametrize("card", CARDS)
def test_the_arms_of_a_card_are_the_same_at_any_width(card: str, tmp_path: Path) -> None:
    plan = sketches.planned(tmp_path, CARDS[card], CLAIMS.get(card))
    wanted = {job["key"]: job["settings"] for job in sketches.jobs(plan)}
    names = {plan.arm("one", "main", arm).key(0): arm for arm in CARDS[card]}
    done = {}
    for arm in CARDS[card]:
        settings = wanted[plan.arm("one", "main", arm).key(0)]
        parents = {
            name: [factory.trained(done[names[key]]) for key in keys]
            for name, keys in settings["parents"].items()
        }

        def make(given: Json, stack: Any, parents: Any = parents) -> Run:
            data = factory.data().at(given["split"].get("resolution"))
            return Run(given, data, factory.CPU, parents=parents, stack=stack)

        done[arm] = packs.alone(settings, make)
        if (card, arm) in REFUSED:
            assert REFUSED[card, arm] in packs.refusal(settings, make)
            continue
        rates = [0.02 * (1 + seed % 3) for seed in range(4)]
        every = [{**settings, "seed": seed, "schedules": {**settings["schedules"], "lr": rate}}
                 for seed, rate in enumerate(rates)]  # fmt: skip
        one = packs.beside(every, packs.Widths(1), make)
        stack = packs.Widths(3)
        for alone, beside in zip(one, packs.beside(every, stack, make), strict=True):
            assert packs.differing(packs.bits(alone), packs.bits(beside)) == [], arm
        assert stack.refusals == {} and max(stack.seen) == 3
        eager = packs.alone(every[1], make)
        assert eager.curve["train_loss"] == pytest.approx(one[1].curve["train_loss"], rel=1e-2)
