"""Types of searches in evidence."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from cyclery.records.record import StudiedTrial


class SearchedStudy(TypedDict):
    """One study of an arm's search."""

    seeds: list[int]
    """Seeds of the arm that take what it chose."""
    trials: list[StudiedTrial]
    chosen: int | None
    """Null where every trial diverged, so that the values as declared stand."""
    views: int
    seconds: float


class Searched(TypedDict):
    """How an arm's values were searched: random search with successive halving."""

    per: Literal["split", "arm"]
    epochs: int
    grace_epochs: int
    reduction: int
    last: int
    tried: int
    """Configurations of a study."""
    studies: list[SearchedStudy]
    """Those that are done."""
