"""The report's LaTeX: it compiles, keeps hostile text as text, and fails with a reason."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from factories.page import files, needs_latex, overfull
from hypothesis import given, settings
from hypothesis import strategies as st

from cyclery.common.errors import UserError
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


@needs_latex
def test_the_first_pass_finds_every_place_and_width_without_setting_numbers(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, noted = tex._run, []

    def watched(command: list[str], out_dir: Path) -> subprocess.CompletedProcess[bytes]:
        done = run(command, out_dir)
        [build] = (word.partition("=")[2] for word in command if "output-directory" in word)
        noted.append((done.returncode, (Path(build) / "report.aux").read_text("utf-8")))
        return done

    monkeypatch.setattr(tex, "_run", watched)
    with_draft = compile_pdf(made)
    assert with_draft is not None and [code for code, _ in noted] == [0, 0]
    assert noted[0] == noted[1] and "LT@entry" in noted[0][1]
    pdf = with_draft.read_bytes()
    monkeypatch.setattr(tex, "_draft", lambda *arguments: None)
    assert compile_pdf(made) == with_draft
    assert with_draft.read_bytes() == pdf


@needs_latex
def test_each_table_stands_in_a_float_of_another_document(made: Path, tmp_path: Path) -> None:
    tables = sorted((made / "tables").glob("*.tex"))
    floats = [path for path in tables if "xltabular" not in path.read_text("utf-8")]
    assert len(tables) - len(floats) == 1  # the leaderboard is longer than a page
    body = "".join(
        f"\\begin{{table}}\\caption{{x}}\\input{{{path}}}\\end{{table}}\\clearpage\n"
        for path in floats
    )
    packages = "\\usepackage{array,booktabs,tabularx,siunitx,xcolor}"
    (tmp_path / "report.tex").write_text(
        f"\\documentclass{{article}}{packages}\\begin{{document}}{body}\\end{{document}}"
    )
    assert len(tables) == 6 + 3 * 3 + 4 + 3 + 1  # arms, of papers, readings, trials, leaders
    assert compile_pdf(tmp_path) is not None


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
