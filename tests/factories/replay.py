"""A stand-in for CUDA graphs on a CPU: record the operations of a step, and run those again.

As with a graph, memory stays where it was, and no Python of the step runs at a replay: whatever it
decided while it was recorded is decided for ever. A step that reads a changing host number, or
that works in other memory each time, ends with other numbers than an eager one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SHAPING = (torch.ops.aten.squeeze_, torch.ops.aten.unsqueeze_, torch.ops.aten.t_)


class _Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out

    def replay(self) -> None:
        with torch.no_grad():
            for func, args, kwargs, out in self.calls:
                aliases = [value.alias_info for value in func._schema.returns]
                # A view shares its memory, which is up to date already.
                if aliases and all(a is not None and not a.is_write for a in aliases):
                    continue
                # Gives another shape to the same memory, once and for all.
                if func.overloadpacket in SHAPING:
                    continue
                again = func(*args, **kwargs)
                for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                    if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                        old.view_as(new).copy_(new)


class Recorder:
    """Records on a CPU; ``recorded`` counts the functions, ``replays`` their repetitions."""

    def __init__(self) -> None:
        self.recorded = self.replays = 0
        self.refused: set[str] = set()

    def __call__(
        self, function: Callable[[], Any], generators: Iterable[torch.Generator]
    ) -> tuple[Callable[[], None], Any]:
        """Record a function, which runs meanwhile: what it changes is put back by the caller."""
        tape, self.recorded = _Tape(), self.recorded + 1
        with tape:
            result = function()

        def replay() -> None:
            self.replays += 1
            tape.replay()

        return replay, result


class NoWaiting(TorchDispatchMode):
    """Refuse what would make a GPU wait for the host or give a shape that depends on data."""

    REFUSED = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "bincount")

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        assert not any(name in func.__name__ for name in self.REFUSED), func
        return func(*args, **(kwargs or {}))
