"""Check benchmark tables: names, two figures for one cell, and what is said to be the same data."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cyclery.config.load import Project
from cyclery.plan.checked_names import unknown, unusable_metric
from cyclery.plan.graph import Plan
from cyclery.plan.table_cells import TableCells, resolve_all
from cyclery.records.evidence import PrintedFigure
from cyclery.records.readers import read_printed

_OTHER = re.compile(r"[^a-z0-9]")


@dataclass(frozen=True)
class PaperTables:
    """The tables of a paper with their cells, and the figures that it prints."""

    paper: str
    printed: Sequence[PrintedFigure]
    tables: Mapping[str, TableCells]


def resolved(project: Project) -> list[PaperTables]:
    """Return the tables of every paper that has some."""
    found = []
    for name, paper in project.papers.items():
        if paper.tables:
            printed = read_printed(project.printed_file(name))
            found.append(PaperTables(name, printed, resolve_all(paper, printed)))
    return found


def names(
    project: Project,
    found: Iterable[PaperTables],
    tiers: Sequence[str],
    figures: Mapping[str, Collection[str]],
) -> Iterator[str]:
    """Yield what is wrong with tables, whatever the tier.

    Args:
        project: whose tables they are.
        found: the tables.
        tiers: the tiers that there are.
        figures: those that arms may have besides those of every run, by paper.
    """
    for one in found:
        file = project.paper_file(one.paper)
        for key, cells in one.tables.items():
            yield from (f"{file}: {text}" for text in cells.problems)
            for tier in dict.fromkeys(tier for cell in cells.cells for tier in cell.same):
                if tier not in tiers:
                    yield f"{file}: {unknown(f'tables.{key}.same', tier, tiers, 'tier')}"
            own = figures[one.paper]
            for metric in dict.fromkeys(cell.metric for cell in cells.cells):
                for text in unusable_metric(metric, False, f"tables.{key}.metric", own=own):
                    yield f"{file}: {text}"


def same_data(plan: Plan, found: Iterable[PaperTables]) -> Iterator[str]:
    """Yield cells that are said to have the paper's data at this tier, and have other data."""
    for one in found:
        for key, cells in one.tables.items():
            for cell in cells.cells:
                if cell.printed is None or plan.tier not in cell.same:
                    continue
                source = next((s for s in cell.sources if runs(plan, one.paper, s)), None)
                if source is None:
                    continue
                ours = plan.arm(one.paper, *source).settings["dataset"]["name"]
                theirs = one.printed[cell.printed].get("dataset") or ""
                if _plain(theirs) != _plain(plan.project.datasets[ours].title):
                    where = f"tables.{key}.same.{plan.tier}"
                    yield (
                        f"{plan.project.paper_file(one.paper)}: {where}: the paper's figure in "
                        f"{cells.rows[cell.row].where}, {cells.columns[cell.column].where} is of "
                        f"{theirs!r}, {'/'.join(source)} has the dataset {ours!r}; they cannot be "
                        "subtracted."
                    )


def runs(plan: Plan, paper: str, source: tuple[str, str]) -> bool:
    """Tell whether an experiment runs at the plan's tier and has the arm there."""
    experiment, arm = source
    return experiment in plan.experiments(paper) and arm in plan.arm_names(paper, experiment)


def shown(project: Project) -> Iterator[tuple[str, int, int]]:
    """Yield papers with how many of their printed figures a table shows, and how many there are."""
    for one in resolved(project):
        places = {cell.printed for cells in one.tables.values() for cell in cells.cells}
        yield one.paper, len(places - {None}), len(one.printed)


def _plain(name: str) -> str:
    """Return a name of a dataset without case and punctuation: ``CIFAR-10`` is ``cifar10``."""
    return _OTHER.sub("", name.lower())
