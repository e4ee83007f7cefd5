"""Seeds of single arms, as `cyclery decide` gives them, in what is published."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from factories.project import trained
from factories.sharing import INDEX

from cyclery.common.errors import UserError
from cyclery.config.load import load
from cyclery.plan import allocation
from cyclery.plan.graph import Plan
from cyclery.plan.project_checks import check
from cyclery.sharing import index
from cyclery.sharing.contents import Contents


def arms(plan: Plan) -> dict[str, int]:
    """Return the seeds that two arms are asked for."""
    return {name: len(plan.seeds(plan.arm("one", "main", name))) for name in ("fast", "plain")}


def test_seeds_of_single_arms_are_those_of_the_publication(tmp_path: Path) -> None:
    shutil.copytree(trained() / "config", tmp_path / "config")
    path = tmp_path / "results/smoke/allocation.json"
    # What the publisher asks every arm for counts for these, too.
    for asked, plain in ((None, 1), (2, 2), (5, 5)):
        allocation.write(path, {"one.main.plain": 1, "gone.main.plain": 4})
        given = {"seeds": asked} if asked else {}
        contents = Contents(check(load(tmp_path, given)))
        assert contents.allocation == {"one.main.plain": plain}
        there = {**INDEX, "seeds": asked or 3, "allocation": contents.allocation, "format": 3}
        found = index.Index.model_validate(there)
        path.unlink()
        # What is asked for here counts for nothing.
        for own in ({}, {"seeds": 4}):
            plan = index.published_plan(tmp_path, own, found)
            assert arms(plan) == arms(contents.plan) == {"fast": asked or 3, "plain": plain}
    home = index.Home(tmp_path, "smoke")
    for written in (found, index.Index.model_validate(INDEX)):
        index.write(home, written)
        assert index.read(home) == written
        assert ("allocation" in home.index.read_text()) == bool(written.allocation)
    outside = found.model_copy(update={"allocation": {"two.main.plain": 1}})
    index.write(home, outside)
    with pytest.raises(UserError, match="allocation: names arms of papers that are not in it"):
        index.read(home)
    with pytest.raises(ValueError, match="at most 20000 items"):
        many = {f"one.main.a{number}": 1 for number in range(20_001)}
        index.Index.model_validate({**INDEX, "allocation": many})
