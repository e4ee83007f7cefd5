"""Read the configuration files into validated models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from cyclery.config.models import KEY_MARK, Config, Paper, Tier
from cyclery.errors import UserError, choices, nearest

Model = TypeVar("Model", bound=BaseModel)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Safe YAML in which a key that stands twice is an error instead of the last one winning."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if isinstance(key, str) and key in seen:
                raise UserError(
                    f"{node.start_mark.name}: {key!r} stands twice, on lines {seen[key]} and "
                    f"{line}; rename or delete one"
                )
            if isinstance(key, str):
                seen[key] = line
        return dict(super().construct_mapping(node, deep))


@dataclass(frozen=True)
class Project:
    """Everything that configuration says."""

    root: Path
    config: Config
    tier: Tier
    papers: Mapping[str, Paper]

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

    def selected(self) -> list[str]:
        """Return the papers that run, in order; a UserError names one that does not exist."""
        wanted = self.config.papers
        if wanted is None:
            return list(self.papers)
        for name in wanted:
            if name not in self.papers:
                raise UserError(
                    f"papers: unknown paper {name!r}.{nearest(name, self.papers)} "
                    f"Papers: {choices(self.papers)}."
                )
        return wanted


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; a UserError names the file, and the line of a mistake."""
    try:
        with path.open(encoding="utf-8") as stream:
            data = yaml.load(stream, Loader=_Loader)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason})") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UserError(f"{path}{where}: not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected keys and values, found {type(data).__name__}")
    return data


def validate(model: type[Model], data: Any, where: str) -> Model:
    """Validate ``data``; a UserError lists every mistake with its key and value."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_url=False):
            # The branch of a union is our affair, not a key of the user's file.
            key = ".".join(str(part) for part in problem["loc"] if str(part) not in _BRANCHES)
            message = problem["msg"].removeprefix("Value error, ")
            if message.startswith(KEY_MARK):
                lines.append(f"{where}: {key}{message.removeprefix(KEY_MARK)}")
                continue
            value = problem.get("input")
            shown = "" if isinstance(value, dict) else f" (found {value!r:.80})"
            lines.append(f"{where}: {key + ': ' if key else ''}{message}{shown}")
        raise UserError("\n".join(dict.fromkeys(lines))) from None


_BRANCHES = {"BestOf", "Constant", "str", "TwoLevel", "LongTail", "two_level", "long_tail"}


def load(root: Path, overrides: Mapping[str, Any] | None = None) -> Project:
    """Load ``config/`` under ``root``: the main file, its tier and every paper."""
    folder = root / "config"
    main = folder / "config.yaml"
    data = read_yaml(main)
    changed = {key: value for key, value in (overrides or {}).items()}
    config = validate(Config, data | changed, str(main) if not changed else f"{main} + --config")
    tiers = sorted(path.stem for path in (folder / "tiers").glob("*.yaml"))
    if config.tier not in tiers:
        raise UserError(
            f"{main}: tier: unknown tier {config.tier!r}.{nearest(config.tier, tiers)} "
            f"Tiers: {choices(tiers)}."
        )
    tier_file = folder / "tiers" / f"{config.tier}.yaml"
    tier = validate(Tier, read_yaml(tier_file), str(tier_file))
    papers = {}
    for path in sorted((folder / "papers").glob("*.yaml")):
        papers[path.stem] = validate(Paper, read_yaml(path), str(path))
    if not papers:
        raise UserError(f"{folder / 'papers'}: holds no paper; add one as <name>.yaml")
    return Project(root=root, config=config, tier=tier, papers=papers)
