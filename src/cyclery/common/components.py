"""Components that are files: each is found by its file's name, so adding one edits no list.

Methods, networks, optimisers, augmentation ops and the like lie in one package each, one file each.
Files whose names begin with ``_`` are what the others share.
"""

from __future__ import annotations

import inspect
import traceback
from dataclasses import dataclass, fields
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
        return tuple(sorted(m.name for m in iter_modules(paths) if m.name[0] not in "_."))

    def path(self, name: str) -> Path:
        """Return the file of a component."""
        spec = find_spec(f"{self.package}.{name}")
        assert spec is not None and spec.origin is not None, name
        return Path(spec.origin)

    def require(self, name: str, where: str = "") -> None:
        """Raise a UserError where no component has the name; ``where`` begins its message."""
        if name not in self.names():
            raise UserError(
                f"{where}{': ' if where else ''}unknown {self.noun} {name!r:.80}."
                f"{nearest(name, self.names())} {self.noun.capitalize()}s: {choices(self.names())}."
            )

    def load(self, name: str) -> ModuleType:
        """Return the module of a component.

        A UserError names the components there are, or the file, and the line where there is one,
        of whatever is wrong with it.
        """
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
                f"{file}: declares no {', '.join(missing)}; a {self.noun}'s file has {whole}."
            )
        return module


def settings_type(components: Components, name: str, base: type, *methods: str) -> Any:
    """Return the ``Settings`` of a component whose file has them derive from ``base``.

    A UserError names the file and the line where they are no frozen dataclass of their own, lack
    one of ``methods`` or a docstring, or where a field has no ``doc`` or an unknown annotation.
    """
    settings: Any = components.load(name).Settings
    file = components.path(name)
    if not (isinstance(settings, type) and issubclass(settings, base)):
        raise UserError(
            f"{file}: Settings must be a class that derives from {base.__name__} (found "
            f"{settings!r:.80})."
        )
    where = f"{file}:{inspect.getsourcelines(settings)[1]}: Settings"
    if "__dataclass_params__" not in vars(settings):
        raise UserError(f"{where} must be a dataclass with `@dataclass(frozen=True)`.")
    text = settings.__doc__ or "Settings("  # which is how a dataclass begins one of its own
    if text.startswith("Settings("):
        raise UserError(f"{where} must have a docstring, which is its text in the reference.")
    for method in methods:
        if getattr(settings, method) is getattr(base, method):
            raise UserError(f"{where} must define `{method}`.")
    try:
        get_type_hints(settings)
    except Exception as error:
        raise UserError(
            f"{where} has an annotation that cannot be read: {type(error).__name__}: {error}"
        ) from None
    for field in fields(settings):  # type: ignore[arg-type]
        if not field.metadata.get("doc"):
            raise UserError(f"{where}.{field.name} must have metadata with a line of `doc`.")
    return settings


def _place(error: BaseException, file: Path) -> str:
    """Return the file, with the line of it at which an import failed."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(file)]
    return f"{file}:{lines[-1]}" if lines else str(file)
