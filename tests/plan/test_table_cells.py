"""Cells of benchmark tables: the reason of one that is empty."""

from __future__ import annotations

from typing import Any

import pytest

from cyclery.config.models import Paper
from cyclery.config.tables import BenchmarkTable
from cyclery.plan.table_cells import resolve

METHODS = [{"head": "Lacking", "empty": "no such method"}, "Known"]
DATA = [{"head": "Far", "empty": "no such data"}, {"head": "Near"}]


@pytest.mark.parametrize("methods", ["rows", "columns"])
def test_a_lacking_method_says_why_a_cell_is_empty_whatever_the_data(methods: str) -> None:
    lines: dict[str, Any] = {"rows": METHODS, "columns": DATA}
    if methods == "columns":
        lines = {"rows": DATA, "columns": METHODS}
    table = BenchmarkTable(title="Table 1", caption="error", methods=methods, **lines)
    paper = Paper.model_construct(experiments={}, tables={})
    found = resolve("one", table, paper, [])
    of_known = "no such data"
    reasons = ["no such method", "no such method", of_known, ""]
    if methods == "columns":
        reasons = ["no such method", of_known, "no such method", ""]
    assert [cell.empty for cell in found.cells] == reasons
    assert not [text for text in found.problems if "two for one cell" in text]
