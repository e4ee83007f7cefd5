"""Streams: which samples a step gets, in which views, and how they are drawn."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from cyclery.common.errors import UserError, choices, nearest

Sampler = Literal["shuffled", "poisson", "balanced"]
# Pools by name: the labelled training samples, those whose labels are hidden, and what a hook sets.
# With a label hierarchy `labelled.h` has labels at level h or finer, `unlabelled.h` has not.
TRAIN, UNLABELLED, OWN = "train", "unlabelled", "own"
# The labels of a hierarchy's finest level are those of all labelled samples.
FINEST = "labelled.1"
LEVELS = re.compile(r"(labelled|unlabelled)\.[1-9]")
# Samples of `unlabelled` for each one of the batch: the setting `mu` of the run.
MU: Final = "mu"


@dataclass(frozen=True)
class Stream:
    """Samples of a pool, ``times`` the batch at each update, each in all ``views``.

    ``pool``: ``train``, ``unlabelled``, a level's ``labelled.2`` or ``unlabelled.2``, or ``own``,
    which `begin` or `event` fills. ``sampler``: ``shuffled`` takes one shuffled pass after another;
    ``balanced`` draws with replacement, each class as likely (with ``classes``, so many classes at
    each update, without replacement, and as many samples of each); ``poisson`` takes each sample
    with a probability of its own, so that the batch has the expected size, and fills what is left
    of the tensors with samples that ``mask`` [B] marks with 0.
    """

    views: tuple[str, ...]
    pool: str = TRAIN
    times: int | Literal["mu"] = 1
    sampler: Sampler = "shuffled"
    classes: int | None = None

    def size(self, batch: int, mu: int | None) -> int:
        """Return the samples of an update, on average."""
        return batch * (self.times if isinstance(self.times, int) else mu or 1)


Declared = dict[str, "tuple[str, ...] | Stream"]
# What a tuple of views stands for.
SHORT = {"labelled": Stream((), TRAIN), "unlabelled": Stream((), UNLABELLED, MU)}


def checked(declared: Callable[[Any], Declared], file: Path) -> Callable[[Any], dict[str, Stream]]:
    """Return ``streams`` of a method's file, with short forms written out.

    A UserError says what is wrong with them; it begins with the key of the arm that asks for the
    method.
    """

    def streams(settings: Any) -> dict[str, Stream]:
        found = declared(settings)
        for problem in _problems(found):
            raise UserError(f"method: {file}: streams: {problem}")
        return {
            name: each
            if isinstance(each, Stream)
            else Stream(each, SHORT[name].pool, SHORT[name].times)
            for name, each in found.items()
        }

    return streams


def _problems(found: Any) -> Iterator[str]:
    if not isinstance(found, dict) or not found:
        yield f"must be a dict with one stream at least (found {found!r:.80})."
        return
    for name, each in found.items():
        if not isinstance(name, str) or not name.isidentifier():
            yield f"names must be those of Python (found {name!r:.80})."
        elif isinstance(each, Stream):
            yield from (f"{name}: {text}" for text in _wrong(each))
        elif name not in SHORT:
            yield (
                f"unknown stream {name!r:.80}.{nearest(name, SHORT)} Streams: {choices(SHORT)}. "
                "Another one is a `Stream`, which says its pool."
            )
        elif not _are_views(each):
            yield f"{name}: must be a tuple of views, one at least (found {each!r:.80})."
    name, first = next(iter(found.items()))
    times = first.times if isinstance(first, Stream) else SHORT.get(name, Stream(())).times
    if times != 1:
        yield f"the first one is what an epoch counts, so it has `times` 1 (found {times!r})."


def _wrong(stream: Stream) -> Iterator[str]:
    if not _are_views(stream.views):
        yield f"views must be a tuple of names, one at least (found {stream.views!r:.80})."
    if stream.pool not in (TRAIN, UNLABELLED, OWN) and not LEVELS.fullmatch(str(stream.pool)):
        yield (
            f"unknown pool {stream.pool!r:.80}. Pools: {choices((TRAIN, UNLABELLED, OWN))}, or "
            "with a hierarchy labelled.2, unlabelled.2 and so on."
        )
    if stream.times != MU and not _counts(stream.times):
        yield f"times must be a whole number from 1, or 'mu' (found {stream.times!r:.80})."
    if stream.sampler not in get_args(Sampler):
        yield f"sampler must be {choices(get_args(Sampler))} (found {stream.sampler!r:.80})."
    if stream.sampler == "poisson" and stream.pool == OWN:
        # Its room is reserved at the start, for the size of a pool that is not known then.
        yield "the sampler poisson needs a pool of the split (found 'own')."
    if stream.classes is not None and stream.sampler != "balanced":
        yield f"classes belongs to the sampler balanced (found {stream.sampler!r})."
    if stream.classes is not None and not _counts(stream.classes):
        yield f"classes must be a whole number from 1 (found {stream.classes!r:.80})."
    if stream.sampler == "balanced" and stream.pool not in (TRAIN, FINEST, OWN):
        yield (
            f"sampler balanced looks at labels, which the pool {stream.pool} hides; take the pool "
            f"{TRAIN}, or {OWN}."
        )


def _counts(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _are_views(views: Any) -> bool:
    return isinstance(views, tuple) and bool(views) and all(isinstance(v, str) for v in views)
