"""Merge the configuration layers of an arm into complete, canonical, validated settings.

The result is the plain dict that is hashed into run keys and that the trainer runs on. Two ways
of writing the same thing give the same dict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from cyclery import augment, methods, models, optim, probes, schedules
from cyclery.common.errors import UserError, choices, nearest
from cyclery.common.settings import plain, read
from cyclery.config import parts
from cyclery.config.columns import batches_of, check_columns
from cyclery.config.components import QUANTITIES, check_layer, names, resolved_probes
from cyclery.config.settings import Settings
from cyclery.data import sizes, split_settings
from cyclery.data.dataset import Dataset
from cyclery.engine import ENGINE_VERSION
from cyclery.methods import Stream
from cyclery.methods._streams import FINEST, MU, OWN, TRAIN, UNLABELLED
from cyclery.models import heads
from cyclery.records.record import ArmSettings

# What a run uses where no layer says otherwise.
DEFAULTS: dict[str, Any] = {
    "split": {},
    "head": {"name": heads.DEFAULT},
    "method": {"name": "supervised"},
    "optimiser": {"name": "sgd"},
    "momentum": 0.9,
    "weight_decay": 0.0,
    "weight_decay_norm": 0.0,
    "augment": [],
    "strong": [],
    "mu": 1,
    "ema_buffers": "shared",
    "compile": False,
    "precision": "fp32",
    "deterministic": True,
    "threads": 1,
    "evaluations": 10,
}
# Five times as many as the longest run of a shipped paper.
MOST_UPDATES = 5_000_000
REQUIRED = ("dataset", "model", "lr", "batch", "epochs")
COMPONENTS = ("model", "head", "method", "optimiser")
_SETTINGS = set(Settings.model_fields)
# Views that every run has: images as they are, by `augment`, by `augment` and `strong`.
VIEWS = ("plain", "weak", "strong")


def merge(layers: Iterable[Settings]) -> dict[str, Any]:
    """Return the settings of all layers, later ones over earlier ones.

    ``split`` merges key by key. A component merges with the same component below it and replaces
    another one. Null takes a setting back to its default.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.model_dump(exclude_unset=True, include=_SETTINGS).items():
            below = merged.get(key) or DEFAULTS.get(key) or {}
            if key == "split" and value is not None:
                merged[key] = {**below, **value}
            elif key in COMPONENTS and value is not None:
                same = value.get("name", below.get("name")) == below.get("name")
                merged[key] = {**below, **value} if same else value
            else:
                merged[key] = value
    return merged


def resolve(merged: dict[str, Any], datasets: Mapping[str, Dataset]) -> ArmSettings:
    """Return canonical settings without a seed; a UserError begins with the key that is wrong.

    ``datasets`` are those of the project by name.
    """
    given = {**DEFAULTS, **{key: value for key, value in merged.items() if value is not None}}
    missing = [key for key in REQUIRED if key not in given]
    if missing:
        raise UserError(
            f"{missing[0]}: missing; it has no default, so this tier, the paper, the experiment or "
            "the arm must set it."
        )
    dataset = _dataset(given["dataset"], datasets)
    method, quantities = _method(given["method"])
    columns = {key: given[key] for key in QUANTITIES if key in given} | quantities
    split = split_settings.canonical(split_settings.parse(given["split"]), dataset, datasets)
    # What the network sees, not what the dataset has.
    shape = split_settings.resolution(split, dataset.shape)
    model = _model(given["model"], shape)
    probed = _probes(given, model)
    settings = {
        "engine": ENGINE_VERSION,
        "method": method,
        "dataset": {"name": dataset.name, "identity": dataset.identity},
        "split": split,
        "model": model,
        **_head(given["head"]),
        "optimiser": _optimiser(given["optimiser"]),
        "schedules": {
            **{key: schedules.normalise(spec, key) for key, spec in sorted(columns.items())},
            "batch": schedules.normalise(given["batch"], "batch"),
        },
        **_views(given, split, method, columns, shape, probed.get("probes", {})),
        **probed,
        "epoch_images": given.get("epoch_images"),
        "ema_buffers": _ema_buffers(given, method, model, columns),
        **parts.resolved(given),
        "draw": given.get("draw"),
    }
    for key in ("epochs", "precision", "compile", "deterministic", "threads", "evaluations"):
        settings[key] = given[key]
    # Every key was checked by the model that declares it.
    return cast(ArmSettings, settings)


