"""Train a file of jobs with nothing but numpy, torch and safetensors installed.

The jobs are those that `cyclery jobs` writes on another machine:

    python -m cyclery.engine jobs.json --store results/store --data results/data
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from cyclery.common.errors import UserError
from cyclery.common.files import parse_json, read_regular
from cyclery.common.signals import EXIT_CODE, Stopped, Terminated, terminable
from cyclery.data.registry import DATASETS
from cyclery.engine.train import Trainer
from cyclery.records.record import Job
from cyclery.records.run_store import Store


def main() -> int:
    """Train all jobs; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m cyclery.engine", description=__doc__)
    parser.add_argument("jobs", type=Path, help="written by `cyclery jobs`")
    parser.add_argument("--store", type=Path, required=True, help="the run store")
    parser.add_argument("--data", type=Path, required=True, help="folder of prepared datasets")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--workers", type=int, default=1, help="processes on a CPU")
    parser.add_argument(
        "--resume-seconds", type=float, default=30.0, help="how often unfinished runs are saved"
    )
    parser.add_argument("--gpus", type=int, nargs="+", help="numbers of the GPUs to choose from")
    parser.add_argument("--jobs-per-gpu", type=int, default=1, help="processes that share a GPU")
    parser.add_argument(
        "--cohort", type=int, choices=range(1, 33), metavar="1..32",
        help="runs side by side on a GPU",
    )  # fmt: skip
    parser.add_argument("--eager", action="store_true", help="capture no CUDA graphs")
    try:
        with terminable():
            return _train(parser.parse_args())
    except Terminated:
        print("cyclery: stopped as asked, by SIGTERM; the same command goes on", file=sys.stderr)
        return EXIT_CODE


def _train(options: argparse.Namespace) -> int:
    """Train the jobs of parsed options; return the exit code."""
    logging.basicConfig(level=logging.INFO, format="cyclery: %(message)s")
    trainer = Trainer(
        store=Store(options.store),
        manifests={name: options.data / f"{name}.json" for name in DATASETS},
        device=options.device,
        workers=options.workers,
        resume_seconds=options.resume_seconds,
        gpus=options.gpus,
        jobs_per_gpu=options.jobs_per_gpu,
        cohort=options.cohort,
        capture=not options.eager,
    )
    try:
        trainer.train(_jobs(options.jobs))
    except UserError as error:
        print(f"cyclery: {error}", file=sys.stderr)
        return 2
    except Stopped:
        return EXIT_CODE
    return 0


def _jobs(path: Path) -> list[Job]:
    try:
        found = parse_json(read_regular(path))
        if not isinstance(found, list):
            raise ValueError("it is no list of jobs")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); write it again with `cyclery jobs`."
        ) from None
    return found


if __name__ == "__main__":
    raise SystemExit(main())
