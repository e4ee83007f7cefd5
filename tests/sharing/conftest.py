"""A repository with a published tier, a clone and a copy of it: each test has its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from factories.sharing import Repository, published


@pytest.fixture
def origin() -> Repository:
    return published()


@pytest.fixture
def clone(origin: Repository, tmp_path: Path) -> Repository:
    return origin.clone(tmp_path / "clone")


@pytest.fixture
def another(origin: Repository, tmp_path: Path) -> Repository:
    """A copy of the publisher's folder, with all its results."""
    folder = tmp_path / "another"
    shutil.copytree(origin.root, folder, symlinks=True)
    found = origin.clone(tmp_path / "unused")
    found.root = folder
    return found
