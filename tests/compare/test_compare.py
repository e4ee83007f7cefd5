"""Two sets of results side by side: what moved, what differs, what is the same to the last bit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import project as projects
from factories import record as make
from scipy import stats as scipy_stats

from cyclery.cli.main import main
from cyclery.common import checksums
from cyclery.common.errors import UserError
from cyclery.common.seals import seal
from cyclery.compare.analysis import compare, welch
from cyclery.compare.command import lines
from cyclery.compare.result_sets import read
from cyclery.evidence import build as evidence

Json = dict[str, Any]
PAPER = {"id": "p", "title": "A paper", "authors": "-", "year": 2026, "summary": "-"}


def result_set(
    folder: Path, arms: dict[str, Sequence[float | None]],
    change: Callable[[Json], None] | None = None,
    only: tuple[str, ...] = ("tables", "records", "evidence"), **record: Any,
) -> Path:  # fmt: skip
    """Write results of one experiment as the graph does; values are test accuracies in pp."""
    records: Json = {}
    experiment = make.experiment("e", arms, records, **record)
    if change:
        change(records)
    claims = [make.claim(make.comparison())] if {"a", "b"} <= arms.keys() else []
    found = evidence.build("smoke", "p", PAPER, [experiment], claims, records)
    if "evidence" in only:
        (folder / "evidence").mkdir(parents=True)
        (folder / "evidence/p.json").write_text(json.dumps(found))
    if "tables" in only:
        evidence.write_csv(evidence.tidy([experiment], records), folder / "tables/p.csv")
    if "records" in only:
        (folder / "records/p").mkdir(parents=True)
        text = "".join(json.dumps(seal(dict(each))) + "\n" for each in records.values())
        (folder / "records/p/L0-0000.jsonl").write_text(text)
    return folder


def compared(a: Path, b: Path, metric: str = "test_accuracy", margin: float = 1.0) -> Json:
    found = compare(read(a), read(b), metric, margin)
    json.dumps(found, allow_nan=False)
    return found


def said(found: Json) -> str:
    return "\n".join(lines(found))


def arm(found: Json, name: str) -> Json:
    [row] = (row for row in found["arms"] if row["arm"] == name)
    return dict(row)


def test_an_altered_table_is_refused(tmp_path: Path) -> None:
    folder = result_set(tmp_path / "a", A)
    table, listing = folder / "tables/p.csv", folder / "tables/p.sha256"
    checksums.write(listing, [table, folder / "evidence/p.json"])
    assert read(folder).arms
    whole = table.read_bytes()
    table.write_bytes(whole.replace(b"80.", b"90.", 1) if b"80." in whole else whole + b"\n")
    with pytest.raises(UserError, match=f"{table}: was altered or lost since it was made"):
        read(folder)
    table.write_bytes(whole)
    listing.write_bytes(listing.read_bytes()[1:])
    with pytest.raises(UserError, match=f"{listing}: was altered or lost"):
        read(folder)
    listing.unlink()
    assert read(folder).arms


NOISE = [0.0, 0.31, -0.22, 0.14, -0.27]
A = {"a": [80 + x for x in NOISE], "b": [75 - x for x in NOISE]}


def test_a_set_and_itself_are_identical_and_no_verdict_moves(tmp_path: Path) -> None:
    a = result_set(tmp_path / "a", A)
    found = compared(a, a)
    assert [row["outcome"] for row in found["arms"]] == ["identical", "identical"]
    assert arm(found, "a")["identical"] == [0, 1, 2, 3, 4]
    assert not any(row["moved"] for row in found["claims"]) and found["differences"] == []
    assert found["only"]["a"] == found["only"]["b"] == {"claims": [], "arms": [], "seeds": {}}
    assert "Verdicts: 0 of 1 moved" in said(found)


def test_arms_of_one_configuration_are_paired_and_corrected(tmp_path: Path) -> None:
    shift = [2.0, 2.3, 1.8, 2.1, 1.9]
    a = result_set(tmp_path / "a", A)
    b = result_set(tmp_path / "b", {
        "a": [x + d for x, d in zip(A["a"], shift, strict=True)],
        "b": [x + d for x, d in zip(A["b"], (0.1, -0.1, 0.05, -0.02, 0.01), strict=True)],
    })  # fmt: skip
    found = compared(a, b)
    first, second = arm(found, "a"), arm(found, "b")
    expected = scipy_stats.ttest_1samp(shift, 0)
    assert first["test"] == "paired" and first["effect"] == pytest.approx(2.02)
    assert first["p"] == pytest.approx(2 * expected.pvalue)  # Holm over two arms
    assert first["ci95"] == pytest.approx(tuple(expected.confidence_interval()))
    assert first["outcome"] == "differs" and second["outcome"] == "equal within the margin"
    assert compared(a, b, margin=0.01)["arms"][1]["outcome"] == "cannot tell"
    assert compared(a, b, margin=5)["arms"][0]["outcome"] == "differs, within the margin"
    assert "[+1.78, +2.26]" in said(found) and "margin 1 pp" in said(found)


def test_verdicts_that_moved_come_first(tmp_path: Path) -> None:
    a = result_set(tmp_path / "a", A)
    b = result_set(tmp_path / "b", {"a": A["b"], "b": A["a"]})
    found = compared(a, b)
    [row] = found["claims"]
    assert (row["a"]["verdict"], row["b"]["verdict"]) == ("reproduced", "contradicted")
    assert "p.C-1  moved  reproduced  contradicted  +4.98 -> -4.98 pp" in said(found)


@pytest.mark.parametrize("n", [(5, 5), (4, 9)])
def test_welch_is_scipys(n: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, n[0]), rng.normal(0.5, 3, n[1])
    found = welch(list(a), list(b))
    expected = scipy_stats.ttest_ind(b, a, equal_var=False)
    assert found is not None and found.se is not None
    assert found.effect / found.se == pytest.approx(expected.statistic)
    assert found.df == pytest.approx(expected.df)


def test_other_settings_are_named_and_not_paired(tmp_path: Path) -> None:
    def other(records: Json) -> None:
        for key in list(records):
            record = records.pop(key)
            settings = {**record["settings"], "schedules": {"lr": 0.2}}
            records[key] = {**record, "settings": settings}

    a = result_set(tmp_path / "a", A)
    b = result_set(tmp_path / "b", A, other)
    # Another configuration has other keys, everywhere.
    for file in [*b.rglob("*.csv")]:
        file.write_text(file.read_text().replace("e-", "E-"))
    for file in b.rglob("*.jsonl"):
        records = [json.loads(line) for line in file.read_text().splitlines()]
        renamed = [seal({**r, "key": r["key"].replace("e-", "E-")}) for r in records]
        file.write_text("".join(f"{json.dumps(each)}\n" for each in renamed))
    found = compared(a, b)
    row = arm(found, "a")
    assert row["test"] == "Welch" and row["identical"] == [] and row["effect"] == 0
    assert any("schedules.lr" in text and "-> 0.2" in text for text in found["differences"])


def test_data_versions_and_devices_are_named(tmp_path: Path) -> None:
    a = result_set(tmp_path / "a", A)
    b = result_set(
        tmp_path / "b", A, device="H100", commit="other", inputs={"dataset": "changed"},
        versions={"torch": "2.11.0", "cyclery": "0.2.0", "python": "3.11"},
    )  # fmt: skip
    found = compared(a, b)
    text = "\n".join(found["differences"])
    for name in ("contents of the dataset", "torch versions", "cyclery versions", "devices",
                 "commits"):  # fmt: skip
        assert name in text
    assert "Python" not in text and "B H100" in text
    # On other images the same seed is no longer the same split.
    assert arm(found, "a")["test"] == "Welch"


def test_bits_are_those_of_the_curve_too(tmp_path: Path) -> None:
    def touch(records: Json) -> None:
        key = make.key("e", "a", 1)
        curve = records[key]["curve"]
        records[key] = {**records[key], "curve": {**curve, "train_loss": [1.0, 0.4999]}}

    found = compared(result_set(tmp_path / "a", A), result_set(tmp_path / "b", A, touch))
    assert arm(found, "a")["identical"] == [0, 2, 3, 4]
    assert arm(found, "a")["outcome"] == "no spread" and arm(found, "b")["outcome"] == "identical"
    assert "4/5" in said(found)


def test_what_cannot_be_compared_is_left_out_by_name(tmp_path: Path) -> None:
    def spoil(records: Json) -> None:
        make.diverge(records, make.key("e", "a", 0))
        final = records[make.key("e", "a", 1)]["final"]
        records[make.key("e", "a", 1)]["final"] = {**final, "test_accuracy": None}

    a = result_set(tmp_path / "a", {**A, "c": [70.0, 71.0]}, spoil)
    b = result_set(tmp_path / "b", {"a": [*A["a"], 79.0], "b": [74.0], "d": [1.0, 2.0]})
    found = compared(a, b)
    row = arm(found, "a")
    assert row["seeds"] == [2, 3, 4] and row["n"] == [3, 6]
    assert row["left_out"] == [
        "A: seed 0 diverged at step 7", "A: seed 1 has no finite test_accuracy",
        "B: seed 0 has no partner", "B: seed 1 has no partner", "B: seed 5 has no partner",
    ]  # fmt: skip
    assert arm(found, "b")["outcome"] == "too few runs" and arm(found, "b")["p"] is None
    assert found["only"]["a"]["arms"] == ["p/e/c"] and found["only"]["b"]["arms"] == ["p/e/d"]
    assert found["only"]["b"]["seeds"] == {"p/e/a": [5]}
    text = said(found)
    assert "Left out" in text and "Only in B" in text and "p/e/a: seeds 5" in text


def test_students_that_share_a_teacher_count_once(tmp_path: Path) -> None:
    shared = {"parents": {"teacher": [{"key": "t", "sha256": "s"}]}, "dataset": "d"}
    a = result_set(tmp_path / "a", A, inputs=shared)
    b = result_set(tmp_path / "b", {"a": [x + 2 for x in A["a"]], "b": A["b"]}, inputs=shared)
    assert arm(compared(a, b), "a")["units"] == 1
    assert arm(compared(a, b), "a")["outcome"] == "too few runs"


@pytest.mark.parametrize("only", [("tables",), ("records",), ("evidence",), ("tables", "evidence")])
def test_each_kind_of_file_serves_alone(tmp_path: Path, only: tuple[str, ...]) -> None:
    a = result_set(tmp_path / "a", A, only=only)
    b = result_set(tmp_path / "b", {**A, "a": [x + 2 for x in A["a"]]}, only=only)
    found = compared(a, b)
    assert found["arms"] and bool(found["claims"]) == ("evidence" in only)
    effects = sorted(round(row["effect"], 6) for row in found["arms"])
    if only != ("records",):  # there both arms have the same settings but for their keys
        assert effects == [0, 2]
    if only == ("tables",):
        assert arm(found, "b")["outcome"] == "identical" and arm(found, "a")["test"] == "paired"
    if only == ("evidence",):
        assert arm(found, "a")["test"] == "Welch"
    file = next(a.rglob("*.*"))
    if only != ("tables", "evidence"):
        assert compared(file, b)["arms"]


def test_the_command_on_real_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tier = projects.trained() / "results/smoke"
    copied = tmp_path / "copy"
    shutil.copytree(tier, copied)
    assert main(["compare", str(tier), str(copied), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["arms"] and {row["outcome"] for row in found["arms"]} == {"identical"}
    assert main(["compare", str(tier), str(copied), "--metric", "test_nll"]) == 0
    text = capsys.readouterr().out
    assert "Arms by test_nll, margin 1\n" in text and "identical" in text


def test_a_wrong_path_or_option_gets_one_clear_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = result_set(tmp_path / "results/smoke", A)
    (tmp_path / "empty").mkdir()
    cases: list[tuple[list[str], str]] = [
        ([str(tmp_path / "nowhere")], "no such folder or file"),
        ([str(tmp_path / "empty")], "holds no results. Give a folder results/<tier>"),
        ([str(tmp_path / "results")], f"Did you mean {good}?"),
        ([str(good), "--metric", "test_acuracy"], "Did you mean 'test_accuracy'?"),
        ([str(good), "--margin", "nan"], "--margin: must be a number above 0"),
    ]
    for name, content, message in (
        ("x.csv", b"a,b\n1,2\n", "lacks the column 'experiment'"),
        ("y.csv", b"\xff\xfe", "not a table"),
        ("z.csv", b"experiment,arm,seed,key,status\ne,a,zero,k,done\n", "line 2: not a row"),
        ("w.csv", b"experiment,arm,seed,key,status\n" + b"e,a,0,k,done\n" * 2,
         "line 3: seed 0 of e/a stands twice"),
        ("v.csv", b"experiment,arm,seed,key,status\n", "holds no run"),
        ("x.json", b"{}", "not the evidence of a paper"),
        ("y.json", b"[", "not the evidence of a paper"),
        ("x.jsonl", b'{"key": "a"}\n', "line 1: the record was cut or altered"),
        ("x.txt", b"", "holds no results"),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(content)
        cases.append(([str(tmp_path / name)], message))
    for arguments, message in cases:
        assert main(["compare", str(good), *arguments][:2] + arguments) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, error
