"""The Makefile: what its targets run, and a set-up that is done once and mends itself."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
from factories.checkout import ROOT, read
from factories.makefile import make, recipe


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A folder with our Makefile and an interpreter that only pretends to install."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    stub = tmp_path / "fake-python"
    stub.write_text(
        "#!/bin/sh\n"
        'echo "$*" >> calls\n'
        'case "$*" in\n'
        "  *_base_executable*) echo ./fake-python;;\n"
        '  *"venv --clear"*) rm -rf .venv; mkdir -p .venv/bin; cp fake-python .venv/bin/python;;\n'
        '  *"pip install"*) test ! -e broken;;\n'
        "esac\n",
        encoding="utf-8",
    )
    stub.chmod(0o755)
    return tmp_path


def calls(folder: Path) -> list[str]:
    log = folder / "calls"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return [line for line in lines if line.startswith("-m ")]


def test_make_alone_documents_every_target() -> None:
    shown = make().stdout
    phony = re.search(r"^\.PHONY: (.*)$", read("Makefile"), flags=re.MULTILINE)
    assert phony is not None
    for target in phony[1].split():
        assert re.search(rf"^  make {target} +\w", shown, flags=re.MULTILINE), target


def test_reproduce_passes_its_settings_on() -> None:
    first = recipe("reproduce")[0].rstrip()
    assert first == ".venv/bin/snakemake --cores all report --config tier=smoke"
    assert recipe("reproduce", "PAPER=clr", "SEEDS=20", "TIER=desk", "CORES=2")[0] == (
        '.venv/bin/snakemake --cores 2 report --config tier=desk "papers=[clr]" seeds=20'
    )
    assert recipe("reproduce", "TARGET=clr.CLR-2") == [
        ".venv/bin/snakemake --cores all clr.CLR-2 --config tier=smoke"
    ]


def test_reproduce_ends_with_what_is_whole_and_where_the_report_is() -> None:
    assert recipe("reproduce")[1] == ".venv/bin/cyclery verify --set tier=smoke"
    assert recipe("reproduce", "PAPER=clr,kd", "SEEDS=20", "PLANNED=20")[1] == (
        '.venv/bin/cyclery verify --set tier=smoke --set "papers=[clr,kd]" --set seeds=20'
        " --set planned=20"
    )


def test_tests_run_on_all_cores_unless_told_otherwise() -> None:
    assert recipe("test")[0].rstrip() == '.venv/bin/python -m pytest -n auto -m "not slow"'
    assert recipe("test-all")[0].rstrip() == ".venv/bin/python -m pytest -n auto --cov"
    chosen = recipe("test", "ARGS=-n 0 tests/plan/test_plan.py")[0]
    assert chosen.endswith(' -m "not slow" -n 0 tests/plan/test_plan.py')


def test_pull_fetches_the_tier() -> None:
    assert recipe("pull")[0].rstrip() == ".venv/bin/cyclery fetch --set tier=smoke"
    assert recipe("pull", "TIER=desk", "ARGS=--remote team")[0] == (
        ".venv/bin/cyclery fetch --set tier=desk --remote team"
    )


def test_no_target_but_the_one_that_says_so_removes_results() -> None:
    assert not any("results" in line for line in recipe("clean"))
    assert any("results" in line for line in recipe("clean-results"))


def test_published_results_outlive_the_others(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("published/bench", "store", "smoke/report", ".hidden"):
        (tmp_path / "results" / name).mkdir(parents=True)
    assert make("clean-results", cwd=tmp_path).returncode == 0
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["published"]
    (tmp_path / "results" / "published" / "bench").rmdir()
    (tmp_path / "results" / "published").rmdir()
    (tmp_path / "results").rmdir()
    assert make("clean-results", cwd=tmp_path).returncode == 0


def test_set_up_is_done_once(scratch: Path) -> None:
    assert make("setup", "PYTHON=./fake-python", cwd=scratch).returncode == 0
    venv, dependencies, package = calls(scratch)
    assert venv == "-m venv --clear .venv"
    assert dependencies == "-m pip install --requirement requirements.lock"
    assert package.endswith("--editable .")
    assert make("setup", "PYTHON=./fake-python", cwd=scratch).returncode == 0
    assert calls(scratch) == []


def test_an_interrupted_set_up_starts_afresh(scratch: Path) -> None:
    (scratch / "broken").touch()
    assert make("setup", "PYTHON=./fake-python", cwd=scratch).returncode != 0
    assert not (scratch / ".venv" / "ready").exists()
    (scratch / "broken").unlink()
    calls(scratch)
    assert make("setup", "PYTHON=./fake-python", cwd=scratch).returncode == 0
    assert calls(scratch)[0] == "-m venv --clear .venv"


@pytest.mark.parametrize("name", ["requirements.lock", "pyproject.toml"])
def test_a_changed_lock_updates_the_environment(scratch: Path, name: str) -> None:
    assert make("setup", "PYTHON=./fake-python", cwd=scratch).returncode == 0
    calls(scratch)
    later = (scratch / ".venv" / "ready").stat().st_mtime + 10
    os.utime(scratch / name, (later, later))
    assert make("setup", "PYTHON=./fake-python", cwd=scratch).returncode == 0
    assert [line.split()[1] for line in calls(scratch)] == ["pip", "pip"]


def test_no_usable_python_is_said_clearly(scratch: Path) -> None:
    result = make("reproduce", "PYTHON=/nowhere/python3.9", cwd=scratch)
    assert result.returncode == 2
    assert "No Python 3.11 or newer" in result.stderr
    assert "/nowhere/python3.9" in result.stderr
    assert not (scratch / ".venv").exists()
