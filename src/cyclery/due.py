"""What a target must ask for because Snakemake does not notice it: files that are lost or damaged.

Snakemake makes a missing intermediate file only for a job that has to run. So targets ask for every
missing file by name; what is damaged is set aside first, and then missing as well.
"""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cyclery import sums

if TYPE_CHECKING:
    from cyclery.workflow import Graph


def of_report(graph: Graph) -> list[str]:
    """Return what is missing of the report and of all that it is made from."""
    root = graph.plan.project.root
    _mend(root, root / graph.report / sums.NAME)
    return [path for part in graph.plan.project.selected() for path in of_part(graph, part)]


def of_part(graph: Graph, part: str) -> list[str]:
    """Return what is missing of a paper, experiment or claim, of whatever something was made."""
    root = graph.plan.project.root
    _mend(root, root / graph.sums(part))
    # Without evidence, the job that makes it asks for all records itself.
    records = graph.record_files(part) if (root / graph.evidence(part)).exists() else []
    files = [
        *dict.fromkeys(m for group in graph.plan.groups(part) for m in graph.manifests(group)),
        *graph.part_range_files(part),
        *records,
        *(graph.evidence(part), graph.table(part), graph.sums(part)),
    ]
    return list(_missing(root, files))


def _missing(root: Path, paths: Iterable[str]) -> Iterator[str]:
    for path in paths:
        try:
            regular = stat.S_ISREG((root / path).stat().st_mode)
        except OSError:
            yield path
        else:
            if not regular:
                _set_aside(root / path)
                _say(f"{path}: is no regular file; kept as {path}.damaged and made again")
                yield path


def _mend(root: Path, path: Path) -> None:
    """Set aside what is not as a list of sums says, and drop the list: then its job is due."""
    if not (wrong := sums.wrong(path)):
        return
    for file in wrong:
        _set_aside(file)
    path.unlink(missing_ok=True)
    more = f" and {len(wrong) - 1} more files" if len(wrong) > 1 else ""
    _say(
        f"{wrong[0].relative_to(root)}{more}: altered or lost since they were made; what is left "
        "of them is kept as *.damaged, and they are made again"
    )


def _set_aside(path: Path) -> None:
    if path.is_symlink() or path.exists():
        path.rename(path.with_name(f"{path.name}.damaged"))


def _say(text: str) -> None:
    print(f"cyclery: {text}", file=sys.stderr)
