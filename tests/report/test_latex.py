"""The report's LaTeX: it compiles, keeps hostile text as text, and fails with a reason."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from factories import evidence as factory
from factories.page import files, needs_latex, overfull
from hypothesis import given, settings
from hypothesis import strategies as st

from cyclery.common.errors import UserError
from cyclery.records import claims
from cyclery.report import (
    compile_pdf,
    model,
    tex,
)


def test_latex_tables_answer_the_referee_too(made: Path) -> None:
    for path in (made / "tables").glob("*.tex"):
        source = path.read_text("utf-8")
        assert "Rebuild: " in source, path.name
        if not path.stem.endswith("printed"):
            assert all(word in source for word in ("Seeds: ", "Device: ", "Versions: ")), path.name


@needs_latex
def test_hostile_latex_compiles_and_keeps_its_text(attacked: Path) -> None:
    compile_pdf(attacked)
    log = (attacked / "report.log").read_text("utf-8", "replace")
    assert overfull(log) == []
    assert "root:" not in (attacked / "report.tex").read_text("utf-8")
    if shutil.which("pdftotext"):
        said = subprocess.run(
            ["pdftotext", attacked / "report.pdf", "-"], capture_output=True, text=True, check=True
        ).stdout
        assert r"\end{table}%$_#" in said
        assert r"\input{/etc/passwd}" in re.sub(r"\s", "", said)


@needs_latex
def test_latex_compiles_without_overfull_boxes_or_lost_references(made: Path) -> None:
    before = {n: d for n, d in files(made).items() if not n.startswith("report.")}
    pdf = compile_pdf(made)
    assert pdf is not None and pdf.read_bytes().startswith(b"%PDF")
    log = (made / "report.log").read_text("utf-8", "replace")
    assert overfull(log) == []
    assert not re.search("undefined|multiply defined|Missing character|Rerun (to|LaTeX)", log)
    assert before == {n: d for n, d in files(made).items() if not n.startswith("report.")}
    first = pdf.read_bytes()
    assert compile_pdf(made) == pdf
    assert pdf.read_bytes() == first


def test_the_document_is_the_board_of_decided_claims(made: Path) -> None:
    source = (made / "report.tex").read_text("utf-8")
    taken = re.findall(r"\\input\{([^}]+)\}", source)
    assert taken == [f"tables/{part['part']}-summary.tex" for part in factory.evidence(1, 2, 3)]
    for part, name in zip(factory.evidence(2, 6, 5), taken, strict=True):
        board = (made / name).read_text("utf-8")
        decided, _, rest = board.partition("Tested, undecided")
        for claim in part["claims"]:
            row = f"{tex.escape(claim['id'])} & "
            if claim["verdict"] in claims.DECIDED:
                assert row in decided and row not in rest
            elif claim["verdict"] == "inconclusive":
                assert row in rest and row not in decided
            else:
                assert row not in board and tex.escape(claim["id"]) in board
    assert "38 \\% {[}\u2212" in (made / taken[1]).read_text("utf-8").replace(
        "\\ensuremath{-}", "\u2212"
    ).replace("~", " ")


def counted(folder: Path, pattern: str) -> int:
    return len(list(folder.glob(pattern)))


def test_the_document_says_how_many_files_lie_beside_it(made: Path) -> None:
    source = (made / "report.tex").read_text("utf-8").replace("\\allowbreak{}", "")
    rows = re.findall(r"\\texttt\{(\w+)/\\dots\{\}-?(\w*)\.(?:tex|pdf)\} & (\d+) &", source)
    for folder, suffix in (("tables", "tex"), ("benchmarks", "tex"), ("figures", "pdf")):
        found = [(kind, int(count)) for name, kind, count in rows if name == folder]
        assert sum(count for _, count in found) == counted(made / folder, f"*.{suffix}"), folder
    assert {("tables", "summary", "3"), ("tables", "arms", "6")} <= set(rows)


def document(folder: Path, body: str, packages: str) -> Path:
    """Write a paper of someone else that takes in files of a report."""
    (folder / "report.tex").write_text(
        "\\documentclass[10pt,a4paper]{article}\\usepackage[margin=20mm]{geometry}"
        f"\\usepackage{{{packages}}}\\begin{{document}}\\raggedbottom {body}\\end{{document}}"
    )
    return folder


@needs_latex
def test_each_table_stands_in_another_document_and_none_is_too_wide(
    made: Path, tmp_path: Path
) -> None:
    tables = sorted((made / "tables").glob("*.tex"))
    # arms, of papers, readings, trials, leaders
    assert len(tables) == 6 + 3 * 4 + 4 + 3 + 1
    broken = [p for p in tables if re.search("xltabular|longtable", p.read_text("utf-8"))]
    assert len(broken) == 3 + 1  # summaries, and the leaderboard is longer than a page
    body = "".join(
        f"\\noindent\\input{{{path}}}\\par\n" if path in broken else
        f"\\begin{{table}}\\caption{{x}}\\input{{{path}}}\\end{{table}}\\clearpage\n"
        for path in tables
    )  # fmt: skip
    packages = "array,booktabs,tabularx,siunitx,xcolor,xltabular"
    assert compile_pdf(document(tmp_path, body, packages)) is not None
    assert overfull((tmp_path / "report.log").read_text("utf-8", "replace"), 5.0) == []


@needs_latex
def test_figures_of_every_kind_stand_in_another_document(made: Path, tmp_path: Path) -> None:
    kinds = {path.stem.rsplit("-", 1)[-1]: path for path in (made / "figures").glob("*.pdf")}
    assert {"curves", "schedules", "paired", "plot", "tuning"} <= set(kinds)
    body = "".join(f"\\includegraphics{{{path}}}\\clearpage\n" for path in kinds.values())
    assert compile_pdf(document(tmp_path, body, "graphicx")) is not None
    log = (tmp_path / "report.log").read_text("utf-8", "replace")
    assert overfull(log) == [] and f"({len(kinds)} pages" in log


def test_no_latex_is_said_and_not_an_error(
    made: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with caplog.at_level(logging.WARNING):
        assert compile_pdf(made) is None
    assert "No LaTeX found" in caplog.text


@needs_latex
def test_failing_latex_gives_the_error_line(tmp_path: Path) -> None:
    (tmp_path / "report.tex").write_text("\\documentclass{article}\\begin{document}\\nonsense")
    with pytest.raises(UserError, match="Undefined control sequence"):
        compile_pdf(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["report.tex"]


def test_a_latex_that_hangs_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*args: Any, **options: Any) -> None:
        raise subprocess.TimeoutExpired("tectonic", tex.TIMEOUT)

    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(UserError, match=f"tectonic took over {tex.TIMEOUT} s"):
        compile_pdf(tmp_path)


@given(st.text())
@settings(max_examples=300, deadline=None)
def test_escaped_text_holds_no_command_of_its_own(text: str) -> None:
    out = tex.escape(model.scrub(text))
    allowed = (
        r"\\(textbackslash|textasciicircum|textasciitilde|textless|textgreater|textbar|dots|S"
        r"|textasciigrave|textperiodcentered|textdegree|textmu|allowbreak)\{\}|\\[{}$&#%_,]"
        r"|\\(ensuremath|textsuperscript)\{(\\?[a-zA-Z0-9-]+|\^\\dagger|\\ensuremath\{-\})\}"
        r"|\\symbol\{34\}|\\allowbreak\{\\scriptsize|\{(--|---|\[|\]|\*)\}|-\{\}-|\}"
    )
    rest = re.sub(allowed, "", out)
    assert not re.search(r"[\\{}$&#%_^\[\]*\x00-\x1f]", rest)
