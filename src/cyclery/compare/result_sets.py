"""Read a set of results to compare: a folder ``results/<tier>``, or one file of it.

A table (``tables/<paper>.csv``) names the runs of each arm, records (``records/**/*.jsonl``) hold
their figures, settings and versions, evidence (``evidence/<paper>.json``) the verdicts. Each serves
alone, with less to say.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cyclery.common import checksums
from cyclery.common.errors import UserError
from cyclery.common.files import parse_json, read_regular
from cyclery.common.seals import is_altered
from cyclery.compare.contracts import Effect, Verdicts
from cyclery.evidence.stats.pairing import fault
from cyclery.plan.model import digest
from cyclery.records.claims import Row
from cyclery.records.evidence import Evidence, Provenance
from cyclery.records.metrics import is_accuracy, shown
from cyclery.records.readers import read_records, shared_settings
from cyclery.records.record import Record

# Paper, experiment and arm.
Name = tuple[str, str, str]
HEAD = ("experiment", "arm", "seed", "key", "status")


@dataclass(frozen=True)
class Run:
    """One run, from its record if there is one, else from a row of a table or of the evidence."""

    seed: int
    key: str | None
    status: str
    figures: Mapping[str, float]
    record: Record | None = None

    def problem(self) -> str | None:
        """Say why the run cannot be used, or None where it can."""
        if self.record is not None and self.key is not None:
            return fault(self.key, self.seed, {self.key: self.record})
        return None if self.status == "done" else f"is {self.status}"

    def value(self, metric: str) -> float | None:
        """Return a metric, accuracies in percentage points; None where it is not finite."""
        if self.record is not None and self.record["kind"] == "run":
            return shown(self.record, metric)
        found = self.figures.get(metric)
        if found is None or not math.isfinite(found):
            return None
        return 100 * found if is_accuracy(metric) else found


@dataclass
class ResultSet:
    """What a path holds."""

    path: Path
    arms: dict[Name, dict[int, Run]] = field(default_factory=dict)
    claims: dict[tuple[str, str], Verdicts] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)
    # Provenance as evidence says it, for sets without records.
    said: list[Provenance] = field(default_factory=list)


def read(path: Path) -> ResultSet:
    """Return what a folder or file holds; a UserError says why there is nothing to compare."""
    found = ResultSet(path)
    if path.is_dir():
        tables, evidence, records = _files(path)
    elif path.is_file():
        tables = [path] if path.suffix == ".csv" else []
        evidence = [path] if path.suffix == ".json" else []
        records = [path] if path.suffix == ".jsonl" else []
    else:
        raise UserError(f"{path}: there is no such folder or file; give results/<tier>.")
    if not (tables or evidence or records):
        raise UserError(f"{path}: holds no results. {_instead(path)}")
    found.records = read_records({file: [] for file in records})
    for file in evidence:
        _read_evidence(file, found, named=not tables)
    for file in tables:
        _read_table(file, found)
    if not found.arms:
        _name_by_settings(found)
    if not found.arms:
        raise UserError(f"{path}: holds no run. {_instead(path)}")
    return found


def _files(folder: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """Return the tables and the evidence of whole papers, and all files of records."""

    def papers(pattern: str) -> list[Path]:
        # Parts have a dot in their name, and are in their paper's file.
        files = sorted(folder.glob(pattern))
        return [file for file in files if "." not in file.stem] or files

    tables = papers("tables/*.csv") or papers("*.csv")
    return tables, papers("evidence/*.json"), sorted(
        [*folder.glob("records/**/*.jsonl"), *folder.glob("lr-range/*.jsonl")]
    )  # fmt: skip


def _instead(path: Path) -> str:
    if path.is_dir():
        tiers = sorted({file.parents[1].name for file in path.glob("*/tables/*.csv")})
        if tiers:
            return f"Did you mean {' or '.join(str(path / tier) for tier in tiers)}?"
    return (
        "Give a folder results/<tier> with tables/, records/ or evidence/ in it, or a .csv, .jsonl "
        "or .json file out of one."
    )


def _read_table(file: Path, found: ResultSet) -> None:
    paper = file.stem.partition(".")[0]
    # One from elsewhere may have no list, and no evidence next to it.
    listing = checksums.of_table(file)
    checksums.require(listing, [file, listing])
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream, strict=True)
            rows = [(reader.line_num, row) for row in reader]
            columns = reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: not a table of comma-separated values ({error}).") from None
    lacking = [name for name in HEAD if name not in columns]
    if lacking:
        raise UserError(
            f"{file}, line 1: not a table of runs: lacks the column {lacking[0]!r}; it must have "
            f"{', '.join(HEAD)}."
        )
    names = [name for name in columns if name not in (*HEAD, "device", "commit")]
    for number, row in rows:
        if None in row or None in row.values() or not row["seed"].isdecimal():
            raise UserError(f"{file}, line {number}: not a row of line 1's columns.")
        seed, key = int(row["seed"]), row["key"]
        runs = found.arms.setdefault((paper, row["experiment"], row["arm"]), {})
        if seed in runs:
            raise UserError(
                f"{file}, line {number}: seed {seed} of {row['experiment']}/{row['arm']} stands "
                "twice; make the table again with `cyclery evidence`."
            )
        figures = {name: float(row[name]) for name in names if _is_number(row[name])}
        runs[seed] = Run(seed, key, row["status"], figures, found.records.get(key))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_evidence(file: Path, found: ResultSet, named: bool) -> None:
    """Take the verdicts of a paper, and where no table names its runs those, too."""
    try:
        said: Evidence = parse_json(read_regular(file))
        if is_altered(said):
            raise ValueError("it was altered")
        paper = said["paper"]["id"]
        for claim in said["claims"]:
            found.claims[paper, claim["id"]] = {
                "verdict": claim["verdict"], "statement": claim["statement"],
                "reason": claim["reason"], "n": claim["n"],
                "effects": [_effect(row) for row in claim["comparisons"]],
            }  # fmt: skip
        found.said.append(said["provenance"])
        for experiment in said["experiments"] if named else []:
            for arm in experiment["arms"]:
                runs = found.arms.setdefault((paper, experiment["id"], arm["id"]), {})
                by_seed: dict[int, dict[str, float]] = {}
                for name, figure in arm["metrics"].items():
                    for seed, value in zip(figure["seeds"], figure["values"], strict=True):
                        by_seed.setdefault(int(seed), {})[name] = float(value)
                runs |= {s: Run(s, None, "done", figures) for s, figures in by_seed.items()}
                runs |= {int(each["seed"]): Run(int(each["seed"]), None, "diverged", {})
                         for each in arm["diverged"]}  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{file}: not the evidence of a paper ({type(error).__name__}: {error}); make it again "
            "with `cyclery evidence`."
        ) from None


def _effect(row: Row) -> Effect:
    return {"label": row["label"], "effect": row["effect"], "ci95": row["ci95"],
            "unit": row["unit"], "verdict": row["verdict"]}  # fmt: skip


def _name_by_settings(found: ResultSet) -> None:
    """Name arms by their settings, where records are all there is."""
    for key, record in sorted(found.records.items()):
        settings = record["settings"]
        if record["kind"] != "run":
            continue
        where = f"{settings['dataset']['name']}-{settings['model']['name']}"
        arm = f"{settings['method']['name']}-{_arm_digest(record)[:8]}"
        runs = found.arms.setdefault(("records", where, arm), {})
        # Children of different parents may have all other settings in common.
        if (seed := settings["seed"]) in runs:
            arm = f"{arm}-{key[:8]}"
            runs = found.arms.setdefault(("records", where, arm), {})
        runs[seed] = Run(seed, key, record["status"], {}, record)


def arm_settings(record: Record) -> dict[str, object]:
    """Return the settings that runs of an arm have in common; the key of a range test is none."""
    return {name: value for name, value in shared_settings(record).items() if name != "range"}


def _arm_digest(record: Record) -> str:
    return digest(arm_settings(record))


def flat(value: Any, name: str = "") -> Iterable[tuple[str, str]]:
    """Yield the leaves of settings as ``a.b`` and canonical JSON."""
    if isinstance(value, dict) and value:
        for key, item in sorted(value.items()):
            yield from flat(item, f"{name}.{key}" if name else key)
    else:
        yield name, json.dumps(value, sort_keys=True)
