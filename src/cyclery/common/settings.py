"""Validate plain settings against a frozen dataclass, and export its JSON Schema.

A key is declared once, as a field of a frozen dataclass, and everything follows from that: how it
is validated (by pydantic), its line in the reference page, its place in the JSON Schemas. The
annotation is its type; the metadata hold ``doc``, one line for the reference, and limits: ``low``
and ``high`` are inclusive, ``above`` and ``below`` exclusive, and for a tuple they hold for every
element, while ``least`` and ``most`` are lengths of the tuple. Types are bool, int, float, str,
Literal, tuples and unions of these, None, other such dataclasses, and whatever `checked` reads.
Nothing is converted but whole numbers to floats where these are meant, and lists to tuples.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache, partial
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from cyclery.common.errors import HERE, UserError, choices, nearest
from cyclery.common.lazy import pydantic

T = TypeVar("T")
Json = dict[str, Any]

_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    NoneType: "null",
}
# A limit in words, and as pydantic calls it.
_LIMITS = {
    "above": ("above", "gt"),
    "low": ("at least", "ge"),
    "high": ("at most", "le"),
    "below": ("below", "lt"),
}
_OUTSIDE = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")


def read(kind: type[T], given: Any, where: str) -> T:
    """Return ``kind(**given)`` with lists made tuples and whole numbers made floats where meant.

    ``where`` is the key path of the settings, with which every message begins. Raises a UserError
    with a line for each unknown or missing key, value of the wrong type, and number outside its
    limits; else what ``kind`` itself raises in its ``__post_init__``, a UserError that begins with
    a key.
    """
    values = read_layer(kind, given, where)
    if missing := [name for name in _required(cast("type", kind)) if name not in values]:
        raise UserError(
            "\n".join(f"{_join(where, name)}: missing; it has no default." for name in missing)
        )
    try:
        return kind(**values)
    except UserError as error:
        raise UserError(_join(where, str(error))) from None


def read_layer(kind: type, given: Any, where: str, skip: Collection[str] = ()) -> dict[str, Any]:
    """Return what is given of ``kind`` as its fields want it; other layers may give the rest.

    The keys of ``skip`` are taken as they are. Raises what ``read`` raises, but for missing keys.
    """
    if not isinstance(given, Mapping):
        raise UserError(f"{_at(where)}must be keys and values (found {given!r:.80}).")
    known, values, problems = declared(kind), {}, []
    for key, value in given.items():
        if key not in known:
            problems.append(f"{_at(where)}{unknown_key(key, known)}")
            continue
        values[key] = value
        if key not in skip:
            try:
                values[key] = _adapter(kind, key).validate_python(value)
            except pydantic.ValidationError as error:
                problems += _problems(error, _hints(kind)[key], known[key], _join(where, key))
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))
    return values


def unknown_key(key: Any, known: Collection[str]) -> str:
    """Return the message about an unknown key."""
    return f"unknown key {key!r:.80}.{nearest(key, known)} Allowed: {choices(known) or 'none'}."


def about_quotes(wanted: Any, value: Any) -> str:
    """Return a hint about a number in quotes, or about text without them."""
    if wanted is str and not isinstance(value, list | dict | None):
        return " Put it in quotes."
    if wanted in (int, float) and isinstance(value, str):
        # PyYAML is for those who read YAML.
        from cyclery.common.yaml_values import Odd, scalar

        try:
            if isinstance(scalar(value), int | float):
                return " This is text; leave out the quotes."
        except Odd as error:
            return f" {str(error).capitalize()}."
    return ""


def checked(check: Callable[[Any, str], Any], schema: Json | None = None) -> Any:
    """Return metadata that make ``Annotated[Any, ...]`` a field which a function validates.

    ``check(value, where)`` returns the value to take, or raises a UserError that begins with
    ``where``, the key path. ``schema`` is the JSON Schema of what it takes.
    """
    return _Checked(check, lambda: schema or {})


@cache
def declared(kind: Any) -> dict[str, Field[Any]]:
    """Return the fields of a settings dataclass by name, its own before those that it inherits."""
    own = vars(kind).get("__annotations__", {})
    return {item.name: item for item in sorted(fields(kind), key=lambda i: i.name not in own)}


def default(item: Field[Any]) -> Any:
    """Return the default of a field, ``MISSING`` where it is required."""
    return item.default if item.default_factory is MISSING else item.default_factory()


def plain(settings: Any) -> Any:
    """Return the fields of a settings dataclass, or of any value in one, as JSON has them."""
    if is_dataclass(settings):
        return {item.name: plain(getattr(settings, item.name)) for item in fields(settings)}
    return [plain(each) for each in settings] if isinstance(settings, tuple) else settings


def check_limits(number: float, limits: Mapping[str, Any], where: str) -> None:
    """Raise a UserError where a number lies outside of limits, which are those of a field."""
    above, low, high, below = (limits.get(name) for name in _LIMITS)
    if (
        (low is not None and number < low)
        or (high is not None and number > high)
        or (above is not None and number <= above)
        or (below is not None and number >= below)
    ):
        raise UserError(f"{where}: must be {allowed(limits)} (found {number}).")


def allowed(limits: Mapping[str, Any]) -> str:
    """Return limits in words, as in `at least 0.0 and at most 1.0`."""
    return " and ".join(
        f"{text} {limits[name]}" for name, (text, _) in _LIMITS.items() if name in limits
    )


def json_schema(kind: type) -> Json:
    """Return the JSON Schema of a settings dataclass: its keys, their types, docs and limits."""
    properties = {}
    for name, item in declared(kind).items():
        found = _adapter(kind, name).json_schema()
        if doc := item.metadata.get("doc"):
            found["description"] = doc
        if (value := default(item)) not in (None, MISSING):
            found["default"] = plain(value)
        properties[name] = found
    return {
        "type": "object",
        "properties": properties,
        **({"required": required} if (required := list(_required(kind))) else {}),
        "additionalProperties": False,
    }


@cache
def _required(kind: Any) -> tuple[str, ...]:
    return tuple(name for name, item in declared(kind).items() if default(item) is MISSING)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    # `get_type_hints` evaluates every annotation again, which a graph of many cells would feel.
    return get_type_hints(kind, include_extras=True)


@cache
def _adapter(kind: Any, name: str) -> pydantic.TypeAdapter[Any]:
    """Return the validator of a field, built at first use, which is slow."""
    annotation = _annotation(_hints(kind)[name], declared(kind)[name].metadata)
    config = pydantic.ConfigDict(strict=True, allow_inf_nan=False)
    return pydantic.TypeAdapter(annotation, config=config)


def _annotation(hint: Any, metadata: Mapping[str, Any]) -> Any:
    """Return the annotation of a field as pydantic wants it, with the limits of its metadata."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        own = any(isinstance(each, _Checked) for each in args[1:])
        return Annotated[Any if own else _annotation(args[0], metadata), *args[1:]]
    if origin in (Union, UnionType):
        if all(is_dataclass(arg) or arg is NoneType for arg in args):
            nested = _nested(*(arg for arg in args if arg is not NoneType))
            return nested | None if NoneType in args else nested
        return Union[tuple(_annotation(arg, metadata) for arg in args)]  # noqa: UP007
    if origin is tuple:
        inner = tuple(arg if arg is Ellipsis else _annotation(arg, metadata) for arg in args)
        lengths = pydantic.Field(
            strict=False, min_length=metadata.get("least"), max_length=metadata.get("most")
        )
        return Annotated[tuple[inner], lengths]  # type: ignore[valid-type]
    if is_dataclass(hint):
        return _nested(hint)
    if origin is Literal and not all(isinstance(arg, str) for arg in args):
        return Annotated[hint, pydantic.BeforeValidator(partial(_same, args))]
    limits = {word: metadata[name] for name, (_, word) in _LIMITS.items() if name in metadata}
    return Annotated[hint, pydantic.Field(**limits)] if hint in (int, float) and limits else hint


