"""Files that are no configuration, and the command line's own keys."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from factories.bad_config import (
    FAST,
    main_experiment,
)
from factories.project import PAPER, TIER, arms, refused, write

from cyclery.cli.main import main


def test_the_configuration_itself_is_good(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, TIER, PAPER)
    assert main(["--root", str(tmp_path), "check"]) == 0
    assert capsys.readouterr().out == "tier smoke: 1 papers, 2 arms, all keys are good\n"


def test_two_mistakes_get_two_messages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tier, paper = copy.deepcopy(TIER), copy.deepcopy(PAPER)
    arms(paper)["fast"].update(epochs=0, lr=-1)
    write(tmp_path, tier, paper)
    (tmp_path / "config/papers/two.yaml").write_text("title: [")
    said = refused(tmp_path, capsys).splitlines()
    keys = [line.partition(f"{FAST}.")[2].partition(":")[0] for line in said]
    assert keys == ["lr.value", "epochs", ""]
    assert "two.yaml, line " in said[2]


FILES: dict[str, tuple[str, str]] = {
    "brackets left open": ("title: [\n", ", line 2, column 1: not valid YAML: "),
    "a tab": ("title: a\n\tyear: 2", ", line 2, column 1: not valid YAML: "),
    "two documents": ("title: a\n---\ntitle: b\n", ", line 2, column 1: not valid YAML: "),
    "a list": ("- a\n- b\n", ": expected keys and values (found ['a', 'b'])"),
    "a key that stands twice": (
        "title: a\nyear: 1\ntitle: b\n", ": 'title' stands twice, on lines 1 and 3; rename or",
    ),
    "an arm that stands twice": (
        "x:\n  arms:\n    a: {}\n    b: {}\n    a: {}\n", ": 'a' stands twice, on lines 3 and 5",
    ),
    "nothing": ("", ": is empty"),
    "a comment only": ("# later\n", ": is empty"),
    "code": ("title: !!python/object/apply:os.system [ls]\n", ", line 1, column 8: not valid YAML"),
    "an alias within itself": ("title: &a [*a]\n", ", line 1, column 12: not valid YAML: "),
    "an alias without an anchor": ("title: *b\n", ", line 1, column 8: not valid YAML: "),
    "a list for a key": ("? [a]\n: b\n", ", line 1, column 3: not valid YAML: "),
    "depth without end": ("title: " + "[" * 3000, "not valid YAML"),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_files_that_are_not_yaml(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, wanted = FILES[case]
    write(tmp_path, TIER, PAPER)
    (tmp_path / "config/papers/one.yaml").write_text(text)
    said = refused(tmp_path, capsys)
    assert said.startswith(f"cyclery: {tmp_path}/config/papers/one.yaml")
    assert wanted in said and len(said.splitlines()) == 1


def test_a_file_that_is_not_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, TIER, PAPER)
    (tmp_path / "config/papers/one.yaml").write_bytes(b"title: \xff\xfe")
    assert "one.yaml: not UTF-8" in refused(tmp_path, capsys)


def test_missing_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(tmp_path, capsys)
    assert "config.yaml: there is no such file" in said and "--root" in said
    write(tmp_path, TIER, PAPER)
    (tmp_path / "config/papers/one.yaml").unlink()
    assert f"{tmp_path}/config/papers: holds no paper; add one" in refused(tmp_path, capsys)
    (tmp_path / "config/tiers/smoke.yaml").unlink()
    assert f"{tmp_path}/config/tiers: holds no tier; add one" in refused(tmp_path, capsys)
    (tmp_path / "config/tiers/smoke.yaml").mkdir()
    assert "smoke.yaml: cannot be read" in refused(tmp_path, capsys)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("my paper.yaml", "the name of a paper must begin with a letter"),
        ("a;b.yaml", "found 'a;b'"),
        ("-x.yaml", "found '-x'"),
        ("a.b.yaml", "found 'a.b'"),
        ("report.yaml", "cannot be called 'report'"),
        ("all.yaml", "cannot be called 'all'"),
        ("two.yml", "rename it to two.yaml"),
    ],
)
def test_names_of_files(
    name: str, wanted: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, TIER, PAPER)
    (tmp_path / "config/papers/one.yaml").rename(tmp_path / "config/papers" / name)
    said = refused(tmp_path, capsys)
    assert said.startswith(f"cyclery: {tmp_path}/config/papers/{name}: ")
    assert wanted in said


def test_what_editors_leave_is_no_paper(tmp_path: Path) -> None:
    write(tmp_path, TIER, PAPER)
    (tmp_path / "config/papers/._one.yaml").write_text("[")
    assert main(["--root", str(tmp_path), "check"]) == 0


OVERRIDES = {
    "tier=smok": "tier: unknown tier 'smok'. Did you mean 'smoke'? Tiers: smoke.",
    "tier=../smoke": "tier: unknown tier '../smoke'.",
    "papers=[two]": "papers: unknown paper 'two'. Papers: one.",
    "papers=one": "papers: must be a list, each element text (found 'one').",
    "papers=[]": "papers: must have at least 1 element",
    "papers=[one, one]": "papers: 'one' stands twice",
    "seeds=0": "seeds: must be at least 1 and at most 1000 (found 0).",
    "seeds=many": "seeds: must be a whole number (found 'many').",
    "sedes=3": "unknown key 'sedes'. Did you mean 'seeds'? Allowed:",
    "device=gpu": "device: must be one of auto, cpu, cuda (found 'gpu').",
    "results=": "results: must be text (found None).",
    "results=a b": "results: must be a path of at most 500 letters, digits",
    "results={x}": "results: must be text",
    "results=$HOME": "results: must be a path of at most 500 letters, digits",
    "resume_seconds=.nan": "resume_seconds: must be a finite number (found nan).",
}


@pytest.mark.parametrize("option", OVERRIDES)
def test_overrides(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, TIER, PAPER)
    said = refused(tmp_path, capsys, "--set", option)
    assert said.startswith(f"cyclery: --set, or snakemake --config: {OVERRIDES[option]}")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("option", ["seeds", "=3", ""])
def test_overrides_that_are_none(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, TIER, PAPER)
    assert f"--set {option}: write KEY=VALUE" in refused(tmp_path, capsys, "--set", option)


def test_a_mistake_in_the_main_file_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for config, wanted in (
        ({"tier": "smok"}, "tier: unknown tier 'smok'"),
        ({"tier": "smoke", "papers": ["two"]}, "papers: unknown paper 'two'"),
        ({"tier": "smoke", "seeds": 0}, "seeds: must be at least 1 and at most 1000 (found 0)"),
    ):
        write(tmp_path, TIER, PAPER, config)
        assert f"{tmp_path}/config/config.yaml: {wanted}" in refused(tmp_path, capsys)


def test_check_looks_at_every_tier(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, TIER, PAPER)
    desk = copy.deepcopy(TIER)
    desk["base"]["batch"] = 500
    paper = copy.deepcopy(PAPER)
    main_experiment(paper)["tiers"]["desk"] = {}
    write(tmp_path, TIER, paper)
    (tmp_path / "config/tiers/desk.yaml").write_text(str(desk).replace("'", '"'))
    assert main(["--root", str(tmp_path), "check"]) == 2
    said = capsys.readouterr()
    assert "config/tiers/desk.yaml: base.batch: must be at most 100" in said.err
    # Jobs of one tier do not wait for another.
    assert main(["--root", str(tmp_path), "check", "--set", "tier=smoke"]) == 0


def test_unknown_shards_and_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, TIER, PAPER)
    root = ["--root", str(tmp_path)]
    out = str(tmp_path / "out.jsonl")
    for command, wanted in (
        (["train", "one/L7-0000", "--output", out], "no shard 'one/L7-0000'; shards of 'one'"),
        (["train", "one", "--output", out], "no shard 'one'; write GROUP/SHARD"),
        (["train", "two/L0-0000", "--output", out], "unknown paper 'two'"),
        (["lr-range", "two", "--output", out], "unknown paper 'two'"),
        (["evidence", "one.C-9", "--output", out], "no experiment or claim 'C-9'"),
        (["plan", "one.C-9"], "no experiment or claim 'C-9' at tier 'smoke'. Did you mean 'C-1'?"),
        (["plan", "../one"], "unknown paper"),
        (["jobs", "one.mian", "--output", out], "Did you mean 'main'?"),
        (["prepare", "digitz"], "Did you mean 'digits'?"),
    ):
        assert main([*root, *command]) == 2
        said = capsys.readouterr().err
        assert wanted in said and "Traceback" not in said
    assert not Path(out).exists()


def test_a_log_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, TIER, PAPER)
    (tmp_path / "file").touch()
    assert main(["--root", str(tmp_path), "check", "--log", f"{tmp_path}/file/log.txt"]) == 2
    assert "cannot write" in capsys.readouterr().err
