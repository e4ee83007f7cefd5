"""Check what a method's step returns, and explain what is wrong in one message."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from cyclery.common.errors import UserError, nearest
from cyclery.methods import Gradients


def check_step(
    method: str, found: Any, parameters: Mapping[str, Tensor], mapped: bool = False
) -> None:
    """Raise a UserError unless a step returned a loss with a gradient, and logs by name.

    ``parameters`` are those that are trained, for gradients that the step made itself. Inside of
    a ``mapped`` step tensors do not say whether they have a gradient.
    """
    problem = _problem(found, parameters, mapped)
    if problem:
        raise UserError(f"method: the step of {method!r} must return (loss, logs): {problem}.")


def check_events(method: str, found: Any, updates: int) -> frozenset[int]:
    """Return the updates before which `event` is called; a UserError where there is none such.

    ``updates`` stands for the end of the run, after the last one.
    """
    if not isinstance(found, Iterable):
        raise UserError(
            f"method: `events` of {method!r} must return updates, as a list (found {found!r:.80})."
        )
    events = tuple(found)
    for each in events:
        # numpy's whole numbers are fine, too.
        if isinstance(each, bool) or not hasattr(each, "__index__") or not 0 <= each <= updates:
            raise UserError(
                f"method: `events` of {method!r} must return updates, whole numbers from 0 to "
                f"{updates}, which is the end of the run (found {each!r:.80})."
            )
    return frozenset(int(each) for each in events)


def _problem(found: Any, parameters: Mapping[str, Tensor], mapped: bool) -> str | None:
    if not isinstance(found, tuple) or len(found) != 2:
        shown = _shown(found)
        if isinstance(found, tuple):
            shown = f"a tuple of {len(found)}"
        return f"a tuple of the loss and a dict of what is logged, {{}} if nothing (found {shown})"
    loss, logs = found
    own = isinstance(loss, Gradients)
    if own and (problem := _wrong_gradients(loss.of, parameters)):
        return problem
    loss = loss.loss if own else loss
    if not isinstance(loss, Tensor) or loss.ndim or not loss.is_floating_point():
        return f"the loss must be one number as a tensor, a mean or sum (found {_shown(loss)})"
    if not own and not mapped and not loss.requires_grad:
        return "the loss has no gradient, so nothing would be trained (detached, or under no_grad)"
    if not isinstance(logs, Mapping):
        return f"the logs must be a dict of tensors by name (found {_shown(logs)})"
    for name, value in logs.items():
        if not isinstance(name, str):
            return f"names of logs must be text (found {name!r:.80})"
        if not isinstance(value, Tensor) or value.ndim:
            return f"the log {name!r} must be one number as a tensor (found {_shown(value)})"
    return None


def _wrong_gradients(given: Any, parameters: Mapping[str, Tensor]) -> str | None:
    """Return what is wrong with gradients by the names of trained parameters."""
    if not isinstance(given, Mapping) or not given:
        return f"`of` of Gradients must be a dict with one at least (found {given!r:.80})"
    for name, value in given.items():
        if name not in parameters:
            return (
                f"Gradients has {name!r}, which is no trained parameter.{nearest(name, parameters)}"
                f" Their names are as {next(iter(parameters))!r}"
            )
        if not isinstance(value, Tensor) or value.shape != parameters[name].shape:
            return (
                f"the gradient of {name!r} must have the shape {list(parameters[name].shape)} "
                f"(found {_shown(value)})"
            )
    return None


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}, {str(value.dtype).removeprefix('torch.')}"
    return f"{type(value).__name__} {value!r:.60}"
