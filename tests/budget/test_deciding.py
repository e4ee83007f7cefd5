"""`cyclery decide` where runs are made up: who gets seeds, who not, and what is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from factories.deciding import ARMS, Runner, project

from cyclery.budget.deciding import Deciding
from cyclery.cli.main import main
from cyclery.common.files import lock
from cyclery.config.load import load
from cyclery.plan import allocation
from cyclery.plan.graph import Plan
from cyclery.records.readers import read_evidence

Json = dict[str, Any]


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(monkeypatch, ARMS)


def decide(root: Path, *more: str, expect: int = 0) -> None:
    assert main(["--root", str(root), "decide", "--hours", "1", *more]) == expect


def seeds(root: Path) -> dict[str, int]:
    """Return the seeds of arms by the allocation."""
    found = allocation.read(allocation.place(root / "results", "smoke"))
    return {name.rpartition(".")[2]: count for name, count in found.items()}


def verdicts(root: Path) -> dict[str, str]:
    found = read_evidence(root / "results/smoke/evidence/one.json")
    return {claim["id"]: claim["verdict"] for claim in found["claims"]}


def test_seeds_go_where_they_decide(
    tmp_path: Path, runner: Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    decide(project(tmp_path))
    found = verdicts(tmp_path)
    assert found == {"same": "inconclusive", "better": "reproduced", "worse": "contradicted",
                     "elsewhere": "not run"}  # fmt: skip
    got = seeds(tmp_path)
    # No claim needs it; one is hopeless; two are decided before their plan's end.
    assert got["idle"] == 0 and got["same"] < 20 and got["worse"] < 20
    assert got["plain"] == max(got.values())
    assert sorted(set(runner.trained)) == sorted(runner.trained)
    said = capsys.readouterr().out
    assert "one.better: reproduced, " in said and "% chance by 20 seeds" in said
    assert "2 of 3 claims decided (1 reproduced, 1 contradicted), 0 with comparisons" in said
    # The same command finds nothing to do, and everything sees the same plan.
    before = len(runner.trained)
    decide(tmp_path)
    assert len(runner.trained) == before and seeds(tmp_path) == got
    plan = Plan(load(tmp_path))
    assert len(plan.seeds(plan.arm("one", "main", "worse"))) == got["worse"]
    row = read_evidence(tmp_path / "results/smoke/evidence/one.json")["claims"][2]["comparisons"][0]
    assert row["look"] is not None and row["look"]["seeds"] == got["worse"]
    assert row["look"]["planned"] == 20
    # Not binding: who wants it spends the rest.
    decide(tmp_path, "--all", "one.same")
    assert seeds(tmp_path)["same"] == 20 and seeds(tmp_path)["worse"] == got["worse"]


def test_verdicts_are_those_of_equal_seeds(tmp_path: Path, runner: Runner) -> None:
    """A comparison at its look says the same whatever seeds other arms have."""
    decide(project(tmp_path), "one.worse")
    [row] = read_evidence(tmp_path / "results/smoke/evidence/one.json")["claims"][2]["comparisons"]
    assert seeds(tmp_path)["better"] == 0 and row["verdict"] == "contradicted"
    count, path = row["n"], allocation.place(tmp_path / "results", "smoke")
    path.unlink()
    options: Any = [Plan(load(tmp_path, {"seeds": count, "planned": 20})), ["one"], "1", [], path]
    runner(*options, lambda: None)
    [again] = read_evidence(tmp_path / "results/smoke/evidence/one.json")["claims"][2][
        "comparisons"
    ]
    same = ("effect", "ci95", "p", "look", "differences", "keys", "n")
    assert {name: again[name] for name in same} == {name: row[name] for name in same}  # type: ignore[literal-required]


def test_a_killed_call_goes_on(tmp_path: Path, runner: Runner) -> None:
    root = project(tmp_path)

    def kill(number: int) -> None:
        if number == 2:
            raise KeyboardInterrupt

    runner.stop = kill
    decide(root, expect=130)
    asked = seeds(root)
    runner.stop = lambda number: None
    decide(root)
    assert verdicts(root)["worse"] == "contradicted"
    assert all(seeds(root)[arm] >= count for arm, count in asked.items())
    assert sorted(set(runner.trained)) == sorted(runner.trained)


def test_it_begins_with_what_is_on_disk(tmp_path: Path, runner: Runner) -> None:
    root = project(tmp_path)
    plan = Plan(load(root, {"seeds": 5}))
    runner(plan, ["one"], "1", [], tmp_path / "log", lambda: None)
    before = len(runner.trained)
    assert before == 25
    decide(root, "one.worse")
    assert seeds(root)["idle"] == 5 and seeds(root)["worse"] > 5
    assert {name.partition(" ")[0] for name in runner.trained[before:]} == {"plain", "worse"}


def test_what_cannot_end_in_time_is_not_begun(
    tmp_path: Path, runner: Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    root = project(tmp_path, lambda tier, paper: tier.update(images_per_second={"bn_mlp": 0.1}))
    decide(root)
    assert not runner.trained and "no time: " in capsys.readouterr().out


def test_mistakes_get_one_message(
    tmp_path: Path, runner: Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    root = project(tmp_path)
    for more, said in (
        (["--set", "seeds=20"], "seeds: must be null"),
        (["two"], "unknown paper 'two'"),
        (["one.main"], "'one.main' is an experiment; name a paper or a claim"),
        (["one.elsewhere"], "'one.elsewhere' is not tested at tier 'smoke'"),
        (["--tier", "desk"], "unknown tier 'desk'"),
    ):
        decide(root, *more, expect=2)
        assert said in capsys.readouterr().err
    path = allocation.place(root / "results", "smoke")
    path.write_text(json.dumps({"format": 1, "tier": "smoke", "seeds": {"one.main.same": "5"}}))
    decide(root, expect=2)
    assert "whole number" in capsys.readouterr().err
    with lock(path.with_name(f".{path.name}.lock")):
        decide(root, expect=2)
    assert "another `cyclery decide` is at work on tier 'smoke'" in capsys.readouterr().err
    for hours in ("0", "x", "nan"):
        with pytest.raises(SystemExit):
            main(["--root", str(root), "decide", "--hours", hours])
    assert not runner.calls


def test_a_batch_whose_runs_do_not_come_ends_it(
    tmp_path: Path,
    runner: Runner,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = project(tmp_path)
    options = type("Options", (), {"part": [], "hours": 1.0, "cores": "1", "snakemake": [],
                                   "all": False})()  # fmt: skip
    deciding = Deciding(load(root), options)
    monkeypatch.setattr(Deciding, "_snakemake", lambda self, papers: None)
    with pytest.raises(Exception, match="missing though Snakemake made it"):
        deciding.run()
    assert "not run" in capsys.readouterr().out
