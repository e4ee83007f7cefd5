"""The one table model: HTML and LaTeX, panels and breaks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cyclery.report import (
    tex,
)
from cyclery.report.build import _pages
from cyclery.report.tables import Column, Estimate, Table

SNAPSHOTS = Path(__file__).parent / "snapshots"


def small_table() -> Table:
    return Table(
        "small", "Arms & <controls>",
        [Column("", "key"), Column("Arm", weight=2), Column("Role"), Column("n", "number", 0),
         Column("Accuracy (%)", "estimate"), Column("Change", "number"), Column("Time", "right"),
         Column("Verdict", "verdict")],
        [[0, "easy_hard \u2264 50 %", "method", 5, Estimate(96.031, 95.47, 96.59), -0.5, "3 s",
          "reproduced"],
         [1, "[tuned] {x}\\y", "baseline", 5, Estimate(9.5), None, "1.2 min", "not run"]],
        ["Selection: last checkpoint.", "\u2020 B, own definition: a_b."],
    )  # fmt: skip


def html_table(table: Table) -> str:
    return _pages().get_template("table.html.j2").render(**table.view())


@pytest.mark.parametrize("kind", ["html", "tex"])
def test_table_snapshot(kind: str) -> None:
    table = small_table()
    shown = html_table(table) if kind == "html" else tex.render("table.tex.j2", **table.tex_view())
    path = SNAPSHOTS / f"table.{kind}"
    assert shown == path.read_text("utf-8"), f"if meant: run {Path(__file__).name} as a script"


def test_lopsided_intervals_are_shown_in_brackets_in_the_whole_column() -> None:
    even, odd = Estimate(1.0, 0.9, 1.1), Estimate(1.0, 0.5, 1.1)
    table = Table("t", "", [Column("x", "estimate")], [[even], [odd]])
    assert [row[0]["extra"] for row in table.view()["rows"]] == ["[0.90, 1.10]", "[0.50, 1.10]"]
    assert table.tex_view()["panels"][0]["spec"] == ["r"]


def test_a_table_too_wide_for_a_page_is_set_in_panels() -> None:
    columns = [Column("", "key"), Column("Arm"), *[Column(f"A metric {i}") for i in range(2)]]
    columns += [Column(f"Measured thing {i}", "estimate") for i in range(9)]
    row: list[Any] = [0, "arm", "x", "y", *[Estimate(96.0, 95.0, 97.0)] * 9]
    panels = Table("t", "wide", columns, [row], lead=2).tex_view()["panels"]
    assert len(panels) == 2
    assert all(panel["headers"][1] == ["Arm"] for panel in panels)
    assert sum(len(panel["headers"]) - 2 for panel in panels) == 11
    assert len(Table("t", "wide", columns, [row]).tex_view()["panels"]) == 1


def test_tables_longer_than_a_page_may_break() -> None:
    table = Table("t", "long", [Column("x")], [["word " * 20]] * 30)
    assert "xltabular" in tex.render("table.tex.j2", **table.tex_view())
    short = Table("t", "short", [Column("x")], [["word"]] * 30)
    assert "xltabular" not in tex.render("table.tex.j2", **short.tex_view())


if __name__ == "__main__":  # rewrite the snapshots
    SNAPSHOTS.mkdir(exist_ok=True)
    (SNAPSHOTS / "table.html").write_text(html_table(small_table()), "utf-8")
    source = tex.render("table.tex.j2", **small_table().tex_view())
    (SNAPSHOTS / "table.tex").write_text(source, "utf-8")
