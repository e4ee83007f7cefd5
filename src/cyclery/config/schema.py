"""JSON Schemas of the configuration files, for editors, from the models and component settings.

A schema is as strict as one file alone allows: names, keys, types and limits. What needs the other
files, or the run, is for ``cyclery check``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from cyclery import augment, methods, models, schedules
from cyclery.config import components
from cyclery.optim import settings as optim_settings
from cyclery.schedules import RANGE_WORDS, Number, Schedule

Json = dict[str, Any]

_TYPES = {int: "integer", float: "number", bool: "boolean", str: "string", NoneType: "null"}
_LIMITS = {
    "low": "minimum",
    "high": "maximum",
    "above": "exclusiveMinimum",
    "below": "exclusiveMaximum",
}
_QUANTITY = {"$ref": "#/$defs/Quantity"}


def schema(model: type[BaseModel]) -> Json:
    """Return the JSON Schema of a configuration file."""
    found: Json = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_referring(model.model_json_schema()),
    }
    known = found.setdefault("$defs", {})
    if "Settings" in known:
        known.update(_definitions())
    return found


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


def _definitions() -> Json:
    known_methods = {name: methods.load(name) for name in methods.names()}
    method_types = {name: method.settings_type for name, method in known_methods.items()}
    quantities = {name: method.quantities for name, method in known_methods.items()}
    return {
        "Dataset": {"enum": sorted(components.names("dataset"))},
        "Model": _component(models.SETTINGS),
        "Optimiser": _component(optim_settings.SETTINGS),
        "Method": _component(method_types, quantities),
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


def _component(
    known: Mapping[str, type], quantities: Mapping[str, Collection[str]] | None = None
) -> Json:
    """Return the schema of a component: its name, or settings with or without a name."""
    return {
        "anyOf": [{"enum": sorted(known)}, _tagged("name", known, quantities, needed=False)],
    }


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
    hints, properties = get_type_hints(kind), {}
    for item in fields(kind):
        found = _QUANTITY if item.name in quantities else _type(hints[item.name], item.metadata)
        doc = item.metadata.get("doc")
        properties[item.name] = {**found, **({"description": doc} if doc else {})}
    required = [
        item.name
        for item in fields(kind)
        if needed and item.default is MISSING and item.default_factory is MISSING
    ]
    return {
        "properties": properties,
        **({"required": required} if required else {}),
        "additionalProperties": False,
    }


def _type(hint: Any, limits: Mapping[str, Any]) -> Json:
    """Return the schema of one annotation."""
    args = get_args(hint)
    if hint is Schedule:
        return dict(_QUANTITY)
    if hint == Number:
        return {"anyOf": [_type(float, limits), {"enum": list(RANGE_WORDS)}]}
    if isinstance(hint, type) and is_dataclass(hint):
        return {"type": "object", **_fields(hint)}
    if get_origin(hint) in (Union, UnionType):
        return {"anyOf": [_type(arg, limits) for arg in args]}
    if get_origin(hint) is Literal:
        return {"enum": list(args)}
    if get_origin(hint) is tuple:
        length = {} if args[-1] is Ellipsis else {"minItems": len(args), "maxItems": len(args)}
        return {"type": "array", "items": _type(args[0], limits), **length}
    numeric = hint in (int, float)
    shown = {_LIMITS[name]: value for name, value in limits.items() if name in _LIMITS}
    return {"type": _TYPES[hint], **(shown if numeric else {})}
