"""Generate docs/rooms.md, the map of packages and modules, from the code itself.

The order of the packages is that of the import contract in pyproject.toml, what each holds is the
first sentence of its own docstring.
"""

from __future__ import annotations

import ast
import tomllib
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten

from jinja2 import Environment, PackageLoader, StrictUndefined

from cyclery.common.source_hash import imported

PAGE = Path("docs/rooms.md")
_PACKAGE = Path("src/cyclery")


@dataclass(frozen=True)
class Room:
    """A package of ours: its name, what it holds, the packages it imports, and its files."""

    name: str
    purpose: str
    below: tuple[str, ...]
    files: tuple[tuple[str, str], ...]


def floors(root: Path) -> list[list[str]]:
    """Return the names of the packages, uppermost first, those of one level together."""
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]
    [layers] = [each["layers"] for each in contracts["contracts"] if each["type"] == "layers"]
    return [[name.strip() for name in layer.split("|")] for layer in layers]


def read_room(root: Path, name: str) -> Room:
    """Return what the package ``name`` of the checkout ``root`` says of itself."""
    folder = root / _PACKAGE / name
    files = sorted(path for path in folder.rglob("*.py") if path.name != "__init__.py")
    everything = [*files, folder / "__init__.py"]
    used = {each.partition(".")[0] for path in everything for each in imported(path, "cyclery")}
    return Room(
        name,
        _first_sentence(folder / "__init__.py"),
        tuple(sorted(used - {name})),
        tuple((path.relative_to(folder).as_posix(), _first_sentence(path)) for path in files),
    )


def _first_sentence(path: Path) -> str:
    text = " ".join((ast.get_docstring(ast.parse(path.read_bytes())) or "").split())
    whole, stop, _ = text.partition(". ")
    return shorten(f"{whole}." if stop else whole, 160, placeholder=" ...").replace("|", "\\|")


def page(root: Path) -> str:
    """Return docs/rooms.md for the checkout ``root``."""
    levels = [
        [read_room(root, name) for name in level if (root / _PACKAGE / name).is_dir()]
        for level in floors(root)
    ]
    environment = Environment(
        loader=PackageLoader(__package__ or ""),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    return environment.get_template("rooms.md.j2").render(levels=[each for each in levels if each])
