"""Publish the atlas: one page that opens after ``dvc pull``, whatever is installed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cyclery.common.errors import UserError
from cyclery.common.files import lock, megabytes, write_atomic
from cyclery.config.load import load
from cyclery.sharing import inside, state
from cyclery.sharing.dvc import ATLAS, FOLDER, Dvc

log = logging.getLogger(__name__)


def publish_atlas(root: Path, overrides: Mapping[str, Any], remote_name: str | None = None) -> None:
    """Freeze the page of ``snakemake atlas`` as it is now, and push it.

    Raises:
        UserError: the atlas is not finished, dvc.yaml has no such stage, it does not fit, or DVC
            failed.
    """
    dvc = Dvc(root)
    if not dvc.has_atlas():
        raise UserError(f"dvc.yaml: stages: there is no {ATLAS!r}; add it to share the atlas.")
    remote = dvc.remote(remote_name)
    state.refuse_locked(root)
    # As Snakemake names it: asked by its rule's name, the rule itself would not be counted.
    made = f"{load(root, overrides).config.results}/{ATLAS}/index.html"
    source, target = root / made, root / FOLDER / ATLAS / "index.html"
    if left := state.to_do(root, overrides, [made]):
        raise UserError(
            f"{source}: the atlas is not finished ({state.told(left)} to do): run "
            "`snakemake --cores all atlas`, then publish."
        )
    with lock(root / ".dvc" / "tmp" / "cyclery.lock"):
        page = source.read_bytes()
        others = inside.bytes_of_others(root, ATLAS)
        if remote.inside and others + len(page) > inside.MOST_INSIDE:
            raise inside.too_large(source, "the atlas")
        write_atomic(target, page)
        dvc.freeze([ATLAS])
        dvc.push([ATLAS], remote)
    log.info("atlas: %s, on remote %r", megabytes(len(page)), remote.name)
    inside.say_what_to_commit(root, target.parent, remote)
