"""Curves and final figures as TensorBoard's event files, one folder for each run.

Written by TensorBoard's own record writer and messages, but with times of the record (its start,
and its training time spread evenly over the epochs): the same record gives the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from cyclery.common.errors import UserError
from cyclery.common.files import write_atomic
from cyclery.evidence.contracts import Record
from cyclery.exports.frames import EPOCHS, Tables
from cyclery.records.metrics import curve, number

# Of the format; TensorBoard reads no file without it.
VERSION = "brain.Event:2"


def write(found: Tables, folder: Path) -> list[Path]:
    """Write the event files of all runs that have curves; return them.

    A UserError says where TensorBoard is not installed.
    """
    try:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter
    except ModuleNotFoundError as missing:
        raise UserError(
            f"--format tensorboard: needs the package tensorboard ({missing}); "
            '`pip install "cyclery[tensorboard]"`, or take --format parquet.'
        ) from None
    files = []
    columns = ("paper", "experiment", "arm", "seed", "key")
    for paper, experiment, arm, seed, key in found.runs[list(columns)].itertuples(index=False):
        record = found.records.get(key)
        if record is None or not record["curve"]:
            continue
        began = _began(record)
        stream = io.BytesIO()
        writer = RecordWriter(stream)
        events = [event_pb2.Event(wall_time=began, file_version=VERSION)]
        for tag, step, wall, value in _scalars(record, began):
            summary = summary_pb2.Summary(
                value=[summary_pb2.Summary.Value(tag=tag, simple_value=value)]
            )
            events.append(event_pb2.Event(wall_time=wall, step=step, summary=summary))
        for event in events:
            writer.write(event.SerializeToString(deterministic=True))
        name = f"events.out.tfevents.{int(began)}.cyclery"
        path = folder / str(paper) / str(experiment) / str(arm) / f"seed-{seed}" / name
        write_atomic(path, stream.getvalue())
        files.append(path)
    return files


def _began(record: Record) -> float:
    return datetime.fromisoformat(record["started"]).timestamp()


def _scalars(record: Record, began: float) -> Iterable[tuple[str, int, float, float]]:
    """Yield tag, epoch, time and value of every number, in the order of epochs."""
    epochs = record["settings"]["epochs"]
    pace = float(record["seconds"]) / max(1, epochs)
    found: list[tuple[int, str, Any]] = []
    for name in record["curve"].keys() - set(EPOCHS):
        found += [(epoch, name, value) for epoch, value in zip(*curve(record, name), strict=True)]
    found += [(epochs, f"final/{name}", value) for name, value in record["final"].items()]
    for epoch, tag, value in sorted(found, key=lambda each: each[:2]):
        if (read := number(value)) is not None:
            yield tag, epoch, began + pace * epoch, read
