"""Data of a figure within the page, which it saves as CSV."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from math import isfinite
from typing import Any, TypedDict

Rows = list[list[Any]]
DIGITS = 4  # significant


class Download(TypedDict):
    """A file inside the page."""

    name: str
    columns: str
    """As JSON, of each column its cells, the header first."""


def _value(value: Any, digits: int) -> Any:
    """Return a cell for JSON: a number to significant digits, null for what is not finite, text.

    A text that a spreadsheet would take for a formula gets an apostrophe before it.
    """
    if isinstance(value, float):
        if not isfinite(value):
            return None
        short = float(f"{value:.{digits}g}")
        return int(short) if short.is_integer() else short
    if value is None or isinstance(value, int):
        return value
    text = str(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def file(slug: str, rows: Rows, digits: int = DIGITS) -> Download:
    """Return the file name and the columns of a CSV; the same bytes for the same rows.

    The page packs them, and columns take less room than rows: neighbours in one are alike.
    """
    table = [[_value(value, digits) for value in row] for row in rows]
    columns = [list(column) for column in zip_longest(*table)]
    text = json.dumps(columns, ensure_ascii=False, separators=(",", ":"))
    # Within a page it stands in an element of script.
    return {"name": f"{slug}.csv", "columns": text.replace("<", "\\u003c")}


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
