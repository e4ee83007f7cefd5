"""Choose the device of a job: the CPU, or a GPU with a free slot."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cyclery.common.errors import UserError
from cyclery.engine.execution import Execution
from cyclery.engine.processes import stop_if_asked

if TYPE_CHECKING:
    import torch


@contextlib.contextmanager
def taken(execution: Execution) -> Iterator[torch.device]:
    """Yield the configured device; of several GPUs one with a free slot, held meanwhile."""
    import torch

    wanted: str = execution.device
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cpu":
        # Processes are forked later, and a pool of threads does not survive that.
        torch.set_num_threads(1)
        yield torch.device("cpu")
        return
    if not torch.cuda.is_available():
        raise UserError(
            "device: cuda is configured, but torch sees no GPU; set `device: cpu`, or install "
            "a build of torch for this GPU"
        )
    from cyclery.engine import slots

    visible = slots.visible(execution.gpus, os.environ, torch.cuda.device_count)
    pool = slots.Pool(visible, execution.jobs_per_gpu, slots.folder())
    with pool.acquire(stop_if_asked) as index:
        device = torch.device("cuda", index)
        torch.cuda.set_device(device)
        yield device
