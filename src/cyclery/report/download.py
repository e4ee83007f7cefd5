"""Data of a figure as a CSV download within the page."""

from __future__ import annotations

import csv
import gzip
from base64 import b64encode
from collections.abc import Iterable, Sequence
from io import StringIO
from math import isfinite
from typing import Any, TypedDict

Rows = list[list[Any]]
DIGITS = 4  # significant


class Download(TypedDict):
    """A file inside the page."""

    name: str
    href: str


def _cell(value: Any, digits: int) -> str:
    """Return a number to significant digits, nothing for what is not finite, text as it is.

    A text that a spreadsheet would take for a formula gets an apostrophe before it.
    """
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.{digits}g}" if isfinite(value) else ""
    text = str(value)
    return f"'{text}" if isinstance(value, str) and text[:1] in ("=", "+", "-", "@") else text


def text(rows: Iterable[Sequence[Any]], digits: int = DIGITS) -> str:
    """Return rows as CSV, the header first."""
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([_cell(value, digits) for value in row] for row in rows)
    return out.getvalue()


def link(slug: str, rows: Rows, digits: int = DIGITS) -> Download:
    """Return the file name and the data address of a gzipped CSV; the same bytes for the same rows.

    A browser without script saves the gzipped file, which pandas and R read as it is; with script
    the page unpacks it.
    """
    packed = gzip.compress(text(rows, digits).encode("utf-8"), 9, mtime=0)
    return {
        "name": f"{slug}.csv.gz",
        "href": f"data:application/gzip;base64,{b64encode(packed).decode('ascii')}",
    }


def wide(
    first: Sequence[str], lines: Iterable[tuple[Sequence[Any], str, Sequence[Any]]],
    columns: Sequence[str] = ("",),
) -> Rows:  # fmt: skip
    """Return one row per key and a group of columns per name, in order of appearance.

    Args:
        first: headers of the keys.
        lines: (key, name, values), as many values as `columns`.
        columns: what the values are; their headers follow the name.
    """
    cells: dict[tuple[Any, ...], dict[str, Sequence[Any]]] = {}
    names: dict[str, None] = {}
    for key, name, values in lines:
        cells.setdefault(tuple(key), {})[name] = values
        names.setdefault(name)
    head = [*first, *(f"{name} {column}".strip() for name in names for column in columns)]
    blank = [None] * len(columns)
    return [head, *([*key, *(v for name in names for v in found.get(name, blank))]
                    for key, found in cells.items())]  # fmt: skip
