"""Numerical environment of a run: threads, determinism, precision."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from cyclery.engine.cuda import set_deterministic
from cyclery.records.record import RunSettings


def set_arithmetic(settings: RunSettings, device: torch.device) -> None:
    """Make the process compute as the settings say: threads, determinism, no TensorFloat-32."""
    if device.type == "cpu":
        # A run's last bits depend on its threads, so they never follow the job's cores.
        torch.set_num_threads(settings["threads"])
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    set_deterministic(settings["deterministic"])
    if settings["compile"]:
        torch.use_deterministic_algorithms(settings["deterministic"])
    # Filling new memory would cost a kernel for every tensor of a step, and nothing reads it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = settings["deterministic"]
    torch.backends.cudnn.benchmark = not settings["deterministic"]
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def autocast(settings: RunSettings, device: torch.device) -> AbstractContextManager[Any]:
    """Return what networks compute in: bfloat16 where the settings say so."""
    if settings["precision"] == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


@contextmanager
def in_any_order(device: torch.device) -> Iterator[None]:
    """Let an operation that writes each place once skip the sorting that makes sums deterministic.

    On a GPU that would be some fifteen kernels instead of one.
    """
    before = torch.are_deterministic_algorithms_enabled() and device.type == "cuda"
    if before:
        set_deterministic(False)
    try:
        yield
    finally:
        if before:
            set_deterministic(True)
