"""Random search, as an experiment declares it: the space, and the configurations drawn of it.

A configuration depends on the space and on its number alone, so all arms of an experiment try the
same ones, and all are known before anything is trained.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated, Any, Literal, Protocol

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from cyclery.common.errors import HERE, choices, nearest
from cyclery.common.strict import Strict
from cyclery.config.components import QUANTITIES
from cyclery.config.settings import Name

# A limited quantity, as momentum, has no peak that could be any number.
SEARCHED = [*sorted(name for name, limits in QUANTITIES.items() if not limits), "batch"]
# Digits of a drawn value: what a logarithm's last bits are on another machine changes none.
DIGITS = 6
MOST = 1e12

Trials = Annotated[int, Field(ge=2, le=1000)]
Epochs = Annotated[int, Field(ge=1, le=100_000)]
Value = Annotated[float, Field(ge=0, le=MOST)]


class Span(Strict):
    """Numbers between two bounds, drawn uniformly on a linear or a logarithmic scale."""

    low: Value = Field(description="the smallest value")
    high: Value = Field(description="the largest value")
    scale: Literal["log", "linear"] = Field(
        "log", description="`log` draws the logarithm uniformly, `linear` the value itself"
    )

    @model_validator(mode="after")
    def _rises(self) -> Span:
        if self.low >= self.high:
            raise ValueError(f"{HERE}.low: must be below `high`, {self.high} (found {self.low}).")
        if self.scale == "log" and self.low == 0:
            raise ValueError(f"{HERE}.low: must be above 0 on a logarithmic scale (found 0).")
        return self


def _different(values: list[float]) -> list[float]:
    if len(values) < 2 or len(set(values)) < len(values):
        raise ValueError(f"{HERE}: must be at least two different values (found {values!r:.80}).")
    return values


def _kind(value: Any) -> str | None:
    if isinstance(value, list):
        return "<list>"
    return "<span>" if isinstance(value, dict | Span) else None


Dimension = Annotated[
    Annotated[Span, Tag("<span>")]
    | Annotated[list[Value], Field(max_length=100), AfterValidator(_different), Tag("<list>")],
    Discriminator(
        _kind,
        custom_error_type="dimension",
        custom_error_message="must be a list of values, or a mapping with `low` and `high`",
    ),
]
Space = dict[Name, Dimension]


def _check_batch(space: Space) -> Space:
    batch = space.get("batch")
    whole = isinstance(batch, list) and all(size >= 1 and size.is_integer() for size in batch)
    if batch is not None and not whole:
        shown = batch if isinstance(batch, list) else "a span"
        raise ValueError(
            f"{HERE}.batch: must be a list of whole numbers, at least 1 (found {shown!r:.80})."
        )
    return space


def _of_all(space: Space) -> Space:
    for name in space:
        if name not in SEARCHED:
            raise ValueError(
                f"{HERE}: cannot search {name!r}.{nearest(name, SEARCHED)} All arms have: "
                f"{choices(SEARCHED)}; what only one arm's method has goes into its `search_also`."
            )
    if not space:
        raise ValueError(f"{HERE}: must have at least one quantity.")
    return space


def _floats(value: Any) -> Any:
    """Take whole numbers in lists as numbers, which YAML tells apart."""
    if not isinstance(value, dict):
        return value
    return {
        name: [float(x) if isinstance(x, int) and not isinstance(x, bool) else x for x in values]
        if isinstance(values, list) else values
        for name, values in value.items()
    }  # fmt: skip


Shared = Annotated[
    Space, BeforeValidator(_floats), AfterValidator(_check_batch), AfterValidator(_of_all)
]
Own = Annotated[Space, BeforeValidator(_floats), AfterValidator(_check_batch)]

_DOC = {
    "trials": "configurations that are drawn and tried, the same for every arm",
    "grace": "epochs that every trial is trained before it may be stopped",
    "reduction": "one trial in so many goes on at each rung: after `grace_epochs` epochs, and "
    "whenever its epochs have grown by this factor",
    "last": "evaluations in a row, one after each epoch, whose mean validation accuracy counts",
    "per": "`split`: a search for every split, which the runs on that split take their values "
    "from; `arm`: one for all runs, on a split that no run has",
    "space": "quantity to a list of values, or to `low`, `high` and `scale`. A number of the arm "
    "is replaced by the drawn value; a schedule keeps its shape and gets it as its peak",
    "tied": "quantity to the one of the space whose drawn values it takes, as in "
    "`weight_decay_norm: weight_decay`",
}


class Search(Strict):
    """Random search with asynchronous successive halving, before an arm's own runs.

    OWN DEFINITION: trials are trained one after another, in the order of their numbers, so that
    what is stopped does not depend on which machine was faster; no trial has the values as
    declared, which stand where every trial diverged.
    """

    trials: Trials = Field(description=_DOC["trials"])
    grace_epochs: Epochs = Field(description=_DOC["grace"])
    reduction: Annotated[int, Field(ge=2, le=100)] = Field(2, description=_DOC["reduction"])
    last: Annotated[int, Field(ge=1, le=1000)] = Field(5, description=_DOC["last"])
    per: Literal["split", "arm"] = Field("split", description=_DOC["per"])
    space: Shared = Field(description=_DOC["space"])
    tied: dict[Name, Name] = Field({}, description=_DOC["tied"])

    @model_validator(mode="after")
    def _ties(self) -> Search:
        for name, to in self.tied.items():
            if name not in SEARCHED or name in self.space:
                raise ValueError(
                    f"{HERE}.tied: must name quantities that the space does not have, "
                    f"{choices(each for each in SEARCHED if each not in self.space)} "
                    f"(found {name!r})."
                )
            if to not in self.space:
                raise ValueError(
                    f"{HERE}.tied.{name}: must be a quantity of the space, {choices(self.space)} "
                    f"(found {to!r})."
                )
        return self


class SearchTier(Strict):
    """What of an experiment's search a tier changes; a key that is null stays as it is."""

    trials: Trials | None = Field(None, description=_DOC["trials"])
    grace_epochs: Epochs | None = Field(None, description=_DOC["grace"])
    reduction: Annotated[int, Field(ge=2, le=100)] | None = Field(
        None, description=_DOC["reduction"]
    )
    last: Annotated[int, Field(ge=1, le=1000)] | None = Field(None, description=_DOC["last"])
    per: Literal["split", "arm"] | None = Field(None, description=_DOC["per"])
    space: Shared | None = Field(None, description=_DOC["space"] + "; replaces the whole space")

    def over(self, declared: Search) -> Search:
        """Return the search of the experiment as this tier has it."""
        changed = {
            name: getattr(self, name) for name in type(self).model_fields
            if getattr(self, name) is not None
        }  # fmt: skip
        return Search.model_validate({**dict(declared), **changed})


