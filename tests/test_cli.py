"""The commands of a job, in one process: data, range test, training, evidence, report."""

from __future__ import annotations

import copy
import json
import logging
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from test_bad_input import PAPER, TIER, arms, write

from cyclery import cli
from cyclery.config.docs import documents
from cyclery.errors import UserError
from cyclery.gather import read_printed, read_records

ROOT = Path(__file__).resolve().parents[1]
Json = dict[str, Any]


def paper() -> Json:
    """Return a paper that uses range tests, chains, tuning, best-of controls and sharing."""
    found = copy.deepcopy(PAPER)
    found["experiments"]["main"]["range"] = {"low": 0.01, "high": 3, "epochs": 20, "seeds": 2}
    arms(found).update(
        {
            "found": {"lr": "range", "role": "method", "label": "range & test"},
            "student": {"parents": {"teacher": "plain"}, "init": "teacher"},
            "moving": {
                "batch": {"kind": "cycle", "easy": 25, "hard": 50, "factor": 2},
                "clip_norm": {"kind": "cycle", "easy": 0.5, "hard": 2},
                "method": {"name": "cyclical_focal", "control": "scale_matched"},
            },
        }
    )
    found["experiments"]["twin"] = {
        "title": "twin", "tiers": {"smoke": {}}, "arms": {"plain": {}, "slow": {"lr": 0.01}},
    }  # fmt: skip
    found["claims"] |= {
        "C-2": {
            "statement": "the range test finds a good rate",
            "comparisons": [
                {
                    "experiment": "main",
                    "arm": "found",
                    "against": {"best_of": ["plain", "fast"], "by": "val_accuracy"},
                    "test": "non-inferiority",
                    "margin": 1,
                },
                {
                    "experiment": "main",
                    "arm": "range-test",
                    "against": {"constant": 0},
                    "metric": "range_deviation",
                    "test": "non-inferiority",
                    "margin": 0.477,
                    "lower_is_better": True,
                },
            ],
        },
        "C-3": {
            "statement": "the end is better than the middle",
            "comparisons": [
                {
                    "experiment": "twin",
                    "arm": "slow",
                    "against": "slow",
                    "metric": "test_accuracy@1",
                    "against_metric": "test_accuracy@0.4",
                }
            ],
        },
    }
    return found


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the root of a project that has run through every command."""
    root = tmp_path_factory.mktemp("project")
    tier = copy.deepcopy(TIER)
    tier["base"]["evaluations"] = 5
    tier["seeds"] = 3
    write(root, tier, paper(), {"tier": "smoke", "device": "cpu"})
    reported = root / "config/reported/one.csv"
    reported.parent.mkdir()
    reported.write_text("paper,table,metric,value,std,runs\none,1,accuracy,92.5,,5\none,2,a,,,\n")
    out = root / "results/smoke"
    for command in (
        ["prepare", "digits"],
        ["lr-range", "one", "--output", f"{out}/lr-range/one.jsonl"],
        ["train", "one/L0-0000", "--output", f"{out}/records/one/L0-0000.jsonl"],
        ["train", "one/L1-0000", "--output", f"{out}/records/one/L1-0000.jsonl"],
        ["evidence", "one", "--output", f"{out}/evidence/one.json", "--table", f"{out}/one.csv"],
        ["report", f"{out}/evidence/one.json", "--output", f"{out}/report/index.html"],
    ):
        run(root, *command, "--log", f"{root}/log.txt")
    return root


def run(root: Path, *command: str, expect: int = 0) -> None:
    assert cli.main(["--root", str(root), *command]) == expect


def evidence(project: Path) -> Json:
    found: Json = json.loads((project / "results/smoke/evidence/one.json").read_bytes())
    return found


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
    page = (project / "results/smoke/report/index.html").read_text()
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


def test_jobs_can_leave_without_their_configuration(project: Path, tmp_path: Path) -> None:
    run(project, "jobs", "one.C-2", "--output", f"{tmp_path}/jobs.json")
    jobs = json.loads((tmp_path / "jobs.json").read_bytes())
    assert [job["kind"] for job in jobs[:2]] == ["range", "range"]
    assert {job["label"].split()[0] for job in jobs[2:]} == {
        "one/main/found", "one/main/plain", "one/main/fast",
    }  # fmt: skip


def test_a_job_notices_a_changed_configuration(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--output", f"{tmp_path}/x.jsonl", "--expect", "0" * 24]
    for command in (["train", "one/L0-0000"], ["lr-range", "one"], ["evidence", "one"]):
        run(project, *command, *out, expect=2)
        assert "has changed since this job was planned" in capsys.readouterr().err
    assert not (tmp_path / "x.jsonl").exists()


def test_a_damaged_record_is_named(project: Path, tmp_path: Path) -> None:
    whole = (project / "results/smoke/records/one/L0-0000.jsonl").read_text().splitlines()
    cut = tmp_path / "cut.jsonl"
    cut.write_text("\n".join([whole[0], whole[1][:-40]]) + "\n")
    with pytest.raises(UserError, match=r"cut.jsonl, line 2: the record was cut or altered"):
        read_records([cut])
    forged = json.loads(whole[0])
    forged["final"]["test_accuracy"] = 1.0
    cut.write_text(json.dumps(forged) + "\n")
    with pytest.raises(UserError, match="line 1"):
        read_records([cut])
    with pytest.raises(UserError, match="cannot be read"):
        read_records([tmp_path / "absent.jsonl"])


def test_printed_figures(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    assert read_printed(path) == []
    path.write_text("metric,value\na,12\nb,\n")
    assert [row["value"] for row in read_printed(path)] == [12.0, None]
    path.write_text("metric,value\na,twelve\n")
    with pytest.raises(UserError, match="line 2: value must be a number or empty"):
        read_printed(path)


def test_damaged_evidence_is_named(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "e.json").write_text("{")
    run(project, "report", f"{tmp_path}/e.json", "--output", f"{tmp_path}/index.html", expect=2)
    assert "e.json: cannot be read" in capsys.readouterr().err


def test_our_own_mistakes_leave_a_traceback_in_the_log(
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cli, "_load", lambda options: 1 / 0)
    log = tmp_path / "log.txt"
    run(project, "check", "--log", str(log), expect=1)
    assert "unexpected ZeroDivisionError" in capsys.readouterr().err
    assert "Traceback" in log.read_text()
    with pytest.raises(ZeroDivisionError):
        run(project, "check")


def test_the_commit_is_recorded(tmp_path: Path) -> None:
    assert cli.commit(tmp_path) is None
    assert cli.commit(ROOT) is None or len(str(cli.commit(ROOT))) >= 7


# Generated documents.


def test_generated_documents_are_current() -> None:
    stale = [str(p) for p, text in documents().items() if (ROOT / p).read_text() != text]
    assert not stale, f"run `make docs`: {stale}"


def test_docs_are_written_and_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, "docs", "--check", expect=2)
    assert "run `make docs`" in capsys.readouterr().err
    run(tmp_path, "docs")
    run(tmp_path, "docs", "--check")
    assert (tmp_path / "docs/configuration.md").read_text().startswith("# Configuration reference")


@pytest.mark.parametrize("kind", ["config", "tier", "paper"])
def test_schemas_accept_what_the_models_accept(kind: str) -> None:
    schema = json.loads((ROOT / f"workflow/schemas/{kind}.schema.json").read_bytes())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    folder = {"config": "config", "tier": "config/tiers", "paper": "config/papers"}[kind]
    files = sorted((ROOT / folder).glob("*.yaml"))
    assert files
    for path in files:
        data = yaml.safe_load(path.read_text())
        found = [error.message for error in validator.iter_errors(data)]
        assert not found, f"{path.name}: {found[:3]}"
        assert list(validator.iter_errors({**data, "typo": 1}))
