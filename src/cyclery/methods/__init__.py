"""Training methods: one file, one method.

A method file declares ``VERSION`` (raised whenever what it computes changes: it enters every run
key), ``TITLE``, a frozen dataclass ``Settings`` and a pure function
``step(models, batch, row, settings, generator) -> (loss, logs)``. Fields of ``Settings`` that are
annotated ``Quantity`` may follow a schedule; their value at this update arrives in ``row`` as a
0-dim tensor; reading it off ``settings`` is refused. Every field has a default. A step never reads
a host number that changes with time and never synchronises, so the engine can capture and replay
it, and draws from ``generator`` alone: a draw from a global one ends the run, for it would neither
repeat nor resume. ``cyclery check --method NAME`` tries a method, line by line.

A step that makes its gradients itself returns `Gradients` in the place of the loss. Where a method
needs more than one weak view of labelled samples, its file has some of these functions.

What a step gets:

- ``streams(settings)``: the views of each stream, such as
  ``{"labelled": ("weak",), "unlabelled": ("weak", "strong")}``, or a `_streams.Stream` with a pool,
  a sampler and a size of its own; there are no others. A step has them as ``batch.labelled`` or
  ``batch["name"]``; ``batch.x`` and ``batch.y`` are those of ``labelled``;
- ``uses_ema(settings)``: whether a step reads the averaged network, ``models["ema"]``;
- ``trains_ema(settings)``: whether a step runs it in training mode, so that with ``ema_buffers:
  own`` its batch norm measures statistics of its own;
- ``modules(settings, made)``: modules of its own by name, which a step finds in ``models``: trained
  heads and further networks (``made.fresh()``), frozen ones, or memory whose buffers it changes in
  place. ``made`` is a ``cyclery.engine.networks.Made``: the network, the classes, ...;
- ``parents(settings)``: the names of the parents that a step learns from, as ``("teacher",)``.
  Each is in ``models``: called with images, it answers with log-probabilities [B, K] and no graph;
  its ``features(x)`` and ``parts`` are what it has before its head, and modules that it keeps;
- ``judges(settings)``: parents that judge samples which they were not trained on, so each must
  leave out another part of the training samples (``split.folds``), and together all;
- ``voters(settings)``: parents whose members vote on samples that none of them has seen, so each
  member must be trained on a part of its own of the labelled samples (``split.part``), and what has
  seen more of them may reach the run in no other way.

What happens between steps; both get a ``cyclery.engine.hooks.Moment``, and neither is captured:

- ``begin(models, moment, settings)``: what is done once before training, such as filling a memory
  from what parents say of the training samples;
- ``events(settings, clock)``: the updates (counted from 0; ``clock.starts`` has the first one of
  every epoch, and ``clock.updates`` is the end of the run) before which
  ``event(models, moment, settings)`` is called, such as to draw weights anew, to label samples
  again or to begin another stage.

What comes of a run:

- ``predict(models, x, settings)``: the logits [B, K] that are evaluated, where they are not those
  of ``models["main"]``; it gets the averaged networks under the names of the trained ones;
- ``features(models, x, settings)``: vectors [B, D] by name for probes and children, where
  ``features``, those before the head, are not all;
- ``measures(settings)``: the names of what ``evaluate(models, measured, settings)`` returns, floats
  that claims and tables may have, such as ``test_fine_accuracy``; it is called at every evaluation
  with a ``cyclery.engine.hooks.Measured``, whose ``last`` is true at the end of the run;
- ``averages(settings)``: whether the averaged network, where there is one, is what is evaluated
  and handed on (True), or an aid of training (False);
- ``classifies(settings)``: False where nothing trains the head: then no accuracy is measured;
- ``keeps(settings)``: modules that are handed on to children beside the network;
- ``forwards(settings, images)``: the images that pass a network forwards at an update, given those
  of each stream in all views, where they are not just their sum.

And:

- ``planned(settings, course)``: raises a UserError where a run as planned must not be made; a
  ``_course.Course`` has the samples of its pool and every quantity at every update;
- ``columns(settings, course)``: the values, float64 [updates] by name, of quantities that follow
  from the course itself and not from a schedule, such as noise that keeps a budget; asked for when
  a run is made;
- ``ignored(settings)``: the settings and quantities that nothing reads, by name, and the choice
  that makes it so, as ``{"rho": "unlocking: static"}``: runs that are the same have one key;
- ``CAPTURE = False``: a step that cannot be captured and always runs eager; ``"cpu"``: one that is
  eager on a GPU alone.

Files are found by their name, so adding one needs no other edit. They import torch lazily
(``from cyclery.common.lazy import F, torch``), because planning reads their settings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Literal

from cyclery.common.errors import UserError
from cyclery.methods import _file
from cyclery.methods._chosen import guarded
from cyclery.methods._course import Course
from cyclery.methods._gradients import Gradients
from cyclery.methods._streams import Stream, checked
from cyclery.schedules import Quantity

__all__ = [
    "REFERENCE", "TEACHER", "Course", "Gradients", "Method", "Stream", "code", "load", "names",
    "parents_of",
]  # fmt: skip

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
    streams: Callable[[Any], dict[str, Stream]]
    uses_ema: Callable[[Any], bool]
    trains_ema: Callable[[Any], bool]
    modules: Callable[..., dict[str, Any]]
    parents: Callable[[Any], tuple[str, ...]]
    judges: Callable[[Any], tuple[str, ...]]
    voters: Callable[[Any], tuple[str, ...]]
    begin: Callable[..., None]
    events: Callable[..., Iterable[int]]
    event: Callable[..., None]
    predict: Callable[..., Any]
    features: Callable[..., dict[str, Any]]
    measures: Callable[[Any], tuple[str, ...]]
    evaluate: Callable[..., dict[str, float]]
    averages: Callable[[Any], bool]
    classifies: Callable[[Any], bool]
    keeps: Callable[[Any], tuple[str, ...]]
    forwards: Callable[..., int]
    ignored: Callable[[Any], dict[str, str]]
    planned: Callable[..., None]
    columns: Callable[..., Mapping[str, Any]]
    capture: bool | Literal["cpu"]

    def chosen(self, settings: dict[str, Any]) -> Any:
        """Return the settings of a run as ``settings_type``; no quantity can be read off them."""
        return guarded(self.name, self.settings_type, self.quantities)(**settings)

    def spent(self, settings: Any, batch: int, mu: int | None) -> tuple[int, int]:
        """Return the images of an update in all views, and those that pass a network forwards.

        ``settings`` are those of ``chosen``; a Poisson batch counts as it is on average.
        """
        streams = self.streams(settings).items()
        images = {name: len(each.views) * each.size(batch, mu) for name, each in streams}
        passed: Any = self.forwards(settings, images)
        if not isinstance(passed, int | float) or not 0 <= passed < float("inf"):
            raise UserError(
                f"method: `forwards` of {self.name!r} must return a number of images (found "
                f"{passed!r:.80})."
            )
        return sum(images.values()), int(passed)

    def limits(self, quantity: str) -> dict[str, Any]:
        """Return the documentation and limits of a quantity, as its field declares them."""
        return dict(self.settings_type.__dataclass_fields__[quantity].metadata)  # type: ignore[attr-defined]


# What a file has that does not define a function of its own.
USUAL: dict[str, Callable[..., Any]] = {
    "uses_ema": lambda settings: False,
    "trains_ema": lambda settings: False,
    "modules": lambda settings, made: {},
    "parents": lambda settings: (),
    "judges": lambda settings: (),
    "voters": lambda settings: (),
    "begin": lambda models, moment, settings: None,
    "events": lambda settings, clock: (),
    "event": lambda models, moment, settings: None,
    "predict": lambda models, x, settings: models["main"](x),
    "features": lambda models, x, settings: {"features": models["main"].features(x)},
    "measures": lambda settings: (),
    "evaluate": lambda models, measured, settings: {},
    "averages": lambda settings: True,
    "classifies": lambda settings: True,
    "keeps": lambda settings: (),
    "forwards": lambda settings, images: sum(images.values()),
    "ignored": lambda settings: {},
    "planned": lambda settings, course: None,
    "columns": lambda settings, course: {},
}


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
    file = _file.FILES.path(name)
    hooks = {hook: getattr(module, hook, usual) for hook, usual in USUAL.items()}
    own = [hook for hook in _file.PLANNED if hasattr(module, hook)]
    hooks |= {hook: _file.telling(hook, hooks[hook], file) for hook in own}
    hooks |= {hook: _file.naming(hook, hooks[hook], file) for hook in _file.NAMES if hook in own}
    return Method(
        name=name,
        version=module.VERSION,
        title=module.TITLE,
        own_definition=getattr(module, "OWN_DEFINITION", None),
        settings_type=module.Settings,
        step=module.step,
        quantities=tuple(f.name for f in fields(module.Settings) if hints[f.name] == Quantity),
        streams=checked(
            _file.telling(
                "streams",
                getattr(module, "streams", lambda settings: {"labelled": ("weak",)}),
                file,
            ),
            file,
        ),
        **hooks,
        capture=getattr(module, "CAPTURE", True),
    )


def code(name: str) -> str:
    """Return the hash of what a method's code says, comments and docstrings aside."""
    return _file.digest(name)


def parents_of(method: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the parents that the ``method`` of resolved settings learns from."""
    declared = load(method["name"])
    return declared.parents(declared.chosen(method["settings"]))
