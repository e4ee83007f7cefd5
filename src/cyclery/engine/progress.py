"""How far a list of jobs is, in words."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Any

from cyclery.text import duration

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """Says how far a list of jobs is, and how long the rest will take."""

    total: int
    images: int
    every: float
    _done: int = 0
    _images: int = 0
    _diverged: int = 0
    _began: float = field(default_factory=time.monotonic)
    _said: float = field(default_factory=time.monotonic)

    def done(self, job: dict[str, Any], record: dict[str, Any]) -> None:
        """Count a finished job, and say so every few seconds and at the end."""
        self._done += 1
        self._images += job["images"]
        self._diverged += record["status"] == "diverged"
        now = time.monotonic()
        if self._done < self.total and now - self._said < self.every:
            return
        self._said = now
        left = (now - self._began) * (self.images - self._images) / max(self._images, 1)
        log.info(
            "%d of %d runs trained%s, %.0f images/s, about %s left",
            self._done,
            self.total,
            f" ({self._diverged} diverged)" if self._diverged else "",
            self._images / max(now - self._began, 1e-9),
            duration(left),
        )
