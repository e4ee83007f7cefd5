"""Numbers, durations and text tables as people read them."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from pathlib import Path

from cyclery.common.errors import UserError

_IN_URL = re.compile(r"(://)[^/\s]+@")


def without_password(text: str) -> str:
    """Return a text with user names and passwords removed from its URLs."""
    return _IN_URL.sub(r"\1***@", text)


def duration(seconds: float) -> str:
    """Return a time in the unit that reads best: ``0.3 s``, ``12 min``, ``3.5 h``, ``2.0 days``."""
    for limit, size, unit in ((90, 1, "s"), (5400, 60, "min"), (129_600, 3600, "h")):
        if seconds < limit:
            value = seconds / size
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{seconds / 86_400:.1f} days"


def between(text: str, begin: str, end: str, section: str, page: Path) -> str:
    """Return the text of a page with ``section`` between its two marks."""
    head, first, rest = text.partition(begin)
    _, last, tail = rest.partition(end)
    if not first or not last:
        raise UserError(f"{page}: the marks {begin} and {end} are missing; put them back.")
    return f"{head}{begin}\n\n{section}\n{end}{tail}"


def aligned(rows: Sequence[Sequence[str]], right: Container[int] = ()) -> list[str]:
    """Return rows of a text table as lines, in columns of which those of ``right`` end alike.

    For what is piped and compared: rich, which draws what is watched, folds it to a terminal.
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
