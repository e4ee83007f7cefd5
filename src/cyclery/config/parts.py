"""Settings about parts of networks: what a run starts from, what is frozen, numbers by part.

What a part is, stands in ``cyclery.engine.parts``. Whether a run has it, ``cyclery.plan`` checks.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from cyclery.common.errors import HERE, UserError, choices, nearest
from cyclery.engine.parts import FEATURES, HEAD, USUAL

_NAME = r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*"
_KEYS = ("from", "parts", "head")
_HEADS = ("keep", "fresh")
MOST_RATE = 1e6

_PART = {"type": "string", "pattern": f"^{_NAME}$"}
PARTS = {"type": "array", "items": _PART, "minItems": 1, "uniqueItems": True}
# Numbers by part, such as rates: above 0.
RATES = {
    "type": "object",
    "patternProperties": {
        f"^{_NAME}$": {"type": "number", "exclusiveMinimum": 0, "maximum": MOST_RATE}
    },
    "minProperties": 1,
}
START = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "object",
            "properties": {
                "from": {"type": "string"},
                "parts": PARTS,
                "head": {"enum": list(_HEADS)},
            },
            "required": ["from"],
            "additionalProperties": False,
        },
    ]
}


def start(value: Any) -> dict[str, Any]:
    """Return ``init`` as keys and values: ``from``, and perhaps ``parts`` and ``head``."""
    if isinstance(value, str):
        return {"from": value}
    if not isinstance(value, dict):
        raise UserError(
            f"{HERE}: must be the name of a parent, or keys and values with `from` "
            f"(found {value!r:.80})."
        )
    for key in value:
        if key not in _KEYS:
            raise UserError(
                f"{HERE}: unknown key {key!r:.80}.{nearest(key, _KEYS)} Allowed: {choices(_KEYS)}."
            )
    found = {key: item for key, item in value.items() if item is not None}
    if not isinstance(found.get("from"), str):
        raise UserError(f"{HERE}.from: must be the name of a parent (found {value.get('from')!r}).")
    head = found.get("head", "keep")
    if head not in _HEADS:
        raise UserError(f"{HERE}.head: must be one of {choices(_HEADS)} (found {head!r:.80}).")
    if "parts" in found:
        found["parts"] = _parts(found["parts"], f"{HERE}.parts")
        if head == "fresh" and HEAD in found["parts"]:
            raise UserError(
                f"{HERE}.head: fresh is not the parent's, which `parts` takes; drop one of them."
            )
    return found


def frozen(value: Any) -> list[str]:
    """Return the parts that are frozen."""
    return _parts(value, HERE)


def rates(value: Any) -> dict[str, float]:
    """Return the factors of the learning rate by part."""
    return _numbers(value, "factors")


def clip_values(value: Any) -> dict[str, float]:
    """Return the bounds on the entries of gradients by part."""
    return _numbers(value, "bounds")


def _numbers(value: Any, what: str) -> dict[str, float]:
    """Return numbers above 0 by part."""
    if not isinstance(value, dict) or not value:
        raise UserError(f"{HERE}: must map parts to {what} (found {value!r:.80}).")
    _parts(list(value), HERE)
    for part, factor in value.items():
        number = isinstance(factor, int | float) and not isinstance(factor, bool)
        if not number or not math.isfinite(factor) or not 0 < factor <= MOST_RATE:
            advice = f"; to freeze it, set `frozen: [{part}]`" if number and factor == 0 else ""
            raise UserError(
                f"{HERE}.{part}: must be a number above 0 and at most {MOST_RATE:g} "
                f"(found {factor!r:.80}){advice}."
            )
    return {_own(part): float(factor) for part, factor in value.items()}


def resolved(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the resolved keys about parts; those that say nothing are absent."""
    found: dict[str, Any] = {"init": None, "init_share": None}
    share = given.get("init_share")
    if (begins := given.get("init")) is not None:
        found |= {"init": begins["from"], "init_share": float(share or 1)}
        if (taken := _taken(begins)) is not None:
            if found["init_share"] < 1:
                raise UserError(
                    f"init_share: is of a whole network, and `init` takes parts of one "
                    f"({', '.join(taken)}); drop one of them (found {share})."
                )
            found["init_parts"] = taken
    elif share is not None:
        raise UserError(f"init_share: needs `init`, a parent to start from (found {share}).")
    if rest := given.get("frozen"):
        if (found["init_share"] or 1) < 1:
            raise UserError(
                "frozen: batch norm is measured anew at the start with `init_share` below 1 "
                f"(found {share}), which a frozen part does not allow; drop one of them."
            )
        found["frozen"] = sorted(rest)
    factors = given.get("rates") or {}
    for part in factors:
        if part in found.get("frozen", ()):
            raise UserError(f"rates: {part!r} is frozen, so it has no rate; drop one of them.")
    if factors and given["optimiser"].get("clip"):
        # LARS then bounds its trust ratio by the rate, so that a change is not proportional to it.
        raise UserError("rates: are not possible with `clip: true` of the optimiser; drop one.")
    if any(factor != 1 for factor in factors.values()):
        found["rates"] = dict(sorted(factors.items()))
    if bounds := given.get("clip_values"):
        found["clip_values"] = dict(sorted(bounds.items()))
    return found


def takes_head(begins: Mapping[str, Any] | None) -> bool:
    """Return whether ``init`` says that the parent's head comes along, so that it is meant."""
    return begins is not None and (
        begins.get("head") == "keep"
        or any(part.split(".")[0] == HEAD for part in begins.get("parts", ()))
    )


def _taken(begins: Mapping[str, Any]) -> list[str] | None:
    """Return the parts that a run takes of its parent; None where that is the whole network."""
    head = begins.get("head")
    taken = set(begins.get("parts", USUAL if head != "fresh" else (FEATURES,)))
    if head == "keep":
        taken.add(HEAD)
    return None if taken == set(USUAL) else sorted(taken)


def _parts(value: Any, where: str) -> list[str]:
    """Return a list of parts, those inside the network without `main.` before them."""
    if not isinstance(value, list) or not value:
        raise UserError(f"{where}: must be a list of parts, as [features] (found {value!r:.80}).")
    found: list[str] = []
    for part in value:
        if not isinstance(part, str) or not re.fullmatch(_NAME, part) or _own(part) == "main":
            raise UserError(
                f"{where}: a part is features, head, or the name of a module, as stem or blocks.0 "
                f"(found {part!r:.80})."
            )
        found.append(_own(part))
    twice: Iterable[str] = (part for part in found if found.count(part) > 1)
    if (part := next(iter(twice), None)) is not None:
        raise UserError(f"{where}: names {part!r} twice; drop one of them.")
    return found


def _own(part: str) -> str:
    return part.removeprefix("main.")
