"""Find lost or damaged files below the results, so that Snakemake makes them again.

Snakemake makes a missing intermediate file only for a job that has to run. So targets ask for every
missing file by name; what is damaged is set aside first, and then missing as well. It goes below
``results/set-aside``: Snakemake removes whole folders before their job runs.
"""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from cyclery.common import checksums
from cyclery.common.set_aside import Aside


class LostFiles:
    """Finds lost files below a project's root, and moves damaged ones to ``results/set-aside``."""

    def __init__(self, root: Path, results: Path) -> None:
        self._root, self._results = root, results

    def missing(self, paths: Iterable[str]) -> Iterator[str]:
        """Yield paths that do not exist; what is no regular file is set aside first."""
        for path in paths:
            file = self._root / path
            try:
                regular = stat.S_ISREG(file.stat().st_mode)
            except OSError:
                yield path
            else:
                if not regular:
                    kept = self._set_aside([file])
                    _say(f"{path}: is no regular file{kept} and is made again")
                    yield path

    def mend(self, listing: str) -> None:
        """Set aside files that fail their checksums, and remove the list, so that its job runs."""
        path = self._root / listing
        if not (wrong := checksums.wrong(path)):
            return
        kept = self._set_aside(wrong)
        path.unlink(missing_ok=True)
        more = f" and {len(wrong) - 1} more files" if len(wrong) > 1 else ""
        _say(
            f"{self._name(wrong[0])}{more}: altered or lost since they were made{kept} and they "
            "are made again"
        )

    def _set_aside(self, files: list[Path]) -> str:
        """Move files out of the way; return their new place, as text for the message."""
        aside = Aside(self._results)
        for file in files:
            aside.take(file, self._name(file))
        return f"; what is left is kept in {self._name(aside.folder)}," if aside.count else ""

    def _name(self, path: Path) -> str:
        """Return a path as people and Snakemake write it: from the project's root."""
        return str(path.relative_to(self._root) if path.is_relative_to(self._root) else path)


def _say(text: str) -> None:
    print(f"cyclery: {text}", file=sys.stderr)
