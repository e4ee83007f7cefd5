"""Load and validate the configuration files of a project."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from cyclery.common.errors import HERE, UserError, choices, nearest
from cyclery.common.settings import about_quotes, plain, read
from cyclery.common.yaml_values import SIZE, parse
from cyclery.config.folders import misplaced
from cyclery.config.models import Config, Paper, Tier
from cyclery.config.settings import NAME
from cyclery.data.dataset import DatasetFile
from cyclery.data.registry import FOLDER, Datasets

Model = TypeVar("Model", bound=BaseModel)
Overrides = dict[str, Any]
# Keys of the main file that say where things are.
_PLACES = ("results", "data")
# Targets of the Snakefile, which a paper's target must not hide, and the word for every tier.
TAKEN = ("all", "checkpoint", "checkpoints", "evidence", "lr_range", "prepare", "report", "train")


@dataclass(frozen=True)
class Project:
    """Everything that configuration says."""

    root: Path
    config: Config
    tier: Tier
    papers: Mapping[str, Paper]
    datasets: Datasets
    # What the command line changed of the main file.
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @property
    def results(self) -> Path:
        """Folder of everything that is made, whatever the tier."""
        return self.root / self.config.results

    @property
    def data(self) -> Path:
        """Folder of prepared datasets."""
        return self.root / self.config.data

    @property
    def seeds(self) -> int:
        """How many seeds every arm is asked for."""
        return self.config.seeds or self.tier.seeds

    def seed_numbers(self, count: int | None = None) -> range:
        """Return the seeds that every arm is asked for, or so many from the first one on."""
        first = self.config.first_seed
        return range(first, first + (self.seeds if count is None else count))

    @property
    def tier_file(self) -> Path:
        """The file of the tier."""
        return self.root / "config" / "tiers" / f"{self.config.tier}.yaml"

    def paper_file(self, paper: str) -> Path:
        """Return the file of a paper."""
        return self.root / "config" / "papers" / f"{paper}.yaml"

    def printed_file(self, paper: str) -> Path:
        """Return the file of the figures that a paper prints; it may not exist."""
        return self.root / "config" / "reported" / f"{paper}.csv"

    def selected(self) -> list[str]:
        """Return the papers that run, in order; a UserError names one that does not exist."""
        wanted = list(self.config.papers or self.papers)
        for name in wanted:
            if name not in self.papers:
                raise UserError(
                    f"{_source(self.root, self.overrides, 'papers')}: papers: unknown paper "
                    f"{name!r}.{nearest(name, self.papers)} Papers: {choices(self.papers)}."
                )
        return wanted


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; a UserError names the file, and the line of a mistake."""
    try:
        data = parse(_text(path), str(path))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UserError(f"{path}{where}: not valid YAML: {error.problem}.") from None
    except yaml.YAMLError as error:
        # A character that is none.
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}.") from None
    if data is None:
        raise UserError(f"{path}: is empty; expected keys and values.")
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected keys and values (found {data!r:.80}).")
    return data


def _text(path: Path) -> str:
    """Return the text of a file; a UserError says why it has none."""
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: cannot be read (not a file).")
        with path.open("rb") as stream:
            found = stream.read(SIZE + 1)
        if len(found) > SIZE:
            raise UserError(f"{path}: has more than {SIZE:,} bytes; divide it.")
        return found.decode("utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason}).") from None


def read_value(text: str) -> Any:
    """Return the value of a ``KEY=VALUE`` text: YAML, or the text itself where it is none."""
    try:
        return parse(text, "")
    except (yaml.YAMLError, UserError):
        return text


# Mistakes of one file that are told.
SHOWN = 30
# What pydantic finds wrong, in the words of all other messages.
_WORDS = {
    "missing": "missing; it has no default",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be keys and values",
    "model_type": "must be keys and values",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must say something",
    "string_too_long": "must have at most {max_length} characters",
    "too_long": "must have at most {max_length} elements",
    "string_pattern_mismatch": "must begin with a letter and have only letters, digits, - and _, "
    "at most 64 in all",
}
_TYPES = {"int_type": int, "float_type": float, "string_type": str}


