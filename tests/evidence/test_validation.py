"""The benchmark of the rule of verdicts: its counts are the package's, its page is current."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cyclery.common.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
Modules = tuple[Any, Any]


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Modules:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import validation
    import validation_page

    return validation, validation_page


def test_every_kind_counts_as_the_package_judges(modules: Modules) -> None:
    """The benchmark compares its counts with the package's verdicts; it does so for every kind."""
    validation, _ = modules
    for kind in (validation.KINDS[i] for i in (0, 2, 5, 9, 10, 11, 12, 13, 14, 15)):
        rates = list(validation.false_rates(kind, validation.LAWS[0], 40))
        assert [one["n"] for one in rates[:4]] == [3, 5, 10, 20]
        assert {one["design"] for one in rates} == {"one look", "spent", "naive"}
    kind = validation.KINDS[0]
    x = np.zeros((1, 5)) + np.arange(5)
    validation._audit(kind, x, None, np.array([True]))
    with pytest.raises(AssertionError, match="superiority, plan 5: reproduced, counted False"):
        validation._audit(kind, x, 5, np.array([False]))


def test_whole_papers_count_as_the_package_judges(modules: Modules) -> None:
    """The benchmark compares its counts with the package's families, at every look's levels."""
    validation, _ = modules
    import validation_papers as papers

    law = validation.LAWS[0]
    for size, planned in ((10, 5), (28, 10)):
        counts = papers._nulls(validation._generator, law, "mixed", size, planned, 200)
        assert counts["runs"] == 200 and counts["contradicted"] <= counts["contradicted before"]
    planted = papers._planted(validation._generator, law, 10, 20, 100)
    assert planted["for"] == 400 and planted["reproduced"] > 200
    rng = np.random.default_rng(1)
    x = papers.draw(rng, law, 40, 5, [0.0] * 8)
    [found] = papers.verdicts(x, papers.tests("superiority", 8), 5)
    with pytest.raises(AssertionError, match="superiority, plan 5: inconclusive, counted"):
        papers._audit(
            x, papers.tests("superiority", 8), 5, {**found, "reproduced": ~found["reproduced"]}
        )


def test_what_is_stored_is_whole_and_passes(modules: Modules) -> None:
    validation, page = modules
    found = page.read(ROOT / validation.STORED)
    assert found["runs"] == validation.RUNS and page.missed(found) == []
    cells = sum(validation.suits(kind, law) for kind in validation.KINDS for law in validation.LAWS)
    assert len(found["false"]) == cells * (len(validation.SEEDS) + 2 * len(validation.PLANS))
    papers = [one for one in found["papers"] if one["what"] == "nulls"]
    assert {(one["size"], one["n"]) for one in papers} == {
        (size, n) for size in (10, 28) for n in (5, 10, 20)
    }
    assert {one["paper"] for one in papers} == {"superiority", "mixed"}
    # Why a contradiction is corrected, and that the correction leaves most of the power.
    [worst] = [one for one in papers if (one["paper"], one["law"], one["size"], one["n"])
               == ("superiority", "normal", 28, 5)]  # fmt: skip
    assert worst["contradicted before"] / worst["runs"] > 0.4
    for one in found["papers"]:
        if one["what"] == "planted" and one["n"] == 20:
            assert one["contradicted"] > 0.9 * one["against"]
    for one in found["power"]:
        if one["stated"] is not None:
            error = 4 * np.sqrt(one["stated"] * (1 - one["stated"]) / one["runs"]) + 2e-3
            assert one["count"] / one["runs"] == pytest.approx(one["stated"], abs=error)
    # What peeking would do without spending: the reason for all of this.
    [naive] = [
        one for one in found["false"]
        if (one["kind"], one["law"], one["design"], one["n"])
        == ("equivalence, margin of 10 s.d.", "normal", "naive", 50)
    ]  # fmt: skip
    assert naive["count"] / naive["runs"] > 0.15


def test_a_rate_above_its_mark_is_named(modules: Modules) -> None:
    _, page = modules
    cell = {"kind": "k", "law": "l", "design": "spent", "n": 20, "marked": True, "runs": 1000}
    paper = {"what": "nulls", "paper": "p", "law": "l", "size": 28, "n": 5, "runs": 1000,
             "reproduced": 70, "contradicted": 71}  # fmt: skip
    found = {"alpha": 0.05, "false": [{**cell, "count": 70}, {**cell, "count": 71}],
             "papers": [paper]}  # fmt: skip
    assert page.mark(found, 1000) == pytest.approx(0.0707, abs=1e-4)
    assert page.missed(found) == [
        "k, l, looks after every 5, 20 seeds: 7.10 (5.67\u20138.86)",
        "papers of 28 comparisons, p, l, 5 seeds, contradicted: 7.10 (5.67\u20138.86)",
    ]


def test_the_page_of_this_project_is_current(modules: Modules) -> None:
    validation, page = modules
    stored = ROOT / validation.STORED
    found = page.read(stored)
    text = (ROOT / page.PAGE).read_text(encoding="utf-8")
    assert page.filled(text, found) == text, "run `python benchmarks/validation.py --docs`"
    assert (ROOT / page.PLOT).read_bytes() == page.plot(found) == page.plot(found)
    assert json.loads(page.dumps(found)) == found


def test_a_budget_errs_no_more_and_decides_sooner(modules: Modules) -> None:
    """What is stored passes, its page is current, and a part of it is counted again."""
    validation, page = modules
    import validation_budget as budget
    import validation_budget_page as budget_page

    found = json.loads((ROOT / budget.STORED).read_bytes())
    assert budget_page.missed(found) == [] and len(found["errors"]) == 5
    assert all(one["runs"] >= 2_000 for one in found["errors"])
    for one in found["speed"]:
        [half] = [cell for cell in one["at"] if cell["share"] == 0.5]
        assert half["allocated"] > 1.5 * half["equal"]
        assert one["most"]["equal"] > 1.25 * one["most"]["allocated"]
    text = (ROOT / page.PAGE).read_text(encoding="utf-8")
    assert budget_page.filled(text, found) == text, f"run `{budget_page.COMMAND} --docs`"
    above = {**found, "errors": [{**found["errors"][0], "reproduced": 200}]}
    assert "reproduced: 10.00" in budget_page.missed(above)[0]
    # Each course is compared with the package's own verdicts.
    rng, tests = validation._generator("test"), budget.papers.tests("mixed", budget.SIZE)
    effects = [1.5, 0.0] * (budget.SIZE // 2)
    assert budget.errors(0, 0, 2)["runs"] == budget.speeds(2, 0, 2)["runs"] == 2
    for paper in budget.simulate(rng, budget.LAWS[0], tests, lambda: effects, 3):
        course = budget.allocated(paper)
        budget.audit(paper, course)
        equal = budget.equal(paper)
        assert paper.whole == pytest.approx(equal[-1].spent) and course[-1].spent < paper.whole
        assert paper.claims(course[-1].verdicts) > 0
        course[-1].verdicts[0] = "contradicted"
        with pytest.raises(AssertionError, match="counted contradicted"):
            budget.audit(paper, course[-1:])


def test_no_counts_and_no_marks_are_said(modules: Modules, tmp_path: Path) -> None:
    validation, page = modules
    with pytest.raises(UserError, match="no counts are stored"):
        page.read(tmp_path / "no.json")
    with pytest.raises(UserError, match="marks"):
        page.filled("no marks", page.read(ROOT / validation.STORED))
