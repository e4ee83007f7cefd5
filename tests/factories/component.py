"""Files of components that a test writes: found by their name, as those of the package."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from types import ModuleType

import pytest

Write = Callable[[str, str], Path]


@contextmanager
def written(package: ModuleType, folder: Path) -> Iterator[Write]:
    """Give what adds a file of this text to the components of ``package``; after it they are gone.

    ``package`` is that of the kind, as ``cyclery.models`` or ``cyclery.optim``.
    """
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(package, "__path__", [*package.__path__, str(folder)])

        def write(name: str, content: str) -> Path:
            path = folder / f"{name}.py"
            path.write_text(dedent(content))
            sys.modules.pop(f"{package.__name__}.{name}", None)
            _forget(package)
            return path

        yield write
    for path in folder.glob("*.py"):
        sys.modules.pop(f"{package.__name__}.{path.stem}", None)
        if isinstance(vars(package).get(path.stem), ModuleType):
            delattr(package, path.stem)
    _forget(package)


def _forget(package: ModuleType) -> None:
    """Look for the files of a package anew."""
    modules = [m for name, m in sys.modules.items() if name.startswith(f"{package.__name__}._")]
    for module in (package, *modules):
        for value in vars(module).values():
            getattr(value, "cache_clear", lambda: None)()