def validate(model: type[Model], data: Any, where: str, datasets: Datasets | None = None) -> Model:
    """Validate ``data``; a UserError lists every mistake with its key and value.

    Where ``datasets`` are given, no other may be named.
    """
    try:
        return model.model_validate(data, context={"datasets": datasets})
    except ValidationError as error:
        problems = error.errors(include_url=False)
        lines = [
            f"{where}: {line}"
            for problem in problems[:SHOWN]
            for line in _message(problem).split("\n")
        ]
        if (more := len(problems) - SHOWN) > 0:
            lines.append(f"{where}: {more} more mistakes.")
        raise UserError("\n".join(dict.fromkeys(lines))) from None


# The branch of a union is our affair, not a key of the user's file.
_BRANCHES = {"arm": "against", "best_of": "against", "constant": "against"} | {
    "word": "seeds",
    "rule": "seeds",
}
# Such a branch is named so that no key can be.
_BRANCH = re.compile(r"<\w+>")


def _message(problem: Any) -> str:
    """Return one mistake that pydantic found: its key, what is allowed and what was found."""
    key, before, loc = "", "", problem["loc"]
    for part, after in zip(loc, (*loc[1:], None), strict=False):
        if isinstance(part, int) and after != "[key]":
            key += f"[{part}]"
        elif part != "[key]" and _BRANCHES.get(part) != before and not _BRANCH.fullmatch(f"{part}"):
            key += f".{_part(part)}" if key else _part(part)
        before = part
    value, context = problem.get("input"), problem.get("ctx") or {}
    text = problem["msg"].removeprefix("Value error, ")
    if HERE in text:
        return text.replace(HERE, key)
    prefix = f"{key}: " if key else ""
    if problem["type"] == "value_error":
        return prefix + text
    if problem["type"] == "literal_error":
        allowed = re.findall(r"'([^']*)'", context["expected"])
        text = f"must be one of {choices(allowed)} (found {value!r:.80}).{nearest(value, allowed)}"
        return prefix + text
    if problem["type"] == "too_short":
        count = context["min_length"]
        return f"{prefix}must have at least {count} element{'s' if count > 1 else ''}."
    if problem["type"] in _WORDS:
        text = _WORDS[problem["type"]].format(**context)
    if problem["type"] == "missing":
        return f"{prefix}{text}."
    advice = about_quotes(_TYPES.get(problem["type"]), value)
    return f"{prefix}{text} (found {value!r:.80}).{advice}"


def _part(part: Any) -> str:
    """Return a part of a key, which somebody may have made long or unprintable."""
    text = str(part)
    return text if text.isprintable() and len(text) <= 80 else f"{text!r:.80}"


def _source(root: Path, overrides: Mapping[str, Any], key: str) -> str:
    """Return where a key of the main file has its value from, for a message."""
    return "--set, or snakemake --config" if key in overrides else str(_main_file(root))


def _main_file(root: Path) -> Path:
    return root / "config" / "config.yaml"


def load_config(root: Path, overrides: Mapping[str, Any] | None = None) -> tuple[Config, Overrides]:
    """Load the main file; return it with ``overrides`` over its keys, and those that change it."""
    main = _main_file(root)
    if not main.exists():
        raise UserError(
            f"{main}: there is no such file. Run in the folder of the project, or name it with "
            "--root."
        )
    data = read_yaml(main)
    config = _config(data, str(main))
    before = plain(config)
    changed = {
        key: value
        for key, value in (overrides or {}).items()
        if key not in before or before[key] != value
    }
    if changed:
        # The file is good alone, so a mistake is in what was changed.
        config = _config(data | changed, _source(root, changed, next(iter(changed))))
    for key in _PLACES:
        if problem := misplaced(root, getattr(config, key)):
            raise UserError(f"{_source(root, changed, key)}: {key}: {problem}")
    return config, changed


