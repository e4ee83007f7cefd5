"""The one exception that a user sees: a message, never a traceback."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches


class UserError(Exception):
    """Something the user can mend: the command prints the message and exits with code 2.

    The message names the file or key, the value, what is allowed and what to do.
    """


def nearest(name: object, allowed: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest allowed name, or an empty string."""
    match = get_close_matches(str(name), list(allowed), n=1, cutoff=0.6)
    return f" Did you mean {match[0]!r}?" if match else ""


def choices(allowed: Iterable[str]) -> str:
    """Return the allowed names as one sorted, comma-separated text."""
    return ", ".join(sorted(allowed))


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, what it was raised from or in the handling of, and so on."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__ or each.__context__
