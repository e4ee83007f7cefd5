"""The rule of the atlas: evidence of every tier that has records, and nothing trains."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from factories.graph import Copy

from cyclery.config.load import load
from cyclery.plan.snakemake_api import Graph

pytestmark = pytest.mark.timeout(300)


def test_the_atlas_asks_for_the_evidence_of_all_tiers_and_trains_nothing(tmp_path: Path) -> None:
    copy = Copy(tmp_path)
    for experiment in copy.paper["experiments"].values():
        experiment["tiers"]["laptop"] = {}
    copy.save()
    copy.write("config/tiers/laptop.yaml", copy.tier)
    assert "no tier has all records" in copy.snakemake("--dry-run", "atlas", expect=2)
    for tier in ("smoke", "laptop"):
        graph = Graph.of(load(copy.root, {"tier": tier}))
        for name in (*graph.part_range_files("tiny"), *graph.record_files("tiny")):
            path = copy.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}\n" * 100)
    said = copy.snakemake("--dry-run", "atlas")
    assert dict(re.findall(r"^(\w+) +(\d+)$", said, re.MULTILINE)) == {
        "atlas": "1", "evidence": "1", "tier_evidence": "1", "total": "3",
    }  # fmt: skip
    # A report of one tier asks nothing of the others.
    said = copy.snakemake("--dry-run", "report")
    assert "tier_evidence" not in said