def _config(data: dict[str, Any], where: str) -> Config:
    try:
        return read(Config, data, "")
    except UserError as error:
        raise UserError("\n".join(f"{where}: {line}" for line in str(error).split("\n"))) from None


def load(root: Path, overrides: Mapping[str, Any] | None = None) -> Project:
    """Load ``config/`` under ``root``: main file, tier, datasets and every paper."""
    folder = root / "config"
    config, changed = load_config(root, overrides)
    known = datasets(root)
    tier = _tier(root, config, changed, known)
    papers, problems = {}, []
    for dataset in known:
        try:
            known.declared(dataset)
        except UserError as error:
            problems.append(str(error))
    for name, path in _files(folder / "papers", "paper").items():
        try:
            papers[name] = validate(Paper, read_yaml(path), str(path), known)
        except UserError as error:
            problems.append(str(error))
    if problems:
        # A component's file that is wrong is wrong for every paper.
        raise UserError("\n".join(dict.fromkeys(problems)))
    return Project(root, config, tier, papers, known, changed)


def places(project: Project) -> dict[str, Any]:
    """Return the overrides that hold at every tier: where results and data are."""
    return {key: project.overrides[key] for key in _PLACES if key in project.overrides}


def at_tier(project: Project, tier: str) -> Project:
    """Return a project at another tier, as its main file has it, and in the same folders.

    No other override holds there. Papers and datasets are the same at every tier; what is read is
    the main file and the tier's.
    """
    root, known = project.root, project.datasets
    config, changed = load_config(root, {**places(project), "tier": tier})
    return Project(
        root, config, _tier(root, config, changed, known), project.papers, known, changed
    )


def _tier(root: Path, config: Config, changed: Mapping[str, Any], known: Datasets) -> Tier:
    tiers = _files(root / "config" / "tiers", "tier")
    if config.tier not in tiers:
        raise UserError(
            f"{_source(root, changed, 'tier')}: tier: unknown tier {config.tier!r}."
            f"{nearest(config.tier, tiers)} Tiers: {choices(tiers)}."
        )
    file = tiers[config.tier]
    return validate(Tier, read_yaml(file), str(file), known)


def datasets(root: Path) -> Datasets:
    """Return the datasets of a project, none of whose files is read yet."""

    def read(path: Path) -> DatasetFile:
        return validate(DatasetFile, read_yaml(path), str(path))

    return Datasets(root, _files(root / FOLDER, "dataset", needed=False), read)


def tier_names(root: Path) -> list[str]:
    """Return the tiers that there are."""
    return list(_files(root / "config" / "tiers", "tier"))


def _files(folder: Path, what: str, needed: bool = True) -> dict[str, Path]:
    """Return the files of a folder by name; a UserError where one has no name to be called by.

    With ``needed`` there must be one.
    """
    paths = sorted(path for path in folder.glob("*.y*ml") if path.name[0] != ".")
    for path in paths:
        if path.suffix != ".yaml":
            raise UserError(f"{path}: would not be read; rename it to {path.stem}.yaml.")
        if not re.fullmatch(NAME, path.stem):
            raise UserError(
                f"{path}: the name of a {what} must begin with a letter and have only letters, "
                f"digits, - and _, at most 64 in all (found {path.stem!r})."
            )
        if path.stem in TAKEN:
            raise UserError(
                f"{path}: a {what} cannot be called {path.stem!r}, which has a meaning of its own; "
                "rename the file."
            )
    if needed and not paths:
        raise UserError(f"{folder}: holds no {what}; add one as <name>.yaml.")
    return {path.stem: path for path in paths}


def overrides(texts: Sequence[str]) -> dict[str, Any]:
    """Return ``KEY=VALUE`` texts as a dict; a value is YAML, so 20 is a number."""
    result = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise UserError(f"--set {text}: write KEY=VALUE, as in --set tier=desk.")
        result[key] = read_value(value)
    return result
