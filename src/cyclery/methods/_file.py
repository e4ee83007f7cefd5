"""A method's file as such: imported with one clear message where it is wrong, and its hash."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from cyclery.errors import UserError
from cyclery.source import imported, source_digest

NEEDED = ("VERSION", "TITLE", "Settings", "step")
STEP = ("models", "batch", "row", "settings", "generator")


def path(name: str) -> Path:
    """Return the file of a method."""
    spec = find_spec(f"{__package__}.{name}")
    assert spec is not None and spec.origin is not None, name
    return Path(spec.origin)


def read(name: str) -> tuple[ModuleType, dict[str, Any]]:
    """Return a method's module and the annotations of its ``Settings``.

    A UserError names the file, and the line where there is one, of whatever is wrong with it.
    """
    file = path(name)
    try:
        module = import_module(f"{__package__}.{name}")
    except SyntaxError as error:
        # The mistake may be in a file that this one imports.
        where = f"{error.filename or file}:{error.lineno or 1}"
        raise UserError(f"{where}: {error.msg}; mend the method's file.") from None
    except Exception as error:
        raise UserError(
            f"{_place(error, file)}: the method {name!r} cannot be imported: "
            f"{type(error).__name__}: {error}"
        ) from None
    for problem in _lacks(module):
        raise UserError(f"{file}: {problem}")
    try:
        return module, get_type_hints(module.Settings, include_extras=True)
    except Exception as error:
        raise UserError(
            f"{file}: an annotation of Settings cannot be read: {type(error).__name__}: {error}"
        ) from None


def _place(error: BaseException, file: Path) -> str:
    """Return the file, with the line of it at which an import failed."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(file)]
    return f"{file}:{lines[-1]}" if lines else str(file)


def _lacks(module: ModuleType) -> Iterator[str]:
    """Yield what a module does not declare as a method must."""
    missing = [name for name in NEEDED if not hasattr(module, name)]
    if missing:
        yield (
            f"declares no {', '.join(missing)}; a method's file has VERSION (a whole number), "
            "TITLE (text), a frozen dataclass Settings and a function step."
        )
        return
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
    if not callable(module.step):
        yield f"step must be a function (found {module.step!r:.80})."
    elif not _takes(module.step, len(STEP)):
        yield f"step must take {len(STEP)} arguments: {', '.join(STEP)}."


def _takes(function: Any, count: int) -> bool:
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    return True


@cache
def digest(name: str) -> str:
    """Return the hash of what a method's file, and what it takes from other methods', say.

    Comments, docstrings and layout do not count.
    """
    files, left = {}, [path(name)]
    while left:
        file = left.pop()
        if file.stem not in files:
            files[file.stem] = file
            left += [path(other) for other in imported(file, __package__ or "")]
    return source_digest([files[stem] for stem in sorted(files)])


def check_all(names: tuple[str, ...]) -> None:
    """Raise a UserError with a line for each method whose file is wrong."""
    problems = []
    for name in names:
        try:
            read(name)
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))
