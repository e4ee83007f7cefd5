"""What a target must ask for because Snakemake does not notice it: files that are lost or damaged.

Snakemake makes a missing intermediate file only for a job that has to run. So targets ask for every
missing file by name; what is damaged is set aside first, and then missing as well. It goes below
``results/set-aside``: Snakemake removes whole folders before their job runs.
"""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cyclery.common import checksums
from cyclery.common.set_aside import Aside

if TYPE_CHECKING:
    from cyclery.plan.snakemake_api import Graph


def of_report(graph: Graph) -> list[str]:
    """Return what is missing of the report and of all that it is made from."""
    _mend(graph, f"{graph.report}/{checksums.NAME}")
    return [path for part in graph.plan.project.selected() for path in of_part(graph, part)]


def of_part(graph: Graph, part: str) -> list[str]:
    """Return what is missing of a paper, experiment or claim, of whatever something was made."""
    root = graph.plan.project.root
    _mend(graph, graph.sums(part))
    # Without evidence, the job that makes it asks for all records itself.
    records = graph.record_files(part) if (root / graph.evidence(part)).exists() else []
    files = [
        *dict.fromkeys(m for group in graph.plan.groups(part) for m in graph.manifests(group)),
        *graph.part_range_files(part),
        *records,
        *(graph.evidence(part), graph.table(part), graph.sums(part)),
    ]
    return list(_missing(graph, files))


def _missing(graph: Graph, paths: Iterable[str]) -> Iterator[str]:
    for path in paths:
        file = graph.plan.project.root / path
        try:
            regular = stat.S_ISREG(file.stat().st_mode)
        except OSError:
            yield path
        else:
            if not regular:
                kept = _set_aside(graph, [file])
                _say(f"{path}: is no regular file{kept} and is made again")
                yield path


def _mend(graph: Graph, listing: str) -> None:
    """Set aside what is not as a list of sums says, and drop the list: then its job is due."""
    path = graph.plan.project.root / listing
    if not (wrong := checksums.wrong(path)):
        return
    kept = _set_aside(graph, wrong)
    path.unlink(missing_ok=True)
    more = f" and {len(wrong) - 1} more files" if len(wrong) > 1 else ""
    _say(
        f"{_name(graph, wrong[0])}{more}: altered or lost since they were made{kept} and they are "
        "made again"
    )


def _set_aside(graph: Graph, files: list[Path]) -> str:
    """Move what there is of files out of the way; return where it is, to be said."""
    aside = Aside(graph.plan.project.results)
    for file in files:
        aside.take(file, _name(graph, file))
    return f"; what is left is kept in {_name(graph, aside.folder)}," if aside.count else ""


def _name(graph: Graph, path: Path) -> str:
    """Return a path as people and Snakemake write it: from the project's root."""
    root = graph.plan.project.root
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def _say(text: str) -> None:
    print(f"cyclery: {text}", file=sys.stderr)
