"""What a schedule may be: reading one with its defaults filled in, or saying what is wrong.

Every message names the key's path, the value, what is allowed and the nearest valid name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import MISSING, fields
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from cyclery.common.errors import UserError, choices, nearest
from cyclery.schedules.kinds import KINDS, RANGE_WORDS, Number, Schedule, Stage

# No dataset has more, and twice as many still are a whole number everywhere.
MOST_SAMPLES = 1_000_000_000
# Nested schedules, list entries included: each is computed for every update of a run.
MOST_PARTS = 100
BATCH_KINDS = ("constant", "cycle", "power_of_two")
# What never changes within an epoch has no use for a clock.
_NO_CLOCK = ("constant", "cycle", "epoch_ramp", "mean_rate")


def check(spec: Any, where: str) -> None:
    """Raise a UserError where ``spec`` is not a valid schedule; ``where`` is its key path."""
    if (parts := _parts(spec)) > MOST_PARTS:
        raise UserError(
            f"{_at(where)}a schedule of {parts:,} parts; at most {MOST_PARTS} are allowed, since "
            "each is computed for every update"
        )
    normalise(spec, where)


def _parts(spec: Any) -> int:
    """Return how many mappings and list entries a schedule is made of."""
    if isinstance(spec, Mapping):
        return 1 + sum(_parts(value) for value in spec.values())
    return sum(max(1, _parts(entry)) for entry in spec) if isinstance(spec, list | tuple) else 0


def normalise(spec: Any, where: str = "") -> dict[str, Any]:
    """Return ``spec`` as a dict with all defaults, the same for all that mean the same.

    Numbers become floats and ``{"kind": "constant"}``; keys that are absent by default stay so.
    Raises a UserError where the schedule is not valid.
    """
    if _is_number(spec) or spec in RANGE_WORDS:
        spec = {"kind": "constant", "value": spec}
    if not isinstance(spec, Mapping):
        raise _wrong(where, spec, "a number, or {kind: ...} with the keys of that kind")
    if "kind" not in spec:
        raise UserError(f"{_at(where)}a schedule needs a `kind`: {choices(KINDS)}")
    kind = spec["kind"]
    if not isinstance(kind, str) or kind not in KINDS:
        raise UserError(
            f"{_join(where, 'kind')}: unknown kind {kind!r}.{nearest(kind, KINDS)} "
            f"Kinds: {choices(KINDS)}"
        )
    given = {key: value for key, value in spec.items() if key != "kind"}
    full = {"kind": kind} | _fields(KINDS[kind], given, where, f"of kind {kind!r}")
    if kind in _RULES:
        _RULES[kind](full, where)
    if kind in _NO_CLOCK or full["clock"] == "update":
        del full["clock"]
    return full


def words(spec: Any) -> bool:
    """Say whether a schedule needs the bounds of a learning-rate range test."""
    if isinstance(spec, Mapping):
        return any(words(value) for value in spec.values())
    if isinstance(spec, list | tuple):
        return any(words(value) for value in spec)
    return isinstance(spec, str) and spec in RANGE_WORDS


def is_constant(spec: Any) -> bool:
    """Say whether a valid schedule surely has one value throughout."""
    full = normalise(spec)
    kind = full["kind"]
    if kind in ("reciprocal", "power_of_two"):
        return is_constant(full["of"])
    if kind == "product":
        return all(is_constant(factor) for factor in full["of"])
    if kind == "triangular":
        return full["low"] == full["high"] and full["mode"] != "exp_range_bounds"
    ends = {"cycle": ("easy", "hard"), "linear": ("start", "end"), "decay": ("high", "low")}
    ends["exp_sweep"] = ends["ramp"] = ends["epoch_ramp"] = ("start", "end")
    if kind in ends:
        first, second = ends[kind]
        return bool(full[first] == full[second])
    return kind == "constant"


def check_batch(spec: Any, where: str) -> None:
    """Raise a UserError unless ``spec`` can be a batch size, which must not need the clock."""
    check(spec, where)
    full = normalise(spec, where)
    if full["kind"] not in BATCH_KINDS:
        raise UserError(
            f"{_join(where, 'kind')}: {full['kind']!r} cannot be a batch size, which is fixed "
            f"before the number of updates is known. Kinds: {choices(BATCH_KINDS)}"
        )
    if full["kind"] == "power_of_two":
        return check_batch(full["of"], _join(where, "of"))
    for key in ("value", "easy", "hard"):
        if key in full and (isinstance(full[key], str) or not 1 <= full[key] <= MOST_SAMPLES):
            limits = f"a number of samples, at least 1 and at most {MOST_SAMPLES:,}"
            raise _wrong(_join(where, key), full[key], limits)
    return None


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)


def _fields(cls: type, given: dict[Any, Any], where: str, what: str) -> dict[str, Any]:
    """Return the keys of ``cls`` from ``given`` or by default, without those that are None."""
    hints = _hints(cls)
    known = {item.name: item for item in fields(cls)}
    for name in given:
        if name not in known:
            raise UserError(
                f"{_join(where, name)}: unknown key {name!r} {what}.{nearest(name, known)} "
                f"Keys: {choices(known)}"
            )
    full = {}
    for name, item in known.items():
        value = given.get(name, item.default)
        if value is MISSING:
            raise UserError(f"{_join(where, name)}: missing; a schedule {what} needs it")
        if value is None and item.default is None:
            continue
        full[name] = _value(value, hints[name], item.metadata, _join(where, name))
    return full


def _value(value: Any, hint: Any, limits: Mapping[str, Any], where: str) -> Any:
    """Return one key's value in its own type; ``hint`` is the annotation of its field."""
    if hint in (float, float | None, Number):
        return _number(value, limits, where, range_words=hint == Number)
    if hint is int:
        return int(_number(value, limits, where, whole=True))
    if hint is bool:
        if not isinstance(value, bool):
            raise _wrong(where, value, "true or false")
        return value
    if hint == Schedule:
        return normalise(value, where)
    if get_origin(hint) is Literal:
        allowed = get_args(hint)
        if value not in allowed:
            raise _wrong(where, value, ", ".join(allowed), nearest(value, allowed))
        return value
    if not isinstance(value, list | tuple) or not value:
        raise _wrong(where, value, "a list with at least one entry")
    inner = get_args(hint)[0]
    return [_item(entry, inner, limits, f"{where}[{i}]") for i, entry in enumerate(value)]


