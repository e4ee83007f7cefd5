"""Read the files that evidence is built from: records, and figures printed in papers."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

from cyclery.common.errors import UserError
from cyclery.common.files import parse_json, read_regular
from cyclery.common.seals import is_altered, is_sealed
from cyclery.records.evidence import Evidence, PrintedFigure
from cyclery.records.record import Record

# Plain decimals: not all that Python takes for a number, such as 9_2 or digits of other scripts.
_DECIMAL = r"([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?"
_FIGURES = {
    "value": (re.compile(f"[-+]?{_DECIMAL}"), "a number"),
    "std": (re.compile(_DECIMAL), "a number from 0"),
    "runs": (re.compile(r"[1-9][0-9]{0,8}"), "a whole number from 1"),
}
# Of a printed figure; more are no measurement.
MOST_DECIMALS = 6
# Of the settings of an arm's runs, those that each has for itself.
OWN_TO_RUN = frozenset({"seed", "parents", "searched"})
REMEDY = "Delete the file and repeat the command: what the run store holds is not trained again."


def read_records(files: Mapping[Path, Iterable[str]]) -> dict[str, Record]:
    """Return the records in files of one a line, by run key.

    A UserError names a file that lacks one of the run keys it is to hold, or a damaged line.
    """
    records: dict[str, Record] = {}
    for path, keys in files.items():
        try:
            lines = read_regular(path).decode().splitlines()
        except FileNotFoundError:
            raise UserError(
                f"{path}: there is no such file; run the part with Snakemake, which makes it."
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: cannot be read ({error}). {REMEDY}") from None
        for number, line in enumerate(lines, 1):
            try:
                record = parse_json(line)
            except ValueError:
                record = None
            if not is_sealed(record):
                raise UserError(f"{path}, line {number}: the record was cut or altered. {REMEDY}")
            records[record["key"]] = record
        missing = [key for key in keys if key not in records]
        if missing:
            raise UserError(
                f"{path}: lacks {len(missing)} of its records (run {missing[0]}). {REMEDY}"
            )
    return records


def shared_settings(record: Record) -> dict[str, object]:
    """Return the settings that the runs of an arm have in common."""
    settings = record["settings"]
    # Each search gives its runs schedules of their own.
    own = {*OWN_TO_RUN, "schedules"} if "searched" in settings else OWN_TO_RUN
    return {name: value for name, value in settings.items() if name not in own}


def read_evidence(path: Path) -> Evidence:
    """Return the evidence in a file; a UserError names one that was cut or altered."""
    try:
        found = parse_json(read_regular(path))
        if not isinstance(found, dict):
            raise ValueError("not a JSON object")
        if is_altered(found):
            raise ValueError("it was altered: its content does not match its SHA-256")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); delete it and repeat") from None
    return cast(Evidence, found)


def read_printed(path: Path) -> list[PrintedFigure]:
    """Return the figures that a paper prints; a figure that could not be read has value None."""
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream, strict=True)
            lines = [(reader.line_num, row) for row in reader]
            columns = set(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a table of comma-separated values ({error}).") from None
    if not {"metric", "value"} <= columns:
        raise UserError(f"{path}, line 1: must name the columns, `metric` and `value` among them.")
    rows = []
    for number, line in lines:
        if None in line or None in line.values():
            raise UserError(f"{path}, line {number}: has another number of cells than line 1.")
        row: dict[str, str | float | None] = {
            key: text or None
            for key, text in line.items()
            if key in PrintedFigure.__annotations__ and key != "decimals"
        }
        for key, (form, words) in _FIGURES.items():
            text = line.get(key) or None
            if text is not None and not (form.fullmatch(text) and math.isfinite(float(text))):
                raise UserError(
                    f"{path}, line {number}: {key} must be {words} or empty (found {text!r:.80})."
                )
            row[key] = None if text is None else float(text)
        decimals = max(_decimals(line.get(key) or "") for key in ("value", "std"))
        rows.append(cast(PrintedFigure, {**row, "decimals": decimals}))
    return rows


def _decimals(text: str) -> int:
    """Return the decimals that a figure is written with, of 9.1e-3 none."""
    return 0 if "e" in text.lower() else min(len(text.partition(".")[2]), MOST_DECIMALS)
