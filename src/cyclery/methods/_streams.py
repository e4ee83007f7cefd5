"""Check what a method's ``streams`` returns: an unknown stream would get another's samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cyclery.common.errors import UserError, choices, nearest

Streams = Callable[[Any], dict[str, tuple[str, ...]]]
# Streams of samples, of which the first is needed, and views of a sample.
STREAMS = ("labelled", "unlabelled")
VIEWS = ("weak", "strong")


def checked(declared: Streams, file: Path) -> Streams:
    """Return ``streams`` of a method's file so that a UserError says what is wrong with them.

    It begins with the key of the arm that asks for the method.
    """

    def streams(settings: Any) -> dict[str, tuple[str, ...]]:
        found = declared(settings)
        for problem in _problems(found):
            raise UserError(f"method: {file}: streams: {problem}")
        return found

    return streams


def _problems(found: Any) -> Iterator[str]:
    if not isinstance(found, dict) or STREAMS[0] not in found:
        yield f"must be a dict with {STREAMS[0]!r} (found {found!r:.80})."
        return
    for name, views in found.items():
        if name not in STREAMS:
            yield (
                f"unknown stream {name!r:.80}.{nearest(str(name), STREAMS)} Streams: "
                f"{choices(STREAMS)}."
            )
        elif not isinstance(views, tuple) or not views:
            yield f"{name}: must be a tuple of views, one at least (found {views!r:.80})."
        else:
            for view in views:
                if view not in VIEWS:
                    yield (
                        f"{name}: unknown view {view!r:.80}.{nearest(str(view), VIEWS)} Views: "
                        f"{choices(VIEWS)}."
                    )
