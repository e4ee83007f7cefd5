"""Validate names and settings of components and quantities in one configuration layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cyclery import methods, models, optim, probes, schedules
from cyclery.common.errors import UserError, choices, nearest
from cyclery.common.settings import check_limits, read_layer
from cyclery.models import heads

# Quantities of the engine, and limits beyond those of every schedule (numbers from 0).
QUANTITIES: dict[str, dict[str, float]] = {
    "lr": {},
    "momentum": {"below": 1},
    "weight_decay": {},
    "weight_decay_norm": {},
    "clip_norm": {},
    "magnitude": {"high": 10},
    "ema_decay": {"high": 1},
}

# What a probe measures unless it is told otherwise: the vectors before the head.
FEATURES = "features"

_FOUND: dict[str, Any] = {"model": models, "head": heads, "method": methods, "optimiser": optim}


def names(kind: str) -> list[str]:
    """Return the names of a kind of component: model, head, method or optimiser."""
    return list(_FOUND[kind].names())


def check_name(kind: str, name: Any, where: str) -> str:
    """Return the name of a component; a UserError names those that there are."""
    if not isinstance(name, str) or name not in names(kind):
        raise UserError(
            f"{where}: unknown {kind} {name!r:.80}.{nearest(name, names(kind))} "
            f"There are: {choices(names(kind))}."
        )
    return name


def check_layer(kind: str, given: Mapping[str, Any], where: str) -> None:
    """Raise a UserError for a mistake in what one layer says of a component.

    The layer may leave the name, and any setting, to the layers below it.
    """
    if "name" not in given:
        return
    name = check_name(kind, given["name"], where)
    rest = {key: value for key, value in given.items() if key != "name"}
    if kind != "method":
        read_layer(_FOUND[kind].settings_type(name), rest, where)
        return
    method = methods.load(name)
    read_layer(method.settings_type, rest, where, skip=method.quantities)
    for key in method.quantities:
        if key in rest:
            _no_words(rest[key], f"{where}.{key}")
            check_limited(rest[key], method.limits(key), f"{where}.{key}")


def resolved_probes(given: Mapping[str, Any], where: str) -> dict[str, dict[str, Any]]:
    """Return the probes of an arm by label, complete; a UserError says what is wrong with them."""
    found = {}
    for label, probe in given.items():
        at = f"{where}.{label}"
        if not isinstance(probe, Mapping) or "name" not in probe:
            raise UserError(f"{at}: must be keys and values with `name` (found {probe!r:.80}).")
        settings = {key: value for key, value in probe.items() if key not in ("name", "of")}
        if not isinstance(of := probe.get("of", FEATURES), str):
            raise UserError(f"{at}.of: must be the name of features (found {of!r:.80}).")
        found[label] = {**probes.resolve(probe["name"], settings, at), "of": of}
    probes.recorded(found, where)
    return found


def check_quantity(name: str, spec: Any, where: str) -> None:
    """Raise a UserError unless ``spec`` is a schedule whose values suit the quantity ``name``."""
    if name != "lr":
        _no_words(spec, where)
    check_limited(spec, QUANTITIES[name], where)


def _no_words(spec: Any, where: str) -> None:
    if schedules.words(spec):
        raise UserError(
            f"{where}: range.base and range.max are learning rates, so only `lr` can take them."
        )


def check_limited(spec: Any, limits: Mapping[str, Any], where: str) -> None:
    """Raise a UserError unless ``spec`` is a schedule whose values are within ``limits``."""
    schedules.check(spec, where)
    for place, number in schedules.amounts(spec, where):
        check_limits(number, limits, place)
