"""The command line: one command per kind of job, and a few for people.

Every command reads ``config/`` below ``--root`` with the overrides of ``--set``. A UserError is
printed as one message and ends with exit code 2.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclery import __version__
from cyclery.common.errors import UserError
from cyclery.common.files import is_full
from cyclery.common.logs import log_to
from cyclery.common.signals import EXIT_CODE, Terminated, terminable

if TYPE_CHECKING:
    from cyclery.engine.train import Trainer
    from cyclery.plan.graph import Plan
    from cyclery.records.record import Job, Record

log = logging.getLogger("cyclery")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    try:
        with terminable():
            options = _parser().parse_args(arguments)
            options.set = [*options.set_first, *options.set]
            return _run(options)
    except Terminated:
        log.debug("stopped by SIGTERM")
        print("cyclery: stopped as asked, by SIGTERM; the same command goes on", file=sys.stderr)
        return EXIT_CODE


def _run(options: argparse.Namespace) -> int:
    """Run the command of parsed options; return its exit code."""
    try:
        log_to(options.log, options.verbose)
        command: Callable[[argparse.Namespace], int | None] = options.command
        code = command(options) or 0
        sys.stdout.flush()
        return code
    except UserError as error:
        if options.log:
            log.debug("%s", error)
        print(f"cyclery: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever read has seen enough, as `head` does.
        _forget_output()
        return 141
    except OSError as error:
        if not is_full(error):
            return _unexpected(error, options.log)
        log.debug("no space", exc_info=True)
        # What is written through a stream bears no name: mostly it is the terminal's own output.
        print(f"cyclery: no space on disk to write {error.filename or 'the output'}; free some "
              "and run the same command again", file=sys.stderr)  # fmt: skip
        _forget_output()
        return 2
    except Exception as error:
        return _unexpected(error, options.log)
    except KeyboardInterrupt:
        print("cyclery: stopped", file=sys.stderr)
        return 130


def _unexpected(error: Exception, path: Path | None) -> int:
    """Report a mistake of ours. A job keeps the traceback in its log; by hand it is shown."""
    if not path:
        raise error
    log.debug("unexpected error", exc_info=True)
    print(f"cyclery: unexpected {type(error).__name__}: {error}; details in {path}",
          file=sys.stderr)  # fmt: skip
    return 1


def _forget_output() -> None:
    """Let nothing be flushed at the exit to where nobody reads, or nothing fits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    from cyclery.bench.command import arguments, bench
    from cyclery.compare import command as compare_view
    from cyclery.monitor import command as status_view
    from cyclery.sharing import command as sharing

    parser = argparse.ArgumentParser(
        prog="cyclery",
        description="Reproduces cyclical training and related papers, and judges their claims.",
    )
    parser.add_argument("--version", action="version", version=f"cyclery {__version__}")
    parser.add_argument("--root", type=Path, default=Path(), help="folder that holds config/")
    override: dict[str, Any] = {
        "action": "append",
        "default": [],
        "metavar": "KEY=VALUE",
        "help": "override a key of config/config.yaml, as in --set tier=desk",
    }
    parser.add_argument("--set", dest="set_first", **override)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, function: Callable[..., Any], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(command=function)
        command.add_argument("--set", **override)
        command.add_argument("--log", type=Path, help="also write all detail to this file")
        command.add_argument("-v", "--verbose", action="store_true", help="say more")
        return command

    command = add("check", _check, "check the whole configuration")
    command.add_argument(
        "--methods", action="store_true", help="also make two steps of each method, on random data"
    )
    command = add("plan", _plan, "show cells, runs, estimated time and disk, and what is done")
    command.add_argument("part", nargs="*", help="paper, paper.experiment or paper.claim")
    command = add("status", _status, "show what runs, waits, is done, diverged or failed")
    status_view.arguments(command)
    command = add("prepare", _prepare, "write a dataset as one file of tensors")
    command.add_argument("dataset")
    command.add_argument("--output", type=Path, help="its manifest")
    for name, function, text, what in (
        ("lr-range", _lr_range, "run the learning-rate range tests of a group", "group"),
        ("train", _train, "train the runs of a shard that the run store does not hold", "shard"),
    ):
        command = add(name, function, text)
        command.add_argument(what)
        command.add_argument("--output", type=Path, required=True, help="records, one a line")
        command.add_argument("--workers", type=int, default=1, help="processes on a CPU")
        command.add_argument("--expect", help="hash of what was planned")
    command = add("checkpoint", _checkpoint, "export a parent's weights from the run store")
    command.add_argument("run", help="paper.experiment.arm.s0")
    command.add_argument("--output", type=Path, required=True, help="the weights, as safetensors")
    command.add_argument("--expect", help="hash of what was planned")
    command = add("evidence", _evidence, "test the claims of a part")
    command.add_argument("part")
    command.add_argument("--output", type=Path, required=True, help="evidence as JSON")
    command.add_argument("--table", type=Path, help="tidy table as CSV, a row per run")
    command.add_argument("--expect", help="hash of what was planned")
    command = add("report", _report, "render evidence as HTML and LaTeX")
    command.add_argument("evidence", nargs="+", type=Path)
    command.add_argument("--output", type=Path, required=True, help="index.html")
    text = "compare two sets of results: verdicts that moved, arms that differ, what is identical"
    compare_view.arguments(add("compare", compare_view.run, text))
    command = add(
        "jobs",
        _jobs,
        "write the runs of a part as plain JSON, for python -m "
        "cyclery.engine on a machine without these packages",
    )
    command.add_argument("part")
    command.add_argument("--output", type=Path, required=True)
    arguments(add("bench", bench, "measure the engine against training loops written by hand"))
    sharing.arguments(add("publish", sharing.publish, "freeze a finished tier for others, by DVC"))
    sharing.arguments(add("fetch", sharing.fetch, "pull a published tier and put it in its place"))
    add("verify", _verify, "say whether every file of a tier is whole, and where its report is")
    add("doctor", _doctor, "say what this machine has, lacks or has wrongly, and the remedy")
    command = add("docs", _docs, "write the JSON Schemas and the reference of every key")
    command.add_argument("--check", action="store_true", help="only say whether they are current")
    return parser


