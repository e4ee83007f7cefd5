"""Put in place what a plain ``dvc pull`` brought, once, when Snakemake starts.

``dvc pull`` brings packs and knows nothing of a graph. So the first Snakemake that finds all packs
of its tier does the rest of what ``cyclery fetch`` does. A stamp in DVC's own temporary folder says
which publication was put in place last, so later starts compare a few bytes.
"""

from __future__ import annotations

import os
import sys
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from cyclery.files import lock, write_atomic

if TYPE_CHECKING:
    from cyclery.sharing.index import Home, Index
    from cyclery.workflow import Graph

# Set for a Snakemake that publish, fetch or this module asks something.
NESTED = "CYCLERY_NESTED"
_BEGUN = "begun"
# What a tier's folder holds where something was made.
_MADE = ("records", "lr-range", "evidence", "tables")


def stamp_file(root: Path, tier: str) -> Path:
    """Return the file that says which publication of a tier was put in place last."""
    return root / ".dvc" / "tmp" / "cyclery" / tier


def stamp(graph: Graph) -> str | None:
    """Return what the stamp of the publication that is here now is; None where there is none."""
    project = graph.plan.project
    try:
        said = (project.root / "results/published" / graph.plan.tier / "index.json").read_bytes()
    except OSError:
        return None
    where = f"{project.config.results}\n{project.config.data}\n"
    return sha256(where.encode() + said).hexdigest()


def settle(graph: Graph) -> None:
    """Remember that what is published of the tier is in place."""
    if found := stamp(graph):
        write_atomic(stamp_file(graph.plan.project.root, graph.plan.tier), found)


def arrive(graph: Graph) -> None:
    """Put the published packs of the tier in place where that was not done; say so in a line.

    Results of this project's own stay as they are: what was made here before anything was put in
    place is for ``cyclery fetch`` to set aside, when it is asked to.

    Raises:
        UserError: a pack is damaged; then nothing was changed.
    """
    if NESTED in os.environ or (found := stamp(graph)) is None:
        return
    root, tier = graph.plan.project.root, graph.plan.tier
    made = any((root / graph.results / name).exists() for name in _MADE)
    if _read(stamp_file(root, tier)) == found:
        if not made:
            _say(f"what is published of tier {tier} was put in place before, and is removed: it "
                 f"is made anew; `make pull TIER={tier}` brings it back")  # fmt: skip
        return
    _arrive(graph, found, made)


def _arrive(graph: Graph, found: str, made: bool) -> None:
    from cyclery.sharing import index, state
    from cyclery.sharing.contents import Contents
    from cyclery.sharing.fetch import put_in_place

    project, tier = graph.plan.project, graph.plan.tier
    root, path = project.root, stamp_file(project.root, tier)
    home = index.Home(root, tier)
    if not home.packs.is_dir():
        return
    published = index.read(home)
    if not _whole(home, published):
        _say(f"{home.packs.relative_to(root)}: not all that this version published of tier {tier}; "
             "`dvc pull` brings it, and this goes on without")  # fmt: skip
        return
    state.refuse_locked(root)
    with lock(root / ".dvc" / "tmp" / "cyclery.lock"):
        before = _read(path)
        if before == found:
            return  # Another one that was started meanwhile did it.
        if made and before is None:
            _say(f"tier {tier} has results of your own, so what is published stays packed; "
                 f"`make pull TIER={tier}` sets yours aside and puts it in place")  # fmt: skip
            write_atomic(path, found)
            return
        write_atomic(path, _BEGUN)
        contents = Contents(index.published_plan(root, project.overrides, published))
        delivery = put_in_place(home, published, contents)
        write_atomic(path, found)
    _say(f"tier {tier}: what `dvc pull` brought is put in place: {len(published.papers)} papers, "
         f"{len(delivery.records)} runs")  # fmt: skip


def _whole(home: Home, published: Index) -> bool:
    """Say whether all packs are there, as far as their sizes tell."""
    packs = {home.packs / name: pack for name, pack in published.packs.items()}
    packs |= {home.dataset(name): pack for name, pack in published.datasets.items()}
    return all(path.is_file() and path.stat().st_size == pack.size for path, pack in packs.items())


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _say(text: str) -> None:
    print(f"cyclery: {text}", file=sys.stderr)
