"""A tier on fresh seeds beside what it was: seeds that nothing else has, outcomes, shares."""

from __future__ import annotations

import copy
import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import jsonschema
import pytest
from factories import project as projects
from factories import record as make
from factories.graph import Copy
from factories.page import unpacked
from scipy import stats as scipy_stats

from cyclery.authoring.results_schema import schemas
from cyclery.cli.main import main
from cyclery.common.errors import UserError
from cyclery.common.seals import is_sealed, seal
from cyclery.compare.replication import outcome, predicted, replication, share
from cyclery.config.load import load
from cyclery.evidence import build as evidence
from cyclery.plan.graph import Plan
from cyclery.plan.project_checks import check
from cyclery.records.replication import find
from cyclery.report import replication as page

Json = dict[str, Any]
PAPER = {"id": "p", "title": "A paper", "authors": "-", "year": 2026, "summary": "-"}
NOISE = [0.0, 0.31, -0.22, 0.14, -0.27, 0.08, -0.11, 0.25, -0.19, 0.02]


def test_what_becomes_of_a_verdict() -> None:
    assert outcome("reproduced", "reproduced") == outcome("inconclusive", "inconclusive") == "same"
    assert outcome("reproduced", "contradicted") == outcome("contradicted", "reproduced")
    assert outcome("reproduced", "contradicted") == "opposite"
    for old in ("reproduced", "contradicted", "partly"):
        assert outcome(old, "inconclusive") == "weaker"
        assert outcome("inconclusive", old) == "stronger"
        assert outcome(old, "not run") == outcome("not run", old) == "not run"
    assert outcome("reproduced", "partly") == outcome("partly", "contradicted") == "weaker"
    assert outcome("partly", "reproduced") == outcome("contradicted", "partly") == "stronger"
    # Of a claim that holds partly, another part of which is contradicted now as before.
    assert outcome("partly", "contradicted", flipped=True) == "opposite"
    assert outcome("reproduced", "partly", flipped=True) == "weaker"


def test_shares_have_wilsons_interval() -> None:
    found = share(17, 20)
    # Wilson's centre and half-width, by hand.
    z, n, p = scipy_stats.norm.ppf(0.975), 20, 0.85
    centre, half = p + z**2 / (2 * n), z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    expected = [(centre + sign * half) / (1 + z**2 / n) for sign in (-1, 1)]
    assert found["share"] == 0.85 and found["ci95"] == pytest.approx(expected)
    assert share(0, 0)["ci95"] is None


def said(a: Sequence[float], b: Sequence[float], **comparison: Any) -> Json:
    """Return evidence on one claim of arms with these accuracies, in pp."""
    records: Json = {}
    experiment = make.experiment("e", {"a": a, "b": b}, records)
    claim = make.claim(make.comparison(**comparison), planned_seeds=len(a))
    return dict(evidence.build("smoke", "p", PAPER, [experiment], [claim], records))


BASE = [75.0 - x for x in NOISE]


def test_claims_comparisons_and_effects_are_put_side_by_side() -> None:
    up = [x + 2 + 3 * e for x, e in zip(BASE, NOISE, strict=True)]
    down = [x - 2 + 3 * e for x, e in zip(BASE, reversed(NOISE), strict=True)]
    old = {"p": said(up, BASE), "q": said(up, BASE), "r": said(BASE, BASE[::-1])}
    new = {"p": said(up, BASE), "q": said(down, BASE), "r": said(up, BASE)}
    found = replication(old, new, "smoke", 12_000)
    assert [claim["outcome"] for claim in found["claims"]] == ["same", "opposite", "stronger"]
    decided = found["of_claims"]["decided"]
    assert {name: each["count"] for name, each in decided.items()} == {
        "opposite": 1, "weaker": 0, "same": 1, "stronger": 0,
    }  # fmt: skip
    assert decided["same"]["of"] == 2 and found["of_claims"]["open"]["stronger"]["count"] == 1
    [same] = found["claims"][0]["comparisons"]
    assert same["inside"] is True and same["old"]["effect"] == same["new"]["effect"]
    assert found["claims"][1]["comparisons"][0]["inside"] is False
    assert found["effects_inside"]["of"] == 3 and is_sealed(found)
    # A claim that says something else is left out.
    new["p"]["claims"][0]["statement"] = "B beats A."
    new["q"]["claims"][0]["comparisons"][0]["margin"] = 1.0
    found = replication(old, new, "smoke", 12_000)
    assert found["left_out"] == ["p.C-1: the statements differ", "q.C-1: the comparisons differ"]


