"""Check the ``results`` and ``data`` folders: neither may lie among a project's sources."""

from __future__ import annotations

from pathlib import Path

# Folders of a project that hold what people wrote, or what belongs to a tool.
KEPT = (
    ".ci", ".cyclery", ".dvc", ".git", ".github", ".snakemake", ".venv", "benchmarks", "config",
    "docs", "profiles", "published", "src", "tests", "workflow",
)  # fmt: skip


def misplaced(root: Path, folder: str) -> str | None:
    """Return what is wrong with the place of a folder of results, or None."""
    home = root.resolve()
    place = (root / folder).resolve()
    found = f"(found {folder!r:.80}); name a folder of its own, as results."
    if place == home or place in home.parents:
        return f"must not be the project's folder, nor one that holds it {found}"
    if place.is_relative_to(home):
        # Some file systems do not tell Config from config.
        first = place.relative_to(home).parts[0].casefold()
        if first in KEPT:
            return f"must not lie in {first}/, which is no place for results {found}"
    for each in (place, *place.parents):
        if each.exists():
            return None if each.is_dir() else f"{each} is a file {found}"
    return None
