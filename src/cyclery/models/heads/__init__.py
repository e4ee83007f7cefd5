"""Heads by name: what makes logits of the features of a network. One file, one head.

A file declares ``Settings``, a frozen dataclass whose fields each have a default and a ``doc`` in
their metadata, and ``build(settings, width, classes)``, which returns a module that takes feature
vectors [B, width] to logits [B, classes]. As in a network's file, what needs torch is imported
inside ``build``. Files are found by their names, so adding one edits no list.

A run chooses one with the key ``head``; without it, the linear one.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from cyclery.common.components import Components
from cyclery.common.settings import plain, read

if TYPE_CHECKING:
    from torch import nn

DEFAULT = "linear"

_FILES = Components(__name__, "head", (("Settings", "a frozen dataclass"), ("build", "a function")))


@cache
def names() -> tuple[str, ...]:
    """Return the names of all heads, sorted."""
    return _FILES.names()


@cache
def settings_type(name: str) -> type:
    """Return the settings of a head; a UserError names the heads, or what is wrong with a file."""
    return _FILES.settings(name, {"build": ("settings", "width", "classes")})


def resolve(name: str, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return name and settings of a head, defaults filled in; None for the default as it is.

    Raises a UserError for an unknown head or key, and a value of the wrong type or out of range.
    """
    found = {"name": name, "settings": plain(read(settings_type(name), settings, "head"))}
    usual = {"name": DEFAULT, "settings": plain(settings_type(DEFAULT)())}
    return None if found == usual else found


def build(head: Mapping[str, Any], width: int, classes: int) -> nn.Module:
    """Return a new head, whose weights come from torch's global generator.

    Args:
        head: ``name`` and ``settings``, as ``resolve`` gives them.
        width: the length of a feature vector.
        classes: how many there are.
    """
    settings: Any = read(settings_type(head["name"]), head["settings"], f"head {head['name']}")
    made: nn.Module = _FILES.load(head["name"]).build(settings, width, classes)
    return made
