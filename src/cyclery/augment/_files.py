"""Registry of augmentation ops, found by file name, and validation of a list of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from cyclery.augment._op import Op
from cyclery.common.components import Components
from cyclery.common.errors import UserError
from cyclery.common.settings import read
from cyclery.models import Shape

FILES = Components(
    __package__ or "",
    "op",
    (("Settings", "a frozen dataclass that derives from cyclery.augment.Op"),),
)


@cache
def names() -> tuple[str, ...]:
    """Return the names of all ops, sorted."""
    return FILES.names()


@cache
def settings_type(name: str) -> type[Op]:
    """Return the settings of an op; a UserError says what is wrong with its file."""
    return FILES.settings(name, base=Op, defaults=False)


def ops() -> dict[str, type[Op]]:
    """Return the settings of every op by its name."""
    return {name: settings_type(name) for name in names()}


def check(
    spec: Sequence[Mapping[str, Any]], shape: Shape | None = None, where: str = "augment"
) -> list[Op]:
    """Return the settings of each op of ``spec``, defaults filled in, without importing torch.

    ``shape`` (channels, height, width), if given, must suit the ops; ``where`` begins every
    message. Raises a UserError that names the op, the key, the value and what is allowed.
    """
    if not isinstance(spec, list | tuple):
        raise UserError(f"{where}: must be a list of ops (found {spec!r:.80}).")
    found: list[Op] = []
    for index, entry in enumerate(spec):
        op = _check_entry(entry, f"{where}[{index}]", shape)
        if found and found[-1].ON == "normalised" and op.ON == "pixels":
            raise UserError(
                f"{where}[{index}]: {entry['op']} cannot follow {spec[index - 1]['op']}, which "
                "works on the finished image; put that last."
            )
        found.append(op)
    return found


def _check_entry(entry: Any, where: str, shape: Shape | None) -> Op:
    if not isinstance(entry, Mapping) or "op" not in entry:
        raise UserError(f"{where}: must be a mapping with the key 'op' (found {entry!r:.80}).")
    if (name := entry["op"]) not in names():
        FILES.require(name, where)
    where = f"{where} {name}"
    op = read(
        settings_type(name), {key: value for key, value in entry.items() if key != "op"}, where
    )
    op.check(shape, where)
    return op
