"""Logging: messages to the terminal, and all detail to the log file of a job."""

from __future__ import annotations

import contextlib
import logging
import sys
from pathlib import Path

from cyclery.common.files import disk_errors


class _LogFile(logging.FileHandler):
    """A log file that ends quietly on a full disk, without a traceback for every line."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Ignore lines that the disk did not take: the command itself reports a full disk."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        """Close the file, whatever of it the disk still refuses."""
        with contextlib.suppress(OSError):
            super().close()


def log_to(path: Path | None, verbose: bool) -> None:
    """Send messages to the terminal, and all detail to the log file of a job."""
    logger = logging.getLogger("cyclery")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setLevel(logging.DEBUG if verbose else logging.INFO)
    terminal.setFormatter(logging.Formatter("cyclery: %(message)s"))
    logger.addHandler(terminal)
    if path is not None:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
            # Appended to: a job that outlives a killed Snakemake may still write the same log.
            file = _LogFile(path, mode="a", encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(file)
