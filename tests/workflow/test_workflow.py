"""The whole graph through Snakemake, on copies of the repository with a tiny paper."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from factories.graph import Copy

pytestmark = pytest.mark.timeout(900)  # several reproductions each


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


def test_graph_from_data_to_report_and_what_retrains(copy: Copy) -> None:
    copy.snakemake("report")
    # Two experiments of five arms, of which two are one run, with two seeds each.
    assert copy.trained() == 8
    claims = copy.evidence()
    assert claims["T-1"]["n"] == claims["T-2"]["n"] == 2
    assert claims["T-3"]["verdict"] == "not run"
    assert claims["T-3"]["reason"] == "needs a larger machine"
    page = (copy.root / "results/smoke/report/index.html").read_text()
    assert "T-1" in page and "Needs a larger machine." in page

    assert "Nothing to be done" in copy.snakemake("report")

    # A comment in a method re-runs nothing.
    method = copy.root / "src/cyclery/methods/supervised.py"
    method.write_text(method.read_text() + "\n# A remark.\n")
    assert "Nothing to be done" in copy.snakemake("report")

    # One arm's setting retrains that arm's runs only.
    copy.forget_logs()
    copy.paper["experiments"]["other"]["arms"]["fast"]["lr"] = 0.3
    copy.save()
    copy.snakemake("report")
    assert copy.trained() == 2

    # A label says something else and trains nothing.
    copy.forget_logs()
    copy.paper["experiments"]["other"]["arms"]["fast"]["label"] = "the fast arm"
    copy.save()
    copy.snakemake("report")
    assert copy.trained() == 0
    assert "the fast arm" in (copy.root / "results/smoke/report/index.html").read_text()


@pytest.mark.slow
def test_more_seeds_and_new_versions_train_what_is_new(copy: Copy) -> None:
    copy.snakemake("report")
    method = copy.root / "src/cyclery/methods/supervised.py"
    first = copy.figures()

    # More seeds train the new block only: four different arms, two more seeds.
    copy.forget_logs()
    copy.snakemake("report", "--config", "seeds=4")
    assert copy.trained() == 8
    [row] = copy.evidence()["T-1"]["comparisons"]
    assert (row["n"], row["exploratory"]["n"]) == (2, 4)

    # A plan of more seeds judges them, and trains nothing.
    copy.forget_logs()
    copy.snakemake("report", "--config", "seeds=4", "planned=4")
    assert copy.trained() == 0
    assert copy.evidence()["T-1"]["n"] == 4

    # A change of what the method computes retrains its runs.
    copy.forget_logs()
    method.write_text(method.read_text().replace("VERSION = 1", "VERSION = 2"))
    copy.snakemake("report")
    assert copy.trained() == 8

    # From nothing, the same figures come out.
    method.write_text(method.read_text().replace("VERSION = 2", "VERSION = 1"))
    shutil.rmtree(copy.root / "results")
    copy.snakemake("report")
    assert copy.figures() == first


def test_a_paper_is_one_yaml_and_a_method_one_file(copy: Copy) -> None:
    (copy.root / "src/cyclery/methods/squared_error.py").write_text(
        '''"""A method that a newcomer adds."""

from __future__ import annotations

from dataclasses import dataclass

from cyclery.common.lazy import F
from cyclery.schedules import Quantity

VERSION = 1
TITLE = "Squared error"


@dataclass(frozen=True)
class Settings:
    """Its settings."""

    weight: Quantity = 1.0


def step(models, batch, row, settings, generator):
    """Return the weighted Brier score."""
    logits = models["main"](batch.x)
    target = F.one_hot(batch.y, logits.shape[1]).float()
    error = (logits.softmax(1) - target).square().sum(1).mean()
    return row["weight"] * error, {"brier": error}
'''
    )
    (copy.root / "config/papers/brier.yaml").write_text(
        """
title: Squared error
authors: A. Newcomer
year: 2026
summary: Squared error is as good as cross-entropy.
experiments:
  main:
    title: Squared error and cross-entropy
    tiers: {smoke: {}}
    arms:
      brier: {role: method, method: {name: squared_error, weight: {kind: cycle, easy: 1, hard: 4}}}
      cross-entropy: {role: baseline}
claims:
  N-1:
    statement: Squared error is better than cross-entropy.
    comparisons: [{experiment: main, arm: brier, against: cross-entropy}]
"""
    )
    copy.snakemake("report", "--config", "papers=[brier]")
    data = json.loads((copy.root / "results/smoke/evidence/brier.json").read_text())
    assert data["claims"][0]["id"] == "N-1" and data["claims"][0]["n"] == 2
    page = copy.root / "results/smoke/report-brier/index.html"
    assert "Squared error is better" in page.read_text()


def test_named_targets(copy: Copy) -> None:
    copy.snakemake("tiny.T-2")
    assert copy.trained() == 4
    assert not (copy.root / "results/smoke/report").exists()
    copy.forget_logs()
    # The paper's shard finds what the claim's shard has trained.
    copy.snakemake("tiny")
    assert copy.trained() == 4


def test_a_bad_configuration_stops_before_any_job(copy: Copy) -> None:
    copy.tier["base"]["epoch"] = copy.tier["base"].pop("epochs")
    copy.save()
    output = copy.snakemake("report", expect=2)
    assert "smoke.yaml: base: unknown key 'epoch'. Did you mean 'epochs'?" in output
    assert "Traceback" not in output and not (copy.root / "results").exists()
