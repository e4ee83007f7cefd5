"""List the files of a publication: names in its archives, and places in the project."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cyclery.common import checksums
from cyclery.data import outliers
from cyclery.plan.graph import Plan
from cyclery.plan.model import Shard
from cyclery.plan.snakemake_api import Graph


@dataclass(frozen=True)
class Contents:
    """The files of a plan's tier. Paths are relative to the project's root, as Snakemake's are."""

    plan: Plan

    @cached_property
    def graph(self) -> Graph:
        """The graph that makes them."""
        return Graph(self.plan, {})

    @property
    def root(self) -> Path:
        """The project's root."""
        return self.plan.project.root

    @cached_property
    def papers(self) -> list[str]:
        """The papers that are selected."""
        return self.plan.project.selected()

    @property
    def allocation(self) -> dict[str, int]:
        """The seeds that those of their arms are asked for which have a number of their own."""
        arms = {".".join(arm): arm for paper in self.papers for arm in self.plan.part_arms(paper)}
        return {
            name: len(self.plan.seeds(self.plan.arm(*arms[name])))
            for name in self.plan.allocation if name in arms
        }  # fmt: skip

    @cached_property
    def shards(self) -> dict[str, Shard]:
        """The shards of the papers, by their file of records, parents first."""
        shards = [shard for paper in self.papers for shard in self.plan.closure(paper)]
        return {f"{self.graph.results}/records/{shard.id}.jsonl": shard for shard in shards}

    @cached_property
    def ranges(self) -> dict[str, set[str]]:
        """The keys of the sweeps, by their file."""
        groups = {group for paper in self.papers for group in self.plan.groups(paper)}
        found = {}
        for group in sorted(groups):
            keys = {t.run_key(seed) for t in self.plan.ranges(group) for seed in t.seeds}
            if keys:
                found[f"{self.graph.results}/lr-range/{group}.jsonl"] = keys
        return found

    @cached_property
    def datasets(self) -> list[str]:
        """The datasets that the runs read."""
        arms = (arm for shard in self.shards.values() for arm in shard.arms)
        return sorted({name for arm in arms for name in outliers.names(arm.settings)})

    @property
    def report(self) -> list[str]:
        """The outputs of the report's rule, the list of sums last; its folder holds more."""
        return [
            f"{self.graph.report}/{name}" for name in ("index.html", "report.tex", checksums.NAME)
        ]

    def require_whole(self) -> None:
        """Raise a UserError that names a file of tables or evidence that is damaged."""
        for path in map(self.graph.sums, self.papers):
            checksums.require(self.root / path)

    def records(self, paper: str) -> list[str]:
        """Return the files in a paper's archive: its records and range tests."""
        graph = self.graph
        return [*graph.record_files(paper), *graph.part_range_files(paper)]

    def outputs(self) -> list[str]:
        """Return the outputs that are published, upstream first.

        What is made of them in seconds, evidence, tables and report, is made anew by whoever
        fetches them, with the code that is there: it was a quarter of the bytes.
        """
        return [*map(self.graph.manifest, self.datasets), *self.ranges, *self.shards]

    def name(self, path: str) -> str:
        """Return the name of an output in an archive, whatever the project calls its folders."""
        for folder, prefix in ((self.graph.results, "tier"), (self.graph.data, "data")):
            if path.startswith(f"{folder}/"):
                return prefix + path.removeprefix(folder)
        raise AssertionError(f"{path} is no output")

    def path(self, name: str) -> str:
        """Return the place in this project of a file with this name in an archive."""
        prefix, _, rest = name.partition("/")
        return f"{ {'tier': self.graph.results, 'data': self.graph.data}[prefix] }/{rest}"

    @cached_property
    def kept(self) -> dict[str, list[str]]:
        """The run keys whose weights are kept, by the paper whose archive holds them."""
        found: dict[str, list[str]] = {}
        for _, arm, seed in self.plan.kept().values():
            found.setdefault(arm.paper, []).append(arm.key(seed))
        return found
