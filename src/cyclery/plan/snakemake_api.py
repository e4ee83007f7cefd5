"""What the Snakefile calls: paths, parameters and resources of every rule.

Snakemake imports this at every parse, so it is light: no torch, no pandas, and nothing is read but
``config/`` and the code that judges and reports, for its hash.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Container, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from cyclery.common import checksums, mtimes
from cyclery.common.errors import UserError, choices, nearest
from cyclery.config.load import Project, tier_names
from cyclery.data import outliers
from cyclery.data.split_settings import resolution
from cyclery.plan import resources
from cyclery.plan.graph import Plan
from cyclery.plan.lost_files import LostFiles
from cyclery.plan.model import ArmPlan, RangePlan, Shard, digest
from cyclery.plan.project_checks import check

# No job requests more cores than this, however many runs it has.
MOST_WORKERS = 64
# The packages whose code decides evidence, and a report: they themselves, and what they import.
JUDGING = ("common", "config", "evidence", "plan", "records", "schedules")
RENDERING = (*JUDGING, "report")
# A report of more papers than these letters name has a number and a hash in its name.
MOST_LETTERS = 100


def prefer_this_python() -> None:
    """Let jobs find this environment's Python even where it is not activated.

    An environment of `--use-conda` is activated inside the job, so it comes before this one.
    """
    here = str(Path(sys.executable).parent)
    path = os.environ.get("PATH", os.defpath).split(os.pathsep)
    os.environ["PATH"] = os.pathsep.join([here, *(p for p in path if p != here)])


def table_labels(file: Path) -> dict[str, str]:
    """Return what Snakemake's report says of a benchmark table: its file begins with comments."""
    lines = file.read_text(encoding="utf-8").split("\n", 3)[:3]
    paper, table, shows = (line.removeprefix("% ") for line in lines)
    return {"paper": paper, "table": table, "shows": shows}


def _code(rooms: Iterable[str]) -> str:
    """Return the hash of the code and the templates in some packages."""
    package = Path(__file__).parents[1]
    found = (path for name in rooms for path in (package / name).rglob("*"))
    files = sorted(path for path in found if path.suffix in (".py", ".j2"))
    return digest([[str(p.relative_to(package)), p.read_bytes().hex()] for p in files])


