"""The whole graph through Snakemake, on copies of the repository with a tiny paper."""

from __future__ import annotations

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
