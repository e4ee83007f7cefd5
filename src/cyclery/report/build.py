"""Build the report of a tier from its evidence: one HTML file, LaTeX, and its figures and tables.

Nothing here depends on the clock or on the machine: the same evidence gives the same bytes.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

import cyclery
from cyclery.files import write_atomic
from cyclery.report import chart, svg, tex, view
from cyclery.report.model import complete
from cyclery.report.tables import Table

Json = dict[str, Any]


@cache
def _pages() -> Environment:
    """Return the HTML environment: every value is escaped unless a template says it is markup."""
    return Environment(
        loader=PackageLoader("cyclery.report", "templates"), autoescape=True,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip


def _clear(folder: Path, keep: set[str]) -> None:
    """Remove what an earlier build left in a folder of ours: a stale table would mislead."""
    for path in folder.glob("*"):
        if path.suffix in (".pdf", ".tex") and path.name not in keep:
            path.unlink()


class _Output:
    """The files of one report, written as they are made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written: dict[str, set[str]] = {"figures": set(), "tables": set()}

    def put(self, kind: str, name: str, data: str | bytes) -> None:
        """Write one file of a kind and remember it."""
        self.written[kind].add(name)
        write_atomic(self.folder / kind / name, data)

    def draw(self, item: Json) -> None:
        """Draw a chart to SVG for the page and to PDF for LaTeX, once each."""
        item["svg"] = svg.inline(item["chart"])
        self.put("figures", f"{item['slug']}.pdf", svg.pdf(item.pop("chart")))

    def table(self, table: Table | None) -> tuple[Json | None, Json | None]:
        """Write a table's LaTeX and return what the two templates show of it."""
        if table is None:
            return None, None
        shown = table.tex_view()
        self.put("tables", f"{table.slug}.tex", tex.render("table.tex.j2", **shown))
        return table.view(), shown

    def finish(self) -> None:
        """Drop files that this report no longer has."""
        for kind, names in self.written.items():
            _clear(self.folder / kind, names)


def html_table(table: Table) -> str:
    """Return one table as HTML."""
    return _pages().get_template("table.html.j2").render(**table.view())


def build(evidence: list[Json], out_dir: Path, tier: str) -> Path:
    """Write out_dir/index.html, report.tex, figures/*.pdf and tables/*.tex; return index.html.

    `evidence` holds one JSON object per part. Lists may be empty and values null. Raises
    `UserError` for evidence of another schema.
    """
    out = _Output(out_dir)
    with chart.style():
        shown = view.report([complete(part) for part in evidence], tier)
        for paper in shown["papers"]:
            for block in (*paper["experiments"], *paper["ranges"]):
                for item in block["charts"]:
                    out.draw(item)
                block["table"], block["tex_table"] = out.table(block["table"])
                block["tuning"], block["tuning_tex"] = out.table(block.get("tuning"))
            paper["printed_table"], paper["printed_tex"] = out.table(paper["printed_table"])
            for name in ("board_table", "comparison_table"):
                _, paper[name] = out.table(paper[name])
    shown["version"] = cyclery.__version__
    write_atomic(out_dir / "report.tex", tex.render("report.tex.j2", **shown))
    out.finish()
    index = out_dir / "index.html"
    write_atomic(index, _pages().get_template("page.html.j2").render(**shown))
    return index
