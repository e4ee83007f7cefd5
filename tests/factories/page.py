"""The report's page as tests read it."""

from __future__ import annotations

import base64
import json
import re
import shutil
import zlib
from collections import Counter
from collections.abc import Mapping
from html.parser import HTMLParser
from math import floor
from pathlib import Path
from typing import Any

import pytest

PACKED = re.compile(r'<script type="application/octet-stream">(.*?)</script>', re.DOTALL)
VOID = {"meta", "link", "br", "img", "col", "hr", "input"}
needs_latex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex not installed")


def unpacked(source: str) -> str:
    """Return a page with all that opens on demand in its place."""

    def inside(match: re.Match[str]) -> str:
        data = base64.b85decode(match[1].translate(str.maketrans(",.:", "<>&")))
        return zlib.decompress(data, -zlib.MAX_WBITS).decode("utf-8")

    return PACKED.sub(inside, source)


def columns(data: str) -> list[list[Any]]:
    """Return the columns of a download, header first, as the page's script unfolds them."""
    out: list[list[Any]] = []
    for head, *cells in json.loads(data):
        if not (cells and isinstance(cells[0], list)):
            out.append([head, *cells])
            continue
        (decimals, guess), *rest = cells
        scale, last, values = 10**decimals, 0, []
        for row, left in enumerate(rest, 1):
            unit = left
            if left is not None and not guess:
                unit = last = last + left
            elif left is not None and None not in (out[-2][row], out[-1][row]):
                unit = left + floor((2 * out[-2][row] - out[-1][row]) * scale + 0.5)
            values.append(None if unit is None else unit / scale)
        out.append([head, *values])
    return out


def downloaded(file: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the rows of a download by header, as the CSV has them."""

    def text(cell: Any) -> str:
        return f"{cell:.12g}" if isinstance(cell, int | float) else cell or ""

    heads, *rows = zip(*columns(file["columns"]), strict=True)
    return [dict(zip(heads, map(text, row), strict=True)) for row in rows]


class Page(HTMLParser):
    """Checks nesting while parsing, and keeps tags, texts and attributes; packs are unpacked."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.feed(unpacked(source))
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def values(self, name: str) -> list[str]:
        return [value for _, key, value in self.attributes if key == name]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def sound(page: Page) -> None:
    """Ids are unique, and whatever refers to an id finds it."""
    ids = Counter(page.values("id"))
    assert [i for i, count in ids.items() if count > 1] == []
    refers = [v for name in ("aria-labelledby", "aria-describedby") for v in page.values(name)]
    wanted = {i for value in refers for i in value.split()}
    wanted |= {v[1:] for v in page.values("href") if v.startswith("#")}
    wanted |= {m for v in page.values("clip-path") for m in re.findall(r"url\(#([^)]+)\)", v)}
    assert wanted <= set(ids)


def overfull(log: str, limit: float = 5.0) -> list[str]:
    """Return the boxes of a LaTeX log that stick out by more than `limit` points."""
    found = re.findall(r"Overfull \\[hv]box \(([\d.]+)pt too (?:wide|high)\)[^\n]*", log)
    return [size for size in found if float(size) > limit]