def _same(known: tuple[Any, ...], value: Any) -> Any:
    """Refuse 0 for false: it would be another value in the settings of a run."""
    if any(value == each and type(value) is not type(each) for each in known):
        # For pydantic a mismatch like any other, where a ValueError has the words to show.
        raise AssertionError("another type")
    return value


class _Checked:
    """An annotation of what a function reads, for pydantic."""

    def __init__(self, check: Callable[[Any, str], Any], schema: Callable[[], Json]) -> None:
        self._check, self._schema = check, schema

    def _validate(self, value: Any) -> Any:
        try:
            return self._check(value, HERE)
        except UserError as error:
            raise ValueError(str(error)) from None

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return pydantic.PlainValidator(self._validate).__get_pydantic_core_schema__(source, handler)

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> Json:
        return self._schema()


def _nested(*kinds: Any) -> Any:
    """Return the annotation of a dataclass within another: one, or that of several by ``kind``."""

    def check(value: Any, where: str) -> Any:
        if len(kinds) == 1:
            return read(kinds[0], value, where)
        known = {get_args(_hints(kind)["kind"])[0]: kind for kind in kinds}
        name = value.get("kind") if isinstance(value, Mapping) else None
        if not isinstance(name, str) or name not in known:
            raise UserError(
                f"{where}: must be keys and values with `kind`: {' or '.join(sorted(known))} "
                f"(found {value!r:.80}).{nearest(name, known) if name else ''}"
            )
        return read(known[name], value, where)

    def schema() -> Json:
        cases = [json_schema(kind) for kind in kinds]
        return cases[0] if len(cases) == 1 else {"anyOf": cases}

    return Annotated[Any, _Checked(check, schema)]


