"""Render a report, of one tier or several, from evidence: HTML page, LaTeX, figures and tables.

Nothing here depends on the clock or on the machine: the same evidence gives the same bytes.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cyclery.common.files import write_atomic
from cyclery.records.evidence import Evidence
from cyclery.report import chart, download, svg, tex, view
from cyclery.report.benchmark_tex import PACKAGES, BenchmarkTex, tex_view
from cyclery.report.model import complete
from cyclery.report.packing import packed
from cyclery.report.tables import Table, TableView, TexTable
from cyclery.report.view_types import BenchmarkView, ChartView, Rendered, ReportView

# Folders of what is written once for the report and for other documents.
KINDS = ("benchmarks", "figures", "tables")
# So many charts are drawn in processes of their own, which take a second to start.
_MANY = 40


@cache
def _pages() -> Environment:
    """Return the HTML environment: every value is escaped unless a template says it is markup."""
    found = Environment(
        loader=PackageLoader("cyclery.report", "templates"), autoescape=True,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    found.filters["packed"] = packed
    return found


def _policy(script: str, style: str) -> str:
    """Return a content policy that lets nothing in but this script and this style sheet."""

    def source(text: str) -> str:
        return f"'sha256-{b64encode(sha256(text.encode('utf-8')).digest()).decode('ascii')}'"

    return (
        f"default-src 'none'; script-src {source(script)}; style-src {source(style)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _page(shown: ReportView, sheet: svg.Sheet) -> str:
    """Return the page: script and style are made first, for the policy names their hashes."""
    pages = _pages()
    script = f"\n{pages.get_template('script.js.j2').render()}"
    style = f"\n{pages.get_template('style.css.j2').render(figures=sheet.css(), **shown)}"
    inline = {
        "script": Markup(script),
        "style": Markup(style),
        "policy": _policy(script, style),
        "clips": sheet.clips(),
    }
    return pages.get_template("page.html.j2").render(**shown, **inline)


def _clear(folder: Path, keep: set[str]) -> None:
    """Remove what an earlier build left in a folder of ours: a stale table would mislead."""
    for path in folder.glob("*"):
        if path.suffix in (".pdf", ".tex") and path.name not in keep:
            path.unlink()


def _drawn(charts: list[chart.Chart]) -> Iterator[tuple[str, bytes]]:
    """Draw charts, many of them in processes: matplotlib takes most of a report's time."""
    workers = min(os.cpu_count() or 1, 4)
    if workers == 1 or len(charts) < _MANY:
        yield from map(svg.drawn, charts)
        return
    # A fork of a process with threads may hang.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(svg.drawn, charts, chunksize=4)


class _Output:
    """The files of one report, written as they are made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sheet = svg.Sheet()
        self.written: dict[str, set[str]] = {kind: set() for kind in KINDS}

    def put(self, kind: str, name: str, data: str | bytes) -> None:
        """Write one file of a kind and remember it."""
        self.written[kind].add(name)
        write_atomic(self.folder / kind / name, data)

    def draw(self, items: list[ChartView]) -> None:
        """Draw charts to SVG for the page and to PDF for LaTeX, once each, with their data."""
        charts = [item.pop("chart") for item in items]
        for item, made, (text, pdf) in zip(items, charts, _drawn(charts), strict=True):
            item["svg"] = svg.inline(made, text, self.sheet)
            item["file"] = download.file(item["slug"], made.data)
            self.put("figures", f"{item['slug']}.pdf", pdf)

    def table(self, table: Table | None) -> tuple[TableView | None, TexTable | None]:
        """Write a table's LaTeX and return what the two templates show of it."""
        if table is None:
            return None, None
        shown = table.tex_view()
        self.put("tables", f"{table.slug}.tex", tex.render("table.tex.j2", **shown))
        return table.view(), shown

    def benchmark(self, table: BenchmarkView) -> BenchmarkTex:
        """Write a benchmark table's LaTeX and return what the document needs to know of it."""
        shown = tex_view(table)
        self.put("benchmarks", f"{table['slug']}.tex", tex.render("benchmark.tex.j2", **shown))
        return shown

    def block(self, block: Rendered) -> None:
        """Make the table of an experiment, a range test or a leaderboard."""
        block["table"], block["tex_table"] = self.table(block["source"])

    def finish(self) -> None:
        """Drop files that this report no longer has."""
        for kind, names in self.written.items():
            _clear(self.folder / kind, names)


def build(
    evidence: list[Evidence], out_dir: Path, tier: str, others: Sequence[Evidence] = ()
) -> Path:
    """Write out_dir/index.html, report.tex and the folders of KINDS; return index.html.

    `evidence` is of any parts and tiers; `others` is of further tiers, already complete. Raises
    `UserError` for evidence of another shape.
    """
    out = _Output(out_dir)
    shown = view.report([complete(part) for part in evidence], tier, others)
    for paper in shown["papers"]:
        for experiment in paper["experiments"]:
            out.block(experiment)
            tables = out.table(experiment["source_trials"])
            experiment["trials"], experiment["tex_trials"] = tables
        for test in paper["ranges"]:
            out.block(test)
        printed = paper["printed_table"]
        paper["printed"] = printed.view() if printed else None
        _, paper["printed_tex"] = out.table(paper["printed_rest"])
        paper["board"], paper["board_tex"] = out.table(paper["board_table"])
        tables = out.table(paper["comparison_table"])
        paper["comparison"], paper["comparison_tex"] = tables
    for board in shown["leaders"]:
        out.block(board)
    charts = [item for p in shown["papers"] for b in (*p["experiments"], *p["ranges"])
              for item in b["charts"]]  # fmt: skip
    out.draw([*charts, *(item for board in shown["leaders"] for item in board["charts"])])
    # Also what keeps the folder where no paper has a table.
    packages = f"\\RequirePackage{{{','.join(PACKAGES)}}}\n"
    out.put("benchmarks", "packages.sty", packages)
    benchmarks_tex = [out.benchmark(table) for table in shown["benchmarks"]]
    source = tex.render("report.tex.j2", **shown, benchmarks_tex=benchmarks_tex)
    write_atomic(out_dir / "report.tex", source)
    out.finish()
    index = out_dir / "index.html"
    write_atomic(index, _page(shown, out.sheet))
    return index