class _Tier(Protocol):
    @property
    def search(self) -> SearchTier | None: ...


class _Arm(Protocol):
    @property
    def searched(self) -> bool: ...

    @property
    def search_also(self) -> Space: ...


def check_searches(
    declared: Search | None, tiers: Mapping[str, _Tier], arms: Mapping[str, _Arm]
) -> None:
    """Raise a ValueError where what tiers or arms say of an experiment's search is of no use."""
    asking = [name for name, tier in tiers.items() if tier.search is not None]
    if declared is None and asking:
        raise ValueError(
            f"{HERE}.tiers.{asking[0]}.search: needs the experiment's own `search`, which says "
            "what is searched; add it."
        )
    for name in asking:
        _check_tied(declared, tiers[name].search, f"{HERE}.tiers.{name}.search.space")
    spaces = [each.space for each in (declared, *(t.search for t in tiers.values())) if each]
    for name, arm in arms.items():
        where = f"{HERE}.arms.{name}.search_also"
        if arm.search_also and (declared is None or not arm.searched):
            raise ValueError(f"{where}: must be empty, for this arm is not searched.")
        for quantity in arm.search_also:
            if any(space and quantity in space for space in spaces):
                raise ValueError(
                    f"{where}: {quantity!r} is in the space of all arms; drop it here."
                )


def _check_tied(declared: Search | None, tier: SearchTier | None, where: str) -> None:
    """Raise a ValueError where a tier's own space is not one that the experiment's ties are for."""
    if declared is None or tier is None or tier.space is None:
        return
    for name, to in declared.tied.items():
        if name in tier.space or to not in tier.space:
            raise ValueError(
                f"{where}: must have {to!r} and not {name!r}, for `search.tied` gives that the "
                f"values of {to!r} (found {choices(tier.space)})."
            )


def configurations(space: Space, trials: int) -> list[dict[str, float]]:
    """Return the values of every trial, drawn by the space and the number of the trial.

    A quantity that is added to a space leaves the draws of the others as they are.
    """
    return [{name: _drawn(name, space[name], k) for name in sorted(space)} for k in range(trials)]


def _drawn(name: str, dimension: Span | list[float], trial: int) -> float:
    told: Any = dimension.model_dump() if isinstance(dimension, Span) else dimension
    text = json.dumps([name, told, trial], sort_keys=True, separators=(",", ":"))
    raw = int.from_bytes(sha256(f"search/{text}".encode()).digest()[:8], "big")
    u = (raw >> 11) * 2.0**-53  # uniform in [0, 1)
    if isinstance(dimension, list):
        return dimension[int(u * len(dimension))]
    low, high = dimension.low, dimension.high
    if dimension.scale == "linear":
        value = low + u * (high - low)
    else:
        value = math.exp(math.log(low) + u * (math.log(high) - math.log(low)))
    return min(high, max(low, float(f"{value:.{DIGITS}g}")))


def changes(values: Mapping[str, float], tied: Mapping[str, str]) -> dict[str, float]:
    """Return what a trial sets: its values, and those of the quantities that are tied to them."""
    return {**values, **{name: values[to] for name, to in tied.items()}}


def texts(values: Mapping[str, float]) -> str:
    """Return a configuration in words, as ``lr 0.0046, batch 10``."""
    return ", ".join(f"{name} {value:.3g}" for name, value in values.items())