def test_the_prediction_interval_holds_a_new_mean_in_95_of_100_cases() -> None:
    rng = scipy_stats.norm(3.0, 2.0)
    hits = 0
    for seed in range(600):
        old, new = rng.rvs((2, 8), random_state=seed)
        row = {"effect": old.mean(), "sd": old.std(ddof=1), "n": 8, "kind": "difference"}
        low, high = predicted(row, 8) or (0.0, 0.0)
        hits += low <= new.mean() <= high
    assert abs(hits / 600 - 0.95) < 0.03
    assert predicted({**row, "kind": "ordering"}, 8) is None
    assert predicted({**row, "sd": None}, 8) is None


def planned(root: Path, first: int) -> Plan:
    return check(load(root, {"first_seed": first}))


def planned_there(root: Path) -> Plan:
    return check(load(root, {"first_seed": 12_000, "results": "results/replication"}))


def test_fresh_seeds_share_no_run_with_the_first_ones(tmp_path: Path) -> None:
    tier, paper = copy.deepcopy(projects.TIER), copy.deepcopy(projects.PAPER)
    arms = projects.arms(paper)
    arms["members"] = {"split": {"share": 3}}
    arms["taught"] = {"parents": {"teacher": {"arm": "members", "seeds": {"members": 3}}},
                      "method": "kd"}  # fmt: skip
    arms["slow"] = {"lr": 0.01, "parents": {"teacher": {"arm": "plain", "seeds": {"nested": 4}}},
                    "method": "kd", "split": {"share": 4}}  # fmt: skip
    projects.write(tmp_path, tier, paper)
    plans = [planned(tmp_path, first) for first in (0, 12_000)]
    runs = [
        {(arm.key(seed), arm.id, seed) for shard in plan.shards("one") for arm, seed in shard.runs}
        for plan in plans
    ]
    assert not {key for key, _, _ in runs[0]} & {key for key, _, _ in runs[1]}
    assert {seed for _, name, seed in runs[1] if name.endswith("fast")} == {12_000, 12_001}
    # An ancestor that is an arm itself has its own seeds besides, which were among the first ones.
    members = {seed for _, name, seed in runs[1] if name.endswith("members")}
    assert members == {*range(36_000, 36_006), 12_000, 12_001}
    assert {seed for _, name, seed in runs[1] if name.endswith("plain")} == {
        12_000, 12_001, 3_000,
    }  # fmt: skip
    for first, said in (
        (10_000, "must be a multiple of 12"), (12, "is not fresh"), (1_200, "is not fresh"),
        (4_800, "is not fresh"), (999_996, "is not fresh"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=f"first_seed: .*{said}"):
            planned(tmp_path, first)


def test_a_split_in_blocks_has_no_fresh_seeds(tmp_path: Path) -> None:
    paper = copy.deepcopy(projects.PAPER)
    tier = copy.deepcopy(projects.TIER)
    tier["base"]["dataset"] = "fashion-mnist"
    tier["base"]["split"] = {"per_class": 10, "validation": 100, "choose": "blocks", "share": 2}
    projects.write(tmp_path, tier, paper)
    planned(tmp_path, 0)
    with pytest.raises(UserError, match="one/main/plain, whose split takes the blocks"):
        planned(tmp_path, 12_000)


@pytest.fixture
def twice(tmp_path: Path) -> Path:
    """A project whose evidence is there on the first seeds and, made of the same runs, anew."""
    shutil.copytree(projects.trained(), tmp_path, dirs_exist_ok=True)
    shutil.copytree(tmp_path / "results/smoke", tmp_path / "results/replication/smoke")
    return tmp_path


def test_the_command_writes_a_table_and_the_report_reads_it(
    twice: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = twice / "results/replication/smoke"
    evidence_file = folder / "evidence/one.json"
    moved = json.loads(evidence_file.read_bytes())
    moved["claims"][0]["verdict"] = "contradicted"
    evidence_file.write_text(json.dumps(seal(moved)))
    projects.run(twice, "replicate", "--no-run")
    shown = capsys.readouterr().out
    assert "Tier smoke: 3 seeds from 12000 on, beside 3 from 0 on" in shown
    file = find(twice / "results", "smoke")
    assert file == folder / "replication.json" and find(twice / "results", "desk") is None
    found = page.read(file)
    schema = json.loads(schemas()[Path("docs/schemas/replication.schema.json")])
    jsonschema.Draft202012Validator(schema).validate(json.loads(file.read_bytes()))
    assert found["claims"][0]["outcome"] == "stronger" and found["papers"] == ["one"]
    with (folder / "replication.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == sum(len(claim["comparisons"]) for claim in found["claims"])
    assert rows[0]["claim_new"] == "contradicted" and rows[0]["paper"] == "one"
    counts, claims = page.counts(found, ["one"]), page.claims(found, ["one"])
    assert not any("Papers" in note or "decided claims" in note for note in counts.notes)
    assert counts.command == "cyclery replicate --tier smoke --first-seed 12000"
    decided = found["of_claims"]["decided"]["same"]["of"]
    assert counts.rows[0][:2] == ["claims", str(decided)] and len(counts.rows) == 2
    assert ["one", "C-1", "stronger", "inconclusive", "contradicted"] in [
        row[:5] for row in claims.rows
    ]
    assert counts.tex_view() and claims.view()
    shown_at = twice / "results/report"
    projects.run(twice, "report", str(evidence_file), "--replication", str(file),
                 "--output", f"{shown_at}/index.html")  # fmt: skip
    text = unpacked((shown_at / "index.html").read_text())
    assert "Do the verdicts replicate?" in text and "Claims of smoke on the first seeds" in text
    assert (shown_at / "tables/replication-smoke-counts.tex").exists()
    # Of several papers one, and of it not what an open claim needs.
    part = {**found, "claims": [{**claim, "new": "not run", "outcome": "not run"}
                                if claim["old"] == "inconclusive" else claim
                                for claim in found["claims"]]}  # fmt: skip
    assert part != found
    counts = page.counts(part, ["one", "two", "two"])
    assert counts.notes[0] == "Papers, of 2: one."
    assert counts.notes[1].startswith("Of one only what decided claims need has run again.")
    assert counts.command == "cyclery replicate --tier smoke one --first-seed 12000 --decided"
    file.write_bytes(file.read_bytes().replace(b'"stronger"', b'"same"', 1))
    with pytest.raises(UserError, match="does not match its SHA-256"):
        page.read(file)
    # A published one stands in for it.
    file.unlink()
    published = twice / "results/published/replication/smoke.json"
    published.parent.mkdir(parents=True)
    published.write_text(json.dumps(found))
    assert page.read(find(twice / "results", "smoke") or Path()) == found


def test_what_is_missing_is_one_message(
    twice: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    shutil.rmtree(twice / "results/replication")
    for arguments, words in (
        (["--no-run"], "results/replication/smoke/evidence/one.json: there is no such file"),
        (["--no-run", "--first-seed", "0"], "--first-seed: must be above 0"),
        (["--first-seed", "7"], "first_seed: one/main/fast would have the seed"),
        (["--no-run", "--set", "first_seed=12000"], "first_seed: must be 0 in the configuration"),
        (["two"], "unknown paper 'two'"),
        (["--tier", "desk"], "unknown tier 'desk'"),
    ):
        assert main(["--root", str(twice), "replicate", *arguments]) == 2
        said = capsys.readouterr().err
        assert words in said and "Traceback" not in said


class Snakemake:
    """Takes Snakemake's place: notes the command, and ends with a code."""

    asked: ClassVar[list[list[str]]] = []
    code: ClassVar[int] = 0

    def __init__(self, command: list[str], cwd: Path) -> None:
        self.asked.append(command)

    def __enter__(self) -> Snakemake:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def wait(self) -> int:
        return self.code


def test_snakemake_is_asked_for_the_evidence_on_fresh_seeds(
    twice: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", Snakemake)
    projects.run(twice, "replicate", "one", "--cores", "3", "--set", "planned=3")
    [command] = Snakemake.asked
    assert command[1:] == [
        "-m", "snakemake", "--cores", "3", "one", "--config", "first_seed=12000", 'papers=["one"]',
        "planned=3", 'results="results/replication"',
    ]  # fmt: skip
    assert (twice / "results/replication/smoke/replication.json").exists()
    monkeypatch.setattr(Snakemake, "code", 1)
    capsys.readouterr()
    projects.run(twice, "replicate", expect=2)
    assert "Snakemake failed (exit code 1)" in capsys.readouterr().err


def test_only_what_decided_claims_need_is_run(
    twice: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", Snakemake)
    monkeypatch.setattr(Snakemake, "code", 0)
    file = twice / "results/replication/smoke/allocation.json"
    evidence_file = twice / "results/smoke/evidence/one.json"
    said = json.loads(evidence_file.read_bytes())
    plan = planned(twice, 0)
    for decided in ([], ["C-1"], ["C-2", "C-3"]):
        for claim in said["claims"]:
            claim["verdict"] = "contradicted" if claim["id"] in decided else "inconclusive"
        evidence_file.write_text(json.dumps(seal(said)))
        projects.run(twice, "replicate", "one", "--decided")
        needed = {arm for claim in decided for arm in plan.part_arms(f"one.{claim}")}
        left = [".".join(arm) for arm in plan.part_arms("one") if arm not in needed]
        assert json.loads(file.read_bytes())["seeds"] == dict.fromkeys(sorted(left), 0)
        again = planned_there(twice)
        assert all(bool(again.seeds(again.arm(*arm))) == (arm in needed)
                   for arm in plan.part_arms("one"))  # fmt: skip
    projects.run(twice, "replicate", "one", "--decided", "--set", "seeds=3", expect=2)
    assert "--decided: cannot go with seeds=3" in capsys.readouterr().err
    projects.run(twice, "replicate", "one")
    assert not file.exists()


@pytest.mark.slow
def test_fresh_seeds_run_through_the_graph_and_nothing_mixes(tmp_path: Path) -> None:
    tiny = Copy(tmp_path)
    tiny.snakemake("tiny")
    before = {path: path.read_bytes() for path in (tmp_path / "results/smoke").rglob("*.json*")}
    command = [sys.executable, "-m", "cyclery", "replicate", "--cores", "2"]
    for _ in range(2):
        done = subprocess.run(
            command, cwd=tmp_path, env=tiny.environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr[-3000:]
    assert "Nothing to be done" in done.stdout + done.stderr
    found = json.loads((tmp_path / "results/replication/smoke/replication.json").read_bytes())
    assert found["first_seed"] == 12_000 and found["papers"] == ["tiny"]
    made = (tmp_path / "results/replication/smoke/evidence/tiny.json").read_text()
    seeds = json.loads(made)["provenance"]["seeds"]
    assert min(seeds) >= 2_000 and found["seeds"][0] == found["seeds"][1]
    after = {path: path.read_bytes() for path in (tmp_path / "results/smoke").rglob("*.json*")}
    assert before == after
