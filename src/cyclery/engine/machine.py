"""What computes: names and versions for the records."""

from __future__ import annotations

import contextlib
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from cyclery import __version__

if TYPE_CHECKING:
    import torch


def device_name(device: torch.device) -> str:
    """Return the name of the processor that computes."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"CPU {line.partition(':')[2].strip()}"
    return f"CPU {platform.machine()}"


def versions() -> dict[str, str]:
    """Return the versions that numbers may depend on."""
    import numpy
    import torch

    return {
        "cyclery": __version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }
