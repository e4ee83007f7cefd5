"""Base class of schedule kinds: a frozen dataclass of keys that computes a column of values."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias, get_args

import numpy as np

from cyclery.common.errors import UserError
from cyclery.schedules._clock import Clock, Column

Quantity: TypeAlias = Annotated[float, "quantity"]
"""Marks a method's setting that may be a schedule and reaches the step as a row entry."""

RangeWord = Literal["range.base", "range.max"]
RANGE_WORDS: tuple[str, ...] = get_args(RangeWord)
if TYPE_CHECKING:
    # The words are replaced by the bounds before anything is computed.
    Number: TypeAlias = float
else:
    Number: TypeAlias = float | RangeWord
"""A value, or a bound that the learning-rate range test finds."""

Hold = Literal["update", "epoch"]


def key(doc: str, **limits: float) -> dict[str, Any]:
    """Return the metadata of a key: its documentation and the limits of its value.

    ``low`` and ``high`` are inclusive, ``above`` and ``below`` exclusive.
    """
    return {"doc": doc, **limits}


def amount(doc: str, **limits: float) -> dict[str, Any]:
    """Return the metadata of a key that is a value of the quantity, which is never negative.

    So it has the limits of the quantity besides, such as those of a momentum.
    """
    return {**key(doc, **(limits or {"low": 0.0})), "amount": True}


@dataclass(frozen=True, kw_only=True)
class Schedule(ABC):
    """What every kind has; its file's ``Settings`` adds the keys and ``column``."""

    BY_EPOCH: ClassVar[bool] = False
    """True where the value never changes within an epoch, so that ``clock`` has no effect."""
    BATCH: ClassVar[bool] = False
    """True where it can be a batch size: known by the epoch, before there are updates to count."""

    clock: Hold = field(
        default="update",
        metadata=key(
            "`update`: a new value at every update; `epoch`: the value at the first update of an "
            "epoch is held through the epoch"
        ),
    )

    @abstractmethod
    def column(self, clock: Clock, seed: int) -> Column:
        """Return the value at every update; ``seed`` is for what is drawn."""

    def values(self, clock: Clock, seed: int) -> Column:
        """Return ``column``, held through each epoch where the key ``clock`` says so.

        Raises a UserError where the kind's file computes anything else than a float64 per update.
        """
        found = self.column(clock, seed)
        if getattr(found, "dtype", None) != np.float64 or found.shape != (clock.updates,):
            file, shape = inspect.getsourcefile(type(self)), getattr(found, "shape", None)
            raise UserError(
                f"{file}: column must return float64 of the shape {(clock.updates,)} (found "
                f"{getattr(found, 'dtype', type(found).__name__)} of the shape {shape})."
            )
        if self.clock == "epoch":
            return found[np.searchsorted(clock.epoch, clock.epoch)]
        return found

    @classmethod
    def amounts(cls, spec: Mapping[str, Any], where: str) -> Iterator[tuple[str, Any]]:
        """Yield what a valid schedule says of the quantity's values, each with its place."""
        for item in fields(cls):
            if "amount" in item.metadata and item.name in spec:
                yield f"{where}.{item.name}", spec[item.name]