def _load(options: argparse.Namespace) -> Plan:
    from cyclery.config.load import load, overrides
    from cyclery.plan.project_checks import check

    return check(load(options.root, overrides(options.set)))


def _expect(options: argparse.Namespace, found: str) -> None:
    if options.expect and options.expect != found:
        raise UserError(
            "the configuration has changed since this job was planned; repeat the command"
        )


def _check(options: argparse.Namespace) -> None:
    from cyclery import methods
    from cyclery.config.load import load, overrides, tier_names
    from cyclery.plan.project_checks import check

    # Those that no arm asks for, too: a file that its author is at work on.
    methods.check_files()
    changed = overrides(options.set)
    first = check(load(options.root, changed))
    if options.methods:
        from cyclery.authoring.try_methods import try_methods

        count = try_methods(first)
        print(f"tier {first.tier}: two steps of each of {count} choices of methods, all are good")
    others = [] if "tier" in changed else [t for t in tier_names(options.root) if t != first.tier]
    for plan in [first, *(check(load(options.root, {**changed, "tier": t})) for t in others)]:
        papers = plan.project.papers
        arms = sum(len(plan.part_arms(paper)) for paper in papers)
        print(f"tier {plan.tier}: {len(papers)} papers, {arms} arms, all keys are good")


def _plan(options: argparse.Namespace) -> None:
    from cyclery.plan.cost import show

    show(_load(options), options.part)


def _status(options: argparse.Namespace) -> None:
    from cyclery.config.load import load, overrides
    from cyclery.monitor.command import status
    from cyclery.plan.graph import Plan

    # Without the check of every key: jobs that run have passed it.
    status(options, Plan(load(options.root, overrides(options.set))))


def _prepare(options: argparse.Namespace) -> None:
    from cyclery.config.load import load, overrides
    from cyclery.data.prepare import prepare

    project = load(options.root, overrides(options.set))
    manifest = options.output or project.data / f"{options.dataset}.json"
    found = prepare(options.dataset, manifest.parent, manifest)
    log.info(
        "%s: %d images, from %s", manifest, found["n_train"] + found["n_test"], found["source"]
    )


