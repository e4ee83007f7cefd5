"""Commands that rules run, one per kind of job: from a dataset to the report."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclery.cli.commands import Commands, load_plan, load_project
from cyclery.common.errors import UserError
from cyclery.common.signals import EXIT_CODE, Stopped

if TYPE_CHECKING:
    from cyclery.data.dataset import Dataset
    from cyclery.engine.train import Trainer
    from cyclery.records.record import Job, Record

log = logging.getLogger("cyclery")


def register(commands: Commands) -> None:
    """Add these commands."""
    command = commands.add("prepare", prepare, "write a dataset as one file of tensors")
    command.add_argument("dataset")
    command.add_argument("--output", type=Path, help="its manifest")
    for name, function, text, what in (
        ("lr-range", lr_range, "run the learning-rate range tests of a group", "group"),
        ("train", train, "train the runs of a shard that the run store does not hold", "shard"),
    ):
        command = commands.add(name, function, text)
        command.add_argument(what)
        command.add_argument("--output", type=Path, required=True, help="records, one a line")
        command.add_argument("--workers", type=int, default=1, help="processes on a CPU")
        _expected(command)
    command = commands.add("checkpoint", checkpoint, "export a parent's weights from the run store")
    command.add_argument("run", help="paper.experiment.arm.s0")
    command.add_argument("--output", type=Path, required=True, help="the weights, as safetensors")
    _expected(command)
    command = commands.add("evidence", evidence, "test the claims of a part")
    command.add_argument("part")
    command.add_argument("--output", type=Path, required=True, help="evidence as JSON")
    command.add_argument("--table", type=Path, help="tidy table as CSV, a row per run")
    _expected(command)
    command = commands.add("report", report, "render evidence of any tiers as HTML and LaTeX")
    command.add_argument("evidence", nargs="+", type=Path)
    command.add_argument("--output", type=Path, required=True, help="index.html")
    command.add_argument(
        "--also", nargs="*", type=Path, default=[], metavar="FILE",
        help="evidence of other tiers, for the benchmark tables",
    )  # fmt: skip


def _expected(command: argparse.ArgumentParser) -> None:
    command.add_argument("--expect", help="hash of what was planned")


def _expect(options: argparse.Namespace, found: str) -> None:
    if options.expect and options.expect != found:
        raise UserError(
            "the configuration has changed since this job was planned; repeat the command"
        )


def prepare(options: argparse.Namespace) -> None:
    """Prepare a dataset."""
    from cyclery.data.prepare import prepare

    project = load_project(options)
    manifest = options.output or project.data / f"{options.dataset}.json"
    found = prepare(project.datasets[options.dataset], manifest.parent, manifest)
    log.info(
        "%s: %d images, from %s", manifest, found["n_train"] + found["n_test"], found["source"]
    )


def _trainer(options: argparse.Namespace, setting: dict[str, Any], job: str) -> Trainer:
    # One thread per process: set before numpy and torch start theirs.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    from cyclery.engine.execution import Execution
    from cyclery.engine.machine import commit
    from cyclery.engine.train import Trainer
    from cyclery.records.job_progress import progress_file
    from cyclery.records.run_store import Store

    results, data = (options.root / setting[name] for name in ("results", "data"))
    return Trainer(
        store=Store(results / "store"),
        manifests={p.stem: data / f"{p.stem}.json" for p in options.root.glob("config/datasets/*")},
        dataset=partial(_dataset, options.root),
        execution=Execution(**setting["execution"]),
        workers=getattr(options, "workers", 1),
        commit=commit(options.root),
        # A job of the graph has a log, and shares the terminal with others.
        bar=options.log is None and sys.stderr.isatty(),
        progress=progress_file(results / setting["tier"], job),
        job=job,
    )


def _dataset(root: Path, name: str) -> Dataset:
    """Return a dataset of the project; read late, for training needs only what was prepared."""
    from cyclery.config.load import datasets

    return datasets(root)[name]


def _run_jobs(
    options: argparse.Namespace,
    setting: dict[str, Any],
    job: str,
    jobs: list[Job],
    sources: list[Job] | None = None,
) -> int:
    from cyclery.records.shard_files import write_records

    trainer = _trainer(options, setting, job)
    try:
        records = trainer.train(jobs, sources or [])
    except Stopped:
        log.info("stopped as asked; unfinished runs go on from where they are")
        return EXIT_CODE
    finally:
        # Also of those that were trained before another one failed, or before this was stopped.
        _refresh(trainer.trained, options.root / setting["results"] / setting["tier"])
    write_records(options.output, records)
    return 0


def _refresh(trained: dict[str, Record], folder: Path) -> None:
    """Let every file of records that lists a parent which was trained again know of it."""
    parents = {key: run for key, run in trained.items() if run.get("checkpoint_sha256")}
    if parents:
        from cyclery.records.shard_files import refresh

        refresh(sorted((folder / "records").rglob("*.jsonl")), parents)


def lr_range(options: argparse.Namespace) -> int:
    """Run the range tests of a group."""
    from cyclery.plan.job_cache import setting
    from cyclery.plan.job_specs import range_jobs
    from cyclery.plan.snakemake_api import Graph

    plan = load_plan(options)
    _expect(options, Graph(plan, {}).range_digest(options.group))
    jobs = range_jobs(plan.ranges(options.group))
    return _run_jobs(options, setting(plan), f"lr-range/{options.group}", jobs)


def train(options: argparse.Namespace) -> int:
    """Train the runs of a shard."""
    from cyclery.plan.job_cache import order

    found = order(
        options.root, options.set, options.shard, options.expect, lambda: load_plan(options)
    )
    _expect(options, found.digest)
    job = f"records/{options.shard}"
    return _run_jobs(options, found.setting, job, found.jobs, found.sources)


def checkpoint(options: argparse.Namespace) -> int:
    """Export the weights of a parent; train it where the store lost it."""
    from cyclery.engine.export import export
    from cyclery.plan.job_cache import setting
    from cyclery.plan.job_specs import shard_jobs, source_jobs
    from cyclery.plan.snakemake_api import Graph

    plan = load_plan(options)
    graph = Graph(plan, {})
    key = graph.checkpoint_key(options.run)
    _expect(options, key)
    shard, _, _ = plan.kept()[options.run]
    [job] = (job for job in shard_jobs(shard) if job["key"] == key)
    trainer = _trainer(options, setting(plan), f"checkpoints/{options.run}")
    trained: dict[str, Record] = {}
    try:
        export(trainer, job, source_jobs(shard), options.output, trained)
    except Stopped:
        return EXIT_CODE
    finally:
        _refresh(trained, options.root / plan.project.config.results / plan.tier)
    return 0


def evidence(options: argparse.Namespace) -> None:
    """Test the claims of a part."""
    from cyclery.evidence.assemble import gather
    from cyclery.plan.graph import Plan
    from cyclery.plan.snakemake_api import Graph

    # The graph has checked what it expects, which takes longer than judging.
    expected = options.expect
    plan = Plan(load_project(options), checked=True) if expected else load_plan(options)
    _expect(options, Graph(plan, {}).part_digest(options.part))
    gather(plan, options.part, options.output, options.table)


def report(options: argparse.Namespace) -> None:
    """Render the report beside its page."""
    from cyclery.report.command import report

    report(options.evidence, options.output.parent, options.also)
