"""Settings as text, for the tables of the report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence

from cyclery.plan.model import ArmPlan
from cyclery.records.record import ArmSettings, Component, SplitChoice, Values

# Said only where an arm has any.
RARE = ("unlabelled samples", "strong view", "averaged running statistics", "starts from", "frozen",
        "rates by part", "clipped gradients", "draw")  # fmt: skip
# What papers write after a network's name.
SIZES = ("hidden", "size", "depth", "growth", "width")
# What says nothing: no validation samples, and a split of its own for every seed.
PLAIN_SPLIT = {"validation": 0, "share": 1}
# What of a split has words of its own.
WORDED = (
    "noise", "hierarchy", "hierarchy_order", "coarse", "open_set", "unlabelled_imbalance",
    "resolution", "retrain",
)  # fmt: skip


def describe(arms: Sequence[ArmPlan]) -> dict[str, str]:
    """Return the settings that all arms share, in words; those that differ say so."""
    shown: dict[str, Callable[[ArmPlan], str]] = {
        "dataset": lambda a: a.settings["dataset"]["name"],
        "labelled samples in an epoch": lambda a: str(a.cost["samples"]),
        "unlabelled samples": lambda a: _unlabelled(a.settings["mu"]),
        "split": lambda a: _split(a.settings["split"]),
        "network": lambda a: _network(a.settings["model"], a.settings.get("head")),
        "starts from": lambda a: _start(a.settings),
        "frozen": lambda a: ", ".join(a.settings.get("frozen", [])) or "none",
        "rates by part": lambda a: _words(a.settings.get("rates", {})) or "none",
        "clipped gradients": lambda a: _words(a.settings.get("clip_values", {})) or "none",
        "draw": lambda a: a.settings["draw"] or "none",
        "method": lambda a: _component(a.settings["method"]),
        "optimiser": lambda a: _component(a.settings["optimiser"]),
        "augmentation": lambda a: _operations(a.settings["augment"]),
        "strong view": lambda a: _operations(a.settings["strong"]),
        "averaged running statistics": lambda a: a.settings["ema_buffers"] or "none",
        "epochs": lambda a: str(a.settings["epochs"]),
        "updates": lambda a: str(a.cost["updates"]),
        "batch": lambda a: _quantity(a, "batch"),
        "precision": lambda a: a.settings["precision"],
        "threads per run": lambda a: str(a.settings["threads"]),
    }
    quantities = sorted({q for arm in arms for q in arm.settings["schedules"]} - {"batch"})
    texts: dict[str, str] = {}
    for name, text in shown.items():
        found = list(dict.fromkeys(text(arm) for arm in arms))
        if name in RARE and found == ["none"]:
            continue
        texts[name] = found[0] if len(found) == 1 else "differs by arm"
    for quantity in quantities:
        found = list(dict.fromkeys(_quantity(arm, quantity) for arm in arms))
        texts[quantity.replace("_", " ")] = found[0] if len(found) == 1 else "differs by arm"
    return texts


def _quantity(arm: ArmPlan, name: str) -> str:
    """Return the schedule of a quantity, or that each of the arm's searches chose one."""
    trials = arm.search.arm.settings["study"]["trials"] if arm.search else []
    spec = arm.settings["schedules"].get(name)
    if len({json.dumps(trial["schedules"].get(name), sort_keys=True) for trial in trials}) > 1:
        return "searched"
    return "none" if spec is None else _schedule(spec)


def class_count(split: SplitChoice, classes: int) -> int:
    """Return how many classes an arm's network tells apart, of those that the dataset has."""
    known = split.get("open_set")
    return len(known["classes"]) if known else classes


def data(arm: ArmPlan, title: str, classes: int) -> str:
    """Return the dataset and the labels that an arm learns from: ``CIFAR-10, 40 labels``.

    ``classes`` are those of the dataset, known to the arm or not.
    """
    split = arm.settings["split"]
    labels = f"{split['labels']:,} labels" if split["labels"] else "all labels"
    if split["per_class"] and split["imbalance"]:
        labels = f"up to {split['per_class']:,} labels a class"
    elif split["per_class"]:
        labels = f"{split['per_class'] * class_count(split, classes):,} labels"
    said = (title, labels, _imbalance(split["imbalance"]), *_asked(split))
    return ", ".join(filter(None, said))


