"""LaTeX: escaping, the document, and its compilation where LaTeX is installed."""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import subprocess
import tempfile
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from cyclery.common.errors import UserError
from cyclery.common.files import disk_errors, write_atomic

log = logging.getLogger(__name__)
TIMEOUT = 300  # seconds for one run of a LaTeX
_TINY = 65_536  # bytes left on a disk that is as good as full
_PASSES = 4
# Looked for in this order.
COMPILERS = ("tectonic", "pdflatex")


class Tex(str):
    """LaTeX source that must not be escaped again."""


_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "%": r"\%", "_": r"\_", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\symbol{34}",
    "`": r"\textasciigrave{}", "\u2019": "'", "\u2018": "`",
    "\u201c": "``", "\u201d": "''",
    # After a row's end, TeX would read these as the options of \\\\.
    "[": "{[}", "]": "{]}", "*": "{*}",
    "\u2212": r"\ensuremath{-}", "\u2013": "{--}", "\u2014": "{---}", "\u2026": r"\dots{}",
    "\u00d7": r"\ensuremath{\times}", "\u00b1": r"\ensuremath{\pm}",
    "\u00b7": r"\textperiodcentered{}",
    "\u2264": r"\ensuremath{\leq}", "\u2265": r"\ensuremath{\geq}",
    "\u2248": r"\ensuremath{\approx}",
    "\u2260": r"\ensuremath{\neq}", "\u2192": r"\ensuremath{\to}", "\u221e": r"\ensuremath{\infty}",
    "\u00b0": r"\textdegree{}", "\u00b5": r"\textmu{}", "\u03bc": r"\textmu{}", "\u00a0": "~",
    "\u202f": r"\,", "\u2009": r"\,", "\u00a7": r"\S{}", "\u2020": r"\ensuremath{^\dagger}",
    "\u207b": r"\textsuperscript{\ensuremath{-}}",
}  # fmt: skip
_SPECIAL |= {c: rf"\textsuperscript{{{i}}}" for i, c in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")}
_SPECIAL |= {
    chr(code): rf"\ensuremath{{\{name}}}"
    for code, name in {
        0x3B1: "alpha", 0x3B2: "beta", 0x3B3: "gamma", 0x3B4: "delta", 0x3B5: "varepsilon",
        0x3B7: "eta", 0x3B8: "theta", 0x3BA: "kappa", 0x3BB: "lambda", 0x3BE: "xi", 0x3C0: "pi",
        0x3C1: "rho", 0x3C3: "sigma", 0x3C4: "tau", 0x3C6: "varphi", 0x3C9: "omega",
        0x394: "Delta", 0x398: "Theta", 0x39B: "Lambda", 0x3A0: "Pi", 0x3A3: "Sigma",
        0x3A6: "Phi", 0x3A8: "Psi", 0x3A9: "Omega",
    }.items()
}  # fmt: skip
_LATIN = frozenset(
    "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖØÙÚÛÜÝÞßàáâãäåæçèéêëìíîïðñòóôõöøùúûüýþÿ"
    "ĂăĄąĆćČčĎďĐđĘęĚěĞğİıĹĺĽľŁłŃńŇňŐőŒœŔŕŘřŚśŞşŠšŢţŤťŮůŰűŸŹźŻżŽž"
)
_WORD = re.compile(r"\S{16,}")
_NAME = re.compile(r"[A-Za-z0-9]{1,11}\W?")


@cache
def _char(char: str) -> str:
    """Return one character as LaTeX that any engine can set; others as their code point."""
    if char in _SPECIAL:
        return _SPECIAL[char]
    if " " <= char <= "~" or char in _LATIN:
        return char
    if char.isspace():
        return " "
    base = unicodedata.normalize("NFD", char)
    if base[0] != char and all(unicodedata.combining(c) for c in base[1:]):
        return _char(base[0])
    if unicodedata.combining(char):
        return ""
    return rf"\allowbreak{{\scriptsize\textless{{}}U+{ord(char):04X}\textgreater{{}}}}"


def _breakable(word: str) -> str:
    """Let a long word break after punctuation; anywhere only in parts that are no short name."""
    parts = re.split(r"(?<=[/_.=,:-])(?!$)", word)
    return "\u200b".join(
        part if _NAME.fullmatch(part) else re.sub(r"(.{4})(?!$)", "\\1\u200b", part)
        for part in parts
    )


def escape(value: Any) -> str:
    """Return any value as LaTeX text: nothing in it can be a command, and long words may break."""
    if isinstance(value, Tex):
        return value
    text = "" if value is None else str(value)
    # The zero-width space marks where a long word may break; it is not in any scrubbed text.
    text = _WORD.sub(lambda m: _breakable(m[0]), text)
    out = "".join(r"\allowbreak{}" if c == "\u200b" else _char(c) for c in text)
    return out.replace("--", "-{}-") if "--" in text else out


def comment(text: str) -> Tex:
    """Return a text as it is for a comment, which ends with the line."""
    return Tex(" ".join(text.split()))


@cache
def environment() -> Environment:
    """Return the Jinja2 environment whose every expression passes through `escape`."""
    made = Environment(
        loader=PackageLoader("cyclery.report", "templates"), finalize=escape, autoescape=False,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
        block_start_string="<%", block_end_string="%>", variable_start_string="<<",
        variable_end_string=">>", comment_start_string="<#", comment_end_string="#>",
    )  # fmt: skip
    made.filters |= {"tex": Tex, "comment": comment}
    return made


def render(template: str, **values: Any) -> str:
    """Return a LaTeX template filled with values, all escaped."""
    return environment().get_template(template).render(**values)


def _commands(build: str) -> tuple[str, list[str], int] | None:
    """Return the name, command and number of passes of the first LaTeX found, or None."""
    safe = ["-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape"]
    options: dict[str, tuple[list[str], int]] = {
        "tectonic": (["--untrusted", "--keep-logs", "--chatter=minimal", "--outdir", build], 1),
        "pdflatex": ([*safe, f"-output-directory={build}"], _PASSES),
    }  # fmt: skip
    for name in COMPILERS:
        arguments, passes = options[name]
        if shutil.which(name):
            return name, [name, *arguments, "report.tex"], passes
    return None


def compile_pdf(out_dir: Path) -> Path | None:
    """Compile out_dir/report.tex to out_dir/report.pdf; None where no LaTeX is installed.

    Raises `UserError` with the end of the log if LaTeX fails. No shell escape, no questions; the
    build happens in the system's temporary folder, so that nothing of a killed one stays here.
    """
    out_dir = out_dir.resolve()  # LaTeX runs inside it
    with (
        disk_errors(out_dir / "report.pdf"),
        tempfile.TemporaryDirectory(prefix="cyclery-tex-") as build,
    ):
        found = _commands(build)
        if found is None:
            log.warning(
                "No LaTeX found (tectonic or pdflatex): %s is written, the PDF is not.",
                out_dir / "report.tex",
            )
            return None
        name, command, passes = found
        record = Path(build) / "report.log"
        for _ in range(passes):
            done = _run(command, out_dir)
            said = record.read_text("utf-8", "replace") if record.is_file() else ""
            if done.returncode:
                said = said or (done.stdout + done.stderr).decode("utf-8", "replace")
                if "No space left" in said or shutil.disk_usage(build).free < _TINY:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                raise UserError(f"{name} failed on {out_dir}/report.tex:\n{_last_lines(said)}")
            if not re.search("Rerun (to get|LaTeX)", said):
                break
        for made in (record, record.with_suffix(".pdf")):
            write_atomic(out_dir / made.name, made.read_bytes())
    return out_dir / "report.pdf"


def _run(command: list[str], out_dir: Path) -> subprocess.CompletedProcess[bytes]:
    """Run a LaTeX once in a report's folder."""
    # A fixed clock keeps dates and ids of the PDF the same from run to run.
    fixed = {"SOURCE_DATE_EPOCH": "0", "FORCE_SOURCE_DATE": "1", "openout_any": "p"}
    try:
        return subprocess.run(
            command, cwd=out_dir, env=os.environ | fixed, stdin=subprocess.DEVNULL,
            capture_output=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        text = f"{command[0]} took over {TIMEOUT} s on {out_dir}/report.tex"
        raise UserError(text) from error


def _last_lines(said: str, count: int = 12) -> str:
    """Return the first error of a log with what follows, or its last lines."""
    lines = [line for line in said.splitlines() if line.strip()]
    first = next((i for i, line in enumerate(lines) if line.startswith("!")), len(lines) - count)
    return "\n".join(lines[max(first, 0) : max(first, 0) + count])
