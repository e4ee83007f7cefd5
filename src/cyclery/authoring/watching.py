"""Detect what a method's step must not do, and name the line that does it."""

from __future__ import annotations

import random
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from cyclery import methods
from cyclery.common.errors import UserError, nearest

# What brings a value to the host, so that the device is waited for and no graph can be captured:
# operations, and functions of a tensor that call none on a CPU.
OPERATIONS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2")
FUNCTIONS = ("numpy", "tolist", "cpu", "__array__")
TORCH = Path(torch.__file__).parent
# What a step draws from instead.
REMEDY = (
    "draw with torch, and hand the step's argument `generator` to all that draws "
    "(`generator=generator`)"
)


class Findings:
    """Mistakes by line of code, each reported once: ``file:line: text``."""

    def __init__(self) -> None:
        self._lines: dict[str, None] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def add(self, place: str, text: str) -> None:
        """Add a mistake at ``file:line``."""
        self._lines[f"{place}: {text}"] = None

    def here(self, text: str) -> None:
        """Add a mistake of the method's line that is running."""
        self.add(place(traceback.extract_stack()), text)


def in_a_method(place: str) -> bool:
    """Say whether a file, or a line of one, is a method's or of what methods share."""
    return str(Path(place).parent) in methods.__path__


def place(frames: traceback.StackSummary) -> str:
    """Return the innermost line of a method's file, or else one that is not torch's."""
    own = [frame for frame in frames if in_a_method(frame.filename)]
    outside = [frame for frame in frames if TORCH not in Path(frame.filename).parents]
    found = (own or outside or list(frames))[-1]
    return f"{found.filename}:{found.lineno}"


class _Operations(TorchDispatchMode):
    """Notes operations that bring a value to the host."""

    def __init__(self, note: Callable[[], None]) -> None:
        super().__init__()
        self._note = note

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function.__name__.partition(".")[0] in OPERATIONS:
            self._note()
        return function(*args, **(kwargs or {}))


class _Functions(TorchFunctionMode):
    """Notes functions of a tensor that hand it to the host."""

    def __init__(self, note: Callable[[], None]) -> None:
        super().__init__()
        self._note = note

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if getattr(function, "__name__", "") in FUNCTIONS:
            self._note()
        return function(*args, **(kwargs or {}))


@contextmanager
def host_reads(found: Findings) -> Iterator[None]:
    """Find the lines that read a value on the host."""

    def note() -> None:
        found.here(
            "waits for a value on the host, so no step can be captured on a GPU; compute it with "
            "tensors, or declare `CAPTURE = False`."
        )

    with _Functions(note), _Operations(note):
        yield


def _global_states() -> dict[str, Any]:
    kind, words, position, *_ = np.random.get_state()
    # It is no read of the method's, which others may be watching for, nor one of a function that
    # torch.func is transforming.
    with torch._C.DisableTorchFunction(), torch._C._DisableFuncTorch():
        state = torch.default_generator.get_state().numpy().tobytes()
    return {
        "torch's": state,
        "numpy's": (kind, position, np.asarray(words).tobytes()),
        "Python's": random.getstate(),
    }


@contextmanager
def global_draws(found: Findings) -> Iterator[None]:
    """Find the lines of methods that move a random generator of the process; put it back."""
    last: dict[int, int] = {}
    states = _global_states()

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal states
        if not in_a_method(frame.f_code.co_filename):
            return None
        now = _global_states()
        for name, state in now.items():
            if state != states[name]:
                line = last.get(id(frame), frame.f_lineno)
                found.add(
                    f"{frame.f_code.co_filename}:{line}",
                    f"draws from {name} global generator, so a run would neither repeat nor "
                    f"resume exactly; {REMEDY}.",
                )
        states, last[id(frame)] = now, frame.f_lineno
        return trace

    before = sys.gettrace()
    with undisturbed():
        sys.settrace(trace)
        try:
            yield
        finally:
            sys.settrace(before)


@contextmanager
def training_passes(averaged: torch.nn.Module, found: Findings) -> Iterator[None]:
    """Find the lines that run the averaged network in training mode."""

    def note(module: torch.nn.Module, _: Any) -> None:
        if module.training:
            found.here(
                "runs the averaged network in training mode, so `trains_ema` must return True; or "
                "run it within `cyclery.models.layers.evaluating`."
            )

    handle = averaged.register_forward_pre_hook(note)
    try:
        yield
    finally:
        handle.remove()


def disturb(seed: int) -> None:
    """Put the generators of the whole process where no run would find them again."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put the generators of the whole process back as they were."""
    kept = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(kept[0])
        np.random.set_state(kept[1])
        random.setstate(kept[2])


class Models(dict[str, Any]):
    """``models`` as a step gets them; finds one that is read and not declared.

    ``undeclared`` are those that happen to be there, each with what would declare it.
    """

    def __init__(
        self, models: Mapping[str, Any], undeclared: Mapping[str, str], found: Findings
    ) -> None:
        super().__init__(models)
        self._undeclared, self._found = undeclared, found

    def __getitem__(self, name: str) -> Any:
        if name in self._undeclared:
            self._found.here(
                f'reads `models["{name}"]` and does not declare it: {self._undeclared[name]}.'
            )
        return super().__getitem__(name)

    def __missing__(self, name: str) -> Any:
        raise UserError(
            f'reads `models["{name}"]`, which is not there; declare it in `modules`, in `parents`, '
            f"or by `uses_ema` (there are: {', '.join(sorted(self))})."
        )


class Row(dict[str, Any]):
    """``row`` as a step gets it; says what is read and no schedule gives."""

    def __missing__(self, name: str) -> Any:
        raise UserError(
            f'reads `row["{name}"]`, which is not there; it has the quantities of `Settings` and '
            f"those of the engine.{nearest(name, self)} There are: {', '.join(sorted(self))}."
        )


class Batch:
    """A batch, or a stream of it, as a step gets it; says what is read and not declared."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._batch, name)
        if name == "views":
            return Views(value)
        return Batch(value) if hasattr(value, "views") else value

    def __getitem__(self, name: str) -> Any:
        return Batch(self._batch[name])


class Views(tuple[Any, ...]):
    """The views of a stream; says when more are read than `streams` declares."""

    def __getitem__(self, index: Any) -> Any:
        try:
            return super().__getitem__(index)
        except IndexError:
            raise UserError(
                f"reads view {index} of a stream for which `streams` declares {len(self)}, counted "
                "from 0."
            ) from None


class Settings:
    """Settings as a step gets them; finds a quantity that is read off them, and goes on."""

    def __init__(self, settings: Any, defaults: Any, quantities: tuple[str, ...], found: Findings):
        self._all = (settings, defaults, quantities, found)

    def __getattr__(self, name: str) -> Any:
        settings, defaults, quantities, found = self._all
        if name not in quantities:
            return getattr(settings, name)
        found.here(
            f"reads `settings.{name}`, which is not the value of the schedule; read "
            f'`row["{name}"]`, a tensor that holds the value at this update.'
        )
        return getattr(defaults, name)
