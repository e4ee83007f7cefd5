"""Validate an arm's parents: what it takes from each, and that their data fit together."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from cyclery import methods
from cyclery.common.errors import UserError, choices, nearest
from cyclery.data.dataset import Dataset
from cyclery.methods import REFERENCE
from cyclery.plan.model import Parent
from cyclery.plan.part_checks import check_start, of_other_images
from cyclery.records.record import ArmSettings, SplitChoice


def check_parents(
    settings: ArmSettings,
    parents: Mapping[str, Parent],
    datasets: Mapping[str, Dataset],
    head: bool = False,
) -> None:
    """Raise a UserError, which begins with the key, where a parent is missing or does not fit.

    ``head`` says that the head of the run to start from is meant to come along.
    """
    method = settings["method"]
    wanted = methods.parents_of(method)
    for name in wanted:
        if name not in parents:
            raise UserError(
                f"parents: the method {method['name']!r} needs a parent {name!r}."
                f"{nearest(name, parents)} Parents: {choices(parents) or 'none'}."
            )
    start = settings["init"]
    known = {*wanted, REFERENCE, *([start] if start else [])}
    for name, parent in parents.items():
        if name not in known:
            needs = f"it takes {choices(wanted)}" if wanted else "it takes none"
            raise UserError(
                f"parents.{name}: nothing uses it: the method {method['name']!r} does not ({needs})"
                f", nor does `init`; rename it, or drop it.{nearest(name, known)}"
            )
        if name == start:
            check_start(settings, parent, datasets, head)
            if name not in {*wanted, REFERENCE} and of_other_images(settings, parent, datasets):
                _check_descent(name, settings, parent, datasets)
                continue
        _check_data(name, settings, parent)
        _check_labels(name, settings["split"], parent)
    declared = methods.load(method["name"])
    chosen = declared.chosen(method["settings"])
    _check_folds(settings["split"], {name: parents[name] for name in declared.judges(chosen)})
    voters = declared.voters(chosen)
    _check_voters(settings["split"], {name: parents[name] for name in voters})
    if voters:
        _check_votes_alone(settings, parents, voters)


def _check_descent(
    name: str, child: ArmSettings, parent: Parent, datasets: Mapping[str, Dataset]
) -> None:
    """Raise a UserError where a parent on other images descends from a run on the child's own.

    That run may have been trained on what the child is tested on.
    """
    own = child["dataset"]
    for arm in parent.arm.ancestors(0).values():
        theirs = arm.settings["dataset"]
        if theirs["name"] == own["name"] or theirs["identity"] == own["identity"]:
            raise UserError(
                f"parents.{name}: {parent.arm.id} descends from {arm.id}, which is trained on "
                f"{theirs['name']} as this arm is, and may have seen what this arm is tested on; "
                "start from a run without that ancestor."
            )


def _check_folds(mine: SplitChoice, judges: Mapping[str, Parent]) -> None:
    """Raise a UserError unless every training sample is left out by one of the judges."""
    left_out: dict[int | None, str] = {}
    for name, parent in judges.items():
        theirs = parent.arm.settings["split"]
        _check_same_samples(name, mine, parent)
        other = left_out.setdefault(theirs["fold"], name)
        if theirs["folds"] != len(judges) or other != name:
            found = f"folds {theirs['folds']}, fold {theirs['fold']}".replace("None", "null")
            raise UserError(
                f"parents.{name}: must leave out a part of its own of the training samples, one of "
                f"{len(judges)}, for it judges that part ({parent.arm.id} has split {found}); set "
                f"split.folds {len(judges)} and another split.fold there, 0 to {len(judges) - 1}."
            )


def _check_voters(mine: SplitChoice, voters: Mapping[str, Parent]) -> None:
    """Raise a UserError unless the members of a voter have a part of the samples each."""
    if voters and mine["unlabelled"] is None:
        raise UserError(
            f"split.unlabelled: must be all or rest, for {choices(voters)} vote on unlabelled "
            "samples (found null)."
        )
    for name, parent in voters.items():
        theirs = parent.arm.settings["split"]
        _check_same_samples(name, mine, parent)
        folds, part = theirs["folds"], theirs.get("part")
        if parent.kind != "members" or folds != parent.count or part != "seed":
            found = f"folds {folds}, part {part}".replace("None", "null")
            members = parent.count if parent.kind == "members" else 1
            raise UserError(
                f"parents.{name}: must be members that are each trained on a part of its own of "
                f"the labelled samples, for they vote ({parent.arm.id} has split {found}, and "
                f"{members} of its runs are taken); set `folds: M`, `part: seed`, `share: M` "
                "there, and `seeds: {members: M}` here."
            )


def _check_votes_alone(
    child: ArmSettings, parents: Mapping[str, Parent], voters: Collection[str]
) -> None:
    """Raise a UserError where a run reaches voters, or the child past them, that saw the samples.

    Such a run may have learnt all labels, and what one sample changes would not be one vote.
    """
    own = child["dataset"]
    for name, parent in parents.items():
        before = [*parent.arm.ancestors(0).values()]
        reached = "votes"
        if name not in voters:
            before, reached = [parent.arm, *before], "is used beside votes"
        for arm in before if name != REFERENCE else ():
            theirs = arm.settings["dataset"]
            if theirs["name"] == own["name"] or theirs["identity"] == own["identity"]:
                raise UserError(
                    f"parents.{name}: {parent.arm.id} {reached}, so neither it nor an ancestor may "
                    f"have seen samples of more than one part (found {arm.id}); train voters and "
                    "this arm from new weights, or from a run on another dataset."
                )


def _check_same_samples(name: str, mine: SplitChoice, parent: Parent) -> None:
    """Raise a UserError unless a parent's folds are of the child's own training samples."""
    theirs = parent.arm.settings["split"]
    for key in ("labels", "per_class", "imbalance"):
        if mine[key] != theirs[key]:
            raise UserError(
                f"parents.{name}: {parent.arm.id} has split.{key} {theirs[key]}, this arm "
                f"{mine[key]}; both must divide the same training samples."
            )


def _check_data(name: str, child: ArmSettings, parent: Parent) -> None:
    """Raise a UserError unless the parent was trained on the child's data, as it holds them out."""
    own, theirs = child["dataset"]["name"], parent.arm.settings["dataset"]["name"]
    if own != theirs:
        raise UserError(
            f"parents.{name}: {parent.arm.id} is trained on {theirs}, this arm on {own}; a parent "
            "needs the same dataset, classes and shape of images."
        )
    mine, other = child["split"], parent.arm.settings["split"]
    # Rows that come first are taken before the others are drawn.
    first = not {"first", "blocks"}.isdisjoint((mine["choose"], other["choose"]))
    here, there = _drawn_by(mine, first), _drawn_by(other, first)
    for key, value in here.items():
        if value != there[key]:
            raise UserError(
                f"parents.{name}: {parent.arm.id} has split.{key} {_shown(there[key])}, this arm "
                f"{_shown(value)}; both must hold out the same test and validation samples."
            )
    if other.get("retrain") and not mine.get("retrain"):
        raise UserError(
            f"parents.{name}: {parent.arm.id} has split.retrain true, this arm false; a parent "
            "must not be trained on what its child is validated on."
        )
    factor = {"nested": mine["share"] / parent.count, "members": mine["share"] * parent.count}
    fits = factor.get(parent.kind, mine["share"])
    if other["share"] != fits:
        whole = fits == int(fits)
        right = f"{fits:g} there" if whole else f"{parent.count * other['share']} here"
        raise UserError(
            f"parents.{name}: seeds of {parent.arm.id} share their splits by {other['share']}, of "
            f"this arm by {mine['share']}, so a parent would be trained on what its child is "
            f"tested on; set split.share {right}."
        )


