"""Import and hash a method's file, with one clear message where it is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from functools import cache, wraps
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import Any, get_type_hints

from cyclery.common.components import Components, takes
from cyclery.common.errors import UserError
from cyclery.common.source_hash import imported, source_digest

FILES = Components(
    __package__ or "",
    "method",
    (
        ("VERSION", "a whole number"),
        ("TITLE", "text"),
        ("Settings", "a frozen dataclass"),
        ("step", "a function"),
    ),
)
# What each function of a file is called with; those that are not here take the settings alone.
ARGUMENTS = {
    "step": ("models", "batch", "row", "settings", "generator"),
    "modules": ("settings", "made"),
    "begin": ("models", "moment", "settings"),
    "events": ("settings", "clock"),
    "event": ("models", "moment", "settings"),
    "predict": ("models", "x", "settings"),
    "features": ("models", "x", "settings"),
    "evaluate": ("models", "measured", "settings"),
    "forwards": ("settings", "images"),
    "planned": ("settings", "course"),
    "columns": ("settings", "course"),
}
ALONE = ("streams", "uses_ema", "trains_ema", "parents", "judges", "voters", "measures",
         "averages", "classifies", "keeps", "ignored")  # fmt: skip
# Those that return names.
NAMES = ("parents", "judges", "voters", "measures", "keeps")
# Those that planning calls.
PLANNED = (*ALONE[1:], "forwards", "planned", "columns")
# Functions that do nothing without one another.
PAIRS = (("events", "event"), ("measures", "evaluate"))


def telling(hook: str, function: Callable[..., Any], file: Path) -> Callable[..., Any]:
    """Return a function that planning calls, so that whatever it raises is one message."""

    @wraps(function)
    def told(*given: Any) -> Any:
        try:
            return function(*given)
        except UserError:
            raise
        except Exception as error:
            lines = [f.lineno for f in extract_tb(error.__traceback__) if f.filename == str(file)]
            place = f"{file}:{lines[-1]}" if lines else str(file)
            raise UserError(
                f"method: {place}: {hook} failed: {type(error).__name__}: {error}"
            ) from error

    return told


def naming(
    hook: str, function: Callable[[Any], Any], file: Path
) -> Callable[[Any], tuple[str, ...]]:
    """Return a function of a method's file that returns names, checked.

    A text is iterable as well, so that ``("teacher")`` would be seven names.
    """

    def names(settings: Any) -> tuple[str, ...]:
        found = function(settings)
        if not isinstance(found, tuple | list) or not all(isinstance(x, str) for x in found):
            raise UserError(
                f"method: {file}: {hook} must return a tuple of names, as ('one',) "
                f"(found {found!r:.80})."
            )
        return tuple(found)

    return names


def read(name: str) -> tuple[ModuleType, dict[str, Any]]:
    """Return a method's module and the annotations of its ``Settings``.

    A UserError names the file, and the line where there is one, of whatever is wrong with it.
    """
    module = FILES.load(name)
    file = FILES.path(name)
    for problem in _problems(module):
        raise UserError(f"{file}: {problem}")
    try:
        return module, get_type_hints(module.Settings, include_extras=True)
    except Exception as error:
        raise UserError(
            f"{file}: an annotation of Settings cannot be read: {type(error).__name__}: {error}"
        ) from None


def _problems(module: ModuleType) -> Iterator[str]:
    """Yield what a module declares otherwise than a method must."""
    version, title = module.VERSION, module.TITLE
    if not isinstance(version, int) or isinstance(version, bool):
        yield f"VERSION must be a whole number (found {version!r:.80})."
    if not isinstance(title, str):
        yield f"TITLE must be text (found {title!r:.80})."
    settings: Any = module.Settings
    frozen: Any = getattr(settings, "__dataclass_params__", None)
    if not (isinstance(settings, type) and is_dataclass(settings) and frozen.frozen):
        yield "Settings must be a dataclass with `@dataclass(frozen=True)`."
        return
    for field in fields(settings):
        if field.default is MISSING and field.default_factory is MISSING:
            yield f"Settings.{field.name} has no default; every field needs one."
    for name, arguments in (*ARGUMENTS.items(), *((name, ("settings",)) for name in ALONE)):
        given: Any = getattr(module, name, None)
        if given is None:
            continue
        if not callable(given):
            yield f"{name} must be a function (found {given!r:.80})."
        elif not takes(given, len(arguments)):
            count = f"{len(arguments)} argument{'s' if len(arguments) > 1 else ''}"
            yield f"{name} must take {count}: {', '.join(arguments)}."
    for pair in PAIRS:
        there = [name for name in pair if hasattr(module, name)]
        if len(there) == 1:
            [other] = set(pair) - set(there)
            yield f"{there[0]} does nothing without {other}; write both."


@cache
def digest(name: str) -> str:
    """Return the hash of what a method's file, and what it takes from other methods', say.

    Comments, docstrings and layout do not count.
    """
    files, left = {}, [FILES.path(name)]
    while left:
        file = left.pop()
        if file.stem not in files:
            files[file.stem] = file
            left += [FILES.path(other) for other in imported(file, __package__ or "")]
    return source_digest([files[stem] for stem in sorted(files)])
