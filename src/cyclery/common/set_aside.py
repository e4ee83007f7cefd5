"""Move replaced or damaged files to ``results/set-aside`` instead of deleting them."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from cyclery.common.files import disk_errors


class Aside:
    """A dated folder for replaced files; it is created with the first file."""

    def __init__(self, results: Path) -> None:
        self._results = results
        self.count = 0

    @cached_property
    def folder(self) -> Path:
        """The folder, named by the time."""
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        return self._results / "set-aside" / stamp

    def take(self, path: Path, name: str) -> None:
        """Move what is at a path there, if anything is; it may come from another file system.

        ``name`` is its path as the project writes it, which leads out where folders lie elsewhere.
        """
        if os.path.lexists(path):
            parts = (part for part in Path(name).parts if part not in (os.sep, os.pardir))
            target = self.folder.joinpath(*parts)
            with disk_errors(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(path, target)
            self.count += 1
