"""What the Snakefile asks for the atlas: evidence of every tier whose records are on disk.

Other tiers are planned only where the atlas is asked for: a parse of the Snakefile reads none. They
are planned as the main file has them, and nothing here makes a record, so that nothing trains.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from cyclery.common.errors import UserError
from cyclery.config.load import Project, at_tier, places, tier_names
from cyclery.plan.cost import TIERS
from cyclery.plan.graph import Plan
from cyclery.plan.model import Shard
from cyclery.plan.snakemake_api import Graph
from cyclery.records import replication


class Atlas:
    """The graphs of all tiers, for the rules of the atlas; paths are from the project's root."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._project = graph.plan.project
        self._planned: dict[str, Graph] = {graph.plan.tier: graph}
        self.folder = f"{graph.config.results}/atlas"

    @cached_property
    def others(self) -> list[str]:
        """Return the tiers that are not selected."""
        return [name for name in tier_names(self._project.root) if name not in self._planned]

    def project(self, tier: str) -> Project:
        """Return the project at a tier, as the main file has it."""
        return at_tier(self._project, tier)

    def graph(self, tier: str) -> Graph:
        """Return the graph of a tier, which is planned at the first call."""
        if tier not in self._planned:
            plan = Plan(self.project(tier))
            self._planned[tier] = Graph(plan, {**places(self._project), "tier": tier})
        return self._planned[tier]

    @property
    def places(self) -> str:
        """Return the overrides that hold at every tier as options of a command."""
        return Graph(self._graph.plan, places(self._project)).overrides

    def evidence(self) -> list[str]:
        """Return the evidence of the selected papers at every tier that has all of their records.

        The tier nearest to the paper comes first, those of a project's own last. A UserError where
        no tier has any.
        """
        order = [*reversed(TIERS), *sorted({*self.others, self._graph.plan.tier} - {*TIERS})]
        known = {*self.others, self._graph.plan.tier}
        results = self._graph.config.results
        found = [
            f"{results}/{tier}/evidence/{paper}.json"
            for tier in order if tier in known
            for paper in self._project.selected() if self.whole(tier, paper)
        ]  # fmt: skip
        if not found:
            raise UserError(
                f"{results}: no tier has all records of a selected paper, so there is nothing to "
                "show. Run a tier first, as by `make reproduce`, or bring one by `make pull`."
            )
        return found

    def replications(self) -> list[str]:
        """Return what fresh seeds said at each tier, where that was asked or is published."""
        root = self._project.root
        results = root / self._graph.config.results
        found = (replication.find(results, tier) for tier in reversed(TIERS))
        return [str(path.relative_to(root)) for path in found if path]

    def whole(self, tier: str, paper: str) -> bool:
        """Tell whether a tier has a file for every shard of a paper, with as many records."""
        # Most tiers have nothing, and are not planned for that.
        if not (self._project.root / self._graph.config.results / tier / "records").is_dir():
            return False
        graph = self.graph(tier)
        shards = graph.plan.closure(paper)
        root = self._project.root
        ranges = (root / path for path in graph.part_range_files(paper))
        return (
            bool(shards)
            and all(path.is_file() for path in ranges)
            and all(self._holds(graph, shard) for shard in shards)
        )

    def _holds(self, graph: Graph, shard: Shard) -> bool:
        path = self._project.root / graph.results / "records" / f"{shard.id}.jsonl"
        wanted = sum(1 for _ in shard.runs)
        return path.is_file() and sum(_lines(path)) >= wanted


def _lines(path: Path) -> Iterator[int]:
    """Yield the number of lines of a file, piece by piece: records may be large."""
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            yield piece.count(b"\n")
