"""A folder of images in the graph: prepared once, and anew where an image has changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from factories import data as data_factory
from factories.graph import Copy


@pytest.mark.slow
def test_the_graph_prepares_a_folder_and_prepares_it_anew_when_it_changes(tmp_path: Path) -> None:
    copy = Copy(tmp_path)
    data_factory.class_folders(tmp_path / "own/images", (8, 8), {"dark": 50, "light": 50})
    declared = {"title": "Mine", "shape": [1, 8, 8], "folder": "own/images"}
    copy.write("config/datasets/Mine_2.yaml", declared)
    copy.tier["base"] |= {"dataset": "Mine_2", "batch": 10}
    copy.tier["base"]["split"] = {"test": 20, "validation": 20, "labels": 50}
    copy.save()
    manifest = tmp_path / "results/data/Mine_2.json"
    copy.snakemake("results/data/Mine_2.json")
    before = json.loads(manifest.read_text())
    assert (before["n_train"], before["classes"]) == (100, 2)
    # Other times of the same images are the same dataset.
    (tmp_path / "own/images/dark/000.png").touch()
    assert "Nothing to be done" in copy.snakemake("results/data/Mine_2.json")
    (tmp_path / "own/images/dark/000.png").unlink()
    copy.snakemake("results/data/Mine_2.json")
    after = json.loads(manifest.read_text())
    assert after["n_train"] == 99 and after["identity"] != before["identity"]
