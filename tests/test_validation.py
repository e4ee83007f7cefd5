"""The benchmark of the rule of verdicts: its counts are the package's, its page is current."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cyclery.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
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
    for kind in (validation.KINDS[i] for i in (0, 2, 5, 9, 10, 11, 12, 13)):
        rates = list(validation.false_rates(kind, validation.LAWS[0], 40))
        assert [one["n"] for one in rates[:4]] == [3, 5, 10, 20]
        assert {one["design"] for one in rates} == {"one look", "spent", "naive"}
    kind = validation.KINDS[0]
    x = np.zeros((1, 5)) + np.arange(5)
    validation._audit(kind, x, None, np.array([True]))
    with pytest.raises(AssertionError, match="superiority, plan 5: reproduced, counted False"):
        validation._audit(kind, x, 5, np.array([False]))


def test_what_is_stored_is_whole_and_passes(modules: Modules) -> None:
    validation, page = modules
    found = page.read(ROOT / validation.STORED)
    assert found["runs"] == validation.RUNS and page.missed(found) == []
    cells = sum(validation.suits(kind, law) for kind in validation.KINDS for law in validation.LAWS)
    assert len(found["false"]) == cells * (len(validation.SEEDS) + 2 * len(validation.PLANS))
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
    found = {"alpha": 0.05, "false": [{**cell, "count": 70}, {**cell, "count": 71}]}
    assert page.mark(found, 1000) == pytest.approx(0.0707, abs=1e-4)
    assert page.missed(found) == ["k, l, looks after every 5, 20 seeds: 7.10 (5.67\u20138.86)"]


def test_the_page_of_this_project_is_current(modules: Modules) -> None:
    validation, page = modules
    stored = ROOT / validation.STORED
    found = page.read(stored)
    text = (ROOT / page.PAGE).read_text(encoding="utf-8")
    assert page.filled(text, found) == text, "run `python benchmarks/validation.py --docs`"
    assert (ROOT / page.PLOT).read_bytes() == page.plot(found) == page.plot(found)
    assert json.loads(page.dumps(found)) == found


def test_no_counts_and_no_marks_are_said(modules: Modules, tmp_path: Path) -> None:
    validation, page = modules
    with pytest.raises(UserError, match="no counts are stored"):
        page.read(tmp_path / "no.json")
    with pytest.raises(UserError, match="marks"):
        page.filled("no marks", page.read(ROOT / validation.STORED))
