"""Capture a run's repeated computations as CUDA graphs and replay them, where possible."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from cyclery.common.errors import chain

log = logging.getLogger(__name__)

T = TypeVar("T")
# Libraries choose their algorithms, and autograd makes its buffers, in the first calls.
WARM_UP = 3


class Recorder(Protocol):
    """Captures a function on the device for replay, as ``cuda.Graphs`` does."""

    refused: set[str]
    """Methods that could not be captured; no run of them tries again."""

    def __call__(
        self, function: Callable[[], T], generators: Iterable[torch.Generator]
    ) -> tuple[Callable[[], None], T]:
        """Return a function that replays the captured one, and the result that it overwrites."""


class Replays:
    """The functions that a run of ``method`` repeats; without a recorder they are just called.

    ``live`` returns the tensors that they change; these and the ``generators`` are left by a
    recording as they were.
    """

    def __init__(
        self,
        method: str,
        recorder: Recorder | None,
        live: Callable[[], Sequence[Tensor]],
        generators: Mapping[str, torch.Generator],
    ) -> None:
        self._method, self._recorder = method, recorder
        self._live, self._generators = live, generators
        self._recorded: dict[Any, tuple[Callable[[], None], Any]] = {}

    @property
    def on(self) -> bool:
        """Say whether functions are captured."""
        return self._recorder is not None and self._method not in self._recorder.refused

    def call(self, key: Any, function: Callable[[], T]) -> T:
        """Call a function, or replay what was captured of it under this key."""
        if self.on:
            self.record(key, function)
        if key not in self._recorded:
            return function()
        replay, result = self._recorded[key]
        replay()
        found: T = result
        return found

    def record(self, key: Any, function: Callable[[], Any], times: int = WARM_UP) -> None:
        """Capture a function unless that is done, after calling it ``times`` times.

        Where an operation refuses, this method goes on eager from here on, with one warning.
        """
        if key in self._recorded or not self.on:
            return
        assert self._recorder is not None
        live = self._live()
        before = [tensor.clone() for tensor in live]
        states = {name: drawn.get_state() for name, drawn in self._generators.items()}
        for _ in range(times):
            function()
            # After every call, so that no counter runs out of its table.
            _put_back(live, before)
        self._rewind(states)
        try:
            self._recorded[key] = self._recorder(function, self._generators.values())
        except RuntimeError as error:
            first = root(error)
            if isinstance(first, torch.OutOfMemoryError):
                raise first from None
            self._recorder.refused.add(self._method)
            log.warning(
                "the method %s cannot be captured at %s, so it runs without: %s",
                self._method, culprit(first), str(first).partition("\n")[0],
            )  # fmt: skip
        _put_back(live, before)
        self._rewind(states)

    def _rewind(self, states: Mapping[str, Tensor]) -> None:
        for name, state in states.items():
            if not torch.equal(self._generators[name].get_state(), state):
                self._generators[name].set_state(state)


@torch.no_grad()
def _put_back(live: Sequence[Tensor], before: Sequence[Tensor]) -> None:
    for tensor, value in zip(live, before, strict=True):
        tensor.copy_(value)


def root(error: BaseException) -> BaseException:
    """Return the error that came first: ending a broken capture raises another one.

    It is the one that says that memory ran out, if any of them does.
    """
    every = list(chain(error))
    full = [each for each in every if isinstance(each, torch.OutOfMemoryError)]
    return [*every, *full][-1]


def culprit(error: BaseException) -> str:
    """Return the line of code at which a capture failed."""
    frames = traceback.extract_tb(error.__traceback__)
    # The innermost line outside of torch is what its author can change.
    own = [frame for frame in frames if "/torch/" not in frame.filename] or frames
    return f"`{own[-1].line}`" if own else "an unknown operation"
