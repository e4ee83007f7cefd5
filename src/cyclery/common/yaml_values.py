"""A safe YAML parser for configuration, with one clear message for what it does not accept.

Values are built from the parser's events as these come. Nothing is composed or constructed by
PyYAML, whose C part calls itself for every bracket, so that no text can exhaust the stack, multiply
aliases without end, or ask for a Python object. Numbers are those that YAML 1.1 and 1.2 agree on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from cyclery.common.errors import UserError

# Brackets within brackets.
DEPTH = 50
# Characters of a text with every alias written out, and what a value takes beside its own.
SIZE, NODE = 5_000_000, 25
# Digits of a whole number, and characters that are looked at for one.
DIGITS, WIDTH = 18, 40

_WORDS: dict[str, Any] = {"": None, "~": None} | {
    form: value
    for value, words in {
        None: ("null",),
        True: ("true", "yes", "on"),
        False: ("false", "no", "off"),
    }.items()
    for word in words
    for form in (word, word.capitalize(), word.upper())
}
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*|0x[0-9a-fA-F]+)")
_FLOAT = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+")
_SPECIAL = re.compile(r"([-+]?)\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
# Base 2, 8 or 60, or digits in groups: YAML 1.1 makes a number of these, YAML 1.2 another or text.
_ODD = re.compile(
    r"[-+]?(0b[01_]+|0o[0-7]+|0[0-9_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?"
    r"|[0-9][0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9]+)?|\.[0-9][0-9_]*([eE][-+]?[0-9]+)?)"
)
_TEXT = "tag:yaml.org,2002:str"
_MERGE = object()
_NO_KEY = object()
_PLAIN = (None, "")


class Odd(ValueError):
    """A number that YAML readers disagree about, or one that is too long."""


def scalar(text: str) -> Any:
    """Return what a plain scalar means: null, true, false, a number or text.

    Raises Odd for a number that is not written in plain decimals.
    """
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "-+.0123456789":
        return text
    if _INT.fullmatch(text):
        number = int(text, 16 if "x" in text else 10) if len(text) <= WIDTH else 10**DIGITS
        if abs(number) >= 10**DIGITS:
            raise Odd(f"a whole number has at most {DIGITS} digits")
        return number
    if _FLOAT.fullmatch(text):
        return float(text)
    if special := _SPECIAL.fullmatch(text):
        return float("nan") if special[3] else float(f"{special[1]}inf")
    if _ODD.fullmatch(text):
        raise Odd("write a number in plain decimals, or put it in quotes where it is text")
    return text


def parse(text: str, where: str) -> Any:
    """Return the value of a YAML text; ``where`` names it in messages.

    Raises:
        yaml.YAMLError: the text is not YAML, or more of it than configuration needs.
        UserError: a key stands twice.
    """
    builder = _Builder(where)
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        builder.take(event)
    return builder.result


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not come yet."""

    value: Any
    start: int
    anchor: str | None
    key: Any = _NO_KEY
    lines: dict[Any, int] = field(default_factory=dict)
    merged: list[dict[Any, Any]] = field(default_factory=list)


class _Builder:
    """Builds a value from events, each in its own time, whatever came before."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.result: Any = None
        self._documents = 0
        self._open: list[_Open] = []
        # Values by anchor, each with its size; None while it is open.
        self._anchors: dict[str, tuple[Any, int] | None] = {}
        self._size = 0

    def take(self, event: Any) -> None:
        """Take the next event."""
        if isinstance(event, yaml.ScalarEvent):
            start = self._size
            self._grow(NODE + len(event.value), event)
            value = self._scalar(event)
            if event.anchor:
                self._anchors[event.anchor] = value, self._size - start
            self._put(value, event)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._begin(event, {} if isinstance(event, yaml.MappingStartEvent) else [])
        elif isinstance(event, yaml.CollectionEndEvent):
            self._end(event)
        elif isinstance(event, yaml.AliasEvent):
            self._put(self._aliased(event), event)
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise _problem("a second document begins; there may be one", event)

    def _grow(self, size: int, event: Any) -> None:
        self._size += size
        if self._size > SIZE:
            raise _problem(f"more than {SIZE:,} characters where every alias is written out", event)

    def _scalar(self, event: Any) -> Any:
        value: str = event.value
        if event.tag not in (None, _TEXT):
            raise _problem(f"no tag is known but !!str; drop {event.tag:.80}", event)
        if not value.isprintable() and re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", value):
            raise _problem(f"a control character in {value!r:.80}; delete it", event)
        if event.tag or event.style not in _PLAIN:
            return value
        if value == "<<" and self._expects_key():
            return _MERGE
        try:
            return scalar(value)
        except Odd as error:
            raise _problem(f"{value!r:.80}: {error}", event) from None

    def _expects_key(self) -> bool:
        return (
            bool(self._open)
            and isinstance(self._open[-1].value, dict)
            and self._open[-1].key is _NO_KEY
        )

    def _begin(self, event: Any, value: Any) -> None:
        if event.tag is not None:
            raise _problem(f"no tag is known but !!str; drop {event.tag:.80}", event)
        if self._expects_key():
            raise _problem("a key must be text (found a list or mapping)", event)
        if len(self._open) >= DEPTH:
            raise _problem(f"more than {DEPTH} lists or mappings within each other", event)
        self._open.append(_Open(value, self._size, event.anchor))
        self._grow(NODE, event)
        if event.anchor:
            self._anchors[event.anchor] = None

    def _end(self, event: Any) -> None:
        done = self._open.pop()
        value = done.value
        if done.merged:
            # What is merged comes first, and what stands in the mapping itself wins.
            value = {k: v for each in (*done.merged, value) for k, v in each.items()}
        if done.anchor:
            self._anchors[done.anchor] = value, self._size - done.start
        self._put(value, event)

    def _aliased(self, event: Any) -> Any:
        if event.anchor not in self._anchors:
            raise _problem(f"no anchor {event.anchor!r:.80} stands before this alias", event)
        found = self._anchors[event.anchor]
        if found is None:
            raise _problem(f"the alias {event.anchor!r:.80} stands within what it names", event)
        self._grow(found[1], event)
        return found[0]

    def _put(self, value: Any, event: Any) -> None:
        """Put a value into what is open: as the result, an element, a key or a key's value."""
        if not self._open:
            self.result = value
            return
        inner = self._open[-1]
        if isinstance(inner.value, list):
            inner.value.append(value)
        elif inner.key is _NO_KEY:
            self._key(inner, value, event)
        else:
            if inner.key is _MERGE:
                inner.merged = _mappings(value, event)
            else:
                inner.value[inner.key] = value
            inner.key = _NO_KEY

    def _key(self, inner: _Open, key: Any, event: Any) -> None:
        if isinstance(key, dict | list):
            raise _problem("a key must be text (found a list or mapping)", event)
        line = event.start_mark.line + 1
        if key in inner.lines:
            name = "<<" if key is _MERGE else key
            raise UserError(
                f"{self.where}: {name!r:.80} stands twice, on lines {inner.lines[key]} and {line}; "
                "rename or delete one."
            )
        inner.lines[key], inner.key = line, key


def _mappings(value: Any, event: Any) -> list[dict[Any, Any]]:
    """Return what `<<` merges, a mapping or a list of them, the earlier of which win."""
    found = value if isinstance(value, list) else [value]
    if not all(isinstance(each, dict) for each in found):
        raise _problem("`<<` merges a mapping, or a list of mappings", event)
    return list(reversed(found))


def _problem(text: str, event: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=text, problem_mark=event.start_mark)
