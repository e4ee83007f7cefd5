"""Probes: what is measured of a trained network's features, one file, one probe.

A file declares

- ``Settings``, a frozen dataclass whose fields each have a default and a ``doc`` in their metadata;
- ``needs(settings)``: the parts that it cannot do without, as ``("train", "validation")``;
- ``figures(settings)``: names of what it returns, each beginning with the part that it is of
  (``test_accuracy``, ``val_accuracy``, ``unlabelled_auroc``), or of no part (``l2``), and ending in
  the name of a metric of `cyclery.records.metrics`, which says what it is measured in;
- ``measure(settings, features)``, which returns them as numbers. A figure that cannot be had, of a
  part that is absent or because it is not defined there, is left out.

It may declare ``unknown(settings)``, whether it is about unknown classes of the unlabelled pool,
which an open set must then have, and ``check(settings, rows, classes)``, which raises a UserError
that begins with a key where the sizes of the parts do not allow what the settings ask for.
Whatever is drawn comes from
``features.seed``. Arrays are numpy's, on the CPU; scikit-learn is imported inside functions, for
planning reads these files too. Files are found by their names, so adding one edits no list.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from cyclery.common.components import Components, takes
from cyclery.common.errors import UserError
from cyclery.common.settings import plain, read
from cyclery.probes._labels import labelled
from cyclery.records import metrics

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# What figures begin with that are of a part.
BEGINNINGS = ("train", "val", "test", "unlabelled")

_FUNCTIONS = {
    "needs": ("settings",),
    "figures": ("settings",),
    "measure": ("settings", "features"),
}
_FILES = Components(
    __name__,
    "probe",
    (("Settings", "a frozen dataclass"), *((name, "a function") for name in _FUNCTIONS)),
)


@dataclass(frozen=True)
class Features:
    """Features of the samples of a run, extracted once for all its probes.

    Attributes:
        x: features of each part (``train``, ``validation``, ``test``, ``unlabelled``), float32
            [N, D]; a part may be absent.
        y: labels of each part, int64 [N], from 0; in the part ``unlabelled`` -1 where the class is
            none of the known ones.
        classes: how many classes are known.
        seed: of the run.
        own: as ``y``, but the classes are the dataset's own, the unknown ones among them.
    """

    x: Mapping[str, NDArray[np.float32]]
    y: Mapping[str, NDArray[np.int64]]
    classes: int
    seed: int
    own: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)


@cache
def names() -> tuple[str, ...]:
    """Return the names of all probes, sorted."""
    return _FILES.names()


@cache
def settings_type(name: str) -> type:
    """Return the settings of a probe; a UserError names what there is, or is wrong with a file."""
    found = _FILES.settings(name, dict(_FUNCTIONS))
    check = getattr(_FILES.load(name), "check", None)
    if check is not None and not takes(check, 3):
        raise UserError(
            f"{_FILES.path(name)}: check must be a function that takes 3 arguments: settings, "
            "rows, classes."
        )
    return found


def resolve(name: str, settings: Mapping[str, Any], where: str = "probe") -> dict[str, Any]:
    """Return name and settings of a probe, defaults filled in.

    Raises a UserError for an unknown probe or key, and a value of the wrong type or out of range;
    it begins with ``where``, the key path of the probe.
    """
    _FILES.require(name, where)
    return {"name": name, "settings": plain(read(settings_type(name), settings, where))}


def needs(probe: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the parts that a probe cannot do without; ``probe`` is as ``resolve`` gives it."""
    module, settings = _opened(probe)
    return tuple(module.needs(settings))


def looks_for_unknown(probe: Mapping[str, Any]) -> bool:
    """Return whether a probe is about unknown classes of the unlabelled pool."""
    module, settings = _opened(probe)
    return bool(getattr(module, "unknown", lambda settings: False)(settings))


