"""SHA-256 lists of tables, pages and PDFs, as ``sha256sum --check`` reads them.

Records, manifests and evidence carry a digest of themselves; tables, pages, TeX and PDF cannot, so
a list has their digests. Its last line is the digest of the lines above it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterable
from hashlib import sha256
from pathlib import Path

from cyclery.common.errors import UserError
from cyclery.common.files import read_errors, read_regular, write_atomic
from cyclery.common.seals import file_sha256

# The list of a folder; that of one table has the table's name.
NAME = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  ([^\n]+)\n")


def of_table(table: Path) -> Path:
    """Return the list of a table, which covers its evidence too."""
    return table.with_suffix(".sha256")


def write(path: Path, files: Iterable[Path]) -> None:
    """Write the list of files below the folder above the list's own; the same ones, same bytes."""
    names = {os.path.relpath(file, path.parent): file for file in files}
    body = "".join(
        f"{file_sha256(file)}  {name}\n" for name, file in sorted(names.items()) if _is_near(name)
    )
    write_atomic(path, f"{body}# {sha256(body.encode()).hexdigest()}\n")


def _is_near(name: str) -> bool:
    """Say whether a name leads no further up than to the folder above that of the list."""
    return not Path(name).is_absolute() and not os.path.normpath(f"a/{name}").startswith("..")


def listed(path: Path) -> dict[str, str] | None:
    """Return the digests of a list by name; None where it was cut, altered or lost.

    Raises:
        UserError: it cannot be read now, which says nothing of it.
    """
    try:
        with read_errors(path):
            text = read_regular(path).decode()
    except (OSError, UnicodeDecodeError):
        return None
    body, _, seal = text.rpartition("# ")
    if seal != f"{sha256(body.encode()).hexdigest()}\n":
        return None
    found = {name: digest for digest, name in _LINE.findall(body)}
    return found if all(map(_is_near, found)) else None


def wrong(path: Path) -> list[Path]:
    """Return the files of a list that were altered or lost; the list itself where it was.

    Where there is no list nothing is known.

    Raises:
        UserError: one cannot be read now, which says nothing of it.
    """
    if not os.path.lexists(path):
        return []
    found = listed(path)
    if found is None:
        return [path]
    files = {Path(os.path.normpath(path.parent / name)): sum_ for name, sum_ in found.items()}
    return [file for file, expected in files.items() if not _is(file, expected)]


def _is(file: Path, expected: str) -> bool:
    try:
        with read_errors(file):
            return file_sha256(file) == expected
    except OSError:
        return False


def problem(path: Path, file: Path) -> str:
    """Return the message about a file that does not match its list."""
    return (
        f"{file}: was altered or lost since it was made ({path.name} lists its SHA-256). "
        "`make reproduce` makes it again, and trains nothing for that."
    )


def require(path: Path, only: Container[Path] | None = None) -> None:
    """Raise a UserError that names the first file of a list that was altered or lost."""
    for file in (each for each in wrong(path) if only is None or each in only):
        raise UserError(problem(path, file))
