"""What a claim's row and card say beside its verdict: rule, fragility, budget, where to look."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
from factories import evidence as factory
from factories.page import unpacked

from cyclery.evidence import verdict_text
from cyclery.report import build as build_report
from cyclery.report import model, view
from cyclery.report.view_types import ClaimEntry

Json = dict[str, Any]


def part() -> Json:
    return copy.deepcopy(factory.evidence(1, 2, 5)[0])


def entries(found: Json) -> dict[str, ClaimEntry]:
    shown = view.report([model.complete(copy.deepcopy(found))], "")
    return {entry["id"]: entry for entry in shown["papers"][0]["claims"]}


def claim(found: Json, name: str) -> Json:
    return next(one for one in found["claims"] if one["id"] == name)


def test_a_row_names_the_rule_where_it_is_not_superiority_to_zero() -> None:
    found = part()
    row = claim(found, "GCT-1")["comparisons"][0]
    assert entries(found)["GCT-1"]["says_rule"] == ""
    row.update(margin=0.3)
    assert entries(found)["GCT-1"]["says_rule"] == "superiority, margin 0.30 pp"
    row.update(test="equivalence", margin=0.5)
    assert entries(found)["GCT-1"]["says_rule"] == "equivalence within ±0.50 pp"
    claim(found, "GCT-1")["comparisons"].append({**row, "test": "non-inferiority"})
    assert entries(found)["GCT-1"]["says_rule"] == ""
    # A comparison with zero has another rule, too, though a row does not name that one.
    row.update(test="superiority", margin=0.0)
    assert entries(found)["GCT-1"]["says_rule"] == ""


@pytest.mark.parametrize(
    ("effect", "test", "margin", "opposite", "said"),
    [
        (1.0, "superiority", 0.0, 0.6, "p = 0.300 (Holm)"),
        (1.0, "superiority", 2.0, 0.6, "p of the opposite = 0.600 (Holm)"),
        (-1.0, "superiority", 0.0, 0.06, "p of the opposite = 0.060 (Holm)"),
        (-1.0, "superiority", 0.0, None, "p = 0.300 (Holm)"),
        (-1.0, "non-inferiority", 2.0, 0.06, "p = 0.300 (Holm)"),
        (-3.0, "non-inferiority", 2.0, 0.0001, "p of the opposite < 0.001 (Holm)"),
        (-1.0, "equivalence", 2.0, 0.06, "p = 0.300 (Holm)"),
        (3.0, "equivalence", 2.0, 0.06, "p of the opposite = 0.060 (Holm)"),
    ],
)
def test_the_p_that_is_shown_is_that_of_the_side_where_the_effect_lies(
    effect: float, test: str, margin: float, opposite: float | None, said: str
) -> None:
    found = part()
    row = claim(found, "GCT-1")["comparisons"][0]
    row.update(effect=effect, test=test, margin=margin, p_holm=0.3, p_opposite_holm=opposite)
    assert entries(found)["GCT-1"]["comparisons"][0]["says_p"] == said


def test_fragile_verdicts_budgets_and_experiments_are_seen(tmp_path: Path) -> None:
    found = part()
    fragile = claim(found, "GCT-1")
    fragile["verdict"] = "reproduced"
    fragile["comparisons"][0].update(fragile=[{"seeds": [3], "verdict": "inconclusive"}])
    seen = entries(found)
    assert seen["GCT-1"]["fragile"]
    # An open one hangs on every seed to come.
    fragile["verdict"] = "inconclusive"
    assert not entries(found)["GCT-1"]["fragile"]
    fragile["verdict"] = "reproduced"
    usual = "equal budgets: samples, those of the runs that it starts from among them"
    assert usual in seen["GCT-1"]["facts"]
    # A comparison that says something else says it itself.
    assert usual not in seen["GCT-2"]["facts"]
    page = unpacked(build_report([model.complete(found)], tmp_path, "").read_text("utf-8"))
    [row] = re.findall('<tr id="claim-gct-1".*?</tr>', page, re.DOTALL)
    assert 'class="frail"' in row
    slugs = {slug for entry in seen.values() for slug, _ in entry["experiments"]}
    assert slugs and all(f'<section class="experiment" id="{slug}"' in page for slug in slugs)
    assert all(f'<a href="#{slug}">' in page for slug in slugs)
    assert "; fragile" in (tmp_path / "tables/gct-summary.tex").read_text("utf-8")


def test_seeds_beyond_the_plan_decide_nothing_of_several_comparisons_either() -> None:
    rows: Any = [{"verdict": "inconclusive"}, {"verdict": "reproduced", "label": "a"}]
    judged: Any = {"verdict": "inconclusive", "n": 5, "planned_seeds": 20, "seeds_to_settle": 15,
                   "seconds_to_settle": 60.0}  # fmt: skip
    caveat = "as a new plan: more than were planned decide nothing"
    assert verdict_text.claim(judged, rows).endswith("would settle the rest.")
    judged["seeds_to_settle"] = 34
    assert verdict_text.claim(judged, rows).endswith(f"would settle the rest, {caveat}.")
