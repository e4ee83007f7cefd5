"""The report's page as tests read it."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

VOID = {"meta", "link", "br", "img", "col", "hr", "input"}
needs_latex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex not installed")


class Page(HTMLParser):
    """Checks nesting while parsing, and keeps tags, texts and attributes."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.feed(source)
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
