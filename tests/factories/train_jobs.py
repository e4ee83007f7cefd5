"""Train a file of jobs in a process of its own: ``python -m factories.train_jobs``.

No configuration and no graph: what stands between a test and the trainer is as little as may be.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from cyclery.common.errors import UserError
from cyclery.common.files import parse_json
from cyclery.common.signals import EXIT_CODE, Stopped, Terminated, terminable
from cyclery.engine.execution import Execution
from cyclery.engine.train import Trainer
from cyclery.records.run_store import Store


def main() -> int:
    """Train all jobs; return the exit code, as the commands of ``cyclery`` do."""
    parser = argparse.ArgumentParser()
    parser.add_argument("jobs", type=Path)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--resume-seconds", type=float, default=30.0)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="cyclery: %(message)s")
    try:
        with terminable():
            trainer = Trainer(
                store=Store(options.store),
                manifests={path.stem: path for path in options.data.glob("*.json")},
                execution=Execution(device=options.device, resume_seconds=options.resume_seconds),
                workers=options.workers,
            )
            trainer.train(parse_json(options.jobs.read_bytes()))
    except UserError as error:
        print(f"cyclery: {error}", file=sys.stderr)
        return 2
    except (Stopped, Terminated):
        return EXIT_CODE
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