def _item(value: Any, hint: Any, limits: Mapping[str, Any], where: str) -> Any:
    if hint is not Stage:
        return _value(value, hint, limits, where)
    if not isinstance(value, Mapping):
        raise _wrong(where, value, "{fraction: ..., schedule: ...}")
    return _fields(Stage, dict(value), where, "of a stage")


def _number(
    value: Any,
    limits: Mapping[str, Any],
    where: str,
    *,
    range_words: bool = False,
    whole: bool = False,
) -> float | str:
    """Return a finite number within its limits as a float, or a word of the range test."""
    if range_words and isinstance(value, str) and value in RANGE_WORDS:
        return value
    parts = ["a whole number" if whole else "a number"]
    for name, sign in (("low", ">="), ("above", ">"), ("high", "<="), ("below", "<")):
        if name in limits:
            parts.append(f"{sign} {limits[name]:g}")
    allowed = " ".join([parts[0], " and ".join(parts[1:])]).strip()
    if range_words:
        allowed += ", or " + " or ".join(RANGE_WORDS)
    valid = _is_number(value) and (not whole or float(value).is_integer())
    if not valid or not (
        limits.get("low", -math.inf) <= value <= limits.get("high", math.inf)
        and limits.get("above", -math.inf) < value < limits.get("below", math.inf)
    ):
        raise _wrong(where, value, allowed)
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _one_of(full: dict[str, Any], first: str, second: str, where: str) -> None:
    if (first in full) == (second in full):
        found = "both" if first in full else "neither"
        raise UserError(f"{_at(where)}give either `{first}` or `{second}` (found {found})")


def _triangular(full: dict[str, Any], where: str) -> None:
    _one_of(full, "cycles", "step_epochs", where)
    if full["mode"].startswith("exp_range"):
        _one_of(full, "gamma", "end", where)
        return
    for name in ("gamma", "end"):
        if name in full:
            raise UserError(
                f"{_join(where, name)}: mode {full['mode']!r} has no {name} "
                "(modes that have: exp_range, exp_range_bounds)"
            )


def _cycle(full: dict[str, Any], where: str) -> None:
    if full["order"] in ("easy-hard", "hard-easy"):
        full["factor"] = 1.0


def _staged(full: dict[str, Any], where: str) -> None:
    total = sum(stage["fraction"] for stage in full["stages"])
    if abs(total - 1) > 1e-6:
        raise UserError(f"{_join(where, 'stages')}: the fractions add up to {total:g}, not 1")


def _divisor(full: dict[str, Any], where: str) -> None:
    inner = full["of"]
    if inner["kind"] == "constant" and inner["value"] == 0:
        raise _wrong(_join(where, "of"), 0, "a value above 0")


_RULES: dict[str, Callable[[dict[str, Any], str], None]] = {
    "triangular": _triangular,
    "cycle": _cycle,
    "exponential": lambda full, where: _one_of(full, "gamma", "end", where),
    "staged": _staged,
    "reciprocal": _divisor,
    "power_of_two": _divisor,
}


def _join(where: str, key: object) -> str:
    return f"{where}.{key}" if where else str(key)


def _at(where: str) -> str:
    return f"{where}: " if where else ""


def _wrong(where: str, value: Any, allowed: str, hint: str = "") -> UserError:
    """Return the error for a value that is not allowed."""
    if isinstance(value, str):
        # YAML 1.1 reads 1e-3 as text: a number there needs its decimal point.
        with suppress(ValueError):
            hint = f" This is text; as a number write {float(value):.1e}."
    return UserError(f"{_at(where)}{value!r:.80} is not allowed; allowed: {allowed}.{hint}")