def _probes(given: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    """Return the probes under their key; nothing where there are none."""
    if not given.get("probes"):
        return {}
    if not models.settings_type(model["name"]).FEATURES:
        raise UserError(
            f"probes: the network {model['name']!r} has no features before a head; choose another "
            "one, or leave `probes` out."
        )
    return {"probes": resolved_probes(given["probes"], "probes")}


def _dataset(name: str, datasets: Mapping[str, Dataset]) -> Dataset:
    try:
        return datasets[name]
    except UserError as error:
        raise UserError(f"dataset: {error}") from None


def check_ignored(own: dict[str, Any] | None, settings: ArmSettings) -> None:
    """Raise a UserError where what an arm itself says of its method has no effect.

    ``own`` is the method as the arm's own layer has it; ``settings`` are resolved.
    """
    name = settings["method"]["name"]
    if own is None or own.get("name", name) != name:
        return
    method = methods.load(name)
    for key, choice in method.ignored(method.chosen(settings["method"]["settings"])).items():
        if key in own:
            raise UserError(
                f"method.{key}: nothing reads it with `{choice}` (found {own[key]!r:.80}); drop "
                f"it, or choose another `{choice.partition(':')[0]}`."
            )


def _ema_buffers(
    given: dict[str, Any],
    method: dict[str, Any],
    model: dict[str, Any],
    columns: dict[str, Any],
) -> str | None:
    """Return how the averaged network gets its running statistics; None where nothing averages.

    Raises a UserError for statistics of its own that no pass would ever measure.
    """
    if "ema_decay" not in columns:
        return None
    kind: str = given["ema_buffers"]
    declared = methods.load(method["name"])
    measured = declared.trains_ema(declared.chosen(method["settings"]))
    if kind == "own" and not measured and models.check(**model).batch_norm:
        raise UserError(
            "ema_buffers: own needs a method that runs the averaged network in training mode, "
            f"which {method['name']!r} as set here does not, so its batch norm would never measure "
            "anything; choose shared or average."
        )
    return kind


def _views(
    given: dict[str, Any],
    split: dict[str, Any],
    method: dict[str, Any],
    columns: dict[str, Any],
    shape: tuple[int, int, int],
    probed: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what the method's views are made with; what it asks for none of is left out.

    So a supervised run has the same key whatever its experiment says of unlabelled samples, as long
    as no probe measures them.
    """
    declared = methods.load(method["name"])
    chosen = declared.chosen(method["settings"])
    streams = declared.streams(chosen)
    kinds = {kind for stream in streams.values() for kind in stream.views}
    name = f"the method {method['name']!r}"
    pools = {each.pool.partition(".")[0] for each in streams.values()}
    measured = {part for probe in probed.values() for part in probes.needs(probe)}
    # A pool of the method's own may be filled with any sample.
    if not (pools | measured) & {UNLABELLED, OWN}:
        split_settings.without_unlabelled(split)
    elif UNLABELLED in pools and split["unlabelled"] is None:
        raise UserError(
            f"split.unlabelled: {name} trains on unlabelled samples; set it to all or rest."
        )
    if "strong" in kinds and not given["strong"]:
        raise UserError(f"strong: {name} asks for strong views; list the augmentations of one.")
    if declared.uses_ema(chosen) and "ema_decay" not in columns:
        raise UserError(f"ema_decay: {name} reads averaged weights; set their decay, as 0.999.")
    weak = _ops("augment", given["augment"], columns, shape)
    strong = given["strong"] if "strong" in kinds else []
    # The two lists are one pipeline: what must come last in it must come last in both.
    both = _ops("strong", [*given["augment"], *strong], columns, shape)
    further = {}
    for kind in sorted(kinds - set(VIEWS)):
        if kind not in (own := given.get("views") or {}):
            known = (*VIEWS, *own)
            raise UserError(
                f"views: {name} asks for a view {kind!r}; list its augmentations under this name."
                f"{nearest(kind, known)} Views: {choices(known)}."
            )
        further[kind] = _ops(f"views.{kind}", own[kind], columns, shape)
    return {
        "augment": weak,
        "strong": both[len(weak) :],
        **({"views": further} if further else {}),
        "mu": given["mu"] if any(each.times == MU for each in streams.values()) else None,
    }


def _ops(
    key: str, spec: list[dict[str, Any]], columns: dict[str, Any], shape: tuple[int, int, int]
) -> list[dict[str, Any]]:
    found = []
    for entry, op in zip(spec, augment.check(spec, shape, key), strict=True):
        if op.needs_magnitude and "magnitude" not in columns:
            raise UserError(f"{key}: {entry['op']} as set here needs the key `magnitude`.")
        found.append({"op": entry["op"], **plain(op)})
    return found


def budget(settings: ArmSettings, datasets: Mapping[str, Dataset]) -> dict[str, int]:
    """Return what a run costs, on one of the project's ``datasets``.

    ``samples`` make an epoch, ``updates`` are made, ``images`` are the samples of its first stream
    (the labelled ones), ``views`` all images that it is trained on, ``forwards`` those that pass a
    network forwards.

    Raises a UserError that begins with the key where a schedule, the batch or the split asks for
    more than the run has.
    """
    counts = sizes.counts(datasets[settings["dataset"]["name"]], settings["split"])
    counts[FINEST] = counts[TRAIN]
    method, mu = settings["method"], settings["mu"]
    declared = methods.load(method["name"])
    chosen = declared.chosen(method["settings"])
    streams = declared.streams(chosen)
    first, *_ = streams.values()
    if first.pool == OWN and not settings["epoch_images"]:
        raise UserError(
            f"epoch_images: the method {method['name']!r} chooses its samples itself; set how many "
            "make an epoch."
        )
    _check_there(streams, counts)
    samples = settings["epoch_images"] or counts[TRAIN if first.pool == OWN else first.pool]
    batches = batches_of(settings)
    largest = int(batches.max())
    if largest > samples:
        raise UserError(
            f"batch: must be at most {samples}, the labelled samples of an epoch "
            f"(found {largest}); lower `batch` or raise `split.labels` or `epoch_images`."
        )
    sizes_of = sorted(set(batches.tolist()))
    classes = split_settings.class_count(
        settings["split"], datasets[settings["dataset"]["name"]].classes
    )
    _check_pools(streams, counts, sizes_of, mu, classes)
    for label, probe in settings.get("probes", {}).items():
        probes.check(probe, counts, classes, f"probes.{label}")
        open_set = settings["split"].get("open_set") or {}
        if probes.looks_for_unknown(probe) and not open_set.get("contamination"):
            raise UserError(
                f"probes.{label}: the probe {probe['name']}, as set here, is about unknown classes "
                "of the unlabelled pool, which has none; set `split.open_set` with a "
                "`contamination` above 0."
            )
    steps = samples // batches
    if (updates := int(steps.sum())) > MOST_UPDATES:
        raise UserError(
            f"{'epoch_images' if settings['epoch_images'] else 'epochs'}: a run makes at most "
            f"{MOST_UPDATES:,} updates, since every schedule is written out for all of them "
            f"(found {updates:,}); train for fewer epochs of fewer samples, or raise `batch`."
        )
    check_columns(settings, samples, batches, counts.get(first.pool, 0))
    spent = {int(size): declared.spent(chosen, int(size), mu) for size in sizes_of}
    each = np.array([spent[size] for size in batches.tolist()])
    views, forwards = (steps[:, None] * each).sum(0).tolist()
    return {
        "samples": samples,
        "updates": updates,
        "images": int((steps * batches).sum()),
        "views": views,
        "forwards": forwards,
    }


def _check_there(streams: Mapping[str, Stream], counts: Mapping[str, int]) -> None:
    """Raise a UserError where a split does not have the pool of a stream, or no sample in it."""
    for name, stream in streams.items():
        if stream.pool == OWN:
            continue
        if stream.pool not in counts:
            raise UserError(
                f"split.hierarchy: the stream {name!r} takes the pool {stream.pool}, which this "
                f"split does not have (it has {choices(counts)})."
            )
        if not counts[stream.pool]:
            raise UserError(f"split: the pool {stream.pool} of the stream {name!r} is empty.")


def _check_pools(
    streams: Mapping[str, Stream],
    counts: Mapping[str, int],
    batches: Sequence[int],
    mu: int | None,
    classes: int,
) -> None:
    """Raise a UserError where a pool cannot give what a stream asks of it at each batch size."""
    for name, stream in streams.items():
        if stream.classes and stream.classes > classes:
            raise UserError(
                f"method: the stream {name!r} takes samples of {stream.classes} classes at each "
                f"update, where there are {classes}; choose fewer."
            )
        for batch in batches:
            size = stream.size(batch, mu)
            if stream.sampler == "poisson" and size > counts[stream.pool]:
                raise UserError(
                    "batch: a Poisson stream takes each sample with the probability batch / "
                    f"samples, which must be at most 1 (found {size} / {counts[stream.pool]} for "
                    f"{name!r}); lower `batch`."
                )
            if stream.classes and size % stream.classes:
                raise UserError(
                    f"batch: the stream {name!r} takes as many samples of each of {stream.classes} "
                    f"classes, so it must be a multiple of that (found {size})."
                )


def _settings(kind: str, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return a component's name and settings."""
    if "name" not in given:
        raise UserError(
            f"{kind}: `name` is missing here and in every layer below. "
            f"There are: {choices(names(kind))}."
        )
    return given["name"], {key: value for key, value in given.items() if key != "name"}


def _model(given: dict[str, Any], shape: tuple[int, int, int]) -> dict[str, Any]:
    name, settings = _settings("model", given)
    return {"name": name, "settings": models.check(name, settings, shape).resolved()}


def _head(given: dict[str, Any]) -> dict[str, Any]:
    """Return the head under its key; nothing where it is the one that every network has."""
    if given == DEFAULTS["head"]:
        return {}
    name, settings = _settings("head", given)
    head = heads.resolve(name, settings)
    return {} if head is None else {"head": head}


def _optimiser(given: dict[str, Any]) -> dict[str, Any]:
    name, settings = _settings("optimiser", given)
    found: Any = read(optim.settings_type(name), settings, "optimiser")
    return {"name": name, "settings": plain(found)}


def _method(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the method's name, version and static settings, and its quantities."""
    # The layers were checked one by one, but one without a name could not be.
    check_layer("method", given, "method")
    name, settings = _settings("method", given)
    method = methods.load(name)
    defaults = plain(method.settings_type())
    quantities = {key: settings.pop(key, defaults[key]) for key in method.quantities}
    full = plain(read(method.settings_type, settings, "method"))
    static = {key: value for key, value in full.items() if key not in method.quantities}
    # As with views that a method asks none of: layers below may set them for other arms.
    for key in method.ignored(method.chosen(static)):
        (quantities if key in quantities else static)[key] = defaults[key]
    return {"name": name, "version": method.version, "settings": static}, quantities
