"""Hierarchies of classes, such as CIFAR-100's superclasses: coarser labels made of the fine one."""

from __future__ import annotations

from collections.abc import Sequence


def check_hierarchy(levels: Sequence[Sequence[int]], classes: int, where: str) -> None:
    """Raise a ValueError unless these levels, finest first, are a tree above the classes.

    Args:
        levels: for each level the group of every class, numbered from 0 without gaps.
        classes: number of (fine) classes.
        where: the key, with which a message begins.
    """
    if not levels:
        raise ValueError(f"{where}: must have a level, a list of a group for each class.")
    finer: Sequence[int] = range(classes)
    for number, groups in enumerate(levels):
        key = f"{where}[{number}]"
        if len(groups) != classes:
            raise ValueError(
                f"{key}: must have a number for each of {classes} classes (found {len(groups)})."
            )
        found = set(groups)
        if found != set(range(len(found))):
            raise ValueError(
                f"{key}: must number its groups from 0 without a gap (found {sorted(found)!s:.80})."
            )
        if len(found) >= len(set(finer)):
            raise ValueError(
                f"{key}: must have fewer groups than the {len(set(finer))} of the finer level "
                f"(found {len(found)})."
            )
        _check_merges(finer, groups, key)
        finer = groups


def _check_merges(finer: Sequence[int], groups: Sequence[int], key: str) -> None:
    """Raise a ValueError unless every group is made of whole groups of the finer level."""
    first: dict[int, int] = {}
    for label, (below, group) in enumerate(zip(finer, groups, strict=True)):
        other = first.setdefault(below, label)
        if groups[other] != group:
            raise ValueError(
                f"{key}: is no tree; classes {other} and {label} are both in group {below} of the "
                f"finer level, but here in {groups[other]} and {group}."
            )
