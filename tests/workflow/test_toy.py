"""The toy in .test, which the workflow catalog draws, and both ways of naming the Snakefile."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from factories.checkout import ROOT

from cyclery.records.readers import read_evidence


def snakemake(*arguments: str, cwd: Path = ROOT) -> str:
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    shutil.copytree(ROOT / ".test/config", folder / "config")
    return folder


@pytest.mark.parametrize("snakefile", ["Snakefile", "workflow/Snakefile"])
def test_both_snakefiles_are_one_graph_and_find_the_default_profile(
    toy: Path, snakefile: str
) -> None:
    said = snakemake("--forceall", "-s", snakefile, "-d", str(toy), "--rulegraph")
    assert "workflow specific profile profiles/default" in said
    rules = ("prepare", "lr_range", "train", "evidence", "render", "all")
    assert all(f'label = "{rule}"' in said for rule in rules)


def test_the_toy_runs_to_its_report(toy: Path) -> None:
    snakemake("-s", "workflow/Snakefile", "-d", str(toy))
    evidence = read_evidence(toy / "results/smoke/evidence/toy.json")
    assert {claim["id"] for claim in evidence["claims"]} == {"TOY-1", "TOY-2"}
    assert all(claim["verdict"] != "not run" for claim in evidence["claims"])
    assert "A toy" in (toy / "results/smoke/report/index.html").read_text()
    again = snakemake("--dry-run", "-d", str(toy))
    assert "Nothing to be done" in again


def test_the_lint_of_snakemake_finds_nothing_by_either_name() -> None:
    for name in ("Snakefile", "workflow/Snakefile"):
        assert "in a good condition" in snakemake("--lint", "-s", name)


def test_the_toy_has_the_dataset_of_the_project() -> None:
    """The first line names the schema, which lies elsewhere from there."""
    own, whole = (
        (ROOT / place / "config/datasets/digits.yaml").read_text().partition("\n")[2]
        for place in (".test", ".")
    )
    assert own == whole
