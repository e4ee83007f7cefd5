"""Training methods: one file, one method.

A method file declares ``VERSION`` (raised whenever what it computes changes: it enters every run
key), ``TITLE``, a frozen dataclass ``Settings`` and a pure function
``step(models, batch, row, settings, generator) -> (loss, logs)``. Fields of ``Settings`` that are
annotated ``Quantity`` may follow a schedule; their value at this update arrives in ``row`` as a
0-dim tensor; reading it off ``settings`` is refused. Every field has a default. A step never reads
a host number that changes with time and never synchronises, so the engine can capture and replay
it, and draws from ``generator`` alone: a draw from a global one ends the run, for it would neither
repeat nor resume. ``cyclery check --method NAME`` tries a method, line by line.

Where a method needs more than one weak view of labelled samples, its file says so:

- ``streams(settings)``: the views of each stream, such as
  ``{"labelled": ("weak",), "unlabelled": ("weak", "strong")}``; there are no others;
- ``uses_ema(settings)``: whether a step reads the averaged network, ``models["ema"]``;
- ``trains_ema(settings)``: whether a step runs it in training mode, so that with ``ema_buffers:
  own`` its batch norm measures statistics of its own;
- ``modules(settings, net, classes, samples)``: modules of its own by name, which a step finds in
  ``models``: trained heads, or memory whose buffers it changes in place; ``batch.ids`` are below
  ``samples``, the number of images in the dataset;
- ``parents(settings)``: the names of the parents that a step learns from, as ``("teacher",)``.
  Each is in ``models``: called with images, it answers with log-probabilities [B, K] and no graph;
- ``judges(settings)``: parents that judge samples which they were not trained on, so each must
  leave out another part of the training samples (``split.folds``), and together all;
- ``begin(models, samples, settings)``: what is done once before training, such as filling a memory
  from what parents say of the training samples (``cyclery.engine.run.Beginning``);
- ``ignored(settings)``: the settings and quantities that nothing reads, by name, and the choice
  that makes it so, as ``{"rho": "unlocking: static"}``: runs that are the same have one key;
- ``CAPTURE = False``: a step that cannot be captured and always runs eager.

Files are found by their name, so adding one needs no other edit. They import torch lazily
(``from cyclery.common.lazy import F, torch``), because planning reads their settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

from cyclery.methods import _file
from cyclery.methods._chosen import guarded
from cyclery.methods._streams import checked
from cyclery.schedules import Quantity

# The parent that a run's final figures are compared with, where it has one of that name; else it
# is the teacher.
REFERENCE = "reference"
TEACHER = "teacher"


@dataclass(frozen=True)
class Method:
    """What a method file declares."""

    name: str
    version: int
    title: str
    own_definition: str | None
    settings_type: type
    step: Callable[..., Any]
    quantities: tuple[str, ...]
    streams: Callable[[Any], dict[str, tuple[str, ...]]]
    uses_ema: Callable[[Any], bool]
    trains_ema: Callable[[Any], bool]
    modules: Callable[..., dict[str, Any]]
    parents: Callable[[Any], tuple[str, ...]]
    judges: Callable[[Any], tuple[str, ...]]
    begin: Callable[..., None]
    ignored: Callable[[Any], dict[str, str]]
    capture: bool

    def chosen(self, settings: dict[str, Any]) -> Any:
        """Return the settings of a run as ``settings_type``; no quantity can be read off them."""
        return guarded(self.name, self.settings_type, self.quantities)(**settings)

    def limits(self, quantity: str) -> dict[str, Any]:
        """Return the documentation and limits of a quantity, as its field declares them."""
        return dict(self.settings_type.__dataclass_fields__[quantity].metadata)  # type: ignore[attr-defined]


@cache
def names() -> tuple[str, ...]:
    """Return the names of all methods, sorted."""
    return _file.FILES.names()


@cache
def load(name: str) -> Method:
    """Import the method ``name``.

    A UserError names the methods there are, or what is wrong with the file of this one.
    """
    module, hints = _file.read(name)
    return Method(
        name=name,
        version=module.VERSION,
        title=module.TITLE,
        own_definition=getattr(module, "OWN_DEFINITION", None),
        settings_type=module.Settings,
        step=module.step,
        quantities=tuple(f.name for f in fields(module.Settings) if hints[f.name] == Quantity),
        streams=checked(
            getattr(module, "streams", lambda settings: {"labelled": ("weak",)}),
            _file.FILES.path(name),
        ),
        uses_ema=getattr(module, "uses_ema", lambda settings: False),
        trains_ema=getattr(module, "trains_ema", lambda settings: False),
        modules=getattr(module, "modules", lambda settings, net, classes, samples: {}),
        parents=getattr(module, "parents", lambda settings: ()),
        judges=getattr(module, "judges", lambda settings: ()),
        begin=getattr(module, "begin", lambda models, samples, settings: None),
        ignored=getattr(module, "ignored", lambda settings: {}),
        capture=getattr(module, "CAPTURE", True),
    )


def code(name: str) -> str:
    """Return the hash of what a method's code says, comments and docstrings aside."""
    return _file.digest(name)


def parents_of(method: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the parents that the ``method`` of resolved settings learns from."""
    declared = load(method["name"])
    return declared.parents(declared.chosen(method["settings"]))
