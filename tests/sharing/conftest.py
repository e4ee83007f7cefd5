"""A repository with a published tier, and a clone of it: each test has its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from factories.sharing import Repository, published


@pytest.fixture
def origin() -> Repository:
    return published()


@pytest.fixture
def clone(origin: Repository, tmp_path: Path) -> Repository:
    return origin.clone(tmp_path / "clone")
