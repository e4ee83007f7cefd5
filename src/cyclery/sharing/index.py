"""The index of a publication, kept in git: its archives with their sizes and digests."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cyclery.common.errors import UserError, choices
from cyclery.common.files import parse_json, read_regular, write_atomic
from cyclery.config.load import load
from cyclery.plan.allocation import Seeds, of_others
from cyclery.plan.graph import Plan
from cyclery.plan.project_checks import check
from cyclery.sharing.archives import Archive, is_plain
from cyclery.sharing.dvc import FOLDER

# What is published without seeds of single arms is of the first, which earlier versions read.
FORMAT, WITH_SEEDS = 2, 3
_SHA256 = r"^[0-9a-f]{64}$"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Archive(_Strict):
    sha256: str = Field(pattern=_SHA256)
    size: int = Field(ge=0)
    unpacked: int = Field(ge=0)
    files: int = Field(ge=0)


class Index(_Strict):
    """The index of a tier's publication."""

    format: int
    tier: str
    # The configuration that was published.
    papers: list[str]
    seeds: int
    checkpoints: str
    # Where the publisher had results and data: Snakemake's metadata speak of these paths.
    results: str
    data: str
    snakemake: str
    packs: dict[str, _Archive]
    datasets: dict[str, _Archive]
    # Papers whose parents' weights are not in it, because they would not have fitted.
    without_checkpoints: list[str]
    # Seeds of arms that have a number of their own, by `paper.experiment.arm`.
    allocation: Seeds = Field(default_factory=dict)

    def archive(self, name: str) -> Archive:
        """Return the size and digest of an archive."""
        return Archive(**self.packs[name].model_dump())

    def dataset(self, name: str) -> Archive:
        """Return the size and digest of a dataset's archive."""
        return Archive(**self.datasets[name].model_dump())


@dataclass(frozen=True)
class Home:
    """Where the publication of a tier lies in a repository."""

    root: Path
    tier: str

    @property
    def folder(self) -> Path:
        """Folder of the tier's small files, which are in git."""
        return self.root / FOLDER / self.tier

    @property
    def archives(self) -> Path:
        """Folder of the archives, which DVC stores."""
        return self.folder / "packs"

    @property
    def index(self) -> Path:
        """The index."""
        return self.folder / "index.json"

    def dataset(self, name: str) -> Path:
        """Return the archive of a prepared dataset; tiers share it."""
        return self.root / FOLDER / "datasets" / f"{name}.tar"

    def targets(self, datasets: list[str]) -> list[str]:
        """Return the stages of ``dvc.yaml`` that hold this publication."""
        return [f"publish@{self.tier}", *(f"dataset@{name}" for name in datasets)]


def read(home: Home) -> Index:
    """Return the index of a published tier; a UserError where there is none that can be used."""
    try:
        found = parse_json(read_regular(home.index))
    except FileNotFoundError:
        parent = home.folder.parent
        there = [path.parent.name for path in parent.glob("*/index.json")]
        raise UserError(
            f"tier {home.tier!r} is not published in this version; published: "
            f"{choices(there) or 'none'}. `cyclery publish` publishes a finished tier."
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{home.index}: cannot be read ({error}); git has it.") from None
    if isinstance(found, dict) and found.get("format") not in (None, FORMAT, WITH_SEEDS):
        raise UserError(
            f"{home.index}: has format {found['format']}, this version reads {FORMAT} and "
            f"{WITH_SEEDS}; take the version of Cyclery that published it."
        )
    try:
        index = Index.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{home.index}: {where}: {first['msg']}; git has the file.") from None
    if of_others(index.allocation, index.papers):
        raise UserError(f"{home.index}: allocation: names arms of papers that are not in it.")
    if index.tier != home.tier or not all(map(is_plain, (*index.packs, *index.datasets))):
        raise UserError(f"{home.index}: is not of tier {home.tier!r}, or names paths outside it.")
    return index


def write(home: Home, index: Index) -> None:
    """Write the index."""
    text = json.dumps(index.model_dump(exclude_defaults=True), indent=1, sort_keys=True)
    write_atomic(home.index, text + "\n")


def published_plan(root: Path, overrides: Mapping[str, Any], index: Index) -> Plan:
    """Return the plan of what is published, as this repository's configuration has it now."""
    project = load(root, overrides)
    # One that this project no longer has is left to its publisher.
    papers = [paper for paper in index.papers if paper in project.papers]
    said: dict[str, tuple[Any, Any]] = {
        "papers": (list(project.config.papers or project.papers), papers),
        "seeds": (project.seeds, index.seeds),
        "checkpoints": (project.config.checkpoints, index.checkpoints),
    }
    changed = {key: published for key, (here, published) in said.items() if here != published}
    return check(load(root, {**overrides, **changed}), index.allocation)


def safe_key(key: object) -> bool:
    """Return whether a run key read from a file is safe as the name of a folder."""
    return isinstance(key, str) and re.fullmatch(r"[0-9a-f]{24}", key) is not None
