"""The rule written a second time: the same verdicts as the package's, of every kind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import record as make
from factories.checkout import ROOT

from cyclery.common.files import write_atomic
from cyclery.evidence.assemble import Inputs
from cyclery.evidence.stats import alpha_spending
from cyclery.exports.command import parquet
from cyclery.exports.frames import tables

Json = dict[str, Any]


@pytest.fixture
def rule(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import rederive_rule

    return rederive_rule


@pytest.mark.parametrize("planned, share", [(15, 1), (20, 3)])
def test_looks_have_the_packages_levels(rule: Any, planned: int, share: int) -> None:
    assert tuple(rule.looks(planned, share)) == alpha_spending.looks(planned, share)
    for error in (0.05, 0.025, 0.001):
        own, theirs = (f(error, planned, share) for f in (rule.levels, alpha_spending.levels))
        assert own == pytest.approx(theirs, rel=1e-5)
    for look in range(len(rule.looks(planned, share))):
        for p in (0.2, 0.01, 1e-6):
            expected = alpha_spending.overall(p, planned, look, share)
            assert rule.overall(p, planned, share, look) == pytest.approx(expected, rel=1e-3)


def inputs(shift: float, flat: float) -> Inputs:
    """Return claims of every kind on made-up runs of ten seeds, and one diverged run."""
    rng = np.random.default_rng(7)
    seeds = 10
    noise = rng.normal(0, 0.8, (10, seeds))
    means = {"a": 80 + shift, "b": 80, "c": 80 - shift, "d": 78, "e": 79, "x": 79,
             "g1": 82, "g2": 82 - flat, "h1": 82, "h2": 77}  # fmt: skip
    values = {arm: list(mean + noise[i]) for i, (arm, mean) in enumerate(means.items())}
    records: Json = {}
    experiment = make.experiment("e", values, records)
    other = make.experiment("f", {arm: [x - 1 for x in values[arm]] for arm in "abc"}, records)
    for arm in (*experiment["arms"], *other["arms"]):
        arm["classes"] = 10
    for one in experiment["arms"]:
        if one["id"] in "de":
            # Two seeds in a row share a split.
            one["share"] = 2
            for key in one["runs"].values():
                split = records[key]["settings"]["split"]
                records[key]["settings"] = {
                    **records[key]["settings"],
                    "split": split | {"share": 2},
                }
    make.diverge(records, make.key("e", "x", 3))

    def listed(**kind: Any) -> Json:
        return make.comparison(None, arm=None, **kind)

    best = {"best_of": ["c", "x", "b"], "by": "val_accuracy"}
    grids = {"arms": ["g1", "g2"], "against": ["h1", "h2"], "by": "mean", "within": 1.0}
    comparisons = {
        "plain": [make.comparison()],
        "diverged": [make.comparison("x")],
        "not": [make.comparison("a", arm="b")],
        "best": [make.comparison(best), make.comparison("d")],
        "margin": [make.comparison("d", test="non-inferiority", margin=1.0)],
        "equal": [make.comparison("e", arm="d", test="equivalence", margin=1.5)],
        "number": [make.comparison({"constant": 79.5})],
        "lower": [make.comparison("a", arm="c", lower_is_better=True)],
        "half": [make.comparison("a", against_metric="test_accuracy@0.5")],
        "log": [make.comparison("d", metric="log:test_accuracy")],
        "interaction": [make.comparison("c", interaction={"arm": "d", "against": "e"})],
        "trend": [listed(trend={"values": {"c": 1, "b": 2, "a": 4}, "scale": "log"})],
        "ordering": [listed(ordering=["a", "b", "c"])],
        "order": [listed(rank_correlation={"values": {"a": 3, "b": 2, "c": 1, "d": 0}})],
        "flat": [listed(flatness=grids)],
    }  # fmt: skip
    claims = [
        make.claim(*each, name=name, planned_seeds=seeds) for name, each in comparisons.items()
    ]
    pooled = [make.comparison("c"), make.comparison("c", experiment="f")]
    claims.append(make.claim(*pooled, name="pooled", planned_seeds=seeds, pooled=True))
    claims.append(make.claim(name="none", not_run={"smoke": "too small"}))
    for claim in claims:
        for each in claim["comparisons"]:
            for key in ("against_metric", "interaction", "trend", "ordering", "rank_correlation",
                        "flatness", "lower_is_better"):  # fmt: skip
                each.setdefault(key, None)
            if each["trend"]:
                each["trend"].setdefault("blocks", None)
            if each["rank_correlation"]:
                each["rank_correlation"] |= {"arms": None, "metric": None, "coefficient": "kendall"}
            if each["interaction"]:
                each["interaction"] |= {"experiment": None, "metric": None}
    return Inputs([experiment, other], claims, records, {}, {})  # type: ignore[arg-type]


def write(folder: Path, shift: float, flat: float) -> None:
    found = tables("smoke", {"p": inputs(shift, flat)})
    for name in ("runs", "curves", "claims"):
        write_atomic(folder / f"{name}.parquet", parquet(getattr(found, name)))


def rederive(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks/rederive.py"), str(folder), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_every_kind_has_the_same_verdict_and_another_one_is_noticed(tmp_path: Path) -> None:
    write(tmp_path, shift=3.0, flat=0.2)
    done = rederive(tmp_path, "--all")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "16 of 16 verdicts agree" in done.stdout
    said = dict(line.split("p.")[1].split(": ") for line in done.stdout.splitlines()[:-1])
    for name in ("plain", "best", "interaction", "trend", "ordering", "flat"):
        assert said[name] == "reproduced, here reproduced", name
    assert said["not"] == "contradicted, here contradicted"
    # Of the size of an effect or p-value; the resampling of flatness is its own.
    assert float(done.stdout.split("at most ")[1].split()[0]) < 0.2

    import pandas as pd

    claims = pd.read_parquet(tmp_path / "claims.parquet")
    claims.loc[claims["claim"] == "not", "claim_verdict"] = "reproduced"
    claims.to_parquet(tmp_path / "claims.parquet")
    done = rederive(tmp_path, "--all")
    assert done.returncode == 1 and "DIFFERS p.not: reproduced, here contradicted" in done.stdout


def test_without_effects_too(tmp_path: Path) -> None:
    write(tmp_path, shift=0.3, flat=4.0)
    done = rederive(tmp_path, "--others", "20")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "16 of 16 verdicts agree" in done.stdout and "inconclusive, here" in done.stdout


def test_it_imports_nothing_of_the_package() -> None:
    for name in ("rederive", "rederive_rule"):
        text = (ROOT / f"benchmarks/{name}.py").read_text()
        assert "import cyclery" not in text and "from cyclery" not in text
