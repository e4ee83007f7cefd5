"""The commands of a job, in one process: data, range test, training, evidence, report."""

from __future__ import annotations

import copy
import json
import logging
import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from factories.page import unpacked
from factories.project import PAPER, TIER, evidence, run, trained, write

from cyclery.authoring import component_files
from cyclery.cli import jobs as cli_jobs
from cyclery.cli.main import main
from cyclery.common.errors import UserError
from cyclery.common.signals import EXIT_CODE, Stopped
from cyclery.config.load import load, overrides
from cyclery.engine import export as exporting
from cyclery.engine.machine import commit
from cyclery.plan.cost import UNKNOWN_IMAGES_PER_SECOND, amount, claim_needs, elsewhere, rows
from cyclery.plan.project_checks import check

ROOT = Path(__file__).resolve().parents[2]
Json = dict[str, Any]


@pytest.fixture
def project() -> Path:
    return trained()


def test_every_claim_has_a_verdict_from_records(project: Path) -> None:
    data = evidence(project)
    claims = {claim["id"]: claim for claim in data["claims"]}
    assert claims.keys() == {"C-1", "C-2", "C-3"}
    allowed = {"reproduced", "contradicted", "partly", "inconclusive"}
    assert {claim["verdict"] for claim in claims.values()} <= allowed
    store = project / "results/store"
    for claim in claims.values():
        for comparison in claim["comparisons"]:
            assert comparison["n"] >= 2
            for pair in comparison["keys"]:
                for key in filter(None, pair):
                    assert (store / key[:2] / key / "record.json").exists()
    chosen = claims["C-2"]["comparisons"][0]["chosen"]
    assert chosen in ("plain", "fast")
    assert claims["C-2"]["comparisons"][1]["metric"] == "range_deviation"


def test_experiments_show_what_was_run(project: Path) -> None:
    data = evidence(project)
    main, twin = data["experiments"]
    assert [arm["id"] for arm in main["arms"]][:2] == ["plain", "fast"]
    plain, same = main["arms"][0], twin["arms"][0]
    assert plain["keys"] == same["keys"] and plain["n"] == 3
    assert main["settings"]["dataset"] == "digits"
    assert main["settings"]["lr"] == "differs by arm"
    quantities = {item["quantity"] for item in main["schedules"]}
    assert {"lr", "batch", "clip_norm"} <= quantities
    assert "momentum" not in quantities
    [found] = data["ranges"]
    assert len(found["accuracy"]) == 2 and 0.01 <= found["base"] < found["max"] <= 3
    assert [row["value"] for row in data["printed"]] == [92.5, None]
    assert data["provenance"]["diverged"] == 0
    shown = {
        key for experiment in data["experiments"] for a in experiment["arms"] for key in a["keys"]
    }
    # Shared runs count once: six different arms and the two sweeps.
    assert data["provenance"]["records"] == len(shown) == 3 * 6 + 2


def test_the_table_has_a_row_for_every_run(project: Path) -> None:
    lines = (project / "results/smoke/one.csv").read_text().splitlines()
    assert lines[0].startswith("experiment,arm,seed,key,status,")
    assert len(lines) == 1 + 3 * (5 + 2) + 2


def test_the_report_is_there(project: Path) -> None:
    page = unpacked((project / "results/smoke/report/index.html").read_text())
    assert "range &amp; test" in page and "C-3" in page
    assert (project / "results/smoke/report/report.tex").exists()


