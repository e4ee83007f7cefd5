"""Detect draws from the global random generators, which no run may use.

They are not part of a run's state, and others draw from them too, so a run that does neither
repeats nor resumes exactly.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from cyclery.common.errors import UserError

CPU, GPU, NUMPY, PYTHON = "torch's", "torch's GPU", "numpy's", "Python's"


class Globals:
    """Reports where a method drew from a global generator between ``mark`` and ``check``.

    Comparing costs about a tenth of a millisecond, and never waits for a device.
    """

    def __init__(self, method: str, device: torch.device) -> None:
        self._method, self._device = method, device
        self._before = self._states()

    def _states(self) -> dict[str, Any]:
        kind, words, position, *_ = np.random.get_state()
        found = {
            CPU: torch.default_generator.get_state().numpy().tobytes(),
            NUMPY: (kind, position, np.asarray(words).tobytes()),
            PYTHON: random.getstate(),
        }
        if self._device.type == "cuda":
            index = self._device.index or 0
            found[GPU] = torch.cuda.default_generators[index].get_state().numpy().tobytes()
        return found

    def mark(self) -> None:
        """Remember the generators as they are."""
        self._before = self._states()

    def check(self, where: str, remedy: str, but: tuple[str, ...] = ()) -> None:
        """Raise a UserError where one moved since ``mark``, but for those of ``but``."""
        now = self._states()
        moved = [k for k, state in now.items() if k not in but and state != self._before[k]]
        self._before = now
        if moved:
            raise UserError(
                f"method: {self._method!r} draws from {' and '.join(moved)} global generator in "
                f"its {where}, so the run would neither repeat nor resume exactly; {remedy}."
            )
