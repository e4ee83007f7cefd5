"""Settings in words, for the tables of the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cyclery.plan.model import ArmPlan

# Said only where an arm has any.
RARE = ("unlabelled samples", "strong view", "averaged running statistics", "starts from", "draw")
# What says nothing: no validation samples, and a split of its own for every seed.
PLAIN_SPLIT = {"validation": 0, "share": 1}


def describe(arms: Sequence[ArmPlan]) -> dict[str, str]:
    """Return the settings that all arms share, in words; those that differ say so."""
    shown = {
        "dataset": lambda s: s["dataset"]["name"],
        "labelled samples in an epoch": lambda s: str(s["samples"]),
        "unlabelled samples": lambda s: f"{s['mu']} per labelled one" if s["mu"] else "none",
        "split": lambda s: _words({k: v for k, v in s["split"].items() if PLAIN_SPLIT.get(k) != v}),
        "network": _network,
        "starts from": _start,
        "draw": lambda s: s["draw"] or "none",
        "method": lambda s: _component(s["method"]),
        "optimiser": lambda s: _component(s["optimiser"]),
        "augmentation": lambda s: _operations(s["augment"]),
        "strong view": lambda s: _operations(s["strong"]),
        "averaged running statistics": lambda s: s["ema_buffers"] or "none",
        "epochs": lambda s: str(s["epochs"]),
        "updates": lambda s: str(s["updates"]),
        "batch": lambda s: _schedule(s["schedules"]["batch"]),
        "precision": lambda s: s["precision"],
        "threads per run": lambda s: str(s["threads"]),
    }
    quantities = sorted({q for arm in arms for q in arm.settings["schedules"]} - {"batch"})
    texts: dict[str, str] = {}
    full = [{**arm.settings, **arm.cost} for arm in arms]
    for name, text in shown.items():
        found = list(dict.fromkeys(text(settings) for settings in full))
        if name in RARE and found == ["none"]:
            continue
        texts[name] = found[0] if len(found) == 1 else "differs by arm"
    for quantity in quantities:
        specs = [s["schedules"].get(quantity) for s in full]
        found = list(dict.fromkeys("none" if s is None else _schedule(s) for s in specs))
        texts[quantity.replace("_", " ")] = found[0] if len(found) == 1 else "differs by arm"
    return texts


def _component(value: dict[str, Any]) -> str:
    settings = _words(value["settings"])
    return f"{value['name']} ({settings})" if settings else str(value["name"])


def _network(settings: dict[str, Any]) -> str:
    """Return a network without what it has none of, such as dropout."""
    name, values = settings["model"]["name"], settings["model"]["settings"]
    present = {k: v for k, v in values.items() if isinstance(v, bool) or v != 0}
    network = _component({"name": name, "settings": present})
    head = settings.get("head")
    return f"{network}, head {_component(head)}" if head else network


def _start(settings: dict[str, Any]) -> str:
    """Return the parent whose weights start the run."""
    if settings["init"] is None:
        return "none"
    share = settings["init_share"]
    return str(settings["init"]) if share == 1 else f"{share:g} of {settings['init']}"


def _operations(ops: list[dict[str, Any]]) -> str:
    return "; ".join(map(_operation, ops)) or "none"


def _operation(op: dict[str, Any]) -> str:
    return _component({"name": op["op"], "settings": {k: v for k, v in op.items() if k != "op"}})


def _words(value: dict[str, Any]) -> str:
    return ", ".join(f"{key} {_flat(item)}" for key, item in value.items() if item is not None)


def _flat(item: Any) -> str:
    if isinstance(item, dict):
        return _words(item)
    return "-".join(_flat(v) for v in item) if isinstance(item, list) else f"{item}"


def _schedule(spec: dict[str, Any]) -> str:
    if spec["kind"] == "constant":
        value = spec["value"]
        return value if isinstance(value, str) else f"{value:g}"
    rest = {k: v for k, v in spec.items() if k not in ("kind", "of", "stages", "clock")}
    return f"{spec['kind']} ({_words(rest)})" if rest else str(spec["kind"])
