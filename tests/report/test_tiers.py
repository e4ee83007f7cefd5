"""One entry for each claim over all tiers: what stands in front, and what is said of the others."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
from factories import evidence as factory
from factories.page import Page, sound, unpacked

from cyclery.report import build as build_report
from cyclery.report import model, tiers, view
from cyclery.report.view_types import ReportView

Json = dict[str, Any]
# Of every tier that has evidence: who stands in front, and how the tiers differ.
CASES = {
    "GCT-1": ({"smoke": "reproduced", "laptop": "inconclusive"}, "smoke", "none"),
    "GCT-2": ({"smoke": "reproduced", "laptop": "contradicted"}, "laptop", "opposite"),
    "GCT-3": ({"smoke": "partly", "laptop": "reproduced", "desk": "not run"}, "laptop", "other"),
    "GCT-5": ({"smoke": "inconclusive", "laptop": "inconclusive"}, "laptop", "none"),
    "GCT-6": ({"smoke": "inconclusive", "laptop": "not run"}, "smoke", "none"),
    "GCT-8": ({"smoke": "not run", "laptop": "not run"}, "desk", "none"),
}


def at(tier: str, papers: int = 1) -> list[Json]:
    """Return evidence of a tier with the verdicts of CASES; small, for little is drawn."""
    found = factory.evidence(1, 2, 5)[:papers]
    for part in found:
        part["tier"] = tier
        part["paper"]["family"] = "training schedules" if part["part"] == "gct" else "distillation"
        for claim in part["claims"]:
            verdicts = CASES.get(claim["id"], ({}, "", ""))[0]
            verdict = verdicts.get(tier, "not run")
            if verdict == "not run":
                needs = "; the paper tier tests it in about 11 h of training"
                claim.update(reason=f"needs more than {tier} has{needs}", comparisons=[])
            claim.update(verdict=verdict, seeds_to_settle=30 if verdict == "inconclusive" else None)
    return found


def shown(*parts: Json) -> ReportView:
    return view.report([model.complete(copy.deepcopy(part)) for part in parts], "")


@pytest.fixture(scope="module")
def three() -> ReportView:
    # In no order: the order of the tiers is not that of the files.
    return shown(*at("smoke", 2), *at("desk"), *at("laptop"))


def test_the_nearest_tier_that_decided_stands_in_front(three: ReportView) -> None:
    entries = {entry["id"]: entry for entry in three["papers"][0]["claims"]}
    for name, (verdicts, front, disagreement) in CASES.items():
        entry = entries[name]
        assert (entry["tier"], entry["disagreement"]) == (front, disagreement), name
        assert entry["verdict"] == verdicts.get(front, "not run")
        assert [one["tier"] for one in entry["at"]] == ["desk", "laptop", "smoke"]
        assert [one["verdict"] for one in entry["at"]] == [
            verdicts.get(tier, "not run") for tier in ("desk", "laptop", "smoke")
        ]
    assert [c["id"] for c in three["disagreements"]] == ["GCT-2", "GCT-3"]
    # Two tiers are two chances: who reads a decided claim learns that a nearer tier left it open.
    left_open = [(c["id"], c["left_open"]) for c in three["left_open"]]
    assert left_open == [("GCT-1", ["laptop"])]


def test_notes_say_seeds_and_commits_by_tier() -> None:
    parts = [*at("smoke"), *at("laptop")]
    parts[1]["provenance"].update(seeds=list(range(20)), commits=["f" * 40])
    [note] = shown(*parts)["papers"][0]["notes"]
    assert "Seeds: at laptop 0\u201319; at smoke 0\u20134." in note
    assert f"Commit: at laptop {'f' * 12}; at smoke " in note
    assert note.count("Device: ") == 1 and "Judged by: test accuracy." in note


def test_a_claim_says_what_would_decide_it_and_why_a_tier_did_not_run_it(
    three: ReportView,
) -> None:
    entries = {entry["id"]: entry for entry in three["papers"][0]["claims"]}
    assert [tier for tier, text in entries["GCT-5"]["to_decide"] if "30 seeds" in text] == [
        "laptop", "smoke"
    ]  # fmt: skip
    assert [tier for tier, _ in entries["GCT-6"]["reasons"]] == ["desk", "laptop"]
    assert entries["GCT-8"]["says_needs"] == ("The paper tier tests it in about 11 h of training.")
    [fold] = three["papers"][0]["folds"]
    assert fold["reason"] == "Needs more than desk has."
    assert [c["id"] for c in fold["claims"]] == ["GCT-8", "GCT-10"]


def test_counts_of_tiers_and_families_add_up(three: ReportView) -> None:
    total = len(factory.CLAIMS["gct"]) + len(factory.CLAIMS["clr"])
    assert three["total"] == total and sum(n for _, n in three["counts"]) == total
    by_tier = {one["tier"]: one for one in three["tiers"]}
    assert list(by_tier) == ["desk", "laptop", "smoke"]
    assert all(sum(n for _, n in one["counts"]) == total for one in by_tier.values())
    assert [one["papers"] for one in by_tier.values()] == [1, 1, 2]
    assert (by_tier["laptop"]["tested"], by_tier["laptop"]["decided"]) == (4, 2)
    assert (three["tested"], three["decided"]) == (5, 3)
    assert [one["family"] for one in three["families"]] == ["training schedules", "distillation"]
    assert three["families"][0]["says_share"] == "2 of 3 (67\u00a0%)"
    assert three["papers"][1]["absent"] == ["desk", "laptop"]


def test_one_tier_is_an_atlas_with_one_tier() -> None:
    alone = shown(*at("smoke"))
    [paper] = alone["papers"]
    assert paper["absent"] == [] and len(alone["tiers"]) == 1
    assert all(entry["at"][0]["verdict"] == entry["verdict"] for entry in paper["claims"])
    # The names of files have a tier where there are several.
    assert [e["slug"] for e in paper["experiments"]] == ["gct-0"]


def test_tiers_of_a_project_s_own_come_last() -> None:
    assert tiers.nearest(["mine", "smoke", "paper", "smoke"]) == ["paper", "smoke", "mine"]


def test_the_page_has_every_tier_once(tmp_path: Path) -> None:
    parts = [*at("smoke", 2), *at("laptop")]
    index = build_report([model.complete(part) for part in parts], tmp_path, "")
    source = unpacked(index.read_text("utf-8"))
    page = Page(source)
    sound(page)
    text = " ".join(" ".join(page.texts).split())
    assert "Which claims hold?" in text and "Not run at laptop" in text
    assert "1 of them in opposite directions" in text
    for name, (verdicts, front, _) in CASES.items():
        pattern = f'<(?:tr|li) id="claim-{name.lower()}"[^>]*data-verdict="([^"]*)"'
        front = front if front != "desk" else "laptop"
        assert re.findall(pattern, source) == [verdicts.get(front, "not run")]
    assert {p.name for p in (tmp_path / "tables").glob("gct-*-arms.tex")} == {
        "gct-laptop-0-arms.tex", "gct-smoke-0-arms.tex"
    }  # fmt: skip
