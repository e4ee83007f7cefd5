"""``UserError``, the one exception that a user sees, as a message without a traceback."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches

# Of a message, of one of its lines, and of a word: beyond it only the beginning and the end count.
MOST, LINE, WORD = 1900, 1200, 300
# Stands for the key in a validator's message, until `cyclery.config.load` puts that there.
HERE = "⟨key⟩"


class UserError(Exception):
    """Something the user can mend: the command prints the message and exits with code 2.

    The message names the file or key, the value, what is allowed and what to do. It may hold what
    a user wrote, so it is shortened, and what cannot be printed is shown escaped.
    """

    def __init__(self, message: str) -> None:
        super().__init__(tidy(message))


def tidy(message: str) -> str:
    """Return a message that fits a terminal: few characters, and none that it would obey."""
    lines = [_line(line) for line in message.split("\n")]
    kept, room = lines[:1], MOST - len(lines[0])
    for line in lines[1:]:
        room -= len(line) + 1
        if room < 0:
            break
        kept.append(line)
    more = len(lines) - len(kept)
    return "\n".join([*kept, f"... and {more} more lines."] if more else kept)


def _line(text: str) -> str:
    if not text.isprintable():
        text = "".join(c if c.isprintable() else _escaped(c) for c in text)
    if len(text) > WORD:
        text = re.sub(rf"\S{{{WORD},}}", lambda word: f"{word[0][:120]}...{word[0][-60:]}", text)
    return text if len(text) <= LINE else f"{text[: LINE - 3]}..."


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def nearest(name: object, allowed: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest allowed name, or an empty string."""
    text = str(name)
    if len(text) > WORD:
        return ""
    match = get_close_matches(text, list(allowed), n=1, cutoff=0.6)
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
