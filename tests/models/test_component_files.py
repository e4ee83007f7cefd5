"""A network, a head and an optimiser are a file each, found by its name; what is wrong with one."""

from __future__ import annotations

import copy
import importlib
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import pytest
import torch
from factories import checkout, component
from factories import engine as factory
from factories import project as project_factory
from factories.data import KNOWN

from cyclery import models, optim
from cyclery.authoring.docs import REFERENCE, documents
from cyclery.common.errors import UserError
from cyclery.config.load import load
from cyclery.config.models import Paper
from cyclery.config.schema import schema
from cyclery.engine.machine import COMPUTING
from cyclery.models import heads
from cyclery.plan.project_checks import check

NETWORK = '''
"""A network of a test, which imports torch at its top as a user's may."""
from dataclasses import dataclass, field
from math import prod

from torch import nn

from cyclery.models import ModelSettings
from cyclery.models._classifier import Classifier


@dataclass(frozen=True)
class Settings(ModelSettings):
    """One hidden layer."""

    units: int = field(default=8, metadata={"doc": "units of the layer", "low": 1})

    @property
    def batch_norm(self):
        return False


def build(settings, shape, classes):
    net = Classifier(settings.units, classes)
    net.body = nn.Sequential(nn.Flatten(), nn.Linear(prod(shape), settings.units), nn.ReLU())
    return net
'''
HEAD = '''
"""A head of a test."""
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Settings:
    """A linear layer behind another."""

    width: int = field(default=4, metadata={"doc": "units between the two", "low": 1})


def build(settings, width, classes):
    from torch import nn

    return nn.Sequential(nn.Linear(width, settings.width), nn.Linear(settings.width, classes))
'''
OPTIMISER = '''
"""An optimiser of a test: the sign of the gradient."""
from dataclasses import dataclass, field

from cyclery.common.lazy import torch
from cyclery.optim.flat.optimiser import Optimiser


@dataclass(frozen=True)
class Settings:
    """Signs."""

    scale: float = field(default=1.0, metadata={"doc": "factor on each sign", "above": 0})


class Rule(Optimiser):
    """p -= lr scale sign(g)."""

    def _update(self, part, row, scalars):
        part.p.addcmul_(torch.sign(part.g).mul_(self.settings.scale), row["lr"], value=-1)
'''
KINDS: dict[str, tuple[ModuleType, str]] = {
    "model": (models, NETWORK),
    "head": (heads, HEAD),
    "optimiser": (optim, OPTIMISER),
}


@pytest.fixture
def write(tmp_path: Path) -> Iterator[dict[str, component.Write]]:
    """Return what writes a file of each kind, which is gone after the test."""
    with ExitStack() as stack:
        yield {
            kind: stack.enter_context(component.written(package, tmp_path / f"{kind}s"))
            for kind, (package, _) in KINDS.items()
        }


def settings_of(root: Path, **arm: Any) -> dict[str, Any]:
    """Return the resolved settings of a project's arm that has these settings of its own."""
    paper = copy.deepcopy(project_factory.PAPER)
    project_factory.arms(paper)["fast"] |= arm
    project_factory.write(root, project_factory.TIER, paper)
    found: dict[str, Any] = check(load(root)).arm("one", "main", "fast").settings
    return found


def test_one_file_is_a_component(write: dict[str, component.Write], tmp_path: Path) -> None:
    for kind, (_, text) in KINDS.items():
        write[kind]("own", text)
    given = {
        "model": {"name": "own", "units": 16},
        "head": {"name": "own", "width": 5},
        "optimiser": "own",
        "lr": 0.001,
    }
    settings = settings_of(tmp_path, **given)
    assert settings["model"] == {"name": "own", "settings": {"units": 16}}
    assert settings["head"] == {"name": "own", "settings": {"width": 5}}
    assert settings["optimiser"] == {"name": "own", "settings": {"scale": 1.0}}
    run = factory.run({**factory.settings(), **{key: settings[key] for key in KINDS}})
    net = run.models["main"]
    assert [tuple(p.shape) for p in net.head.parameters()] == [(5, 16), (5,), (10, 5), (10,)]
    before = run.flat.data.clone()
    run.train_epoch()
    assert not torch.equal(before, run.flat.data)
    # And it is in the schemas and on the page.
    defined = schema(Paper, KNOWN)["$defs"]
    for kind in KINDS:
        assert "own" in defined[kind.capitalize()]["anyOf"][0]["enum"]
    page = next(text for path, text in documents(checkout.ROOT).items() if path == REFERENCE)
    assert page.count("\n### own\n") == 3 and "| `units` | `8` | units of the layer" in page


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_test_wrote_is_gone_after_it(kind: str, tmp_path: Path) -> None:
    package, text = KINDS[kind]
    before = package.names()
    with component.written(package, tmp_path / "own") as write:
        write("own", text)
        package.settings_type("own")
        assert package.names() == tuple(sorted((*before, "own")))
    assert package.names() == before and not hasattr(package, "own")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(f"{package.__name__}.own")