def _problems(
    error: pydantic.ValidationError, hint: Any, item: Field[Any], where: str
) -> list[str]:
    """Return pydantic's errors about a field's value, in the terms of its declaration."""
    found: dict[str, str] = {}
    for problem in error.errors(include_url=False):
        kind, value, place, wanted = problem["type"], problem["input"], where, _bare(hint)
        # An element that is missing is a list that is too short.
        for part in problem["loc"] if kind != "missing" else ():
            # Other parts name the branch of a union, which is no key of the user's.
            if isinstance(part, int) and get_origin(wanted) is tuple:
                args = get_args(wanted)
                place = f"{place}[{part}]"
                wanted = _bare(args[0] if args[-1] is Ellipsis else args[part])
        if kind == "too_short" and found:
            continue  # for lack of the elements that are wrong
        if kind == "value_error":
            found[place] = problem["msg"].removeprefix("Value error, ").replace(HERE, place)
        elif kind in ("too_short", "too_long") and {"least", "most"} & item.metadata.keys():
            found[place] = f"{place}: must have {_length(item.metadata)} (found {value!r:.80})."
        elif kind in _OUTSIDE and get_origin(wanted) not in (Union, UnionType):
            found[place] = f"{place}: must be {allowed(item.metadata)} (found {value!r:.80})."
        else:
            words = _describe(wanted, item.metadata)
            if kind == "finite_number":
                words = "a finite number"
            advice = about_quotes(wanted, value)
            if wanted in (int, float) and isinstance(value, Mapping) and "kind" in value:
                advice = " This setting follows no schedule: in its file it is no `Quantity`."
            if get_origin(wanted) is Literal:
                advice = nearest(value, map(_yaml, get_args(wanted)))
            found.setdefault(place, f"{place}: must be {words} (found {value!r:.80}).{advice}")
    return list(found.values())


def _bare(hint: Any) -> Any:
    """Return an annotation without metadata and without None."""
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) in (Union, UnionType):
        kept = [arg for arg in get_args(hint) if arg is not NoneType]
        return _bare(kept[0]) if len(kept) == 1 else Union[tuple(kept)]  # noqa: UP007
    return hint


def _describe(hint: Any, limits: Mapping[str, Any]) -> str:
    """Return in words what an annotation allows."""
    hint = _bare(hint)
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {choices(map(_yaml, args))}"
    if origin in (Union, UnionType):
        words: list[str] = []
        for arg in map(_bare, args):
            if get_origin(arg) is Literal:
                words += map(_yaml, get_args(arg))
            else:
                within = f" {allowed(limits)}" if arg in (int, float) and allowed(limits) else ""
                words.append(_describe(arg, limits) + within)
        return f"{', '.join(words[:-1])} or {words[-1]}"
    if origin is tuple:
        count = "" if args[-1] is Ellipsis else f" of {len(args)}"
        return f"a list{count}, each element {_describe(args[0], limits)}"
    return _WORDS.get(hint, "keys and values")


def _length(metadata: Mapping[str, Any]) -> str:
    """Return in words how many elements a list has."""
    limits = {"low": metadata.get("least"), "high": metadata.get("most")}
    count = allowed({name: limit for name, limit in limits.items() if limit is not None})
    return f"{count} element{'' if count.endswith(' 1') else 's'}"


def _yaml(value: Any) -> str:
    """Return an allowed value as it is written in YAML."""
    return value if isinstance(value, str) else str(value).lower()


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _at(where: str) -> str:
    return f"{where}: " if where else ""
