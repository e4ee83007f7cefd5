"""Folders, overrides, figures and networks beyond all limits, and messages that fit a terminal."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from factories.bad_config import (
    MOST,
)
from factories.project import PAPER, TIER, arms, refused, write

from cyclery.common.errors import UserError, tidy
from cyclery.models import build


@pytest.mark.parametrize("option", ["results", "data"])
@pytest.mark.parametrize(
    ("folder", "wanted"),
    [
        ("config/papers", "must not lie in config/"),
        ("config", "must not lie in config/"),
        ("results/../src/x", "must not lie in src/"),
        ("Tests/out", "must not lie in tests/"),
        (".git", "must not lie in .git/"),
        ("workflow", "must not lie in workflow/"),
        (".", "must not be the project's folder, nor one that holds it"),
        ("..", "must not be the project's folder, nor one that holds it"),
        ("/", "must not be the project's folder, nor one that holds it"),
        ("link/papers", "must not lie in config/"),
        ("note/x", "note is a file"),
        ("x" * 300, "must be a path of at most 500"),
        ("y/" * 2000 + "x", "must be a path of at most 500"),
    ],
)
def test_folders_of_the_project_hold_no_results(
    option: str, folder: str, wanted: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "project"
    write(root, TIER, PAPER)
    (root / "link").symlink_to("config")
    (root / "note").touch()
    said = refused(root, capsys, "--set", f"{option}={folder}")
    assert said.startswith(f"cyclery: --set, or snakemake --config: {option}: ") and wanted in said
    write(root, TIER, PAPER, {"tier": "smoke", option: folder})
    assert f"config/config.yaml: {option}: " in refused(root, capsys)


def test_results_may_lie_elsewhere(tmp_path: Path) -> None:
    from cyclery.config.load import load

    root = tmp_path / "project"
    write(root, TIER, PAPER)
    for folder in ("results", "results/config", "out", "../out", str(tmp_path / "disk/out")):
        assert load(root, {"results": folder}).config.results == folder


@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        ("seeds=010", "Write a number in plain decimals"),
        ("seeds=1:30", "Write a number in plain decimals"),
        ("seeds=1_0", "Write a number in plain decimals"),
        (f"seeds={'9' * 400}", "must be a whole number (found '999"),
        (f"seeds={'9' * 4000}", "must be a whole number (found '999"),
        ("seeds=!!int ''", "must be a whole number (found"),
        (f"papers={'[' * 30_000}", "must be a list, each element text (found '[[["),
        (f"{'x' * 100_000}=1", "unknown key 'xxx"),
        ("a\x1b[2Jb=1", r"unknown key 'a\x1b[2Jb'"),
        ("tier=a\x1b[2Jb", r"unknown tier 'a\x1b[2Jb'"),
        ("gpus=[99999999999999999]", "gpus[0]: must be at least 0 and at most 1023"),
    ],
)
def test_overrides(
    option: str, wanted: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, TIER, PAPER)
    said = refused(tmp_path, capsys, "--set", option)
    assert said.startswith("cyclery: --set, or snakemake --config: ")
    assert wanted in said and len(said) <= MOST and said.isprintable()


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("value", "9_2"), ("value", "n/a"), ("value", " 92"), ("value", "nan"), ("value", "1e999"),
        ("value", "\uff19\uff12"), ("value", "92%"), ("std", "-1"), ("runs", "2.5"), ("runs", "0"),
    ],
)  # fmt: skip
def test_printed_figures(
    key: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, TIER, PAPER)
    path = tmp_path / "config/reported/one.csv"
    path.parent.mkdir()
    row = {"metric": "accuracy", "value": "92.5", "std": "", "runs": "5"} | {key: text}
    path.write_text("\n".join([",".join(row), ",".join(row.values()), ""]), encoding="utf-8")
    said = refused(tmp_path, capsys)
    assert f"config/reported/one.csv, line 2: {key} must be a" in said


def test_messages_fit_a_terminal() -> None:
    assert tidy("a\x00\n\tb\u202e\x9b") == "a\\x00\n\\tb\\u202e\\x9b"
    assert len(tidy("x" * 10**6)) < 400 and tidy(f"k: {'x' * 10**6} end").endswith(" end")
    assert len(tidy("x y " * 10**6)) <= MOST - 100
    many = tidy("\n".join(f"file: line {n}" for n in range(10**4)))
    assert len(many) <= MOST - 50 and many.startswith("file: line 0\n")
    assert many.endswith(" more lines.")
    plain = "config/papers/one.yaml: title: missing; it has no default."
    assert tidy(plain) == plain == str(UserError(plain))


def test_many_mistakes_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paper = copy.deepcopy(PAPER)
    arms(paper).update({f"a{n}": {"epochs": 0} for n in range(500)})
    write(tmp_path, TIER, paper)
    said = refused(tmp_path, capsys)
    assert "arms.a0.epochs: must be at least 1" in said and len(said) <= MOST
    assert "more lines" in said or "more mistakes" in said


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("wrn", {"depth": 16, "width": 10}),
        ("preresnet", {"depth": 20, "width": 64}),
        ("preresnet", {"depth": 110, "width": 64}),
        ("densenet", {"depth": 190, "growth": 40}),
        ("densenet", {"depth": 40, "growth": 100, "bc": False}),
        ("resnet_b", {"depth": 56, "widths": [64, 100, 100, 200]}),
        ("bn_mlp", {"hidden": [20_000, 30_000]}),
    ],
)
def test_weights_are_estimated_well_enough(
    name: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.device("meta"):
        found = sum(p.numel() for p in build(name, settings, (1, 32, 32), 10).parameters())
    monkeypatch.setattr("cyclery.models.limits.MOST_WEIGHTS", 1)
    with pytest.raises(UserError, match="makes a network of about") as refusal:
        build(name, settings, (1, 32, 32), 10)
    estimate = float(str(refusal.value).partition("about ")[2].partition(" ")[0])
    assert 0.5 < estimate / found < 2