def _trainer(options: argparse.Namespace, setting: dict[str, Any], job: str) -> Trainer:
    # One thread per process: set before numpy and torch start theirs.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    from cyclery.data.registry import DATASETS
    from cyclery.engine.machine import commit
    from cyclery.engine.train import Trainer
    from cyclery.records.job_progress import progress_file
    from cyclery.records.run_store import Store

    results, data = (options.root / setting[name] for name in ("results", "data"))
    keys = ("device", "resume_seconds", "gpus", "jobs_per_gpu", "cohort", "capture")
    return Trainer(
        store=Store(results / "store"),
        manifests={name: data / f"{name}.json" for name in DATASETS},
        **{key: setting[key] for key in keys},
        workers=getattr(options, "workers", 1),
        commit=commit(options.root),
        # A job of the graph has a log, and shares the terminal with others.
        bar=options.log is None and sys.stderr.isatty(),
        progress=progress_file(results / setting["tier"], job),
        job=job,
    )


def _run_jobs(
    options: argparse.Namespace,
    setting: dict[str, Any],
    job: str,
    jobs: list[Job],
    sources: list[Job] | None = None,
) -> int:
    from cyclery.common.signals import Stopped
    from cyclery.records.shard_files import write_records

    trainer = _trainer(options, setting, job)
    try:
        records = trainer.train(jobs, sources or [])
    except Stopped:
        log.info("stopped as asked; unfinished runs go on from where they are")
        return EXIT_CODE
    finally:
        # Also of those that were trained before another one failed, or before this was stopped.
        _refresh(options, trainer.trained)
    write_records(options.output, records)
    return 0


def _refresh(options: argparse.Namespace, trained: dict[str, Record]) -> None:
    """Let every shard that lists a parent which was trained again know of it."""
    parents = {key: run for key, run in trained.items() if run.get("checkpoint_sha256")}
    if parents:
        from cyclery.plan.snakemake_api import Graph
        from cyclery.records.shard_files import refresh

        try:
            files = Graph(_load(options), {}).files_holding(parents)
        except UserError as error:
            # Half an edit, hours after the start, must not cost this job.
            log.warning("other shards are not told that parents were trained again: %s", error)
        else:
            refresh([options.root / file for file in files], parents)


def _lr_range(options: argparse.Namespace) -> int:
    from cyclery.plan.job_cache import setting
    from cyclery.plan.job_specs import range_jobs
    from cyclery.plan.snakemake_api import Graph

    plan = _load(options)
    _expect(options, Graph(plan, {}).range_digest(options.group))
    jobs = range_jobs(plan.ranges(options.group))
    return _run_jobs(options, setting(plan), f"lr-range/{options.group}", jobs)


def _train(options: argparse.Namespace) -> int:
    from cyclery.plan.job_cache import order

    found = order(options.root, options.set, options.shard, options.expect, lambda: _load(options))
    _expect(options, found.digest)
    job = f"records/{options.shard}"
    return _run_jobs(options, found.setting, job, found.jobs, found.sources)


def _jobs(options: argparse.Namespace) -> None:
    from cyclery.common.files import write_atomic
    from cyclery.plan.job_specs import part_jobs

    jobs = part_jobs(_load(options), options.part)
    write_atomic(options.output, json.dumps(jobs, indent=1, sort_keys=True))
    log.info("%s: %d jobs", options.output, len(jobs))


def _checkpoint(options: argparse.Namespace) -> int:
    from cyclery.common.signals import Stopped
    from cyclery.engine.export import export
    from cyclery.plan.job_cache import setting
    from cyclery.plan.job_specs import shard_jobs, source_jobs
    from cyclery.plan.snakemake_api import Graph

    plan = _load(options)
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
        _refresh(options, trained)
    return 0


def _evidence(options: argparse.Namespace) -> None:
    from cyclery.evidence.assemble import gather
    from cyclery.plan.snakemake_api import Graph

    plan = _load(options)
    _expect(options, Graph(plan, {}).part_digest(options.part))
    gather(plan, options.part, options.output, options.table)


def _report(options: argparse.Namespace) -> None:
    from cyclery.report.command import report

    report(options.evidence, options.output.parent)


def _verify(options: argparse.Namespace) -> None:
    from cyclery.monitor.verify import verify

    verify(_load(options))


def _doctor(options: argparse.Namespace) -> int:
    from cyclery.monitor.environment import show

    return show(_load(options))


def _docs(options: argparse.Namespace) -> None:
    from cyclery.authoring.docs import write

    write(options.root, options.check)
