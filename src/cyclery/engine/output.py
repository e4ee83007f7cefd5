"""What jobs of the graph write: the records of a shard, and weights out of the run store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from cyclery.engine.lookup import Job, Record
from cyclery.errors import UserError
from cyclery.files import write_atomic
from cyclery.store import file_sha256

if TYPE_CHECKING:
    from cyclery.engine.train import Trainer


def export(
    trainer: Trainer, key: str, jobs: list[Job], sources: list[Job], records: Path, output: Path
) -> None:
    """Copy a run's final weights out of the run store, training it where the store has lost it.

    ``jobs`` are those of its shard, whose ``records`` are written anew where they have changed: so
    what was made from other weights follows.
    """
    checkpoint = trainer.store.checkpoint(key)
    for _ in range(2):
        found = trainer.train(jobs, sources)
        record = next(record for record in found if record["key"] == key)
        if record["status"] != "done":
            raise UserError(f"{output}: the run {key} diverged, so it has no weights to export.")
        if file_sha256(checkpoint) == record["checkpoint_sha256"]:
            break
        trainer.store.set_aside(checkpoint, "it is not the checkpoint of its record")
    if not records.exists() or records.read_text(encoding="utf-8") != _lines(found):
        write_records(records, found)
    write_atomic(output, checkpoint.read_bytes())


def write_records(path: Path, records: list[Record]) -> None:
    """Write a shard's records, one JSON object a line."""
    write_atomic(path, _lines(records))


def _lines(records: list[Record]) -> str:
    lines = [json.dumps(record, sort_keys=True, allow_nan=False) for record in records]
    return "".join(f"{line}\n" for line in lines)
