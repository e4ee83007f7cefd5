"""What is drawn independently: seeds that share a teacher or a split are one unit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories.parents import TEACHER, planned, student
from factories.project import run
from factories.record import Records, claim, comparison, experiment, key
from factories.threads import one_thread
from scipy import stats as scipy_stats

from cyclery.evidence import arm_tables
from cyclery.evidence.arm_tables import tidy
from cyclery.evidence.stats.pairing import collect
from cyclery.evidence.verdicts import judge

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)


def with_parents(records: Records, arm: str, parents: Callable[[int], list[str]]) -> None:
    for seed in range(6):
        used = [{"key": name, "sha256": "x"} for name in parents(seed)]
        records[key("e", arm, seed)]["inputs"]["parents"] = {"teacher": used}


VALUES = [91.0, 91.2, 92.0, 92.2, 91.5, 91.1]


@pytest.mark.parametrize(
    ("parents", "units"),
    [
        (lambda s: [f"t{s}"], [[0], [1], [2], [3], [4], [5]]),
        (lambda s: [f"t{s // 2}"], [[0, 1], [2, 3], [4, 5]]),
        (lambda s: [f"t{s // 3}"], [[0, 1, 2], [3, 4, 5]]),
        (lambda s: [f"t{3 * s + m}" for m in range(3)], [[0], [1], [2], [3], [4], [5]]),
        # Members that seeds share join them.
        (lambda s: [f"t{(s + m) % 4}" for m in range(2)], [[0, 1, 2, 3, 4, 5]]),
    ],
)
def test_the_unit_is_the_teacher(parents: Any, units: list[list[int]]) -> None:
    records: Records = {}
    exp = experiment("e", {"a": VALUES, "b": [90.0] * 6}, records)
    with_parents(records, "a", parents)
    found = collect(comparison(), {"e": exp}, records)
    assert found.units == units
    means = [np.mean([VALUES[s] - 90.0 for s in unit]) for unit in units]
    assert found.by_unit == pytest.approx(means)
    if len(units) == 3:
        unplanned = claim(comparison(), planned_seeds=None)
        [judged] = judge([unplanned], "smoke", [exp], records)
        expected = scipy_stats.ttest_1samp(means, 0)
        assert judged["comparisons"][0]["p"] == pytest.approx(expected.pvalue)


def test_a_run_that_teaches_other_seeds_joins_them() -> None:
    records: Records = {}
    exp = experiment("e", {"student": VALUES, "teacher": [90.0] * 6}, records)
    with_parents(records, "student", lambda s: [key("e", "teacher", s // 2)])
    found = collect(comparison("teacher", arm="student"), {"e": exp}, records)
    # Teacher 1 is the other side of seed 1, and taught seeds 2 and 3.
    assert found.units == [[0, 1, 2, 3, 4, 5]]


def test_seeds_that_share_a_split_count_once() -> None:
    records: Records = {}
    exp = experiment("e", {"a": VALUES, "b": [90.0] * 6}, records)
    for record in records.values():
        record["settings"]["split"]["share"] = 3
    assert collect(comparison(), {"e": exp}, records).units == [[0, 1, 2], [3, 4, 5]]


def test_intervals_of_an_arm_are_over_what_was_drawn() -> None:
    records: Records = {}
    exp = experiment("e", {"a": VALUES}, records)
    with_parents(records, "a", lambda s: [f"t{s // 2}"])
    [arm] = arm_tables.arms(exp, tidy([exp], records), records)
    means = np.array(VALUES).reshape(3, 2).mean(axis=1) / 100
    figure = arm["metrics"]["test_accuracy"]
    low, high = scipy_stats.t.interval(0.95, 2, means.mean(), scipy_stats.sem(means))
    assert figure["ci95"] == pytest.approx([low, high])
    assert (arm["n"], arm["units"], len(figure["values"])) == (6, 3, 6)
    band = next(c for c in arm_tables.curves(exp, records) if c["metric"] == "test_accuracy")
    assert [band["low"][-1], band["high"][-1]] == pytest.approx([low, high])
    assert band["n"] == 6


def test_the_teacher_of_a_teacher_is_shared_too() -> None:
    records: Records = {}
    exp = experiment("e", {"a": VALUES, "b": [90.0] * 6}, records)
    with_parents(records, "a", lambda s: [f"assistant-{s}"])
    for seed in range(6):
        used = {"teacher": [{"key": f"t{seed // 2}", "sha256": "x"}]}
        records[f"assistant-{seed}"] = {"inputs": {"parents": used}}
    assert collect(comparison(), {"e": exp}, records).units == [[0, 1], [2, 3], [4, 5]]


def test_evidence_knows_the_teachers_of_teachers(tmp_path: Path) -> None:
    """Though they are arms of another experiment, whose records the part does not show."""
    arms = {
        "assistant": student(TEACHER, {"nested": 2}, split={"share": 2}),
        "small": student("assistant", split={"share": 2}),
        "alone": {"split": {"share": 2}},
    }
    plan = planned(tmp_path, arms, seeds=4)
    out = tmp_path / "results/smoke"
    path = tmp_path / "config/papers/one.yaml"
    path.write_text(path.read_text().replace("experiment: teachers", "experiment: students")
                    .replace("arm: pool", "arm: small").replace("against: teacher",
                                                                "against: alone"))  # fmt: skip
    run(tmp_path, "prepare", "digits")
    for shard in plan.shards("one.students"):
        run(tmp_path, "train", shard.id, "--set", "seeds=4", "--output",
            f"{out}/records/{shard.id}.jsonl")  # fmt: skip
    run(tmp_path, "evidence", "one.students", "--set", "seeds=4", "--set", "planned=4",
        "--output", f"{out}/e.json")  # fmt: skip
    found = json.loads((out / "e.json").read_bytes())
    [row] = found["claims"][0]["comparisons"]
    assert (row["n"], row["units"]) == (2, [[0, 1], [2, 3]])
