"""The allocation: seeds that single arms of a tier are asked for, in place of its number.

``results/<tier>/allocation.json`` is written by ``cyclery decide`` and read whenever the tier is
planned, so that Snakemake and every command see the same runs. An arm that it does not name has
the tier's number.
"""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from cyclery.common.errors import UserError
from cyclery.common.files import lock, open_regular, parse_json, read_errors, write_atomic
from cyclery.common.strict import Strict
from cyclery.config.load import validate
from cyclery.config.models import MOST_SEEDS

NAME = "allocation.json"
# Ten times what 21 papers need, and what so many take at most.
_ARMS, _BYTES = 20_000, 10_000_000
_NAME = Annotated[str, Field(pattern=r"^[A-Za-z][\w-]*(\.[A-Za-z][\w-]*){2}$", max_length=200)]

Seeds: TypeAlias = Annotated[
    dict[_NAME, Annotated[int, Field(ge=0, le=MOST_SEEDS)]], Field(max_length=_ARMS)
]


class _Allocation(Strict):
    """The file."""

    format: Literal[1] = Field(description="version of this format")
    tier: str = Field(description="the tier that it is of")
    seeds: Seeds = Field(description="seeds by paper.experiment.arm")


def place(results: Path, tier: str) -> Path:
    """Return where the allocation of a tier is."""
    return results / tier / NAME


def hold(path: Path) -> AbstractContextManager[None]:
    """Hold the allocation against other writers; Busy where one is at work."""
    return lock(path.with_name(f".{path.name}.lock"), wait=False)


def of_others(seeds: Mapping[str, int], papers: Container[str]) -> dict[str, int]:
    """Return the seeds of the arms of other papers than these."""
    return {name: seeds[name] for name in seeds if name.partition(".")[0] not in papers}


def read(path: Path) -> dict[str, int]:
    """Return the seeds of arms by ``paper.experiment.arm``; empty where there is no allocation.

    Raises:
        UserError: the file cannot be read or is no allocation of the tier whose folder it is in.
    """
    try:
        with read_errors(path), open_regular(path) as stream:
            content = stream.read(_BYTES + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}. {_REMEDY}") from None
    if len(content) > _BYTES:
        raise UserError(f"{path}: has more than {_BYTES:,} bytes. {_REMEDY}")
    try:
        found = parse_json(content)
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}). {_REMEDY}") from None
    try:
        allocation = validate(_Allocation, found, str(path))
    except UserError as error:
        raise UserError(f"{error}\n{_REMEDY}") from None
    if allocation.tier != path.parent.name:
        raise UserError(
            f"{path}: tier: must be {path.parent.name!r}, as its folder (found "
            f"{allocation.tier!r:.80}). {_REMEDY}"
        )
    return allocation.seeds


def write(path: Path, seeds: Mapping[str, int]) -> None:
    """Write the allocation of the tier whose folder ``path`` is in, atomically."""
    found = {"format": 1, "tier": path.parent.name, "seeds": dict(sorted(seeds.items()))}
    write_atomic(path, json.dumps(found, indent=1) + "\n")


_REMEDY = (
    "It says how many seeds each arm has; delete it, and `cyclery decide` makes it again from the "
    "runs on disk."
)
