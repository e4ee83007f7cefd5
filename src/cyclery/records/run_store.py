"""The run store: finished and unfinished runs by run key.

``<root>/<first two digits>/<run key>/`` holds ``record.json``, the final ``checkpoint.safetensors``
where it is kept, ``resume.safetensors`` while the run is unfinished (of a study ``study.json``
too), and ``lock``. Snakemake does not know the store, so it never deletes it. Every write is
atomic; every record carries a digest of itself, and one that does not match is set aside and made
again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from cyclery.common.errors import UserError
from cyclery.common.files import (
    Busy,
    disk_errors,
    lock,
    parse_json,
    read_errors,
    read_regular,
    write_atomic,
)
from cyclery.common.seals import is_sealed, seal
from cyclery.records.record import Record

log = logging.getLogger(__name__)
_TAIL = 4096
_PART = re.compile(r"\..*\.part")
_STATUS = re.compile(rb'^ "status": "(\w+)"', re.MULTILINE)


class Store:
    """Finished and unfinished runs under one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, key: str) -> Path:
        """Return the folder of a run; it may not exist yet."""
        return self.root / key[:2] / key

    def checkpoint(self, key: str) -> Path:
        """Return the path of a run's final weights."""
        return self.folder(key) / "checkpoint.safetensors"

    def resume(self, key: str) -> Path:
        """Return the path of an unfinished run's state."""
        return self.folder(key) / "resume.safetensors"

    def study(self, key: str) -> Path:
        """Return the path of the ended trials of an unfinished study."""
        return self.folder(key) / "study.json"

    def read(self, key: str) -> Record | None:
        """Return a run's record, or None. A damaged one is set aside, with a warning.

        Raises:
            UserError: it cannot be read now, which says nothing of it.
        """
        path = self.folder(key) / "record.json"
        try:
            with read_errors(path):
                content = read_regular(path)
            record = parse_json(content)
            # ValueError also where a number is NaN, which no record of ours holds.
            if is_sealed(record) and record.get("key") == key:
                return cast(Record, record)
        except FileNotFoundError:
            return None
        except (ValueError, OSError):
            pass
        self.set_aside(path, "the record was cut or altered")
        return None

    def status(self, key: str) -> str | None:
        """Return the status that a run's record names, unchecked; None without one.

        For counting many thousand runs, where reading and checking each takes minutes; ``write``
        sorts keys, and little follows the status but in a study, which has its trials there.
        """
        try:
            # Paths of pathlib would take most of the time. A pipe is not waited for.
            path = f"{self.root}/{key[:2]}/{key}/record.json"
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            return None
        try:
            size = os.fstat(handle).st_size
            found = _STATUS.search(os.pread(handle, _TAIL, max(0, size - _TAIL)))
            if found is None and size > _TAIL:
                found = _STATUS.search(os.pread(handle, size, 0))
        except OSError:
            return None
        finally:
            os.close(handle)
        return found[1].decode() if found else None

    def set_aside(self, path: Path, reason: str) -> None:
        """Move a damaged file out of the way, so that its content is made again."""
        aside = path.with_name(f"{path.name}.damaged")
        with disk_errors(aside), contextlib.suppress(FileNotFoundError):
            path.replace(aside)
            log.warning("%s: %s; kept as %s and made again", path, reason, aside.name)

    def write(self, key: str, record: Record) -> Record:
        """Seal and write a run's record; its resume point is no longer needed.

        The caller holds the run's lock, so half-written files are those of killed processes.
        """
        sealed = seal(cast(Record, {**record, "key": key}))
        # A key in a line, which `status` counts on; json.dumps is slower with an indent.
        lines = (
            f" {json.dumps(name)}: {json.dumps(value, sort_keys=True, allow_nan=False)}"
            for name, value in sorted(sealed.items())
        )
        write_atomic(self.folder(key) / "record.json", "{\n" + ",\n".join(lines) + "\n}\n")
        for path in self._needless(key):
            path.unlink(missing_ok=True)
        return sealed

    def tidy(self, key: str) -> None:
        """Remove leftovers of a finished run, which a kill just after its record leaves."""
        # What another process holds, or a read-only store, is left as it is.
        with contextlib.suppress(OSError, UserError):
            if self._needless(key):
                with self.lock(key, wait=False) as held:
                    for path in self._needless(key) if held else ():
                        path.unlink(missing_ok=True)

    def _needless(self, key: str) -> list[Path]:
        """Return what an unfinished run kept, and its half-written files."""
        unfinished = {self.resume(key), self.study(key)}
        return [path for path in self.folder(key).iterdir()
                if path in unfinished or _PART.fullmatch(path.name)]  # fmt: skip

    @contextlib.contextmanager
    def lock(self, key: str, wait: bool) -> Iterator[bool]:
        """Hold the run's lock; yields False where another process has it and ``wait`` is off.

        The lock is the kernel's, so a process that dies, however it dies, releases it.
        """
        try:
            with lock(self.folder(key) / "lock", wait):
                yield True
        except Busy:
            yield False
