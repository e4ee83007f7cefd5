"""docs/writing-a-method.md runs as it is written, and names all that a method's file may have."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from factories import checkout as checkout_factory
from factories.page import unpacked

from cyclery.config.components import QUANTITIES
from cyclery.engine.hooks import Measured, Moment
from cyclery.engine.made import Made
from cyclery.engine.stream import Batch
from cyclery.methods import Method, Stream

ROOT = checkout_factory.ROOT
PAGE = ROOT / "docs/writing-a-method.md"
TEXT = PAGE.read_text(encoding="utf-8")
# A block of commands, or a file under the path that the line before it names.
BLOCK = re.compile(r"(?:`([\w./-]+)`:\n\n)?```(sh|python|yaml|csv)\n(.*?)```", re.DOTALL)
COPIED = ("src", "config", "workflow", "Snakefile", "profiles", "docs", "Makefile", "README.md",
          "pyproject.toml", "requirements.lock", "tests/factories", "tests/project")  # fmt: skip


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a copy of the checkout in which the page was followed, and what was said."""
    folder = checkout_factory.copy(tmp_path_factory.mktemp("follow"), *COPIED)
    own = Path(sys.prefix)
    (folder / ".venv").mkdir()
    for path in own.iterdir():
        (folder / ".venv" / path.name).symlink_to(path)
    # So that `make` takes it for up to date, and never touches the one that it leads to.
    (folder / ".venv/ready").unlink(missing_ok=True)
    (folder / ".venv/ready").touch()
    # What the make that runs the tests was told is not meant for those of the page.
    inherited = {
        k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKEOVERRIDES", "ARGS")
    }
    environment = {
        **inherited, "PYTHONPATH": str(folder / "src"), "CUDA_VISIBLE_DEVICES": "",
        "PATH": os.pathsep.join([str(own / "bin"), os.environ["PATH"]]),
    }  # fmt: skip
    said = []
    for file, kind, text in BLOCK.findall(TEXT):
        if kind != "sh":
            made = (folder / file).exists()
            assert made or kind == "csv", f"{file} should have been written by a command"
            (folder / file).write_text(text, encoding="utf-8")
            continue
        done = subprocess.run(
            ["bash", "-euc", text], cwd=folder, env=environment, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, f"{text}\n{done.stdout}"
        said.append(done.stdout)
    return folder, "\n".join(said)


@pytest.mark.slow
def test_following_the_page_ends_with_verdicts(followed: tuple[Path, str]) -> None:
    folder, said = followed
    assert "with each choice of the settings of the method mixup (1): all are good" in said
    found = json.loads((folder / "results/smoke/evidence/mixup.json").read_bytes())
    verdicts = {claim["id"]: claim["verdict"] for claim in found["claims"]}
    assert verdicts.keys() == {"MIXUP-1", "MIXUP-2"}
    assert set(verdicts.values()) <= {"reproduced", "contradicted", "inconclusive"}
    page = unpacked((folder / "results/smoke/report-mixup/index.html").read_text("utf-8"))
    assert "MIXUP-1" in page and "mixup alpha = 0.2" in page
    [table] = found["tables"]
    ours = {cell["arm"] for cell in table["cells"] if not cell["empty"]}
    assert ours == {"plain", "strong"} and all(
        cell["printed"] is not None for cell in table["cells"]
    )
    assert "Test error on CIFAR-10 with plain training" in page and "PreAct ResNet-18" in page
    assert str(Path("results/smoke/report-mixup/index.html")) in said


@pytest.mark.slow
def test_what_follows_is_generated(followed: tuple[Path, str]) -> None:
    folder, _ = followed
    assert "\n### mixup\n" in (folder / "docs/configuration.md").read_text(encoding="utf-8")
    recorded = json.loads((folder / "tests/project/versions.json").read_bytes())
    assert recorded["mixup"]["version"] == 1
    before = json.loads((ROOT / "tests/project/versions.json").read_bytes())
    assert {name: value for name, value in recorded.items() if name != "mixup"} == before


@pytest.mark.slow
def test_its_code_has_the_house_style(followed: tuple[Path, str]) -> None:
    folder, _ = followed
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "src/cyclery/methods/mixup.py"],
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout


NOT_DECLARED = {"name", "version", "title", "settings_type", "step", "quantities"}


def test_the_page_names_every_hook_field_and_quantity() -> None:
    hooks = {field.name for field in fields(Method)} - NOT_DECLARED
    for hook in hooks - {"capture", "own_definition"}:
        assert f"\n| `{hook}(" in TEXT, hook
    assert "\n| `CAPTURE = False` |" in TEXT and "\n| `OWN_DEFINITION` |" in TEXT
    for field in (*(field.name for field in fields(Batch)), "x"):
        assert f"\n| `batch.{field}` |" in TEXT, field
    for kind in (Moment, Measured, Made, Stream):
        own = {*vars(kind).get("__dataclass_fields__", {}), *(n for n in dir(kind) if n[0] != "_")}
        for name in own - {"size"}:
            assert f"`{name}`" in TEXT or f"`{name}(" in TEXT, name
    for name in (*QUANTITIES, "ids", "y", "update", "last", "net", "shape", "samples"):
        assert f"`{name}`" in TEXT or f"`{name}(" in TEXT, name
