"""Render a report, of one tier or several, from evidence: HTML page, LaTeX, figures and tables.

Nothing here depends on the clock or on the machine: the same evidence gives the same bytes.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cyclery.common.files import disk_errors, make_folder, write_atomic
from cyclery.records.evidence import Evidence
from cyclery.records.replication import Replication
from cyclery.report import document, download, pdf, replication, svg, tex, view
from cyclery.report.benchmark_tex import PACKAGES, tex_view
from cyclery.report.model import complete
from cyclery.report.packing import packed
from cyclery.report.tables import Table, TableView
from cyclery.report.view_types import BenchmarkView, ChartView, Rendered, ReportView

# Folders of what is written once for the report and for other documents.
KINDS = ("benchmarks", "figures", "tables")


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
    }
    return pages.get_template("page.html.j2").render(**shown, **inline)


def _clear(folder: Path, keep: set[str]) -> None:
    """Remove what an earlier build left in a folder of ours: a stale table would mislead."""
    for path in folder.glob("*"):
        if path.suffix in (".part", ".pdf", ".sty", ".tex") and path.name not in keep:
            path.unlink()


class _Output:
    """The files of one report, written as they are made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sheet = svg.Sheet()
        self.written: dict[str, set[str]] = {kind: set() for kind in KINDS}

    def put(self, kind: str, name: str, data: str | bytes) -> None:
        """Write one file of a kind and remember it.

        Waiting for the disk takes longer than making a thousand small files; that all are whole is
        what the list of sums says, which is written last. A file has its name when all of it is
        written, and what lay there is replaced, not written over: it may be linked to.
        """
        self.written[kind].add(name)
        path = self.folder / kind / name
        with disk_errors(path):
            make_folder(path.parent)
            part = path.with_name(f".{name}.part")
            try:
                part.write_bytes(data.encode() if isinstance(data, str) else data)
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)

    def draw(self, items: list[ChartView]) -> None:
        """Draw charts as SVG for the page, with their data, and as PDF for other documents."""
        charts = [item.pop("chart") for item in items]
        drawn = pdf.pictures([chart.page for chart in charts])
        for item, made, picture in zip(items, charts, drawn, strict=True):
            item["svg"] = svg.inline(made, self.sheet)
            item["file"] = download.file(item["slug"], made.data)
            self.put("figures", f"{item['slug']}.pdf", picture)

    def table(self, table: Table | None) -> TableView | None:
        """Write a table's LaTeX and return what the page shows of it."""
        if table is None:
            return None
        source = tex.render("table.tex.j2", **table.tex_view())
        self.put("tables", f"{table.slug}.tex", source)
        return table.view()

    def benchmark(self, table: BenchmarkView) -> None:
        """Write a benchmark table's LaTeX."""
        source = tex.render("benchmark.tex.j2", **tex_view(table))
        self.put("benchmarks", f"{table['slug']}.tex", source)

    def block(self, block: Rendered) -> None:
        """Make the table of an experiment, a range test or a leaderboard."""
        block["table"] = self.table(block["source"])

    def document(self, shown: ReportView) -> None:
        """Write the LaTeX document, and the board of each paper that it takes in."""
        several = len(shown["tiers"]) > 1
        for paper in shown["papers"]:
            board = document.summary(paper, several)
            self.put("tables", f"{paper['slug']}-summary.tex",
                     tex.render("summary.tex.j2", **board))  # fmt: skip
        made = document.document(shown, self.written)
        source = tex.render("report.tex.j2", **shown, **made)
        write_atomic(self.folder / "report.tex", source)

    def finish(self) -> None:
        """Drop files that this report no longer has."""
        for kind, names in self.written.items():
            _clear(self.folder / kind, names)


def build(
    evidence: list[Evidence], out_dir: Path, tier: str, others: Sequence[Evidence] = (),
    replications: Sequence[Replication] = (),
) -> Path:  # fmt: skip
    """Write out_dir/index.html, report.tex and the folders of KINDS; return index.html.

    `evidence` is of any parts and tiers; `others` is of further tiers, already complete. Raises
    `UserError` for evidence of another shape.
    """
    out = _Output(out_dir)
    shown = view.report([complete(part) for part in evidence], tier, others)
    for paper in shown["papers"]:
        for experiment in paper["experiments"]:
            out.block(experiment)
            experiment["trials"] = out.table(experiment["source_trials"])
        for test in paper["ranges"]:
            out.block(test)
        printed = paper["printed_table"]
        paper["printed"] = printed.view() if printed else None
        out.table(paper["printed_rest"])
        paper["board"] = out.table(paper["board_table"])
        paper["comparison"] = out.table(paper["comparison_table"])
    for board in shown["leaders"]:
        out.block(board)
    shown["replications"] = [
        {"tier": found["tier"], "counts": out.table(replication.counts(found, papers)),
         "claims": out.table(replication.claims(found, papers))}
        for found in replications
        for papers in [{p["paper"]["id"] for p in evidence if p["tier"] == found["tier"]}]
    ]  # fmt: skip
    charts = [item for p in shown["papers"] for b in (*p["experiments"], *p["ranges"])
              for item in b["charts"]]  # fmt: skip
    out.draw([*charts, *(item for board in shown["leaders"] for item in board["charts"])])
    # Also what keeps the folder where no paper has a table.
    packages = f"\\RequirePackage{{{','.join(PACKAGES)}}}\n"
    out.put("benchmarks", "packages.sty", packages)
    for table in shown["benchmarks"]:
        out.benchmark(table)
    out.document(shown)
    out.finish()
    index = out_dir / "index.html"
    write_atomic(index, _page(shown, out.sheet))
    return index
