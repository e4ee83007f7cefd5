"""Parse and validate a schedule from configuration, with its defaults filled in."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, TypeAlias

from cyclery.common import settings
from cyclery.common.errors import UserError, choices
from cyclery.schedules._files import FILES, kinds, names, settings_type
from cyclery.schedules._schedule import RANGE_WORDS, Schedule

# No dataset has more, and twice as many still are a whole number everywhere.
MOST_SAMPLES = 1_000_000_000
# Nested schedules, list entries included: each is computed for every update of a run.
MOST_PARTS = 100


def check(spec: Any, where: str) -> None:
    """Raise a UserError where ``spec`` is not a valid schedule; ``where`` is its key path."""
    if (parts := _parts(spec)) > MOST_PARTS:
        raise UserError(
            f"{where}: must have at most {MOST_PARTS} parts, since each is computed for every "
            f"update (found {parts:,})."
        )
    read(spec, where)


def _parts(spec: Any) -> int:
    """Return how many mappings and list entries a schedule is made of."""
    if isinstance(spec, Mapping):
        return 1 + sum(_parts(value) for value in spec.values())
    return sum(max(1, _parts(entry)) for entry in spec) if isinstance(spec, list | tuple) else 0


def read(spec: Any, where: str = "schedule") -> Schedule:
    """Return the settings of a schedule; a UserError begins with the key that is wrong."""
    if _is_number(spec) or spec in RANGE_WORDS:
        spec = {"kind": "constant", "value": spec}
    if not isinstance(spec, Mapping):
        raise UserError(
            f"{where}: must be a number, or keys and values with `kind` (found {spec!r:.80})."
            f"{_as_number(spec)}"
        )
    if "kind" not in spec:
        raise UserError(f"{where}.kind: missing; it has no default. Schedules: {choices(names())}.")
    if (kind := spec["kind"]) not in names():
        FILES.require(kind, f"{where}.kind")
    given = {key: value for key, value in spec.items() if key != "kind"}
    return settings.read(settings_type(kind), given, where)


QUANTITY = {"x-ref": "Quantity"}
"""Where `cyclery.config.schema` puts the JSON Schema of a schedule."""
Nested: TypeAlias = Annotated[Schedule, settings.checked(read, QUANTITY)]
"""Marks a key that is a schedule within another."""


def _as_number(value: Any) -> str:
    """Return how to write text as a number: YAML 1.1 wants a decimal point in 1.0e-3."""
    if isinstance(value, str):
        with suppress(ValueError):
            return f" This is text; as a number write {float(value):.1e}."
    return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


def normalise(spec: Any, where: str = "schedule") -> dict[str, Any]:
    """Return ``spec`` as a dict with all defaults, the same for all that mean the same.

    Numbers become floats and ``{"kind": "constant"}``; keys that are absent by default stay so.
    Raises a UserError where the schedule is not valid.
    """
    return _plain(read(spec, where))


def _plain(value: Any) -> Any:
    """Return settings as JSON has them."""
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    if not is_dataclass(value):
        return value
    found = {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    found = {key: entry for key, entry in found.items() if entry is not None}
    if not isinstance(value, Schedule):
        return found
    if value.BY_EPOCH or value.clock == "update":
        del found["clock"]
    return {"kind": type(value).__module__.rpartition(".")[2], **found}


def words(spec: Any) -> bool:
    """Say whether a schedule needs the bounds of a learning-rate range test."""
    if isinstance(spec, Mapping):
        return any(words(value) for value in spec.values())
    if isinstance(spec, list | tuple):
        return any(words(value) for value in spec)
    return isinstance(spec, str) and spec in RANGE_WORDS


def amounts(spec: Any, where: str) -> Iterator[tuple[str, float]]:
    """Yield the values that a valid schedule starts, turns or ends at, each with its place.

    Only those that are written: what defaults come to is seen in the column.
    """
    if isinstance(spec, Mapping):
        for place, value in settings_type(spec["kind"]).amounts(spec, where):
            yield from amounts(value, place)
    elif _is_number(spec):
        yield where, float(spec)


def check_batch(spec: Any, where: str) -> None:
    """Raise a UserError unless ``spec`` can be a batch size, which must not need the clock."""
    check(spec, where)
    _check_batch(read(spec, where), where)


def _check_batch(schedule: Schedule, where: str) -> None:
    if not schedule.BATCH:
        allowed = choices(name for name, kind in kinds().items() if kind.BATCH)
        raise UserError(
            f"{where}.kind: must be one of {allowed}, since a batch size is fixed before the "
            f"number of updates is known (found {_plain(schedule)['kind']!r})."
        )
    for item in fields(schedule):
        value, place = getattr(schedule, item.name), f"{where}.{item.name}"
        if isinstance(value, Schedule):
            _check_batch(value, place)
        elif "amount" in item.metadata and (
            isinstance(value, str) or not 1 <= value <= MOST_SAMPLES
        ):
            found = value if isinstance(value, str) else f"{value:g}"
            raise UserError(
                f"{place}: must be a number of samples, at least 1 and at most {MOST_SAMPLES:,} "
                f"(found {found})."
            )
