"""What of this checkout is the project's own: its tracked files, and nothing that a user left."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def tracked(*places: str, root: Path = ROOT) -> list[Path]:
    """Return the tracked files at these places, all by default: names, folders, or patterns.

    Raises:
        FileNotFoundError: git, or its repository, is not here.
    """
    command = ["git", "ls-files", "-z", "--cached", "--"]
    command += [f":(glob){place}" for place in places]
    listing = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if listing.returncode:
        raise FileNotFoundError(listing.stderr)
    found = {root / name for name in listing.stdout.split("\0") if name}
    return sorted(path for path in found if path.is_file())


def files(*places: str) -> list[Path]:
    """Return the tracked files at these places; all of them in an unpacked archive, without git."""
    try:
        return tracked(*places)
    except FileNotFoundError:
        found = (path for place in places for path in ROOT.glob(place))
        found = {each for path in found for each in (path, *path.rglob("*")) if each.is_file()}
        return sorted(path for path in found if "__pycache__" not in path.parts)


def copy(folder: Path, *places: str) -> Path:
    """Copy the tracked files at these places to another folder, and return that."""
    for path in files(*places):
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return folder


def read(path: str) -> str:
    """Return the text of a file, named from the root."""
    return (ROOT / path).read_text(encoding="utf-8")


def project() -> dict[str, Any]:
    """Return what pyproject.toml says of the package."""
    return tomllib.loads(read("pyproject.toml"))["project"]


def tracked_files() -> list[Path]:
    """Return the tracked files, and none that a user left here."""
    try:
        return tracked()
    except FileNotFoundError:
        pytest.skip("not a git checkout")
