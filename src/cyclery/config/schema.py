"""JSON Schemas of the configuration files, generated from models and component settings.

A schema is as strict as one file alone allows: names, keys, types and limits. What needs the other
files, or the run, is for ``cyclery check``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import BaseModel

from cyclery import augment, methods, models, optim, probes, schedules
from cyclery.common.settings import json_schema
from cyclery.data.split_settings import Split
from cyclery.models import heads
from cyclery.schedules import QUANTITY, RANGE_WORDS

Json = dict[str, Any]


def schema(model: type, datasets: Collection[str]) -> Json:
    """Return the JSON Schema of a configuration file of a project with these datasets.

    A model or a dataclass declares it.
    """
    if issubclass(model, BaseModel):
        found = model.model_json_schema()
    else:
        found = {"title": model.__name__, "description": model.__doc__, **json_schema(model)}
    if "Settings" in found.get("$defs", {}):
        found["$defs"].update(_definitions(datasets))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_referring(found)}


def _referring(node: Any) -> Any:
    """Finish pydantic's schema: our own definitions for ``x-ref``, and no names but valid ones."""
    if isinstance(node, list):
        return [_referring(item) for item in node]
    if not isinstance(node, dict):
        return node
    found = {key: _referring(value) for key, value in node.items()}
    if "x-ref" in found:
        found["$ref"] = f"#/$defs/{found.pop('x-ref')}"
    if "patternProperties" in found:
        found["additionalProperties"] = False
    return found


def _definitions(datasets: Collection[str]) -> Json:
    known_methods = {name: methods.load(name) for name in methods.names()}
    method_types = {name: method.settings_type for name, method in known_methods.items()}
    quantities = {name: method.quantities for name, method in known_methods.items()}
    return {
        "Split": _layer(Split),
        "Dataset": {"enum": sorted(datasets)},
        "Model": _component({name: models.settings_type(name) for name in models.names()}),
        "Head": _component({name: heads.settings_type(name) for name in heads.names()}),
        "Optimiser": _component({name: optim.settings_type(name) for name in optim.names()}),
        "Method": _component(method_types, quantities),
        "Probe": _probe(),
        "Augmentation": _tagged("op", augment.ops(), needed=True),
        "Quantity": {
            "description": "a number, or a schedule",
            "anyOf": [
                {"type": "number", "minimum": 0},
                {"enum": list(RANGE_WORDS)},
                {"type": "null"},
                _tagged("kind", schedules.kinds(), needed=True),
            ],
        },
    }


def _layer(kind: type) -> Json:
    """Return the schema of what one layer says of settings: any of the keys, null for a default."""
    found = _fields(kind, needed=False)
    null = {"type": "null"}
    for name, item in found["properties"].items():
        if null not in item.get("anyOf", ()):
            beside = {key: item.pop(key) for key in ("description", "default") if key in item}
            found["properties"][name] = {"anyOf": [item, null], **beside}
    return found


def _component(
    known: Mapping[str, type], quantities: Mapping[str, Collection[str]] | None = None
) -> Json:
    """Return the schema of a component: its name, or settings with or without a name."""
    return {
        "anyOf": [{"enum": sorted(known)}, _tagged("name", known, quantities, needed=False)],
    }


def _probe() -> Json:
    """Return the schema of a probe: its name and settings, and of which features it is."""
    found = _tagged("name", {name: probes.settings_type(name) for name in probes.names()},
                    needed=True)  # fmt: skip
    for case in found["allOf"]:
        case["then"]["properties"]["of"] = {"type": "string"}
    return found


def _tagged(
    tag: str,
    known: Mapping[str, type],
    quantities: Mapping[str, Collection[str]] | None = None,
    *,
    needed: bool,
) -> Json:
    """Return the schema of keys and values of which ``tag`` says which keys there are."""
    cases = []
    for name, kind in known.items():
        case = _fields(kind, (quantities or {}).get(name, ()), needed)
        case["properties"] = {tag: {"const": name}, **case["properties"]}
        condition = {"properties": {tag: {"const": name}}, "required": [tag]}
        cases.append({"if": condition, "then": case})
    return {
        "type": "object",
        "properties": {tag: {"enum": sorted(known)}},
        **({"required": [tag]} if needed else {}),
        "allOf": cases,
    }


def _fields(kind: type, quantities: Collection[str] = (), needed: bool = True) -> Json:
    """Return the schema of the fields of a settings dataclass."""
    found = json_schema(kind)
    for name in quantities:
        doc = {key: text for key, text in found["properties"][name].items() if key == "description"}
        found["properties"][name] = {**QUANTITY, **doc}
    if not needed:
        found.pop("required", None)
    return found
