"""Reports that several files of tests read, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from factories import evidence as factory
from factories.page import Page

from cyclery.report import build as build_report


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    build_report(factory.evidence(2, 6, 5), folder, "smoke")
    return folder


@pytest.fixture(scope="session")
def page(made: Path) -> Page:
    return Page((made / "index.html").read_text("utf-8"))


@pytest.fixture(scope="session")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    build_report(factory.hostile(), folder, "smoke")
    return folder
