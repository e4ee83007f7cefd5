"""Benchmark tables in LaTeX: heads, aligned numbers, widths, and that they compile anywhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from factories import benchmark_tables as factory
from factories import evidence as evidence_factory
from factories.page import needs_latex, overfull

from cyclery.plan.snakemake_api import table_labels
from cyclery.report import benchmark, benchmark_tex, compile_pdf, tex
from cyclery.report.benchmark_tex import TURNED, UPRIGHT, tex_view
from cyclery.report.model import Slugs, complete
from cyclery.report.view_types import BenchmarkView

SNAPSHOTS = Path(__file__).parent / "snapshots"
SNAPSHOT_OF = ("cfl-table-1", "clr-table-4", "gct-table-2")


def views() -> dict[str, BenchmarkView]:
    """Return the made-up tables by their slugs."""
    slugs = Slugs()
    parts = [complete(part) for part in evidence_factory.evidence(1, 6, 5)]  # type: ignore[arg-type]
    found = (benchmark.tables([p], [], slugs, p["part"].upper()) for p in parts)
    return {table["slug"]: table for tables in found for table in tables}


def source(table: BenchmarkView) -> str:
    return tex.render("benchmark.tex.j2", **tex_view(table))


def stretched(axis: str, times: int) -> BenchmarkView:
    """Return a table with its rows or columns repeated."""
    table = views()["gct-table-2"]
    if axis == "rows":
        table["rows"], table["cells"] = table["rows"] * times, table["cells"] * times
    else:
        table["columns"] *= times
        table["cells"] = [row * times for row in table["cells"]]
    return table


def document(folder: Path, files: list[Path], release: str = "") -> str:
    """Compile tables in a document of their own and return its log."""
    body = ""
    for path in files:
        packages = path.read_text("utf-8").partition("Needs ")[2].partition(";")[0]
        assert set(packages.split(", ")) <= {"array", "booktabs", "longtable", "siunitx"}
        table = f"\\input{{{path}}}"
        floating = f"\\begin{{table}}\\caption{{x}}{table}\\end{{table}}\n"
        body += f"{table}\\par\n" if "longtable" in packages else floating
    (folder / "report.tex").write_text(
        "\\documentclass[10pt,a4paper]{article}\\usepackage[a4paper,landscape,margin=20mm]{geometry}"
        f"\\usepackage{{array,booktabs,longtable}}\\usepackage{{siunitx}}{release}"
        f"\\begin{{document}}{body}\\end{{document}}"
    )
    assert compile_pdf(folder) is not None
    return (folder / "report.log").read_text("utf-8", "replace")


@pytest.mark.parametrize("slug", SNAPSHOT_OF)
def test_snapshot(slug: str) -> None:
    path = SNAPSHOTS / f"benchmark-{slug}.tex"
    shown = source(views()[slug])
    assert shown == path.read_text("utf-8"), (
        f"if meant: run {Path(__file__).name} with PYTHONPATH=tests"
    )


def test_a_file_begins_with_what_snakemake_lists_it_by(tmp_path: Path) -> None:
    table, file = views()["cfl-table-1"], tmp_path / "t.tex"
    shown = "50 % of_it: {a} \\x"
    table.update(title="Ablation: Cutout, right", caption="50 %\nof_it:\u2028{a} \\x")
    file.write_text(source(table), "utf-8")
    wanted = {"paper": "CFL", "table": "Ablation: Cutout, right", "shows": shown}
    assert table_labels(file) == wanted
    assert "\n% Needs array, booktabs, siunitx; made" in file.read_text("utf-8")


def test_numbers_are_aligned_and_marked_as_siunitx_reads_them() -> None:
    lines = source(views()["cfl-table-1"]).splitlines()
    [spec] = [line for line in lines if "begin{tabular}" in line]
    assert "S[table-format=1.2(2)" in spec and "table-space-text-post={\\textsuperscript{" in spec
    [focal] = [line for line in lines if line.startswith("Cyclical focal loss")]
    assert re.search(r"& 4\.10 \+- 0\.15 & \\bfseries \d\.\d\d \+- 0\.\d\d & ", focal)
    [read] = [line for line in lines if line.startswith("Focal loss")]
    assert "& {not read} &" in read


def test_differences_keep_their_sign() -> None:
    table = views()["cfl-table-1"]
    for row in table["cells"]:
        row[2].update(interval="", text="+0.31" if row[2]["text"] else "")
    shown = source(table)
    assert "S[table-format=+1.2]" in shown and "& +0.31 \\\\" in shown
    assert "retain-explicit-plus" in shown


def test_ours_beside_figures_of_others_are_upright() -> None:
    table = views()["cfl-table-1"]
    table["rows"][0]["by"] = "others"
    [line] = [each for each in source(table).splitlines() if each.startswith("\\textit{")]
    printed, ours = line.split(" & ")[1:3]
    assert printed.startswith("\\itshape") and "itshape" not in ours


def test_heads_span_their_columns_and_groups_stand_above_their_rows() -> None:
    shown = source(views()["gct-table-2"])
    assert "\\multicolumn{9}{c}{Printed}" in shown and "\\cmidrule(lr){3-11}" in shown
    assert shown.count("\\multicolumn{3}{c}{CIFAR-10}") == 1
    assert (
        "\\multicolumn{11}{@{}l@{}}{FixMatch} \\\\\n\\quad RA & \\bfseries 3.97 +- 0.45 &" in shown
    )
    assert "\\textit{FixMatch (RA)} & {} & \\itshape 3.50 +- 0.37 &" in shown


def test_a_table_is_upright_where_it_fits_then_turned_then_in_panels() -> None:
    found = views()
    assert tex_view(found["clr-table-4"])["width"] == UPRIGHT
    wide = tex_view(found["gct-table-2"])
    assert (wide["width"], wide["turned"], len(wide["panels"])) == (TURNED, True, 1)
    wider = tex_view(stretched("columns", 3))
    assert len(wider["panels"]) > 1
    assert sum(panel["size"] - 1 for panel in wider["panels"]) == 30
    labels = [[row["label"] for row in panel["rows"]] for panel in wider["panels"]]
    assert all(each == labels[0] for each in labels)


def test_a_table_longer_than_a_page_breaks_and_repeats_its_heads() -> None:
    long = tex_view(stretched("rows", 12))
    assert long["long"] and long["panels"][0]["long"]
    shown = tex.render("benchmark.tex.j2", **long)
    assert "\\begin{longtable}[l]" in shown and "\\endhead" in shown
    assert "Needs array, booktabs, siunitx, longtable;" in shown
    assert "longtable" not in source(views()["gct-table-2"])


def test_long_labels_and_heads_are_cut_and_broken() -> None:
    lines = benchmark_tex._wrapped("a " + "w" * 300, 13)
    assert max(map(len, lines)) <= 13 and lines[-1].endswith("\u2026")
    assert "".join(lines).count("w") < 160
    # A sign that no font has is written as its code point.
    assert benchmark_tex._long("\u4e2d\u4e2d") > 10 > benchmark_tex._long("\u03b1\u2264\u00e9")
    assert benchmark_tex._wrapped("", 13) == [""]


@needs_latex
@pytest.mark.parametrize("release", ["", "[=v2]"])
def test_every_table_compiles_in_another_document(tmp_path: Path, release: str) -> None:
    tables = [*views().values(), stretched("rows", 12), stretched("columns", 3)]
    paths = []
    for place, table in enumerate(tables):
        paths.append(tmp_path / f"t{place}.tex")
        paths[-1].write_text(source(table), "utf-8")
    log = document(tmp_path, paths, release)
    assert overfull(log) == []


@needs_latex
def test_hostile_tables_compile_and_stay_in_their_lines(attacked: Path, tmp_path: Path) -> None:
    paths = sorted((attacked / "benchmarks").glob("*.tex"))
    assert paths
    for path in paths:
        shown = path.read_text("utf-8")
        # The first lines are comments, where nothing is a command.
        lines = shown.splitlines()
        assert all(line.startswith("% ") for line in lines[:3])
        shown = "\n".join(lines[3:])
        assert "\\input{" not in shown and "</script>" not in shown
        assert "\\textbackslash{}input\\{" in shown.replace("\\allowbreak{}", "")
    assert overfull(document(tmp_path, paths)) == []


def test_each_is_a_file_of_its_own(made: Path) -> None:
    assert {p.name for p in (made / "benchmarks").iterdir()} == {
        "packages.sty", "methods-splits.tex", *(f"{slug}.tex" for slug in views())
    }  # fmt: skip


def test_figures_that_no_table_shows_alone_are_listed(made: Path) -> None:
    listed = (made / "tables/clr-printed.tex").read_text("utf-8")
    assert "fixed, 70000 iterations" in listed and "92.3" not in listed


def test_a_second_tier_is_in_the_same_table(tmp_path: Path) -> None:
    own: Any = complete(evidence_factory.evidence(1, 6, 5)[1])  # type: ignore[arg-type]
    other = complete(factory.at_tier(own, "desk", "CIFAR-10, 40 labels"))  # type: ignore[arg-type]
    [table] = benchmark.tables([own], [other], Slugs(), "CLR")
    shown = source(table)
    desk, smoke = (shown.index(f"{{Ours, {tier} tier}}") for tier in ("desk", "smoke"))
    assert desk < smoke


if __name__ == "__main__":  # rewrite the snapshots
    for name in SNAPSHOT_OF:
        (SNAPSHOTS / f"benchmark-{name}.tex").write_text(source(views()[name]), "utf-8")
