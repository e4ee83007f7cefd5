"""Texts that are YAML only just, or more than can be.

What an author would not notice is refused as well: a number in base 8, a key that stands twice.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from factories.bad_config import (
    MOST,
)
from factories.project import PAPER, TIER, refused, write

from cyclery.config.load import read_value, read_yaml

ROOT = Path(__file__).parents[2]


def laughs(levels: int = 30, each: int = 10) -> str:
    lines = ["a0: &a0 [x, x]"]
    for n in range(1, levels):
        lines.append(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * each)}]")
    return "\n".join(lines) + "\n"


# A text, and what is said of it behind the name of the file.
TEXTS: dict[str, tuple[str, str]] = {
    "a number that is empty": ('year: !!int ""\n', ", line 1, column 7: not valid YAML: no tag"),
    "a truth that is none": ("year: !!bool maybe\n", ", line 1, column 7: not valid YAML: no tag"),
    "a time that is none": ("year: !!timestamp abc\n", ", line 1, column 7: not valid YAML: no"),
    "a set of a list": ("title: !!set [clr]\n", ", line 1, column 8: not valid YAML: no tag"),
    "bytes": ("title: !!binary '*'\n", ", line 1, column 8: not valid YAML: no tag"),
    "pairs": ("title: !!omap [a]\n", ", line 1, column 8: not valid YAML: no tag"),
    "a tag of a key": ("!!int '': 3\n", ", line 1, column 1: not valid YAML: no tag"),
    "400 digits": (f"year: {'9' * 400}\n", "a whole number has at most 18 digits"),
    "4,000 digits": (f"year: {'9' * 4000}\n", "a whole number has at most 18 digits"),
    "40,000 digits of base 16": (f"year: 0x{'f' * 40000}\n", "a whole number has at most 18"),
    "2^63": ("batch: 9223372036854775808\n", "a whole number has at most 18 digits"),
    "aliases that multiply": (laughs(), "more than 5,000,000 characters where every alias"),
    "a text that multiplies": (
        f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 100)}]\n", "more than 5,000,000 characters"
    ),
    "maps that multiply": (
        "a0: &a0 {x: 1}\n"
        + "".join(f"a{n}: &a{n} {{<<: *a{n - 1}, q: *a{n - 1}}}\n" for n in range(1, 40)),
        "more than 5,000,000 characters",
    ),
    "30,000 brackets": ("title: " + "[" * 30_000, "more than 50 lists or mappings within"),
    "30,000 brackets, closed": (
        "title: " + "[" * 30_000 + "]" * 30_000, "more than 50 lists or mappings within"
    ),
    "30,000 braces": ("{a: " * 30_000, "more than 50 lists or mappings within"),
    "30,000 dashes": ("- " * 30_000 + "a\n", "more than 50 lists or mappings within"),
    "a file without end": ("#" * 5_000_001, ": has more than 5,000,000 bytes"),
    "base 8": ("year: 010\n", ", line 1, column 7: not valid YAML: '010': write a number in plain"),
    "base 8 of YAML 1.2": ("year: 0o10\n", "'0o10': write a number in plain"),
    "base 2": ("year: 0b10\n", "'0b10': write a number in plain"),
    "base 60": ("year: 1:30\n", "'1:30': write a number in plain"),
    "base 60 with a fraction": ("year: 1:30.5\n", "'1:30.5': write a number in plain"),
    "digits in groups": ("year: 2_026\n", "'2_026': write a number in plain"),
    "digits in groups with a fraction": ("year: 1_0.5\n", "'1_0.5': write a number in plain"),
    "a nought that leads": ("year: 08\n", "'08': write a number in plain"),
    "a key twice where it is merged": (
        "a:\n  <<: &d {lr: 0.3,\n    lr: 99}\n", ": 'lr' stands twice, on lines 2 and 3; rename or"
    ),
    "a key twice in a list that is merged": (
        "a:\n  <<: [{x: 1}, {lr: 1, lr: 2}]\n", ": 'lr' stands twice, on lines 2 and 2"
    ),
    "a number twice": ("a: {1: x, 1: y}\n", ": 1 stands twice, on lines 1 and 1"),
    "a merge twice": ("a: &a {x: 1}\nb: {<<: *a, <<: *a}\n", ": '<<' stands twice, on lines 2"),
    "a map that merges itself": ("a: &a {<<: *a}\n", ", line 1, column 12: not valid YAML: the al"),
    "a map that merges itself deeper": ("a: &a {b: {<<: *a}}\n", "the alias 'a' stands within"),
    "a merge of a number": ("a: {<<: 5}\n", "`<<` merges a mapping, or a list of mappings"),
    "a control character": ('title: "a\\x07b"\n', r"a control character in 'a\x07b'"),
    "a character of nought": ('title: "\\0"\n', r"a control character in '\x00'"),
    "half a character": ('title: "\\ud800"\n', "not valid YAML"),
    "a long key": ("x" * 200_000 + ": 1\n", "not valid YAML"),
    "a long key in quotes": ('? "' + "x" * 200_000 + '"\n: 1\n', "unknown key 'xxxx"),
}  # fmt: skip


@pytest.mark.parametrize("case", TEXTS)
def test_texts(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, wanted = TEXTS[case]
    write(tmp_path, TIER, PAPER)
    (tmp_path / "config/papers/one.yaml").write_text(text)
    said = refused(tmp_path, capsys)
    assert said.startswith(f"cyclery: {tmp_path}/config/papers/one.yaml")
    assert wanted in said and len(said) <= MOST
    assert said.isprintable()  # one line, too


# What a terminal would obey, a file that is none, and the worst of the texts above.
WORST = (
    "a number that is empty", "a set of a list", "a time that is none", "4,000 digits",
    "aliases that multiply", "30,000 brackets", "30,000 brackets, closed", "30,000 braces",
    "30,000 dashes", "a long key in quotes", "a control character", "a map that merges itself",
)  # fmt: skip


def test_the_command_line_refuses_the_worst_texts(tmp_path: Path) -> None:
    write(tmp_path, TIER, PAPER)
    running = []
    for number, case in enumerate(WORST):
        root = tmp_path / str(number)
        write(root, TIER, PAPER)
        (root / "config/papers/one.yaml").write_text(TEXTS[case][0])
        command = [sys.executable, "-m", "cyclery", "--root", str(root), "check"]
        running.append((case, subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )))  # fmt: skip
    for case, process in running:
        out, err = process.communicate(timeout=120)
        # A signal, as that of a fault in memory, would be a negative code.
        assert process.returncode == 2, (case, process.returncode, err)
        assert out == "" and err.count("\n") == 1 and "Traceback" not in err
        assert len(err) <= MOST and err.strip().isprintable()


def test_what_is_no_file_is_no_hang(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, TIER, PAPER)
    path = tmp_path / "config/papers/one.yaml"
    path.unlink()
    os.mkfifo(path)
    assert "one.yaml: cannot be read (not a file)" in refused(tmp_path, capsys)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0), ("-7", -7), ("+5", 5), ("0x1F", 31), ("1e3", 1000.0), ("-.5", -0.5),
        ("007.5", 7.5), ("~", None), ("Null", None), ("", None), ("yes", True), ("Off", False),
        ("!!str 5", "5"), ("'010'", "010"), ("2020-01-01", "2020-01-01"), ("1.2.3", "1.2.3"),
        ("<<", "<<"), ("=", "="), ("999999999999999999", 10**18 - 1), ("-.inf", -float("inf")),
        ("{a: &x {p: 1, q: 2}, b: {<<: *x, q: 3}}", {"a": {"p": 1, "q": 2}, "b": {"p": 1, "q": 3}}),
        ("[&x {p: 1}, &y {p: 2, q: 2}, {<<: [*x, *y]}]",
         [{"p": 1}, {"p": 2, "q": 2}, {"p": 1, "q": 2}]),
    ],
)  # fmt: skip
def test_what_a_text_means(text: str, value: Any) -> None:
    found = read_value(text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("path", sorted(ROOT.glob("config/**/*.yaml")), ids=lambda path: path.stem)
def test_shipped_files_mean_what_pyyaml_says(path: Path) -> None:
    import json
    import re

    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )
    # The order of keys is that of arms in tables, too.
    wanted = yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)
    assert json.dumps(read_yaml(path)) == json.dumps(wanted)


def test_snakemake_says_the_same(tmp_path: Path) -> None:
    for name in ("workflow", "config"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "Snakefile", tmp_path)
    (tmp_path / "config/config.yaml").write_text("tier: " + "[" * 30_000)
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--directory", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "config/config.yaml, line 1, column 56: not valid YAML: more than 50" in done.stderr
