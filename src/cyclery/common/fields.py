"""Read plain settings into a frozen dataclass, or say exactly what is wrong with them.

Methods, networks, optimisers and augmentations are read with this, by planning and by the training
process, which knows no pydantic. Each field carries its own limits in its metadata: ``low`` and
``high`` are inclusive, ``above`` and ``below`` are exclusive; for a tuple they hold for every
element.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields
from functools import cache
from math import isfinite
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from cyclery.common.errors import UserError, choices, nearest

T = TypeVar("T")

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", NoneType: "null"}
_LIMITS = {"above": "above", "low": "at least", "high": "at most", "below": "below"}


@cache
def _hints(kind: Any) -> dict[str, Any]:
    # `get_type_hints` evaluates every annotation anew, which a graph of many cells would feel.
    return get_type_hints(kind)


def parse(kind: type[T], given: Mapping[str, Any], where: str) -> T:
    """Return ``kind(**given)`` with lists made tuples and whole numbers made floats where meant.

    ``where`` names the place in messages. Raises a UserError for an unknown or missing key, a
    value of the wrong type, and a number outside the limits of its field.
    """
    values = check_given(kind, given, where)
    for item in fields(kind):  # type: ignore[arg-type]
        required = item.default is MISSING and item.default_factory is MISSING
        if required and item.name not in given:
            raise UserError(f"{where}: key {item.name!r} is missing; it has no default.")
    try:
        return kind(**values)
    except UserError as error:
        # Settings that exclude each other do not know where they stand.
        raise UserError(f"{where}.{error}") from None


def check_given(
    kind: type, given: Mapping[str, Any], where: str, skip: Collection[str] = ()
) -> dict[str, Any]:
    """Return the values that are given as the fields of ``kind`` want them; ``skip`` as they are.

    Raises what ``parse`` raises, but for missing keys.
    """
    known = {f.name: f for f in fields(kind)}
    hints, values = _hints(kind), {}
    for key, value in given.items():
        if key not in known:
            raise UserError(
                f"{where}: unknown key {key!r}.{nearest(key, known)} "
                f"Allowed: {choices(known) or 'none'}."
            )
        values[key] = value
        if key not in skip:
            values[key] = _convert(value, hints[key], f"{where}.{key}")
            check_limits(values[key], known[key].metadata, f"{where}.{key}")
    return values


def _convert(value: Any, hint: Any, where: str) -> Any:
    """Return ``value`` as the annotation ``hint`` wants it; a UserError where it does not fit."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        if value is None and NoneType in args:
            return None
        return _convert(value, next(arg for arg in args if arg is not NoneType), where)
    if origin is Literal:
        # 0 is no false: it would be another value in the settings of a run.
        if any(value == arg and type(value) is type(arg) for arg in args):
            return value
        known = [arg if isinstance(arg, str) else str(arg).lower() for arg in args]  # as in YAML
        raise UserError(
            f"{where}: must be one of {choices(known)} (found {value!r}).{nearest(value, known)}"
        )
    if origin is tuple and isinstance(value, list | tuple):
        kinds = args[:1] * len(value) if args[-1] is Ellipsis else args
        if len(kinds) == len(value):
            return tuple(_convert(v, k, where) for v, k in zip(value, kinds, strict=True))
    elif hint in (bool, str):
        if isinstance(value, hint):
            return value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if hint is int and isinstance(value, int):
            return value
        if hint is float and isfinite(value):
            return float(value)
    raise UserError(f"{where}: must be {_describe(hint)} (found {value!r:.80}).")


def _describe(hint: Any) -> str:
    args = get_args(hint)
    if get_origin(hint) is tuple:
        if args[-1] is Ellipsis:
            return f"a list, each element {_describe(args[0])}"
        return f"a list of {len(args)}, each element {_describe(args[0])}"
    return _WORDS.get(hint, "text")


def plain(settings: Any) -> dict[str, Any]:
    """Return the fields of a settings dataclass as JSON has them."""
    found = {f.name: getattr(settings, f.name) for f in fields(settings)}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in found.items()}


def check_limits(value: Any, limits: Mapping[str, Any], where: str) -> None:
    """Raise a UserError where a number, or one of a tuple, lies outside its limits."""
    if isinstance(value, tuple):
        for element in value:
            check_limits(element, limits, where)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        above, low, high, below = (limits.get(name) for name in _LIMITS)
        if (
            (low is not None and value < low)
            or (high is not None and value > high)
            or (above is not None and value <= above)
            or (below is not None and value >= below)
        ):
            raise UserError(f"{where}: must be {allowed(limits)} (found {value}).")


def allowed(limits: Mapping[str, Any]) -> str:
    """Return limits in words, as in `at least 0.0 and at most 1.0`."""
    return " and ".join(
        f"{text} {limits[name]}" for name, text in _LIMITS.items() if name in limits
    )
