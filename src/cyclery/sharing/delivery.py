"""Validate unpacked archives before any of their files is used."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from cyclery.common.errors import UserError
from cyclery.common.files import disk_errors, parse_json
from cyclery.common.seals import file_sha256, is_sealed
from cyclery.records.record import Record
from cyclery.sharing.archives import extract
from cyclery.sharing.contents import Contents
from cyclery.sharing.index import Home, Index, safe_key
from cyclery.sharing.state import is_memory


@dataclass(frozen=True)
class Delivery:
    """A publication, extracted and validated."""

    # Outputs and other files, by path in the project.
    files: dict[str, Path]
    # What Snakemake remembers of outputs, by the output's path.
    memories: dict[str, bytes]
    # Records and the runs' weights, by run key.
    records: dict[str, Record]
    weights: dict[str, Path]
    # Run keys by file of records.
    listed: dict[str, list[str]]
    # Prepared datasets, by name.
    datasets: dict[str, Path]


def examine(folder: Path, found: Index, contents: Contents) -> Delivery:
    """Validate a folder of extracted archives and return what it holds.

    Raises:
        UserError: a file does not belong to a publication, or is inconsistent with the others.
    """
    files, memories = {}, {}
    for path, name in _below(folder / "files"):
        kind, _, rest = name.partition("/")
        if kind == "snakemake" and rest.partition("/")[0] in ("tier", "data"):
            memories[contents.path(rest)] = path.read_bytes()
        elif kind in ("tier", "data") and rest:
            files[contents.path(name)] = path
        else:
            raise _foreign(found, name)
    if not all(map(is_memory, memories.values())) or not memories.keys() <= files.keys():
        raise _foreign(found, "snakemake")
    records: dict[str, Record] = {}
    listed = {}
    results = contents.graph.results
    for output, path in files.items():
        if output.startswith((f"{results}/records/", f"{results}/lr-range/")):
            lines = _records(found, output, path)
            listed[output] = [record["key"] for record in lines]
            records |= {record["key"]: record for record in lines}
    for dataset in contents.datasets:
        _examine_manifest(found, dataset, files.get(contents.graph.manifest(dataset)))
    weights = {name.removesuffix(".safetensors"): path for path, name in _below(folder / "weights")}
    for key, path in weights.items():
        if key not in records or file_sha256(path) != records[key].get("checkpoint_sha256"):
            raise _foreign(found, f"{key}.safetensors")
    datasets = {path.stem: path for path, _ in _below(folder / "data")}
    if datasets.keys() != found.datasets.keys():
        raise _foreign(found, ", ".join(sorted(datasets)))
    return Delivery(files, memories, records, weights, listed, datasets)


def _below(folder: Path) -> list[tuple[Path, str]]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path, path.relative_to(folder).as_posix()) for path in paths]


def _records(found: Index, output: str, path: Path) -> list[Record]:
    try:
        lines = [parse_json(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError:
        raise _foreign(found, output) from None
    if not all(is_sealed(record) and safe_key(record.get("key")) for record in lines):
        raise _foreign(found, output)
    return lines


def _examine_manifest(found: Index, dataset: str, path: Path | None) -> None:
    """Refuse a manifest that is missing or names a file in another folder than its own."""
    try:
        manifest = parse_json(path.read_bytes()) if path else None
    except ValueError:
        manifest = None
    if not isinstance(manifest, dict) or manifest.get("file") != f"{dataset}.safetensors":
        raise _foreign(found, f"data/{dataset}.json")


def _foreign(found: Index, name: str) -> UserError:
    return UserError(
        f"what is published of tier {found.tier!r} is damaged: {name} is not what belongs there. "
        "Nothing of it was used; whoever published must do it again."
    )


@contextmanager
def examined(home: Home, found: Index, contents: Contents) -> Iterator[Delivery]:
    """Yield the pulled publication, extracted to a temporary folder in the results and validated.

    The caller holds the lock, and installs it.
    """
    results = contents.plan.project.results
    with disk_errors(results):
        results.mkdir(parents=True, exist_ok=True)
        for left in results.glob(".fetch-*"):  # of a killed process
            shutil.rmtree(left)
    with TemporaryDirectory(prefix=".fetch-", dir=results) as folder:
        yield examine(_extract(home, found, Path(folder)), found, contents)


def _extract(home: Home, found: Index, folder: Path) -> Path:
    archives = {
        **{
            home.archives / name: (found.archive(name), folder / _place(name))
            for name in found.packs
        },
        **{home.dataset(name): (found.dataset(name), folder / "data") for name in found.datasets},
    }
    for path, (archive, target) in archives.items():
        extract(path, archive, target)
    return folder


def _place(name: str) -> str:
    return "weights" if name.startswith("checkpoints/") else "files"
