"""Layer configuration into the settings of an arm: complete, canonical and checked.

The result is the plain dict that is hashed into run keys and that the trainer runs on. Two ways
of writing the same thing give the same dict.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from cyclery import augment_settings, methods, models, optim_settings, schedules
from cyclery.config.models import Settings
from cyclery.data import registry, sizes
from cyclery.engine import ENGINE_VERSION
from cyclery.errors import UserError, choices, nearest
from cyclery.fields import check_limits, parse, plain

# What a run uses where no layer says otherwise.
DEFAULTS: dict[str, Any] = {
    "split": {},
    "method": {"name": "supervised"},
    "optimiser": {"name": "sgd"},
    "momentum": 0.9,
    "weight_decay": 0.0,
    "weight_decay_norm": 0.0,
    "augment": [],
    "precision": "fp32",
    "deterministic": True,
    "threads": 1,
    "evaluations": 10,
}
SPLIT_DEFAULTS: dict[str, Any] = {
    "test": None,
    "validation": 0,
    "labels": None,
    "per_class": None,
    "choose": "random",
    "imbalance": None,
}
REQUIRED = ("dataset", "model", "lr", "batch", "epochs")
RATES = ("lr", "momentum", "weight_decay", "weight_decay_norm", "clip_norm", "magnitude")
COMPONENTS = ("model", "method", "optimiser")


def merge(layers: Iterable[Settings]) -> dict[str, Any]:
    """Return the settings of all layers, later ones over earlier ones.

    ``split`` merges key by key. A component merges with the same component below it and replaces
    another one.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.model_dump(exclude_unset=True, include=_SETTINGS).items():
            if key == "split" and value is not None:
                merged[key] = {**merged.get(key, {}), **value}
            elif key in COMPONENTS and value is not None:
                below = merged.get(key, {})
                same = value.get("name", below.get("name")) == below.get("name")
                merged[key] = {**below, **value} if same else value
            else:
                merged[key] = value
    return merged


_SETTINGS = set(Settings.model_fields)


def resolve(merged: dict[str, Any], where: str) -> dict[str, Any]:
    """Return canonical settings without a seed; a UserError names ``where`` and the key."""
    given = {**DEFAULTS, **{key: value for key, value in merged.items() if value is not None}}
    missing = [key for key in REQUIRED if key not in given]
    if missing:
        raise UserError(f"{where}: {', '.join(missing)} not set in the tier, experiment or arm.")
    dataset = registry.get(_name({"name": given["dataset"]}, registry.DATASETS, f"{where}.dataset"))
    method, quantities = _method(given["method"], f"{where}.method")
    columns = {key: given[key] for key in RATES if key in given} | quantities
    for key, spec in columns.items():
        _non_negative(spec, f"{where}.{key}")
    ops = augment_settings.check(given["augment"], dataset.shape, f"{where}.augment")
    if augment_settings.needs_magnitude(ops) and "magnitude" not in columns:
        raise UserError(f"{where}.augment: randaugment without `m` needs the key `magnitude`.")
    settings = {
        "engine": ENGINE_VERSION,
        "method": method,
        "dataset": {"name": dataset.name, "identity": dataset.identity},
        "split": {**SPLIT_DEFAULTS, **given["split"]},
        "model": _model(given["model"], dataset.shape, f"{where}.model"),
        "optimiser": _optimiser(given["optimiser"], f"{where}.optimiser"),
        "schedules": {
            **{key: schedules.normalise(spec) for key, spec in sorted(columns.items())},
            "batch": schedules.normalise(given["batch"]),
        },
        "augment": [
            {"op": entry["op"], **plain(op)}
            for entry, op in zip(given["augment"], ops, strict=True)
        ],
        "init": given.get("init"),
    }
    for key in ("epochs", "precision", "deterministic", "threads", "evaluations"):
        settings[key] = given[key]
    budget(settings, where)
    return settings


def budget(settings: dict[str, Any], where: str) -> dict[str, int]:
    """Return what a run costs: ``samples`` to train on, ``updates`` and ``images`` seen."""
    dataset = registry.get(settings["dataset"]["name"])
    try:
        samples = sizes.counts(dataset, settings["split"])["train"]
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    batches = schedules.epoch_batches(settings["schedules"]["batch"], settings["epochs"])
    largest = int(batches.max())
    if largest > samples:
        raise UserError(
            f"{where}.batch: a batch of {largest} is larger than the {samples} training samples "
            "of the split; lower `batch` or raise `split.labels`."
        )
    _, steps = schedules.clock_for(batches, samples)
    return {
        "samples": samples,
        "updates": int(steps.sum()),
        "images": int((steps * batches).sum()),
    }


def _name(given: dict[str, Any], known: Collection[str], where: str) -> str:
    name = given.get("name")
    if not isinstance(name, str) or name not in known:
        raise UserError(
            f"{where}: unknown {name!r}.{nearest(name, known)} Known: {choices(known)}."
        )
    return name


def _settings(given: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if key != "name"}


def _model(given: dict[str, Any], shape: tuple[int, int, int], where: str) -> dict[str, Any]:
    name = _name(given, models.SETTINGS, where)
    return {"name": name, "settings": plain(models.check(name, _settings(given), shape, where))}


def _optimiser(given: dict[str, Any], where: str) -> dict[str, Any]:
    name = _name(given, optim_settings.SETTINGS, where)
    return {
        "name": name,
        "settings": plain(parse(optim_settings.SETTINGS[name], _settings(given), where)),
    }


def _method(given: dict[str, Any], where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the method's name, version and static settings, and its quantities."""
    method = methods.load(_name(given, methods.names(), where))
    rest, quantities = _settings(given), {}
    defaults = plain(method.settings_type())
    for name in method.quantities:
        quantities[name] = rest.pop(name, defaults.pop(name))
        schedules.check(quantities[name], f"{where}.{name}")
        limits = method.limits(name)
        for number in _values(quantities[name]):
            check_limits(number, limits, f"{where}.{name}")
    settings = plain(parse(method.settings_type, rest, where))
    static = {name: value for name, value in settings.items() if name not in method.quantities}
    return {"name": method.name, "version": method.version, "settings": static}, quantities


def _values(spec: Any) -> list[float]:
    """Return the values that a quantity can start, turn or end at."""
    if isinstance(spec, int | float) and not isinstance(spec, bool):
        return [float(spec)]
    if not isinstance(spec, dict):
        return []
    values = ("value", "easy", "hard", "low", "high", "start", "end", "peak")
    return [float(spec[k]) for k in values if isinstance(spec.get(k), int | float)]


def _non_negative(spec: Any, where: str) -> None:
    """Rates, decays, weights and temperatures are never negative, in no part of a schedule."""
    if isinstance(spec, dict):
        for key, value in spec.items():
            _non_negative(value, f"{where}.{key}")
    elif isinstance(spec, list | tuple):
        for value in spec:
            _non_negative(value, where)
    elif isinstance(spec, int | float) and not isinstance(spec, bool) and spec < 0:
        raise UserError(f"{where}: must be at least 0 (found {spec}).")
