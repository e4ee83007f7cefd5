"""Check benchmark tables: names, two figures for one cell, and what is said to be the same data."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from cyclery.config.models import Paper
from cyclery.plan.checked_names import unknown, unusable_metric
from cyclery.plan.graph import Plan
from cyclery.plan.table_cells import TableCells, resolve
from cyclery.records.evidence import PrintedFigure
from cyclery.records.readers import read_printed

_OTHER = re.compile(r"[^a-z0-9]")


def names(plan: Plan, tiers: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with the tables of all papers, whatever the tier."""
    for name, paper, printed in _papers(plan):
        file = plan.project.paper_file(name)
        for key, cells in _tables(paper, printed):
            yield from (f"{file}: {text}" for text in cells.problems)
            for tier in dict.fromkeys(tier for cell in cells.cells for tier in cell.same):
                if tier not in tiers:
                    yield f"{file}: {unknown(f'tables.{key}.same', tier, tiers, 'tier')}"
            for metric in dict.fromkeys(cell.metric for cell in cells.cells):
                for text in unusable_metric(metric, False, f"tables.{key}.metric"):
                    yield f"{file}: {text}"


def same_data(plan: Plan) -> Iterator[str]:
    """Yield cells that are said to have the paper's data at this tier, and have other data."""
    for name, paper, printed in _papers(plan):
        for key, cells in _tables(paper, printed):
            for cell in cells.cells:
                found = next((s for s in cell.sources if runs(plan, name, s)), None)
                if found is None or cell.printed is None or plan.tier not in cell.same:
                    continue
                ours = plan.arm(name, *found).settings["dataset"]["name"]
                theirs = printed[cell.printed].get("dataset") or ""
                if _plain(theirs) != _plain(plan.project.datasets[ours].title):
                    where = f"tables.{key}.same.{plan.tier}"
                    yield (
                        f"{plan.project.paper_file(name)}: {where}: the paper's figure in "
                        f"{cells.rows[cell.row].where}, {cells.columns[cell.column].where} is of "
                        f"{theirs!r}, {'/'.join(found)} has the dataset {ours!r}; they cannot be "
                        "subtracted."
                    )


def runs(plan: Plan, paper: str, source: tuple[str, str]) -> bool:
    """Tell whether an experiment runs at the plan's tier and has the arm there."""
    experiment, arm = source
    return experiment in plan.experiments(paper) and arm in plan.arm_names(paper, experiment)


def shown(plan: Plan) -> Iterator[tuple[str, int, int]]:
    """Yield papers with how many of their printed figures a table shows, and how many there are."""
    for name, paper, printed in _papers(plan):
        cells = (cell for _, table in _tables(paper, printed) for cell in table.cells)
        yield name, len({cell.printed for cell in cells} - {None}), len(printed)


def _papers(plan: Plan) -> Iterator[tuple[str, Paper, list[PrintedFigure]]]:
    for name, paper in plan.project.papers.items():
        if paper.tables:
            yield name, paper, read_printed(plan.project.printed_file(name))


def _tables(paper: Paper, printed: Sequence[PrintedFigure]) -> Iterator[tuple[str, TableCells]]:
    for key, table in paper.tables.items():
        yield key, resolve(key, table, paper, printed)


def _plain(name: str) -> str:
    """Return a name of a dataset without case and punctuation: ``CIFAR-10`` is ``cifar10``."""
    return _OTHER.sub("", name.lower())