def test_every_file_of_networks_and_optimisers_is_code_that_computes() -> None:
    """So a record's hash of the code changes with a head or a block as with the engine."""
    package = Path(models.__file__).parents[1]
    hashed = {file for pattern in COMPUTING for file in package.glob(pattern)}
    own = {file for name in ("models", "optim") for file in (package / name).rglob("*.py")}
    assert own <= hashed and package / "models/heads/linear.py" in own


# A pattern and what takes its place, the line that is named where one is, and the message.
WRONG = {
    "no settings": (r"class Settings", "class Other", None, "declares no Settings; "),
    "no dataclass": (r"@dataclass.*\n", "", "class Settings", "with `@dataclass(frozen=True)`"),
    "no doc": (r'"doc"', '"dock"', " = field(", "does not say what it is; write it as"),
    "no default": (r"default=[\d.]+, ", "", " = field(", "has no default"),
    "a wrong annotation": (
        r": (int|float) =",
        ": 'itn' =",
        "class Settings",
        "'itn' is not defined",
    ),
    "a syntax error": (r"frozen=True\)", "frozen=True", "@dataclass", "'(' was never closed"),
    "an error": (r"frozen=True", "frosen=True", "@dataclass", "unexpected keyword argument"),
    "nothing to build": (r"(def build|class Rule)", "class Other", None, "declares no {makes}; "),
}
MAKES = {"model": "build", "head": "build", "optimiser": "Rule"}


@pytest.mark.parametrize("mistake", WRONG)
@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_file_is_one_message_that_names_it(
    write: dict[str, component.Write], kind: str, mistake: str
) -> None:
    package, text = KINDS[kind]
    pattern, new, marker, message = WRONG[mistake]
    if mistake == "nothing to build":
        text = re.split(r"(?m)^(?=def build|class Rule)", text)[0]
    else:
        text, count = re.subn(pattern, new, text, count=1)
        assert count
    path = write[kind]("wrong", text)
    where = str(path)
    if marker:
        lines = dedent(text).splitlines()
        where += f":{1 + next(i for i, line in enumerate(lines) if marker in line)}"
    with pytest.raises(UserError) as found:
        package.settings_type("wrong")
    said = str(found.value)
    assert said.startswith(f"{where}: ") and "\n" not in said
    assert message.format(makes=MAKES[kind]) in said


OTHER = {
    "model": {
        "(settings, shape, classes)": ("(settings)", "build must be a function that takes 3"),
        "(ModelSettings)": ("", "Settings must derive from ModelSettings"),
    },
    "head": {"(settings, width, classes)": ("()", "takes 3 arguments: settings, width, classes")},
    "optimiser": {"(Optimiser)": ("", "Rule must be a class that extends Optimiser")},
}


@pytest.mark.parametrize(("kind", "old"), [(kind, old) for kind in OTHER for old in OTHER[kind]])
def test_what_a_kind_asks_of_its_files_beside(
    write: dict[str, component.Write], kind: str, old: str
) -> None:
    package, text = KINDS[kind]
    new, message = OTHER[kind][old]
    path = write[kind]("wrong", text.replace(old, new))
    with pytest.raises(UserError) as found:
        package.settings_type("wrong")
    assert str(found.value).startswith(f"{path}:") and message in str(found.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_file_that_an_arm_asks_for_is_one_line(
    write: dict[str, component.Write],
    kind: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write[kind]("broken", "X = (\n")
    paper = copy.deepcopy(project_factory.PAPER)
    project_factory.arms(paper)["fast"][kind] = "broken"
    project_factory.write(tmp_path, project_factory.TIER, paper)
    said = project_factory.refused(tmp_path, capsys)
    assert len(said.splitlines()) == 1 and f"{path}:1: " in said and "never closed" in said


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_name_is_said_with_those_there_are(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paper = copy.deepcopy(project_factory.PAPER)
    project_factory.arms(paper)["fast"][kind] = "nothing"
    project_factory.write(tmp_path, project_factory.TIER, paper)
    said = project_factory.refused(tmp_path, capsys)
    package, _ = KINDS[kind]
    assert f"unknown {kind} 'nothing'" in said and package.names()[0] in said
