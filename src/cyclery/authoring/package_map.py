"""Generate docs/packages.md, the map of packages and modules, from the code itself.

The order of packages is that of the import contract in pyproject.toml; a purpose is the first
sentence of a docstring.
"""

from __future__ import annotations

import ast
import tomllib
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten

from jinja2 import Environment, PackageLoader, StrictUndefined

from cyclery.common.source_hash import imported

PAGE = Path("docs/packages.md")
_SOURCE = Path("src/cyclery")


@dataclass(frozen=True)
class Package:
    """One row of the map: a package, its purpose, the packages it imports, and its files."""

    name: str
    purpose: str
    below: tuple[str, ...]
    files: tuple[tuple[str, str], ...]


def layers(root: Path) -> list[list[str]]:
    """Return the names of the packages by layer, the uppermost first."""
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]
    [found] = [each["layers"] for each in contracts["contracts"] if each["type"] == "layers"]
    return [[name.strip() for name in layer.split("|")] for layer in found]


def read_package(root: Path, name: str) -> Package:
    """Read the docstrings and imports of the package ``name`` in the checkout ``root``."""
    folder = root / _SOURCE / name
    files = sorted(path for path in folder.rglob("*.py") if path.name != "__init__.py")
    everything = [*files, folder / "__init__.py"]
    used = {each.partition(".")[0] for path in everything for each in imported(path, "cyclery")}
    return Package(
        name,
        _first_sentence(folder / "__init__.py"),
        tuple(sorted(used - {name})),
        tuple((path.relative_to(folder).as_posix(), _first_sentence(path)) for path in files),
    )


def _first_sentence(path: Path) -> str:
    text = " ".join((ast.get_docstring(ast.parse(path.read_bytes())) or "").split())
    first, stop, _ = text.partition(". ")
    return shorten(f"{first}." if stop else first, 160, placeholder=" ...").replace("|", "\\|")


def page(root: Path) -> str:
    """Return docs/packages.md for the checkout ``root``."""
    levels = [
        [read_package(root, name) for name in level if (root / _SOURCE / name).is_dir()]
        for level in layers(root)
    ]
    environment = Environment(
        loader=PackageLoader(__package__ or ""),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    template = environment.get_template("packages.md.j2")
    return template.render(levels=[each for each in levels if each])
