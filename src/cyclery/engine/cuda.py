"""CUDA graphs, streams, memory-based admission of runs, and reads that do not block.

Each run is warmed up and captured on its own stream. Captured on one shared stream, runs that are
replayed side by side would share a library's workspace and corrupt each other in silence.
"""

from __future__ import annotations

import contextlib
import gc
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor

from cyclery.common.errors import chain
from cyclery.engine.cohort import Pause, Place, Task

T = TypeVar("T")
# The host runs ahead of the device by at most this many marks, each after so many steps.
MARKS, STEPS_PER_MARK = 4, 16
# No more runs side by side than this: the device is full long before (measured: section 4 of the
# design).
MOST = 8
# Free memory must hold this many times what a run needs before it is admitted.
RESERVE = 1.25


class Graphs:
    """Records functions as CUDA graphs, in one memory pool: they are replayed one at a time.

    Must be called on the stream of the run, which is not the default one. Runs that share a set of
    ``refused`` methods learn from one another.
    """

    def __init__(self, refused: set[str] | None = None) -> None:
        self.refused = set() if refused is None else refused
        self._pool = torch.cuda.graph_pool_handle()
        # Destroying a graph clears the workspaces of its stream, which the run's other graphs
        # still use: so all of them are kept for as long as the run, one that failed too.
        self._begun: list[torch.cuda.CUDAGraph] = []

    def __call__(
        self, function: Callable[[], T], generators: Iterable[torch.Generator]
    ) -> tuple[Callable[[], None], T]:
        """Return a function that replays the captured one, and the result that it overwrites.

        Raises a RuntimeError where an operation cannot be captured.
        """
        graph = torch.cuda.CUDAGraph()
        self._begun.append(graph)
        for generator in generators:
            graph.register_generator_state(generator)
        stream = torch.cuda.current_stream()
        stream.synchronize()
        # Other streams may go on meanwhile, so only this thread's calls are watched.
        with torch.cuda.graph(
            graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"
        ):
            result = function()
        return graph.replay, result


class Lookahead:
    """Keeps the host a bounded number of steps ahead of the device, without waiting for it."""

    def __init__(self, device: torch.device) -> None:
        self._on = device.type == "cuda"
        self._marks: deque[torch.cuda.Event] = deque()
        self._launched = 0

    def launched(self) -> None:
        """Count a step."""
        self._launched += 1
        if self._on and self._launched % STEPS_PER_MARK == 0:
            mark = torch.cuda.Event()
            mark.record()
            self._marks.append(mark)

    def full(self) -> bool:
        """Return whether the device has enough steps queued."""
        while self._marks and self._marks[0].query():
            self._marks.popleft()
        return len(self._marks) >= MARKS


def fetch(tensor: Tensor) -> Task[Any]:
    """Return a tensor as a float64 numpy array, while other runs have their turn."""
    if tensor.device.type == "cpu":
        return tensor.detach().double().numpy()
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor.detach(), non_blocking=True)
    done = torch.cuda.Event()
    done.record()
    while not done.query():
        yield Pause.WAIT
    return host.double().numpy()


def own_stream(device: torch.device) -> Place:
    """Return the context of a run: a new CUDA stream, or nothing on a CPU."""
    if device.type == "cpu":
        return contextlib.nullcontext
    stream = torch.cuda.Stream(device)
    # What was uploaded on the default stream must be there first.
    stream.wait_stream(torch.cuda.default_stream(device))
    return lambda: torch.cuda.stream(stream)


class FreeMemory:
    """Admission of as many runs as free memory holds; each kind is measured on its first run.

    ``processes`` is how many share the device.
    """

    def __init__(self, device: torch.device, most: int = MOST, processes: int = 1) -> None:
        self._device, self._most, self._processes = device, most, processes
        self._need: dict[str, int] = {}
        # Reserved memory when a run started, of runs whose need shows only later.
        self._open: list[tuple[str, int]] = []

    def admits(self, kind: str, active: int) -> bool:
        """Say whether free memory holds this run and what active runs have yet to allocate."""
        if active == 0:
            return True
        if active >= self._most:
            return False
        free, total = self._free()
        if kind not in self._need:
            # Its need is unknown: it allocates alone, so that it can be measured.
            return not self._open and free >= total // 4
        promised = sum(self._need.get(other, 0) for other, _ in self._open)
        return free - promised >= RESERVE * self._need[kind]

    def started(self, kind: str) -> None:
        """Note the memory that was reserved before the run."""
        self._open.append((kind, self._reserved()))

    def allocated(self, kind: str) -> None:
        """Take the memory reserved since the run's start as its need.

        Runs that allocate at the same time count for each other, so the estimate is never too low.
        """
        before = self._close(kind)
        self._need.setdefault(kind, max(self._reserved() - before, 1))

    def ended(self, kind: str, allocated: bool) -> None:
        """Release what the run held."""
        if not allocated:
            self._close(kind)
        before = self._reserved()
        self._release()
        # What another run gave back must not hide what those that are still allocating have taken.
        freed = before - self._reserved()
        self._open = [(other, base - freed) for other, base in self._open]

    def overflows(self, error: BaseException, active: int) -> bool:
        """Return whether memory ran out; then at most ``active`` runs are admitted from now on."""
        if not any(isinstance(each, torch.OutOfMemoryError) for each in chain(error)):
            return False
        self._most = max(1, active)
        return True

    def _close(self, kind: str) -> int:
        """Forget a run that was allocating; return what was reserved before it."""
        at = next(i for i, (other, _) in enumerate(self._open) if other == kind)
        return self._open.pop(at)[1]

    def _free(self) -> tuple[int, int]:
        """Return what this process may still take, and all that it may: its share of the device."""
        free, total = torch.cuda.mem_get_info(self._device)
        share = total // self._processes
        return min(free, share - self._reserved()), share

    def _reserved(self) -> int:
        return torch.cuda.memory_reserved(self._device)

    def _release(self) -> None:
        # What a run leaves in a circle of references would keep its graphs and their memory.
        gc.collect()
        torch.cuda.empty_cache()


def set_deterministic(on: bool) -> None:
    """Do what ``torch.use_deterministic_algorithms`` does for all but torch's compiler.

    It would import the compiler for that: a second of every job's start.
    """
    torch._C._set_deterministic_algorithms(on, warn_only=False)
