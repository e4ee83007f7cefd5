"""Validate the parts of networks that an arm names: taken from a parent, frozen, rated.

How networks are made needs torch, so it is asked only where an arm names a module, as ``stem``, and
not just ``features`` or ``head``, which every network has.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from cyclery import methods, models
from cyclery.common.errors import UserError, choices
from cyclery.common.settings import plain
from cyclery.data.dataset import Dataset
from cyclery.data.split_settings import resolution
from cyclery.data.splits import class_count
from cyclery.engine.parts import HEAD, NOTHING_LEFT, USUAL, holding, numbers
from cyclery.models import Shape, heads
from cyclery.plan.model import Parent
from cyclery.records.record import ArmSettings

if TYPE_CHECKING:
    from cyclery.engine.made import Layout

# What of a split says which training samples have which label, for who learns from them.
# Known classes and the held-out samples are those of its parent anyway.
LABELS = (
    "labels", "per_class", "choose", "imbalance", "folds", "fold", "part", "noise", "coarse",
)  # fmt: skip


def check_parts(settings: ArmSettings, datasets: Mapping[str, Dataset]) -> None:
    """Raise a UserError, which begins with the key, where a part is not there or none is left."""
    frozen = settings.get("frozen", [])
    if frozen and (set(frozen) >= set(USUAL) or not set(frozen) <= set(USUAL)):
        own = _layout(settings, datasets)
        if holding("frozen", own.trained, frozen, own.within) >= set(own.trained):
            raise UserError(NOTHING_LEFT)
    by_part = {"rates": settings.get("rates", {}), "clip_values": settings.get("clip_values", {})}
    for key, given in by_part.items():
        if given and not {*given, *frozen} <= set(USUAL):
            own = _layout(settings, datasets)
            still = holding("frozen", own.trained, frozen, own.within)
            numbers(key, given, own.trained, still, own.within)


def check_start(
    child: ArmSettings, parent: Parent, datasets: Mapping[str, Dataset], head: bool
) -> None:
    """Raise a UserError unless a run can start from the parent, as its settings say.

    Weights that fit are not enough: those of another activation are another function's. ``head``
    says that the head of the parent is meant to come along, whatever it has learnt.
    """
    name, parts = child["init"], child.get("init_parts")
    if parent.kind == "members":
        raise UserError(f"init: {name!r} is several runs (`members`); a run starts from one.")
    named = [part for part in parts or () if part not in USUAL]
    own = _layout(child, datasets) if named else None
    if own is not None:
        holding("init.parts", own.shapes, named, own.within)
        _check_kept(named, parent, own)
    if own is None or _modules_of(own, parts or ()) & {"main"}:
        _check_network(child, parent)
    if _takes_head(child, datasets):
        _check_head(child, parent)
    if own is not None:
        _check_shapes(named, parent, own, _layout(parent.arm.settings, datasets))
    if parts is None and not head:
        _check_learnt(child, parent)


def of_other_images(child: ArmSettings, parent: Parent, datasets: Mapping[str, Dataset]) -> bool:
    """Return whether a run takes parts without the head from a run on another dataset.

    Then there are no samples to compare. A UserError where its images have another shape.
    """
    own, theirs = child["dataset"]["name"], parent.arm.settings["dataset"]["name"]
    if own == theirs or _takes_head(child, datasets):
        return False
    mine, other = datasets[own].content, datasets[theirs].content
    if mine is not None and other is not None and mine.train == other.train:
        # The same images under another name, of which it may have seen what the child is tested on.
        return False
    one, two = (_shape(settings, datasets) for settings in (parent.arm.settings, child))
    if one != two:
        raise UserError(
            f"init: {parent.arm.id} is trained on images of {_sized(one)} ({theirs}), this arm on "
            f"those of {_sized(two)} ({own}); a parent needs the same shape of images."
        )
    return True


def _takes_head(child: ArmSettings, datasets: Mapping[str, Dataset]) -> bool:
    """Return whether a run takes its parent's head, or anything of it, by whatever name."""
    parts = child.get("init_parts")
    if parts is None or HEAD in parts:
        return True
    named = [part for part in parts if part not in USUAL]
    own = _layout(child, datasets) if named else None
    return own is not None and any(
        own.within(name, HEAD) and own.within(name, part) for name in own.shapes for part in named
    )


def _shape(settings: ArmSettings, datasets: Mapping[str, Dataset]) -> Shape:
    """Return the shape of the images that an arm's network sees."""
    shape = datasets[settings["dataset"]["name"]].shape
    return resolution(settings["split"], shape)


def _sized(shape: Shape) -> str:
    channels, height, width = shape
    return f"{channels} x {height} x {width}"