def _shown(value: object) -> str:
    return "null" if value is None else str(value)


def _drawn_by(split: SplitChoice, first: bool) -> dict[str, Any]:
    """Return by key what the held-out samples of a split are drawn by."""
    known = split.get("open_set")
    found = {
        "test": split["test"],
        "validation": split["validation"],
        "choose": split["choose"],
        "open_set.classes": known["classes"] if known else None,
    }
    if first:
        found |= {key: split[key] for key in ("labels", "per_class", "imbalance")}
    return found


def _check_labels(name: str, mine: SplitChoice, parent: Parent) -> None:
    """Raise a UserError where a parent knows of labels or images what its child must not know.

    A parent of a child without noise may have noisy labels, and one may know no hierarchy.
    """
    theirs = parent.arm.settings["split"]
    noise, resolution = mine.get("noise"), mine.get("resolution")
    levels, their_levels = (
        [each.get("hierarchy"), each.get("hierarchy_order", True)] for each in (mine, theirs)
    )
    for key, differs, why in (
        (
            "noise",
            noise is not None and theirs.get("noise") != noise,
            "the labels that this arm is not to know would reach it through its parent",
        ),
        (
            "hierarchy",
            levels[0] and their_levels[0] and levels != their_levels,
            "their levels are not the same",
        ),
        ("resolution", theirs.get("resolution") != resolution, "it sees other images"),
    ):
        if differs:
            raise UserError(
                f"parents.{name}: {parent.arm.id} has another split.{key} than this arm; {why}. "
                f"Set `{key}` alike."
            )
