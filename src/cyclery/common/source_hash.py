"""Hash of Python source that ignores comments, docstrings and layout.

The same code has the same hash under every version of Python that runs it, so records that were
made on different machines can be compared.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

# Short, for it stands in every record; enough to tell states of one file apart.
DIGITS = 16
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def source_digest(files: Iterable[Path]) -> str:
    """Return the hash of the syntax trees of Python files, with their names, in their order."""
    found = sha256()
    for file in files:
        found.update(f"{file.name}\0".encode())
        for word in _words(ast.parse(file.read_bytes(), filename=str(file))):
            found.update(f"{word}\0".encode())
    return found.hexdigest()[:DIGITS]


def _words(node: ast.AST) -> Iterator[str]:
    """Yield the syntax of a tree. What is empty is left out: later Pythons add such fields."""
    yield type(node).__name__
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(node, _DOCUMENTED) and ast.get_docstring(node, False):
            value = value[1:]
        items = value if isinstance(value, list) else [value]
        if value is None or not items or name in ("kind", "type_comment"):
            continue
        yield f".{name}"
        for item in items:
            if isinstance(item, ast.AST):
                yield from _words(item)
            else:
                yield repr(item)
        yield ";"


def imported(file: Path, package: str) -> list[str]:
    """Return the modules of ``package`` that a file imports.

    Either as in `from package.name import ...` or as in `from package import name`.
    """
    found = []
    for node in ast.walk(ast.parse(file.read_bytes(), filename=str(file))):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module.startswith(f"{package}."):
                found.append(node.module.removeprefix(f"{package}."))
            elif node.module == package:
                names = [alias.name for alias in node.names]
                found += [name for name in names if find_spec(f"{package}.{name}")]
    return found