def _check_network(child: ArmSettings, parent: Parent) -> None:
    model, theirs = child["model"], parent.arm.settings["model"]
    if model["name"] != theirs["name"]:
        raise UserError(
            f"init: {parent.arm.id} is a {theirs['name']}, this arm a {model['name']}; weights to "
            "start from are those of the same network."
        )
    training_only = models.settings_type(model["name"]).TRAINING_ONLY
    other = plain(models.check(**theirs))
    for key, value in plain(models.check(**model)).items():
        if key not in training_only and value != other[key]:
            raise UserError(
                f"init: {parent.arm.id} has model.{key} {other[key]}, this arm "
                f"{value}; weights to start from are those of the same network, so set both alike "
                f"(only {choices(training_only)} may differ)."
            )


def _check_head(child: ArmSettings, parent: Parent) -> None:
    mine, other = (_head(settings) for settings in (child, parent.arm.settings))
    if mine != other:
        raise UserError(
            f"init: {parent.arm.id} has the head {other}, this arm {mine}; a run starts from all "
            "weights of its parent, so set `head` alike, or draw a new one: "
            f"`init: {{from: {child['init']}, head: fresh}}`."
        )


def _head(settings: ArmSettings) -> str:
    """Return the head of resolved settings in words."""
    head = settings.get("head") or {"name": heads.DEFAULT, "settings": {}}
    values = ", ".join(f"{key} {value}" for key, value in head["settings"].items())
    return f"{head['name']} ({values})" if values else str(head["name"])


def _check_kept(named: Collection[str], parent: Parent, own: Layout) -> None:
    """Raise a UserError where the parent does not hand on a module of which a part is taken."""
    choice = parent.arm.settings["method"]
    method = methods.load(choice["name"])
    kept = method.keeps(method.chosen(choice["settings"]))
    for part in named:
        for module in sorted(_modules_of(own, [part]) - {"main"}):
            if module not in kept:
                raise UserError(
                    f"init.parts: {part!r} is no part that {parent.arm.id} hands on: its method "
                    f"{method.name!r} keeps {choices(kept) or 'no modules'}; name it in `keeps` of "
                    "the method."
                )


def _check_shapes(named: Collection[str], parent: Parent, own: Layout, theirs: Layout) -> None:
    """Raise a UserError where a part is not made alike in both."""
    for part in named:
        mine, other = (
            {name: shape for name, shape in each.shapes.items() if own.within(name, part)}
            for each in (own, theirs)
        )
        if wrong := [name for name in mine.keys() | other if mine.get(name) != other.get(name)]:
            raise UserError(
                f"init.parts: {part!r} of {parent.arm.id} is not the same as this arm's (first: "
                f"{min(wrong)}); take parts that both have in the same shape."
            )


def _modules_of(own: Layout, parts: Collection[str]) -> set[str]:
    """Return the modules of a run that parts lie in: `main` and those of its method."""
    return {
        name.partition(".")[0]
        for name in own.shapes
        if any(own.within(name, part) for part in parts)
    }


def _check_learnt(child: ArmSettings, parent: Parent) -> None:
    """Raise a UserError where a head comes along that knows other labels, and nobody said so.

    A head of another dataset is refused anyway, and one that nothing here trains or measures does
    no harm.
    """
    settings = parent.arm.settings
    if not _classifies(child) or settings["dataset"]["name"] != child["dataset"]["name"]:
        return
    mine: Mapping[str, Any] = {**child["split"]}
    theirs: Mapping[str, Any] = {**settings["split"]}
    other = [key for key in LABELS if mine.get(key) != theirs.get(key)]
    if not _classifies(settings):
        why = f"trains no head (its method is {settings['method']['name']!r})"
    elif other:
        key = other[0]
        shown = [_shown(each.get(key)) for each in (theirs, mine)]
        why = f"learnt from other labels (split.{key} {shown[0]}, this arm {shown[1]})"
    else:
        return
    raise UserError(
        f"init: {parent.arm.id} {why}, and its head comes along with the network; draw a new one, "
        f"`init: {{from: {child['init']}, head: fresh}}`, or say `head: keep` if it is meant."
    )


def _classifies(settings: ArmSettings) -> bool:
    method = methods.load(settings["method"]["name"])
    return method.classifies(method.chosen(settings["method"]["settings"]))


def _shown(value: object) -> str:
    return "null" if value is None else str(value)


def _layout(settings: ArmSettings, datasets: Mapping[str, Dataset]) -> Layout:
    """Return how the networks of an arm are made."""
    # It imports torch.
    from cyclery.engine.made import layout

    classes = class_count(settings["split"], datasets[settings["dataset"]["name"]].classes)
    return layout(settings, _shape(settings, datasets), classes)
