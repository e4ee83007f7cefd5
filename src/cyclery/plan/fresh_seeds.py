"""Check that seeds from another first one on are fresh: no earlier run had any of them."""

from __future__ import annotations

from collections.abc import Iterator
from math import lcm

from cyclery.plan.graph import Plan
from cyclery.plan.model import needed_seeds, with_ancestors
from cyclery.records.trial_selection import FIRST_SEED

# Published runs have the first seeds, and constants were chosen on those from 1000 on. From the
# first seed of tuning on they belong to trials and searches.
USED = (range(100), range(1_000, 2_000))
# A multiple of 3, 4, 5 and 10, whose fiftyfold is no seed of tuning.
SUITABLE = 12_000


def problems(plan: Plan) -> Iterator[str]:
    """Yield what is wrong with ``first_seed``; nothing where it is 0.

    A parent's seeds follow from its child's (``nested`` divides, ``members`` multiplies), and a
    split that seeds share is drawn for seed // share: both must be fresh, and whole: seeds that are
    one unit stay together.
    """
    first = plan.project.config.first_seed
    if not first:
        return
    names = [name for paper in plan.project.selected() for name in plan.part_arms(paper)]
    arms = [plan.arm(*name) for name in names]
    family = {arm.digest: arm for arm in with_ancestors(arms, tuning=False)}
    share = lcm(*(arm.share for arm in arms))
    if first % share:
        yield (
            f"first_seed: must be a multiple of {share}, for so many seeds in a row share a parent "
            f"or a split (found {first}; {-(-first // share) * share} is one)."
        )
        return
    needed = needed_seeds(((arm, plan.project.seed_numbers()) for arm in arms), tuning=False)
    for key, seeds in needed.items():
        arm, split = family[key], family[key].settings["split"]
        if split["choose"] == "blocks":
            yield (
                f"first_seed: must be 0 for {arm.id}, whose split takes the blocks of the training "
                f"set one after another and has no others (found {first}); leave its paper out."
            )
        elif taken := sorted(filter(_used, {*seeds, *(each // split["share"] for each in seeds)})):
            yield (
                f"first_seed: {arm.id} would have the seed, or a split drawn for the seed, "
                f"{taken[0]}, which is not fresh: 0 to 99, 1000 to 1999 and all from "
                f"{FIRST_SEED} on are used (found {first}; {SUITABLE} suits)."
            )


def _used(seed: int) -> bool:
    return seed >= FIRST_SEED or any(seed in used for used in USED)
