"""No Python file and no function of the project is too long to be read in one go."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from factories import checkout

# In lines: of a file, and of a function without its decorators.
FILE, FUNCTION = 400, 80


def too_long(path: Path, name: str) -> Iterator[str]:
    """Name the file and each function of it that has more lines than it may."""
    text = path.read_text(encoding="utf-8")
    lines = len(text.splitlines())
    if lines > FILE:
        yield f"{name}: {lines} lines, at most {FILE}"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION:
                yield f"{name}:{node.lineno}: {node.name}: {lines} lines, at most {FUNCTION}"


@pytest.mark.parametrize("folder", ["src", "tests", "benchmarks"])
def test_no_file_and_no_function_is_too_long(folder: str) -> None:
    paths = checkout.files(f"{folder}/**/*.py")
    assert paths
    names = {path: path.relative_to(checkout.ROOT).as_posix() for path in paths}
    found = [line for path, name in names.items() for line in too_long(path, name)]
    assert not found, "too long, split by kind of thing:\n" + "\n".join(found)


def test_what_is_too_long_is_named(tmp_path: Path) -> None:
    path = tmp_path / "long.py"

    def found(function: int, rest: int) -> list[str]:
        body = "    pass\n" * (function - 1)
        path.write_text(f"@decorated\ndef one():\n{body}" + "\n" * rest)
        return list(too_long(path, "long.py"))

    assert found(FUNCTION, FILE - FUNCTION - 1) == []
    assert found(FUNCTION + 1, 0) == ["long.py:2: one: 81 lines, at most 80"]
    assert found(2, FILE - 2) == ["long.py: 401 lines, at most 400"]
