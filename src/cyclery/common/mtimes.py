"""Correct modification times that lie in the future, after a clock was set back.

Snakemake compares the content of inputs where times disagree, so such files repeat nothing. But it
refuses what a job makes from them as older than its input, until the clock has caught up.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

# Clocks of a cluster may differ by so many seconds.
TOLERATED = 60.0


def reset_future(folders: Iterable[Path]) -> int:
    """Set modification times in the future, below folders, to now; return how many."""
    now = time.time()
    reset = 0
    for folder in folders:
        for place, _, names in os.walk(folder):
            for name in names:
                path = f"{place}/{name}"
                # It may vanish meanwhile, or belong to somebody else. Links lead elsewhere.
                with suppress(OSError):
                    found = os.lstat(path)
                    if stat.S_ISREG(found.st_mode) and found.st_mtime > now + TOLERATED:
                        os.utime(path, (now, now))
                        reset += 1
    return reset
