"""How much a remote inside the repository may hold: everybody who clones it carries it."""

from __future__ import annotations

import logging
from pathlib import Path

from cyclery.common.errors import UserError
from cyclery.common.files import megabytes
from cyclery.sharing import index
from cyclery.sharing.dvc import ATLAS, FOLDER, Remote

log = logging.getLogger(__name__)
MOST_INSIDE = 25_000_000


def bytes_of_others(root: Path, name: str) -> int:
    """Return the bytes of all that is published but one, a tier or the atlas; no datasets."""
    folder = root / FOLDER
    tiers = {path.parent.name for path in folder.glob("*/index.json")} - {name}
    found = [index.read(index.Home(root, tier)).packs.values() for tier in sorted(tiers)]
    size = sum(each.size for packs in found for each in packs)
    page = folder / ATLAS / "index.html"
    return size + (page.stat().st_size if name != ATLAS and page.exists() else 0)


def too_large(what: Path, name: str) -> UserError:
    """Return the error for what does not fit."""
    return UserError(
        f"{what}: {name} does not fit into the remote inside the repository, which "
        f"holds at most {megabytes(MOST_INSIDE)}. Publish to another one: docs/sharing.md."
    )


def say_what_to_commit(root: Path, folder: Path, remote: Remote) -> None:
    """Say what belongs into git, and how to drop earlier publications, which it holds already."""
    where = f" {remote.inside.relative_to(root.resolve())}" if remote.inside else ""
    log.info("commit it: git add dvc.lock %s%s", folder.relative_to(root), where)
    if not remote.inside:
        return
    size = sum(path.stat().st_size for path in remote.inside.rglob("*") if path.is_file())
    if size > MOST_INSIDE:
        log.warning(
            "%s holds %s with earlier publications, which git keeps with their commits: "
            "dvc gc --workspace --cloud --remote %s drops them here",
            remote.inside.name, megabytes(size), remote.name,
        )  # fmt: skip
