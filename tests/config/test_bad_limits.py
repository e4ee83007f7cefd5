"""Texts that are YAML only just, or more than can be, and numbers that nothing could be done with.

Each gets one message that fits a terminal. What an author would not notice is refused as well: a
number in base 8, a key that stands twice, a margin that no effect can pass.
"""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from factories.project import PAPER, TIER, arms, comparison, refused, rich_paper, write
from test_bad_input import (
    FAST,
    MAIN,
    ONE,
    PAIR,
    SMOKE,
    Case,
    base,
    both,
    experiment,
    fast,
    kd,
    pair,
    ranged,
    taught,
    tuned,
)

from cyclery.common.errors import UserError, tidy
from cyclery.config.load import read_value, read_yaml
from cyclery.models import build
from cyclery.records import metrics
from cyclery.records.metrics import scale

ROOT = Path(__file__).parents[2]
MOST = 2000


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


LIMITS: dict[str, Case] = {
    "a batch without end": (
        base(batch=1e10), SMOKE, "base.batch.value: must be a number of samples",
        ["at most 1,000,000,000"],
    ),
    "a schedule of batches without end": (
        base(batch={"kind": "cycle", "easy": 1e9, "hard": 1, "cooldown": 3, "clamp": False}),
        SMOKE, "base.batch: reaches ", ["a batch has at most"],
    ),
    "an epoch without end": (
        base(epoch_images=1_000_000_000),
        SMOKE, "base.epoch_images: a run makes at most 5,000,000 updates",
        ["every schedule is written out", "found 100,000,000"],
    ),
    "epochs without end": (
        base(epochs=100_000, batch=1), SMOKE, "base.epochs: a run makes at most 5,000,000 updates",
        [],
    ),
    "a sweep without end": (
        both(base(batch=1), ranged(epochs=100_000)),
        ONE, f"{MAIN}.range.epochs: 100000 do not suit", ["at most 5,000,000 updates"],
    ),
    "unlabelled samples without end": (
        base(mu=10**9), SMOKE, "base.mu: must be at most 1000", [],
    ),
    "a schedule of many parts": (
        fast(lr={"kind": "product", "of": [0.1] * 200}),
        ONE, f"{FAST}.lr: must have at most 100 parts, since", [],
    ),
    "trials without end": (
        tuned(lr=[1 + n / 20 for n in range(20)], weight_decay=[1 + n / 20 for n in range(20)]),
        ONE, f"{MAIN}.tune: has 400 combinations", ["at most 256"],
    ),
    "an ensemble without end": (
        taught({"members": 10**9}), ONE, f"{FAST}.parents.teacher.seeds.members: must be at most",
        [],
    ),
    "10^12 units": (
        base(model={"name": "bn_mlp", "hidden": [10**12]}),
        SMOKE, "base.model.hidden[0]: must be at least 1 and at most 100000", [],
    ),
    "layers of many units": (
        base(model={"name": "bn_mlp", "hidden": [100_000, 100_000]}),
        SMOKE, "base.model bn_mlp.hidden: makes a network of about 1.0e+10 weights", ["1e+09"],
    ),
    "a network too wide": (
        base(model={"name": "wrn", "width": 100}),
        SMOKE, "base.model wrn.width: makes a network of about 3.9e+09 weights", [],
    ),
    "a network too deep": (
        base(model={"name": "resnet", "depth": 6 * 10**11 + 2}),
        SMOKE, "base.model resnet.depth: must be 6n + 2", ["at most 2000"],
    ),
    "a bound of the range test in a quantity": (
        kd(temperature="range.max"),
        ONE, f"{FAST}.method.temperature: range.base and range.max are learning rates", [],
    ),
    "a bound of the range test within a quantity": (
        both(ranged(), kd(soft={"kind": "linear", "start": 0, "end": "range.max"})),
        ONE, f"{FAST}.method.soft: range.base and range.max are learning rates", [],
    ),
    "no statement": (
        lambda tier, paper: paper["claims"]["C-1"].update(statement=" "),
        ONE, "claims.C-1.statement: must say something", [],
    ),
    "no reason of a claim": (
        lambda tier, paper: paper["claims"]["C-1"].update(not_run={"all": ""}),
        ONE, "claims.C-1.not_run.all: must say something", [],
    ),
    "no reason of a paper": (
        lambda tier, paper: paper.update(not_run={"smoke": "\n"}),
        ONE, "not_run.smoke: must say something", [],
    ),
    "no reason of an arm": (
        experiment(tiers={"smoke": {"arms": ["plain"], "not_run": {"fast": ""}}}),
        ONE, f"{MAIN}.tiers.smoke.not_run.fast: must say something", [],
    ),
    "no reason of a budget": (
        both(fast(epochs=10), pair(unequal_budget=" ")),
        ONE, f"{PAIR}.unequal_budget: must say something", [],
    ),
    "no definition": (
        fast(own_definition=""), ONE, f"{FAST}.own_definition: must say something", [],
    ),
    "a fraction in groups": (
        pair(metric="test_accuracy@0_1"),
        ONE, f"{PAIR}.metric: 'test_accuracy@0_1' needs a fraction", [],
    ),
    "a fraction of other digits": (
        pair(metric="test_accuracy@٠"), ONE, f"{PAIR}.metric: 'test_accuracy@٠' needs a", [],
    ),
    "an accuracy against a likelihood": (
        pair(against_metric="test_nll"),
        ONE, f"{PAIR}.against_metric: 'test_nll' is in nats, 'test_accuracy' in percentage points",
        [],
    ),
    "a likelihood against an error of calibration": (
        pair(metric="test_nll", against_metric="test_ece"),
        ONE, f"{PAIR}.against_metric: 'test_ece' is in a share, 'test_nll' in nats", [],
    ),
    "a likelihood against seconds": (
        pair(metric="seconds", against_metric="val_nll"),
        ONE, f"{PAIR}.against_metric: 'val_nll' is in nats, 'seconds' in seconds", [],
    ),
    "an accuracy against its logarithm": (
        pair(against_metric="log:test_accuracy"),
        ONE, f"{PAIR}.against_metric: 'log:test_accuracy' is in the logarithm of", [],
    ),
    "an interaction of two units": (
        pair(metric="test_nll", interaction={"metric": "test_ece"}),
        ONE, f"{PAIR}.interaction.metric: 'test_ece' has another unit than 'test_nll'", [],
    ),
    "an equivalence that cannot fail": (
        pair(test="equivalence", margin=1e9),
        ONE, f"{PAIR}.margin: must be at most 10 for the test 'equivalence' in percentage points",
        ["could hardly fail (found 1e+09)"],
    ),
    "a non-inferiority that can hardly fail": (
        pair(test="non-inferiority", margin=10.5),
        ONE, f"{PAIR}.margin: must be at most 10 for the test 'non-inferiority'", [],
    ),
    "an equivalence of shares": (
        pair(metric="test_ece", test="equivalence", margin=0.5),
        ONE, f"{PAIR}.margin: must be at most 0.1 for the test 'equivalence' in a share", [],
    ),
    "an equivalence of likelihoods": (
        pair(metric="test_nll", test="equivalence", margin=1),
        ONE, f"{PAIR}.margin: must be at most 0.25 for the test 'equivalence' in nats", [],
    ),
    "an equivalence of seconds": (
        pair(metric="seconds", test="equivalence", margin=1),
        ONE, f"{PAIR}.margin: seconds have no size", ["take 'log:seconds'"],
    ),
    "a superiority that cannot be": (
        pair(margin=100), ONE, f"{PAIR}.margin: must be below 100, the largest difference", [],
    ),
    "an equivalence in an interaction": (
        pair(test="equivalence", margin=50, interaction={"metric": "val_accuracy"}),
        ONE, f"{PAIR}.margin: must be at most 10", [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LIMITS)
def test_limits(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, file, key, wanted = LIMITS[case]
    tier, paper = copy.deepcopy(TIER), copy.deepcopy(PAPER)
    change(tier, paper)
    write(tmp_path, tier, paper)
    said = refused(tmp_path, capsys)
    assert said.startswith(f"cyclery: {tmp_path}/config/{file}: {key}"), said
    assert all(part in said for part in wanted), said
    assert len(said.splitlines()) == 1 and len(said) <= MOST


def test_units_that_are_equal_are_compared(tmp_path: Path) -> None:
    from cyclery.config.load import load
    from cyclery.plan.project_checks import check

    paper = rich_paper()
    for metric, other in (
        ("test_accuracy", "val_accuracy"),
        ("test_nll", "val_nll@0.5"),
        ("log:seconds", "log:seconds"),
        ("test_accuracy@.5", "minority_accuracy"),
    ):
        comparison(paper).update(
            metric=metric, against_metric=other, test="equivalence", margin=0.1
        )
        write(tmp_path, TIER, paper)
        check(load(tmp_path))


def test_every_metric_has_a_scale() -> None:
    for metric in metrics.names("names"):
        assert scale(metric).words and scale(f"log:{metric}").words
    assert scale("raw_val_accuracy_median20") == scale("test_agreement")


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
    monkeypatch.setattr("cyclery.models._limits.MOST_WEIGHTS", 1)
    with pytest.raises(UserError, match="makes a network of about") as refusal:
        build(name, settings, (1, 32, 32), 10)
    estimate = float(str(refusal.value).partition("about ")[2].partition(" ")[0])
    assert 0.5 < estimate / found < 2


def test_snakemake_says_the_same(tmp_path: Path) -> None:
    for name in ("workflow", "config"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "Snakefile", tmp_path)
    (tmp_path / "config/config.yaml").write_text("tier: " + "[" * 30_000)
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--directory", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "config/config.yaml, line 1, column 56: not valid YAML: more than 50" in done.stderr
