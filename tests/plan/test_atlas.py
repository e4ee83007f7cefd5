"""The atlas: which evidence it asks for, and that it plans no tier that has nothing."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml
from factories import project as factory

from cyclery.common.errors import UserError
from cyclery.config.load import load
from cyclery.plan import atlas as module
from cyclery.plan.atlas import Atlas
from cyclery.plan.snakemake_api import Graph


@pytest.fixture
def atlas(tmp_path: Path) -> Atlas:
    paper = copy.deepcopy(factory.PAPER)
    paper["experiments"]["main"]["tiers"] = {"smoke": {}, "laptop": {}, "desk": {}}
    factory.write(tmp_path, factory.TIER, paper)
    for tier in ("laptop", "desk"):
        (tmp_path / f"config/tiers/{tier}.yaml").write_text(yaml.safe_dump(factory.TIER))
    return Atlas(Graph.of(load(tmp_path, {})))


def record(root: Path, tier: str, lines: int) -> None:
    """Write a file that looks like records: two arms of two seeds are four."""
    path = root / f"results/{tier}/records/one/L0-0000.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}\n" * lines)


def test_every_tier_with_whole_records_is_there_the_nearest_first(
    atlas: Atlas, tmp_path: Path
) -> None:
    record(tmp_path, "smoke", 4)
    record(tmp_path, "desk", 4)
    record(tmp_path, "laptop", 3)  # one lacks
    assert atlas.evidence() == [
        "results/desk/evidence/one.json", "results/smoke/evidence/one.json"
    ]  # fmt: skip
    record(tmp_path, "laptop", 5)  # of more seeds than are planned
    assert atlas.evidence()[1] == "results/laptop/evidence/one.json"
    assert atlas.graph("laptop").record_files("one") == ["results/laptop/records/one/L0-0000.jsonl"]
    assert "laptop" in atlas.graph("laptop").overrides


def test_a_tier_without_records_is_not_planned(
    atlas: Atlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planned(*_: object) -> None:
        raise AssertionError("planned")

    record(tmp_path, "smoke", 4)
    monkeypatch.setattr(module, "at_tier", planned)
    assert sorted(atlas.others) == ["desk", "laptop"]
    assert atlas.evidence() == ["results/smoke/evidence/one.json"]


def test_without_records_there_is_one_message(atlas: Atlas, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no tier has all records of a selected paper"):
        atlas.evidence()
    record(tmp_path, "smoke", 3)
    with pytest.raises(UserError, match="make reproduce"):
        atlas.evidence()


def test_results_in_another_folder_are_found_there(atlas: Atlas, tmp_path: Path) -> None:
    elsewhere = Atlas(Graph.of(load(tmp_path, {"results": "other", "seeds": 3})))
    for tier in ("smoke", "laptop"):
        record(tmp_path, tier, 4)
        (tmp_path / "other").mkdir(exist_ok=True)
        (tmp_path / "results" / tier).rename(tmp_path / "other" / tier)
    assert elsewhere.evidence() == ["other/laptop/evidence/one.json"]
    assert elsewhere.graph("laptop").record_files("one") == [
        "other/laptop/records/one/L0-0000.jsonl"
    ]
