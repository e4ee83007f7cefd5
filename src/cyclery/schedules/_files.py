"""Registry of schedule kinds, found by file name."""

from __future__ import annotations

from functools import cache

from cyclery.common.components import Components
from cyclery.schedules._schedule import Schedule

FILES = Components(
    __package__ or "",
    "schedule",
    (("Settings", "a frozen dataclass that derives from cyclery.schedules.Schedule"),),
)


@cache
def names() -> tuple[str, ...]:
    """Return the names of all kinds, sorted."""
    return FILES.names()


@cache
def settings_type(name: str) -> type[Schedule]:
    """Return the settings of a kind; a UserError says what is wrong with its file."""
    return FILES.settings(name, base=Schedule, defaults=False)


def kinds() -> dict[str, type[Schedule]]:
    """Return the settings of every kind by its name."""
    return {name: settings_type(name) for name in names()}
