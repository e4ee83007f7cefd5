"""Write and update the JSON-lines files of a shard's records."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from cyclery.common.files import parse_json, read_regular, write_atomic
from cyclery.records.record import Record

log = logging.getLogger(__name__)


def refresh(files: Iterable[Path], records: Mapping[str, Record]) -> None:
    """Replace runs, by run key, in those files of records that hold another version.

    A run that comes back with other bytes makes all that was made of the old ones stale, in every
    shard that lists it; the graph sees that by the file.
    """
    for path in files:
        try:
            text = read_regular(path).decode()
        except (OSError, UnicodeDecodeError):
            # It is gone; or damaged, which whoever reads it says.
            continue
        if not any(key in text for key in records):
            continue
        lines = (_renewed(line, records) for line in text.splitlines())
        renewed = "".join(f"{line}\n" for line in lines)
        if renewed != text:
            log.info("%s: written again, for runs in it were trained again", path)
            write_atomic(path, renewed)


def _renewed(line: str, records: Mapping[str, Record]) -> str:
    try:
        return _line(records[parse_json(line)["key"]])
    except (ValueError, KeyError, TypeError):
        # Of another run; or damaged, which whoever reads it says.
        return line


def write_records(path: Path, records: list[Record]) -> None:
    """Write a shard's records, one JSON object a line."""
    write_atomic(path, "".join(f"{_line(record)}\n" for record in records))


def _line(record: Record) -> str:
    return json.dumps(record, sort_keys=True, allow_nan=False)
