"""Cells of benchmark tables: the reason of one that is empty."""

from __future__ import annotations

from typing import Any

import pytest

from cyclery.config.models import Paper
from cyclery.config.tables import BenchmarkTable
from cyclery.plan.table_cells import resolve

METHODS = [{"head": "Lacking", "empty": "no such method"}, "Known"]
DATA = [{"head": "Far", "empty": "no such data"}, {"head": "Near"}]
PAPER = {
    "title": "One", "authors": "A. Author", "year": 2020, "summary": "one", "experiments": {},
    "claims": {"ONE": {"statement": "one", "not_run": {"all": "needs data"}}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("methods", "rows", "columns", "reasons"),
    [
        ("rows", METHODS, DATA, ["no such method", "no such method", "no such data", ""]),
        ("columns", DATA, METHODS, ["no such method", "no such data", "no such method", ""]),
    ],
)
def test_a_lacking_method_says_why_a_cell_is_empty_whatever_the_data(
    methods: str, rows: list[Any], columns: list[Any], reasons: list[str]
) -> None:
    table = BenchmarkTable.model_validate(
        {"title": "One", "caption": "one", "methods": methods, "rows": rows, "columns": columns}
    )
    found = resolve("one", table, Paper.model_validate(PAPER), [])
    assert [cell.empty for cell in found.cells] == reasons
    assert not [text for text in found.problems if "two for one cell" in text]
