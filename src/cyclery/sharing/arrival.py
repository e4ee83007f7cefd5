"""Install what a plain ``dvc pull`` brought, once, when Snakemake starts.

``dvc pull`` brings archives and knows no workflow. So the first Snakemake that finds all archives
of its tier does the rest of what ``cyclery fetch`` does. A stamp in DVC's own temporary folder says
what was done with which publication, so later starts compare a few bytes.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from cyclery.common.errors import UserError
from cyclery.common.files import lock, read_regular, write_atomic
from cyclery.sharing.state import NESTED, is_locked

if TYPE_CHECKING:
    from cyclery.config.load import Project
    from cyclery.sharing.contents import Contents
    from cyclery.sharing.delivery import Delivery
    from cyclery.sharing.index import Home, Index

# State in the stamp: installation begun, completed, or refused because the user has own results.
_BEGUN, _PLACED, _LEFT = "begun", "placed", "left"
# What a tier's folder holds where something was made.
_MADE = ("records", "lr-range", "evidence", "tables")


def _stamp_file(project: Project) -> Path:
    """Return the stamp file of a tier for these folders of results and data."""
    where = sha256(f"{project.config.results}\n{project.config.data}".encode()).hexdigest()[:16]
    return project.root / ".dvc" / "tmp" / "cyclery" / f"{project.config.tier}-{where}"


def _publication(project: Project) -> str | None:
    """Return the digest of the publication that is here now; None where there is none."""
    path = project.root / "results/published" / project.config.tier / "index.json"
    try:
        return sha256(read_regular(path)).hexdigest()
    except OSError:
        return None


def mark_installed(project: Project) -> None:
    """Record in the stamp that the tier's publication is installed."""
    if found := _publication(project):
        write_atomic(_stamp_file(project), f"{_PLACED} {found}")


def install(contents: Contents, delivery: Delivery, published: Index) -> None:
    """Put an examined publication in place; what a kill leaves half done the next start completes.

    The caller holds the lock.
    """
    from cyclery.sharing import place

    project = contents.plan.project
    path, found = _stamp_file(project), _publication(project)
    # Not before: from here on all that is in place is of a publication.
    write_atomic(path, f"{_BEGUN} {found}")
    place.put_in_place(contents, delivery, published)
    write_atomic(path, f"{_PLACED} {found}")


def install_pulled(project: Project) -> None:
    """Install the published archives of the tier unless that was done; report it in a line.

    Before the tier is planned: the seeds of its arms may come with them.

    Results that exist already are kept, for nobody can tell what was made from them since:
    ``cyclery fetch`` sets them aside on request. Damaged archives or a damaged index are reported
    and do not stop the workflow.

    Raises:
        UserError: intact archives cannot be installed, as on a full disk; or the configuration is
            wrong.
    """
    if NESTED in os.environ or (found := _publication(project)) is None:
        return
    did, of = _read(_stamp_file(project))
    tier, made = project.config.tier, _is_made(project)
    if of != found or did == _BEGUN:
        _install(project, found)
    elif did == _PLACED and not made:
        _say(f"what is published of tier {tier} was put in place before, and is removed: it is "
             f"made again; `make pull TIER={tier}` brings it back")  # fmt: skip
    elif not made:
        _say(f"what is published of tier {tier} stayed in its archives next to other results, "
             "which are removed: they are made again; "
             f"`make pull TIER={tier}` puts it in place")  # fmt: skip


def _is_made(project: Project) -> bool:
    folder = project.results / project.config.tier
    return any((folder / name).exists() for name in _MADE)


def _install(project: Project, found: str) -> None:
    from cyclery.sharing import index
    from cyclery.sharing.contents import Contents
    from cyclery.sharing.delivery import examined

    root, tier, path = project.root, project.config.tier, _stamp_file(project)
    home = index.Home(root, tier)
    if not home.archives.is_dir():
        return
    with lock(root / ".dvc" / "tmp" / "cyclery.lock"), ExitStack() as unpacked:
        did, of = _read(path)
        if of == found and did != _BEGUN:
            return  # Another one that was started meanwhile did it.
        if did != _BEGUN and _is_made(project):
            _say(f"tier {tier} has results already, so this publication stays in its archives; "
                 f"`make pull TIER={tier}` sets them aside and puts it in place")  # fmt: skip
            write_atomic(path, f"{_LEFT} {found}")
            return
        if is_locked(root):
            _say(f"what is published of tier {tier} is put in place once no other Snakemake is at "
                 "work here; this goes on without")  # fmt: skip
            return
        without = f"what is published of tier {tier} is not put in place, and this goes on without"
        try:
            published = index.read(home)
            if not _is_complete(home, published):
                raise UserError(f"{home.archives.relative_to(root)}: not all that this version "
                                "published; `dvc pull` brings it.")  # fmt: skip
        except UserError as error:
            _say(f"{without}: {error}")
            return
        # A mistake in the configuration stops everything, and is said once.
        contents = Contents(index.published_plan(root, project.overrides, published))
        try:
            delivery = unpacked.enter_context(examined(home, published, contents))
        except UserError as error:
            _say(f"{without}: {error}")
            return
        install(contents, delivery, published)
    _say(f"tier {tier}: what `dvc pull` brought is put in place: {len(published.papers)} papers, "
         f"{len(delivery.records)} runs")  # fmt: skip


def _is_complete(home: Home, published: Index) -> bool:
    """Return whether all archives are there, judged by their sizes."""
    expected = {home.archives / name: each for name, each in published.packs.items()}
    expected |= {home.dataset(name): each for name, each in published.datasets.items()}
    return all(
        path.is_file() and path.stat().st_size == each.size for path, each in expected.items()
    )


def _read(path: Path) -> tuple[str, str]:
    """Return the state in a stamp, and the publication that it is about."""
    try:
        did, _, of = read_regular(path).decode().partition(" ")
    except (OSError, UnicodeDecodeError):
        return "", ""
    return did, of


def _say(text: str) -> None:
    print(f"cyclery: {text}", file=sys.stderr)