def _asked(split: SplitChoice) -> Iterator[str]:
    """Yield in words what a split asks of labels, classes and images, where it asks anything.

    Two splits that differ in these have other words.
    """
    if (part := split.get("part")) is not None:
        which = "one part a seed" if part == "seed" else f"part {part}"
        yield f"of these {which} of {split['folds']}"
    if noise := split.get("noise"):
        kind = noise["kind"]
        if noise["kind"] == "asymmetric":
            kind += f" ({_short(', '.join(f'{a} as {b}' for a, b in noise['map'].items()))})"
        where = " in training and validation" if noise["validation"] else ""
        yield f"{100 * noise['rate']:g} % {kind} label noise{where}"
    if levels := split.get("hierarchy"):
        groups = " and ".join(f"{max(level) + 1:,}" for level in levels)
        dealt = "dealt at random" if split.get("hierarchy_order") else _digest(levels)
        yield f"levels of {groups} groups ({dealt})"
    if coarse := split.get("coarse"):
        yield f"{' and '.join(f'{n:,}' for n in coarse)} coarse labels"
    if known := split.get("open_set"):
        yield f"known classes {_short('-'.join(map(str, known['classes'])))}"
        if known["pool"] is not None:
            yield f"{known['pool']:,} unlabelled"
        if known["contamination"] is not None:
            other = known.get("outliers")
            of = f"images of {other['dataset']}" if other else "of other classes"
            yield f"{100 * known['contamination']:g} % of these {of}"
    if pool := split.get("unlabelled_pool"):
        yield f"{pool:,} unlabelled"
    if imbalance := split.get("unlabelled_imbalance"):
        yield f"unlabelled {_imbalance(imbalance)}"
    if split.get("retrain"):
        yield f"{split['validation']:,} validation samples trained on, too"
    if sides := split.get("resolution"):
        yield f"{sides['stored']} pixels shown as {sides['input']}"


def _short(text: str) -> str:
    """Return a text, or its beginning and a digest of the whole where it is long."""
    return text if len(text) <= 30 else f"{text[:20]}... {_digest(text)}"


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:6]


def _imbalance(values: Values | None) -> str:
    """Return an imbalance as papers call it, or an empty text."""
    if values is None:
        return ""
    ratio = values["ratio"]
    if isinstance(ratio, float | int):
        return f"{str(values['kind']).replace('_', ' ')} 1:{1 / ratio:g}"
    return f"{str(values['kind']).replace('_', ' ')} {_flat(ratio)}"


def network(arm: ArmPlan) -> str:
    """Return a network with its size: ``resnet 20``, ``bn_mlp 128-128``."""
    model = arm.settings["model"]
    sizes = (model["settings"].get(key) for key in SIZES)
    shown = "-".join(_flat(size) for size in sizes if size not in (None, 1))
    return f"{model['name']} {shown}".strip()


def _unlabelled(mu: int | None) -> str:
    return f"{mu} per labelled one" if mu else "none"


def _split(split: SplitChoice) -> str:
    plain = {k: v for k, v in split.items() if PLAIN_SPLIT.get(k) != v and k not in WORDED}
    return ", ".join(filter(None, (_words(plain), *_asked(split))))


def _component(value: Component) -> str:
    settings = _words(value["settings"])
    return f"{value['name']} ({settings})" if settings else str(value["name"])


def _network(model: Component, head: Component | None) -> str:
    """Return a network without what it has none of, such as dropout."""
    present = {k: v for k, v in model["settings"].items() if isinstance(v, bool) or v != 0}
    network = _component({"name": model["name"], "settings": present})
    return f"{network}, head {_component(head)}" if head else network


def _start(settings: ArmSettings) -> str:
    """Return the parent whose weights start the run."""
    if settings["init"] is None:
        return "none"
    share, parts = settings["init_share"], settings.get("init_parts")
    if parts is not None:
        return f"{', '.join(parts)} of {settings['init']}"
    return str(settings["init"]) if share == 1 else f"{share:g} of {settings['init']}"


def _operations(ops: Sequence[Values]) -> str:
    return "; ".join(map(_operation, ops)) or "none"


def _operation(op: Values) -> str:
    return _component({"name": op["op"], "settings": {k: v for k, v in op.items() if k != "op"}})


def _words(value: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {_flat(item)}" for key, item in value.items() if item is not None)


def _flat(item: object) -> str:
    if isinstance(item, dict):
        return _words(item)
    return "-".join(_flat(v) for v in item) if isinstance(item, list) else f"{item}"


def _schedule(spec: Values) -> str:
    if spec["kind"] == "constant":
        value = spec["value"]
        return value if isinstance(value, str) else f"{value:g}"
    rest = {k: v for k, v in spec.items() if k not in ("kind", "of", "stages", "clock")}
    return f"{spec['kind']} ({_words(rest)})" if rest else str(spec["kind"])
