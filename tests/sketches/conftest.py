"""Sketches are methods while a file of tests lasts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from factories import sketches
from factories.threads import one_thread

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)


@pytest.fixture(autouse=True, scope="module")
def _written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with sketches.written(tmp_path_factory.mktemp("methods")):
        yield
