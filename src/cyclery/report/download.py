"""Data of a figure within the page, which saves it as CSV: columns of numbers as small differences.

A page holds millions of numbers. Neighbours in a column are alike, and the upper end of an interval
is the mirror image of the lower one, so both are stored as what is left of such a guess, in units
of the last decimal of the column. csv.js has the other half.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import zip_longest
from math import floor, isfinite
from typing import Any, NamedTuple, TypedDict

Rows = list[list[Any]]
DIGITS = 4  # significant
# More decimals than these and numbers stand as they are.
MOST_DECIMALS = 12


class Download(TypedDict):
    """A file inside the page."""

    name: str
    columns: str
    """As JSON, of each column its header and its cells. Of numbers [decimals, guess] stands between
    both, and the cells are what is left of the guess: 0 the cell above, 1 twice the column before
    the last less the last one."""


class _Numbers(NamedTuple):
    decimals: int
    units: list[int | None]


def _value(value: Any, digits: int) -> Any:
    """Return a cell: a number to significant digits, null for what is not finite, text.

    A text that a spreadsheet would take for a formula gets an apostrophe before it.
    """
    if isinstance(value, float):
        return Decimal(f"{value:.{digits}g}") if isfinite(value) else None
    if isinstance(value, int):
        return Decimal(value)
    if value is None:
        return None
    text = str(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def _numbers(cells: Sequence[Any]) -> _Numbers | None:
    """Return the cells of a column in units of their last decimal; None where one is text."""
    if not all(cell is None or isinstance(cell, Decimal) for cell in cells):
        return None
    known = [cell for cell in cells if cell is not None]
    decimals = max((-int(cell.as_tuple().exponent) for cell in known), default=0)
    if not known or decimals > MOST_DECIMALS:
        return None
    decimals = max(decimals, 0)
    return _Numbers(decimals, [None if c is None else int(c.scaleb(decimals)) for c in cells])


def _above(column: _Numbers) -> Iterator[int | None]:
    last = 0
    for cell in column.units:
        yield None if cell is None else cell - last
        last = last if cell is None else cell


def _mirrored(column: _Numbers, first: _Numbers, second: _Numbers) -> Iterator[int | None]:
    """Yield what is left of twice the first column less the second one."""
    for cell, a, b in zip(column.units, first.units, second.units, strict=True):
        if cell is None or a is None or b is None:
            yield cell
        else:
            guess = 2 * a / 10**first.decimals - b / 10**second.decimals
            yield cell - floor(guess * 10**column.decimals + 0.5)


def _size(rest: Iterable[int | None]) -> int:
    return sum(abs(cell).bit_length() for cell in rest if cell is not None)


def file(slug: str, rows: Rows, digits: int = DIGITS) -> Download:
    """Return the name and the columns of a CSV; the same bytes for the same rows."""
    table = ([_value(value, digits) for value in row] for row in rows)
    out: list[list[Any]] = []
    seen: list[_Numbers | None] = [None, None]
    for head, *cells in zip_longest(*table):
        numbers = _numbers(cells)
        *_, first, second = seen
        seen.append(numbers)
        if numbers is None:
            plain = [float(cell) if isinstance(cell, Decimal) else cell for cell in cells]
            out.append([str(head), *plain])
            continue
        guess, rest = 0, list(_above(numbers))
        if first and second:
            mirrored = list(_mirrored(numbers, first, second))
            if _size(mirrored) < _size(rest):
                guess, rest = 1, mirrored
        out.append([str(head), [numbers.decimals, guess], *rest])
    text = json.dumps(out, ensure_ascii=False, separators=(",", ":"))
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
