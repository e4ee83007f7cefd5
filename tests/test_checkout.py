"""Tests look at tracked files, whatever else lies in the checkout."""

from __future__ import annotations

import subprocess
from pathlib import Path

import checkout_factory
import pytest


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name in ("src/one.py", "src/deep/two.py", "config/one.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for command in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    for name in ("train.log", "src/three.py", "config/mine.yaml"):
        (tmp_path / name).touch()
    return tmp_path


def test_what_a_user_left_is_not_seen(repository: Path) -> None:
    def found(*places: str) -> list[str]:
        paths = checkout_factory.tracked(*places, root=repository)
        return [path.relative_to(repository).as_posix() for path in paths]

    assert found() == ["config/one.yaml", "src/deep/two.py", "src/one.py"]
    assert found("src") == found("src/**/*.py") == ["src/deep/two.py", "src/one.py"]
    assert found("src/*.py", "config/*.yaml") == ["config/one.yaml", "src/one.py"]
    (repository / "src/one.py").unlink()
    assert found("src") == ["src/deep/two.py"]


def test_without_git_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(FileNotFoundError, match="not a git repository"):
        checkout_factory.tracked(root=tmp_path)


def test_a_copy_has_the_tracked_files(tmp_path: Path) -> None:
    checkout_factory.copy(tmp_path, "config/tiers", "Snakefile")
    made = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    tracked = checkout_factory.files("config/tiers", "Snakefile")
    assert made == {path.relative_to(checkout_factory.ROOT).as_posix() for path in tracked}
    assert {"Snakefile", "config/tiers/smoke.yaml"} <= made
