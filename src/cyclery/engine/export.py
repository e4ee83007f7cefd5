"""Export final weights from the run store, for the rule ``checkpoint``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cyclery.common.errors import UserError
from cyclery.common.files import write_atomic
from cyclery.common.seals import file_sha256
from cyclery.records.record import Job, Record

if TYPE_CHECKING:
    from cyclery.engine.train import Trainer


def export(
    trainer: Trainer, job: Job, sources: list[Job], output: Path, trained: dict[str, Record]
) -> None:
    """Copy a run's final weights out of the run store, training it where the store has lost it.

    Its record, and those of all runs that were trained again for it, go to ``trained`` by run key,
    also where this fails.
    """
    key = job["key"]
    checkpoint = trainer.store.checkpoint(key)
    for _ in range(2):
        try:
            [record] = trainer.train([job], sources)
        finally:
            trained |= trainer.trained
        trained[key] = record
        if record["kind"] != "run" or record["status"] != "done":
            raise UserError(f"{output}: the run {key} diverged, so it has no weights to export.")
        if file_sha256(checkpoint) == record.get("checkpoint_sha256"):
            break
        trainer.store.set_aside(checkpoint, "it is not the checkpoint of its record")
    write_atomic(output, checkpoint.read_bytes())
