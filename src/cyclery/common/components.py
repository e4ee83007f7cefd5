"""Find components (methods, networks, optimisers, ...) by file name: adding one edits no list.

Methods, networks, optimisers, augmentation ops and the like lie in one package each, one file each.
Files whose names begin with ``_``, and folders, are what the others share.
"""

from __future__ import annotations

import ast
import inspect
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, fields
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any, get_type_hints

from cyclery.common.errors import UserError, choices, nearest


@dataclass(frozen=True)
class Components:
    """The files of a package, of which each is one component.

    Args:
        package: name of the package, as ``cyclery.methods``.
        noun: what one is called in messages, as ``method``.
        declares: what a file must declare, by name, and in words.
    """

    package: str
    noun: str
    declares: tuple[tuple[str, str], ...]

    def names(self) -> tuple[str, ...]:
        """Return the names of all components, sorted."""
        paths = import_module(self.package).__path__
        found = (m.name for m in iter_modules(paths) if not m.ispkg)
        return tuple(sorted(name for name in found if name[0] not in "_."))

    def path(self, name: str) -> Path:
        """Return the file of a component."""
        spec = find_spec(f"{self.package}.{name}")
        assert spec is not None and spec.origin is not None, name
        return Path(spec.origin)

    def require(self, name: str, where: str = "") -> None:
        """Raise a UserError where no component has the name; ``where`` begins its message."""
        if not self._loaded(name) and name not in self.names():
            raise UserError(
                f"{where}{': ' if where else ''}unknown {self.noun} {name!r:.80}."
                f"{nearest(name, self.names())} {self.noun.capitalize()}s: {choices(self.names())}."
            )

    def load(self, name: str) -> ModuleType:
        """Return the module of a component.

        A UserError names the components there are, or the file, and the line where there is one,
        of whatever is wrong with it.
        """
        if known := self._loaded(name):
            return known
        self.require(name)
        file = self.path(name)
        try:
            module = import_module(f"{self.package}.{name}")
        except SyntaxError as error:
            # The mistake may be in a file that this one imports.
            where = f"{error.filename or file}:{error.lineno or 1}"
            raise UserError(f"{where}: {error.msg}; mend the {self.noun}'s file.") from None
        except Exception as error:
            raise UserError(
                f"{_place(error, file)}: the {self.noun} {name!r} cannot be imported: "
                f"{type(error).__name__}: {error}"
            ) from None
        if missing := [key for key, _ in self.declares if not hasattr(module, key)]:
            *most, last = [f"{key} ({words})" if words else key for key, words in self.declares]
            whole = f"{', '.join(most)} and {last}" if most else last
            raise UserError(
                f"{file}: declares no {', '.join(missing)}; every {self.noun}'s file has {whole}."
            )
        return module

    def _loaded(self, name: str) -> ModuleType | None:
        """Return the module of a component that was imported before, and None of all others.

        A plan asks ten thousand times, and looking at all files of a package takes half a
        millisecond.
        """
        # A name that a file gives may be no text at all.
        usable = isinstance(name, str) and name.isidentifier() and name[0] != "_"
        known = sys.modules.get(f"{self.package}.{name}") if usable else None
        whole = known and all(hasattr(known, key) for key, _ in self.declares)
        return known if whole else None

    def settings(
        self,
        name: str,
        functions: dict[str, Sequence[str]] | None = None,
        base: type = object,
        defaults: bool = True,
    ) -> type:
        """Return the class ``Settings`` of a component.

        Args:
            name: of the component.
            functions: what its file must define, with the arguments that each takes.
            base: the class that the settings derive from, whose abstract methods they define.
            defaults: whether every field needs one.

        Raises:
            UserError: what ``load`` raises; ``Settings`` is no frozen dataclass, or does not derive
                from ``base``; a field of it has no default, no ``doc`` in its metadata or an
                annotation that cannot be read; a function takes other arguments. It names the file
                and the line.
        """
        module, file = self.load(name), self.path(name)
        for key, arguments in (functions or {}).items():
            if not takes(getattr(module, key), len(arguments)):
                raise UserError(
                    f"{file}:{_line(file, key)}: {key} must be a function that takes "
                    f"{len(arguments)} arguments: {', '.join(arguments)}."
                )
        for path, problem in _problems(module.Settings, base, defaults):
            raise UserError(f"{file}:{_line(file, *path)}: {problem}")
        settings: type = module.Settings
        return settings


def takes(function: Any, count: int) -> bool:
    """Return whether ``function`` can be called with so many arguments by position."""
    try:
        inspect.signature(function).bind(*range(count))
    except (TypeError, ValueError):
        return False
    return True


def _problems(settings: Any, base: type, defaults: bool) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield what is wrong with a class of settings, each with the names that lead to its line."""
    # Of its own: a class that extends a dataclass without being one has no fields of its own.
    params = vars(settings).get("__dataclass_params__") if isinstance(settings, type) else None
    if params is None or not params.frozen:
        yield ("Settings",), "Settings must be a dataclass with `@dataclass(frozen=True)`."
        return
    if not issubclass(settings, base):
        yield ("Settings",), f"Settings must derive from {base.__name__}."
    for method in sorted(getattr(settings, "__abstractmethods__", ())):
        yield ("Settings",), f"Settings must define `{method}`."
    for item in fields(settings):
        where = f"Settings.{item.name}"
        if defaults and item.default is MISSING and item.default_factory is MISSING:
            yield ("Settings", item.name), f"{where} has no default; every field needs one."
        if not item.metadata.get("doc"):
            yield (
                ("Settings", item.name),
                f"{where} does not say what it is; write it as "
                '`field(default=..., metadata={"doc": "what it sets"})`.',
            )
    try:
        get_type_hints(settings)
    except Exception as error:
        yield (
            ("Settings",),
            f"an annotation of Settings cannot be read: {type(error).__name__}: {error}",
        )


def _line(file: Path, *names: str) -> int:
    """Return the line of ``file`` that defines a name, or a name within a class."""
    body: Sequence[ast.stmt] = ast.parse(file.read_text(encoding="utf-8")).body
    line = 1
    for name in names:
        found = next((node for node in body if name in _defined(node)), None)
        if found is None:
            break
        line, body = found.lineno, getattr(found, "body", ())
    return line


def _defined(node: ast.stmt) -> list[str]:
    """Return the names that a statement defines."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _place(error: BaseException, file: Path) -> str:
    """Return the file, with the line of it at which an import failed."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(file)]
    return f"{file}:{lines[-1]}" if lines else str(file)
