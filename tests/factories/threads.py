"""One thread for torch."""

from __future__ import annotations

from collections.abc import Iterator

import torch


def one_thread() -> Iterator[None]:
    """Compute in one thread for a while: a fixture, once a file says for how long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # networks this small only wait for their threads
    yield
    torch.set_num_threads(before)