class Graph:
    """The graph of one project at one tier. Paths are relative to the project's root."""

    def __init__(self, plan: Plan, overrides: Mapping[str, Any]) -> None:
        self.plan = plan
        self.config = plan.project.config
        self.results = f"{self.config.results}/{plan.tier}"
        self.data = self.config.data
        # Asked for by targets and by evidence.
        self._records: dict[str, list[str]] = {}
        # Handed to every command, so that a job sees the configuration that was planned.
        # Braces are doubled, because Snakemake formats the command.
        self.overrides = (
            " ".join(
                f"--set {shlex.quote(f'{key}={json.dumps(value)}')}"
                for key, value in sorted(overrides.items())
            )
            .replace("{", "{{")
            .replace("}", "}}")
        )

    @classmethod
    def of(cls, project: Project) -> Graph:
        """Check and plan a project; a UserError says what is wrong."""
        return cls(check(project), project.overrides)

    def parts(self) -> list[str]:
        """Return every paper, experiment and claim that can be a target."""
        return list(self.plan.parts())

    def reset_future_times(self) -> None:
        """Set modification times in the future to now, and report it: the clock was set back."""
        # Not the run store and logs, which Snakemake does not check.
        kinds = ("lr-range", "records", "checkpoints", "evidence", "tables")
        root = self.plan.project.root
        made = [f"{self.results}/{kind}" for kind in kinds]
        folders = [root / path for path in (self.data, *made, self.report)]
        if reset := mtimes.reset_future(folders):
            print(
                f"cyclery: {reset} files in {self.results} and {self.data} were from the future, "
                "as after a clock was set back; they have the present time now.",
                file=sys.stderr,
            )

    @cached_property
    def gpus(self) -> int:
        """Return the GPUs that a training job takes."""
        on_gpu = self.config.device == "cuda" or (
            self.config.device == "auto" and Path("/dev/nvidiactl").exists()
        )
        return int(on_gpu)

    @property
    def device_resources(self) -> dict[str, Any]:
        """Return the resources of a training job besides cores, time and memory: a GPU, or none.

        Snakemake and SLURM count the same GPU, under one of two names: clusters differ in which
        they take, and both at once would be two GPUs.
        """
        if not self.gpus:
            return {}
        return {"gres": self.config.gres} if self.config.gres else {"gpu": self.gpus}

    def threads(self, runs: int) -> int:
        """Return the cores that a job of so many runs can use; Snakemake gives it what there is."""
        return 1 if self.gpus else max(1, min(MOST_WORKERS, runs))

    def shard_threads(self, group: str, shard: str) -> int:
        """Return the cores that training a shard can use."""
        return self.threads(sum(1 for _ in self.plan.shard(f"{group}/{shard}").runs))

    def range_threads(self, group: str) -> int:
        """Return the cores that a group's range tests can use."""
        return self.threads(sum(len(test.seeds) for test in self.plan.ranges(group)))

    # Resources of the first attempt; later ones multiply them.

    def shard_minutes(self, group: str, shard: str, threads: int) -> int:
        """Return the minutes in which a shard's runs should be trained."""
        return self._minutes([arm for arm, _ in self.plan.shard(f"{group}/{shard}").runs], threads)

    def shard_megabytes(self, group: str, shard: str, threads: int) -> int:
        """Return the memory that training a shard takes."""
        return self._megabytes(self.plan.shard(f"{group}/{shard}").arms, threads)

    def range_minutes(self, group: str, threads: int) -> int:
        """Return the minutes in which a group's range tests should be done."""
        tests = self.plan.ranges(group)
        seconds = (
            resources.seconds(self.plan, test.settings, test.views)
            for test in tests
            for _ in test.seeds
        )
        return resources.minutes(seconds, threads)

    def range_megabytes(self, group: str, threads: int) -> int:
        """Return the memory that a group's range tests take."""
        return self._megabytes(self.plan.ranges(group), threads)

    def checkpoint_minutes(self, run: str) -> int:
        """Return the minutes in which a kept run should be trained, where the store lost it."""
        return self._minutes([self._kept_run(run)[1]], 1)

    def checkpoint_megabytes(self, run: str) -> int:
        """Return the memory that training a kept run takes."""
        return self._megabytes([self._kept_run(run)[1]], 1)

    def _minutes(self, runs: Iterable[ArmPlan], threads: int) -> int:
        seconds = (resources.seconds(self.plan, arm.settings, arm.cost["views"]) for arm in runs)
        return resources.minutes(seconds, threads)

    def _megabytes(self, of: Iterable[ArmPlan | RangePlan], threads: int) -> int:
        datasets = self.plan.project.datasets
        found = {
            (name, resolution(each.settings["split"], datasets[own].shape))
            for each in of
            for own in [each.settings["dataset"]["name"]]
            for name in outliers.names(each.settings)
        }
        # As large as a run sees its images.
        data = [datasets[name].model_copy(update={"shape": shape}) for name, shape in found]
        return resources.megabytes(data, threads, bool(self.gpus))

    # Data and range tests.

    def identity(self, dataset: str) -> str:
        """Return what pins a dataset: its raw checksums and the version of its preparation."""
        return self.plan.project.datasets[dataset].identity

    def manifest(self, dataset: str) -> str:
        """Return the manifest of a dataset."""
        return f"{self.data}/{dataset}.json"

    def manifests(self, group: str) -> list[str]:
        """Return the manifests that a group's runs need."""
        cells = (cell for shard in self.plan.shards(group) for cell in shard.cells)
        names = {name for cell in cells for name in outliers.names(cell.arm.settings)}
        return [self.manifest(name) for name in sorted(names)]

    def _range_file(self, group: str) -> str:
        return f"{self.results}/lr-range/{group}.jsonl"

    def range_files(self, group: str, shard: str) -> list[str]:
        """Return the group's range tests if an arm of the shard takes its bounds from one."""
        cells = self.plan.shard(f"{group}/{shard}").cells
        return [self._range_file(group)] if any(cell.arm.range for cell in cells) else []

    def range_digest(self, group: str) -> str:
        """Return the hash of a group's range tests."""
        return digest(sorted(test.key for test in self.plan.ranges(group)))

    # Shards.

    def shard_digest(self, group: str, shard: str) -> str:
        """Return the hash of a shard's run keys."""
        return self.plan.shard(f"{group}/{shard}").digest

    def _record_file(self, shard_id: str) -> str:
        return f"{self.results}/records/{shard_id}.jsonl"

    def parent_files(self, group: str, shard: str) -> list[str]:
        """Return the records of the shards that hold a shard's parents."""
        parents = self.plan.parent_shards(self.plan.shard(f"{group}/{shard}"))
        return [self._record_file(parent.id) for parent in parents]

    # Checkpoints.

    @cached_property
    def _kept(self) -> dict[str, tuple[Shard, ArmPlan, int]]:
        return self.plan.kept()

    def checkpoint_files(self) -> list[str]:
        """Return the exported weights of every parent of the selected papers."""
        return [f"{self.results}/checkpoints/{run}.safetensors" for run in self._kept]

    def checkpoint_records(self, run: str) -> str:
        """Return the records among which a kept run is."""
        return self._record_file(self._kept_run(run)[0].id)

    def checkpoint_key(self, run: str) -> str:
        """Return the run key of a kept run."""
        _, arm, seed = self._kept_run(run)
        return arm.key(seed)

    def files_holding(self, keys: Container[str]) -> list[str]:
        """Return the files of records that list any of these runs, which keep their weights."""
        return [self._record_file(shard.id) for shard in self.plan.holding(keys)]

    def _kept_run(self, run: str) -> tuple[Shard, ArmPlan, int]:
        if run not in self._kept:
            raise UserError(
                f"no run {run!r} keeps its weights.{nearest(run, self._kept)} Those that do: "
                f"{choices(self._kept) or 'none'}."
            )
        return self._kept[run]

    # Evidence.

    def evidence(self, part: str) -> str:
        """Return the evidence file of a part."""
        return f"{self.results}/evidence/{part}.json"

    def table(self, part: str) -> str:
        """Return the tidy table of a part."""
        return f"{self.results}/tables/{part}.csv"

    def sums(self, part: str) -> str:
        """Return the list of the SHA-256 of a part's table and evidence."""
        return f"{self.results}/tables/{part}.sha256"

    def record_files(self, part: str) -> list[str]:
        """Return the records of a part and of all its ancestors."""
        if part not in self._records:
            self._records[part] = [self._record_file(shard.id) for shard in self.plan.closure(part)]
        return self._records[part]

    def part_range_files(self, part: str) -> list[str]:
        """Return the range tests of a part."""
        groups = self.plan.groups(part)
        return [self._range_file(group) for group in groups if self.plan.ranges(group)]

    def part_digest(self, part: str) -> str:
        """Return the hash of what a part declares besides runs: claims, seeds, printed figures."""
        project, paper = self.plan.project, part.partition(".")[0]
        declared = project.papers[paper].model_dump(mode="json")
        planned = [self.plan.planned(claim) for claim in project.papers[paper].claims.values()]
        # An arm that the allocation lowers may leave all shards, and so all inputs, as they are.
        seeds = [list(self.plan.seeds(self.plan.arm(*arm))) for arm in self.plan.part_arms(part)]
        printed = project.printed_file(paper)
        figures = printed.read_bytes().hex() if printed.exists() else ""
        return digest([part, declared, seeds, planned, figures])

    @cached_property
    def code(self) -> str:
        """Return the hash of the code that judges.

        These jobs take seconds, so any edit repeats them: an old verdict must not outlive the rule
        that it came from. Training has versions instead, because it takes hours.
        """
        return _code(JUDGING)

    @cached_property
    def report_code(self) -> str:
        """Return the hash of the code that renders, with that which judges."""
        return _code(RENDERING)

    def evidence_files(self) -> list[str]:
        """Return the evidence of every selected paper."""
        return [self.evidence(paper) for paper in self.plan.project.selected()]

    def other_evidence(self) -> list[str]:
        """Return the evidence that other tiers have of the selected papers, for tables of all.

        What is on disk counts: no rule of this tier makes it.
        """
        root, tiers = self.plan.project.root, tier_names(self.plan.project.root)
        files = (
            f"{self.config.results}/{tier}/evidence/{paper}.json"
            for tier in tiers if tier != self.plan.tier
            for paper in self.plan.project.selected()
        )  # fmt: skip
        return [path for path in files if (root / path).is_file()]

    def other_sums(self) -> str:
        """Return the hash of the checksums of what other tiers have, which says when it changes."""
        root = self.plan.project.root
        found = (root / path for path in self.other_evidence())
        sums = (path.parents[1] / "tables" / f"{path.stem}.sha256" for path in found)
        return digest([path.read_text("utf-8") for path in sums if path.is_file()])

    # The report, and what targets ask for.

    @cached_property
    def report(self) -> str:
        """Return the folder of the report; a selection of papers has another than all papers."""
        selected, papers = self.plan.project.selected(), self.plan.project.papers
        if set(selected) == set(papers):
            return f"{self.results}/report"
        names = "+".join(selected)
        if len(names) > MOST_LETTERS:
            names = f"{len(selected)}-papers-{digest(selected)[:8]}"
        return f"{self.results}/report-{names}"

    def due(self, part: str | None = None) -> list[str]:
        """Return lost files of a part, or of the report, which a target must request by name."""
        project = self.plan.project
        lost = LostFiles(project.root, project.results)
        if part is None:
            lost.mend(f"{self.report}/{checksums.NAME}")
            return [path for paper in project.selected() for path in self.due(paper)]
        lost.mend(self.sums(part))
        # Without evidence, the job that makes it requires all records itself.
        records = self.record_files(part) if (project.root / self.evidence(part)).exists() else []
        files = [
            *dict.fromkeys(m for group in self.plan.groups(part) for m in self.manifests(group)),
            *self.part_range_files(part),
            *records,
            *(self.evidence(part), self.table(part), self.sums(part)),
        ]
        return list(lost.missing(files))