def figures(probe: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of all that a probe may return."""
    module, settings = _opened(probe)
    return tuple(module.figures(settings))


def recorded(
    probes: Mapping[str, Mapping[str, Any]], where: str = "probes"
) -> dict[str, tuple[str, str]]:
    """Return what a record calls the figures of an arm's probes: the label and the figure of each.

    The label comes after the part: ``test_accuracy`` of the probe that an arm calls ``few`` is
    ``test_few_accuracy``, and its ``l2`` is ``few_l2``.

    Args:
        probes: by their labels, each as ``resolve`` gives it.
        where: the key path of ``probes``, which begins a message.

    Raises:
        UserError: a label is no plain word, or makes a name that is another figure's.
    """
    found: dict[str, tuple[str, str]] = {}
    for label, probe in probes.items():
        if not isinstance(label, str) or not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", label):
            raise UserError(
                f"{where}: a label must be a small letter, then small letters, digits and _, at "
                f"most 64 (found {label!r:.80})."
            )
        for figure in figures(probe):
            name = _called(label, figure)
            if name in found or name in metrics.names("names"):
                whose = f"the probe {found[name][0]!r}" if name in found else "every run"
                raise UserError(
                    f"{where}.{label}: {name!r} is a figure of {whose} already; choose another "
                    "label."
                )
            found[name] = label, figure
    return found


def _called(label: str, figure: str) -> str:
    part, _, rest = figure.partition("_")
    return f"{part}_{label}_{rest}" if rest and part in BEGINNINGS else f"{label}_{figure}"


def check(
    probe: Mapping[str, Any], rows: Mapping[str, int], classes: int, where: str = "probe"
) -> None:
    """Raise a UserError where a probe cannot be measured on parts of these sizes.

    Args:
        probe: ``name`` and ``settings``, as ``resolve`` gives them.
        rows: how many samples each part has; a part without any may be left out.
        classes: how many classes are known.
        where: the key path of the probe, which begins the message.
    """
    module, settings = _opened(probe)
    if missing := [part for part in module.needs(settings) if not rows.get(part)]:
        raise UserError(
            f"{where}: the probe {probe['name']} needs samples of the part {missing[0]}, of which "
            "`split` draws none; let it draw some, or choose another probe or other settings."
        )
    with _within(where):
        getattr(module, "check", _anything)(settings, rows, classes)


def check_labels(
    probe: Mapping[str, Any], y: NDArray[np.int64], seed: int, where: str = "probe"
) -> None:
    """Raise a UserError where a class has fewer training labels than a probe takes of each.

    ``y`` [N] are the labels of training, which noise and imbalance leave few of some classes.
    """
    _, settings = _opened(probe)
    with _within(where):
        labelled(y, getattr(settings, "per_class", None), seed)


def measure(probe: Mapping[str, Any], features: Features) -> dict[str, float]:
    """Return the figures of a probe on these features, by their names in ``figures``.

    It has one thread, for the last bits of a fit depend on how many there are.

    Args:
        probe: ``name`` and ``settings``, as ``resolve`` gives them.
        features: of the parts that there are.

    Raises:
        UserError: what ``check`` raises; features that are not finite; a class of fewer samples
            than are asked for.
    """
    from threadpoolctl import threadpool_limits

    module, settings = _opened(probe)
    where = f"probe {probe['name']}"
    check(probe, {part: len(x) for part, x in features.x.items()}, features.classes, where)
    for part, x in features.x.items():
        if not _finite(x):
            raise UserError(f"{where}: the features of the part {part} are not finite numbers.")
    with _within(where), threadpool_limits(1):
        found: dict[str, float] = module.measure(settings, features)
    if unknown := sorted(found.keys() - set(module.figures(settings))):
        raise UserError(
            f"{_FILES.path(probe['name'])}: measure returned {unknown[0]!r}, which figures does "
            "not name."
        )
    return {name: float(value) for name, value in found.items()}


def _anything(settings: object, rows: Mapping[str, int], classes: int) -> None:
    """Accept all sizes, for probes that do not say which they accept."""


@contextmanager
def _within(where: str) -> Iterator[None]:
    """Begin a message that begins with a key with where that is."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{where}.{error}") from None


def _opened(probe: Mapping[str, Any]) -> tuple[ModuleType, Any]:
    """Return the module of a probe and its settings."""
    name = probe["name"]
    settings: Any = read(settings_type(name), probe["settings"], f"probe {name}")
    return _FILES.load(name), settings


def _finite(x: NDArray[np.float32]) -> bool:
    import numpy as np

    return bool(np.isfinite(x).all())