def test_a_second_time_trains_nothing(
    project: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("cyclery").propagate = True
    log = tmp_path / "log.txt"
    run(project, "train", "one/L0-0000", "--output", f"{tmp_path}/again.jsonl", "--log", str(log))
    assert "15 runs: 15 in the store, 0 to train" in log.read_text()
    first = project / "results/smoke/records/one/L0-0000.jsonl"
    assert (tmp_path / "again.jsonl").read_text() == first.read_text()


def test_the_plan_knows_what_is_done(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(project, "plan")
    said = capsys.readouterr().out
    assert "one" in said and "18" in said
    run(project, "plan", "one.C-1", "one.C-3")
    assert "all" in capsys.readouterr().out


def test_shared_runs_count_once_in_the_sum_of_a_plan(project: Path) -> None:
    plan = check(load(project))
    main, twin, together = rows(plan, ["one.main", "one.twin"])
    assert (main["runs"], twin["runs"], together["runs"]) == (15, 6, 18)
    assert main["done"] == 15 and together["done"] == 18 and together["seconds"] == 0
    assert together["part"] == "all" and together["shards"] == main["shards"] + twin["shards"]
    arms = {arm.digest: arm for shard in plan.shards("one") for arm in shard.arms}.values()
    assert together["updates"] == sum(3 * arm.cost["updates"] for arm in arms)


def test_a_plan_estimates_with_the_speed_it_knows(tmp_path: Path) -> None:
    write(tmp_path, {**TIER, "images_per_second": {"bn_mlp": 100}}, PAPER)
    [row] = rows(check(load(tmp_path)), [])
    assert (row["runs"], row["done"], row["seconds"]) == (4, 0, 4 * 500 / 100)
    write(tmp_path, TIER, PAPER)
    [row] = rows(check(load(tmp_path)), [])
    assert row["seconds"] == 4 * 500 / UNKNOWN_IMAGES_PER_SECOND


def test_what_an_untested_claim_would_need(tmp_path: Path) -> None:
    paper = copy.deepcopy(PAPER)
    paper["claims"]["C-2"] = {**paper["claims"]["C-1"], "not_run": {"smoke": "too small"}}
    paper["claims"]["C-3"] = {"statement": "-", "not_run": {"all": "no data"}}
    paper["experiments"]["main"]["tiers"]["desk"] = {}
    write(tmp_path, TIER, paper)
    desk = {**TIER, "seeds": 4, "images_per_second": {"bn_mlp": 10}}
    path = tmp_path / "config/tiers/desk.yaml"
    path.write_text(json.dumps(desk))
    plan = check(load(tmp_path))
    # Two arms with four seeds of 500 images each, at ten a second.
    needs = "the desk tier tests it in about 6.7 min of training"
    assert claim_needs(plan, "one", elsewhere(plan)) == {"C-1": needs, "C-2": needs}
    # A mistake at another tier does not keep the evidence of this one from being made.
    path.write_text(json.dumps({**desk, "base": {**TIER["base"], "batch": 999}}))
    assert claim_needs(plan, "one", elsewhere(plan)) == {}
    path.write_text("[")
    assert claim_needs(plan, "one", elsewhere(plan)) == {}


def test_a_plan_of_students_has_their_teachers(tmp_path: Path) -> None:
    paper = copy.deepcopy(PAPER)
    paper["experiments"]["students"] = {
        "title": "-", "tiers": {"smoke": {}},
        "arms": {"small": {"parents": {"teacher": "main/fast"}, "init": "teacher"}},
    }  # fmt: skip
    write(tmp_path, {**TIER, "shard_by": "experiment", "title": "[/b] is no markup"}, paper)
    [row] = rows(check(load(tmp_path)), ["one.students"])
    assert (row["shards"], row["runs"]) == (2, 4)
    run(tmp_path, "plan")


AMOUNTS = {0: "0", 999: "999", 999.6: "1 k", 43_600: "43.6 k", 1.37e9: "1.37 G", 5e15: "5e+03 T"}


@pytest.mark.parametrize("number", AMOUNTS)
def test_amounts(number: float) -> None:
    assert amount(number) == AMOUNTS[number]


def test_options_before_and_after_the_command(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(project, "plan", "--set", "seeds=2", "one.main")
    assert " 10 " in capsys.readouterr().out
    assert main(["--root", str(project), "--set", "seeds=3", "plan", "--set", "tier=smok"]) == 2
    assert "unknown tier 'smok'" in capsys.readouterr().err
    assert overrides(["seeds=20", "papers=[a, b]", "tier=desk", "results=x=y"]) == {
        "seeds": 20, "papers": ["a", "b"], "tier": "desk", "results": "x=y",
    }  # fmt: skip


def test_prepare_takes_another_place(project: Path, tmp_path: Path) -> None:
    run(project, "prepare", "digits", "--output", f"{tmp_path}/here/digits.json")
    assert {p.name for p in (tmp_path / "here").glob("digits.*")} >= {"digits.json"}


def test_a_job_notices_a_changed_configuration(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--output", f"{tmp_path}/x.jsonl", "--expect", "0" * 24]
    for command in (["train", "one/L0-0000"], ["lr-range", "one"], ["evidence", "one"]):
        run(project, *command, *out, expect=2)
        assert "has changed since this job was planned" in capsys.readouterr().err
    assert not (tmp_path / "x.jsonl").exists()


def test_damaged_evidence_is_named(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "e.json").write_text("{")
    run(project, "report", f"{tmp_path}/e.json", "--output", f"{tmp_path}/index.html", expect=2)
    assert "e.json: cannot be read" in capsys.readouterr().err


def test_a_report_is_about_the_tier_of_its_evidence(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "e.json").write_text(json.dumps(evidence(project)))
    told: list[Any] = []
    for module, name in (("tex", "compile_pdf"), ("build", "build")):
        monkeypatch.setattr(
            import_module(f"cyclery.report.{module}"), name,
            lambda *given: told.append(given),
        )  # fmt: skip
    # The configuration was edited while the graph ran: it is not even valid.
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text("tier: desk\nnonsense: 1\n")
    monkeypatch.setattr(
        import_module("cyclery.common.checksums"), "write", lambda path, files: None
    )
    run(tmp_path, "report", f"{tmp_path}/e.json", "--output", f"{tmp_path}/index.html")
    [(_, folder, tier, *_), (compiled,)] = told
    assert tier == "smoke" and folder == compiled == tmp_path


def test_a_paper_that_runs_nothing_at_a_tier_has_its_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paper = copy.deepcopy(PAPER)
    paper["experiments"]["main"]["tiers"] = {"desk": {}}
    write(tmp_path, TIER, paper)
    (tmp_path / "config/tiers/desk.yaml").write_text(json.dumps(TIER))
    folder = tmp_path / "report"
    monkeypatch.setattr(import_module("cyclery.report.tex"), "compile_pdf", lambda folder: None)
    run(tmp_path, "evidence", "one", "--output", f"{tmp_path}/e.json")
    run(tmp_path, "report", f"{tmp_path}/e.json", "--output", f"{folder}/index.html")
    assert "not run at this tier" in (folder / "index.html").read_text()
    tables = [path.read_text() for path in (folder / "tables").glob("*.tex")]
    # LaTeX stops at a table without columns.
    assert tables and not any("{@{}@{}}" in table for table in tables)


def test_a_reader_that_goes_away_is_no_mistake(project: Path) -> None:
    command = [sys.executable, "-m", "cyclery", "--root", str(project), "check"]
    read, write_end = os.pipe()
    os.close(read)
    with os.fdopen(write_end, "wb") as gone:
        done = subprocess.run(command, stdout=gone, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_log_on_a_full_disk_does_not_drown_the_message(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(project, "prepare", "nothing", "--log", "/dev/full", expect=2)
    said = capsys.readouterr().err
    assert "unknown dataset 'nothing'" in said and "Logging error" not in said


def test_what_the_store_lost_is_trained_again_with_what_needs_it(tmp_path: Path) -> None:
    project, out = tmp_path / "project", tmp_path / "out.jsonl"
    shutil.copytree(trained(), project)
    plan = check(load(project))
    [student] = [shard for shard in plan.shards("one") if shard.level == 1]
    shutil.rmtree(project / "results/store")
    # Snakemake has the records of the teacher's shard, so it asks for the student's alone.
    run(project, "train", student.id, "--output", str(out))
    records = project / f"results/smoke/records/{student.id}.jsonl"
    new, old = ([json.loads(line) for line in p.read_text().splitlines()] for p in (out, records))
    assert [r["final"] for r in new] == [r["final"] for r in old]
    # A lost range test likewise.
    sweeps = {test.run_key(seed) for test in plan.ranges("one") for seed in test.seeds}
    for key in sweeps:
        assert not (project / "results/store" / key[:2] / key / "record.json").exists()
    run(project, "train", "one/L0-0000", "--output", str(out))
    assert all((project / "results/store" / k[:2] / k / "record.json").exists() for k in sweeps)


def test_our_own_mistakes_leave_a_traceback_in_the_log(
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(component_files, "check_files", lambda: 1 / 0)
    log = tmp_path / "log.txt"
    run(project, "check", "--log", str(log), expect=1)
    assert "unexpected ZeroDivisionError" in capsys.readouterr().err
    assert "Traceback" in log.read_text()
    with pytest.raises(ZeroDivisionError):
        run(project, "check")


def test_the_commit_is_recorded(tmp_path: Path) -> None:
    assert commit(tmp_path) is None
    assert commit(ROOT) is None or len(str(commit(ROOT))) >= 7


def test_a_changed_file_marks_the_commit(tmp_path: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    who = {f"GIT_{role}_{k}": "a@b" for role in ("AUTHOR", "COMMITTER") for k in ("NAME", "EMAIL")}
    environment = {**os.environ, **who, "GIT_CONFIG_GLOBAL": os.devnull}
    (tmp_path / "file").write_text("1")
    for command in (["init", "-q"], ["add", "file"], ["commit", "-qm", "one"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True, env=environment)
    clean = commit(tmp_path)
    assert clean is not None and len(clean) >= 7 and not clean.endswith("+")
    (tmp_path / "file").write_text("2")
    assert commit(tmp_path) == f"{clean}+"


@pytest.mark.parametrize(
    ("name", "marked"),
    [
        ("src/cyclery/methods/mine.py", True),
        ("config/papers/mine.yaml", True),
        ("workflow/rules/mine.smk", True),
        ("config/notes.txt", False),
        ("results/x.yaml", False),
        ("src/ignored.py", False),
    ],
)
def test_a_file_that_git_does_not_have_marks_the_commit(
    tmp_path: Path, name: str, marked: bool
) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=A", "-c", "user.email=a@b"]
    (tmp_path / ".gitignore").write_text("ignored.py\n")
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "x"], check=True)
    clean = commit(tmp_path)
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    assert commit(tmp_path) == f"{clean}{'+' * marked}"


def test_every_shard_that_lists_a_parent_is_told_that_it_was_trained_again(tmp_path: Path) -> None:
    """By the files that are there: the configuration may be half an edit, hours after the start."""
    write(tmp_path, TIER, PAPER)
    (tmp_path / "config/papers/one.yaml").write_text("title: [half an edit")
    lists, other = (tmp_path / "records" / name for name in ("one/L1-0000.jsonl", "two.jsonl"))
    for path, keys in ((lists, ("ab", "ef")), (other, ("ef",))):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f'{{"key":"{key}","final":1}}\n' for key in keys))
    before = other.read_bytes()
    trained = {"ab": {"key": "ab", "final": 2, "checkpoint_sha256": "cd"}, "ef": {"key": "ef"}}
    cli_jobs._refresh(trained, tmp_path)
    renewed, kept = lists.read_text().splitlines()
    assert json.loads(renewed) == trained["ab"] and json.loads(kept) == {"key": "ef", "final": 1}
    assert other.read_bytes() == before


@pytest.mark.parametrize("error", [UserError("boom"), Stopped()])
def test_an_export_that_ends_early_tells_other_shards_what_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    shutil.copytree(trained() / "config", tmp_path / "config")
    told: list[Any] = []

    def export(*given: Any) -> None:
        given[-1]["ab"] = {"key": "ab"}
        raise error

    monkeypatch.setattr(exporting, "export", export)
    monkeypatch.setattr(cli_jobs, "_refresh", lambda runs, folder: told.append(dict(runs)))
    run(tmp_path, "checkpoint", "one.main.plain.s0", "--output", str(tmp_path / "weights"),
        expect=2 if isinstance(error, UserError) else EXIT_CODE)  # fmt: skip
    assert told == [{"ab": {"key": "ab"}}]
