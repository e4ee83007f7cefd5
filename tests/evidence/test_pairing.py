"""Which runs make a pair, what is left out, and the choice among controls."""

from __future__ import annotations

import pytest
from factories.record import (
    Records,
    claim,
    comparison,
    diverge,
    experiment,
    key,
    one,
    shifted,
)
from scipy import stats as scipy_stats

from cyclery.evidence.stats.pairing import collect
from cyclery.evidence.verdicts import judge


def test_diverged_missing_and_nan_runs_are_left_out_and_named() -> None:
    records: Records = {}
    exp = experiment("e", {"a": [91.0, 91.2, 91.1, 91.0, 91.3, None], "b": [90.0] * 7}, records)
    diverge(records, key("e", "a", 1), step=12)
    records[key("e", "b", 2)]["final"]["test_accuracy"] = float("nan")
    [found] = judge([claim(comparison())], "smoke", [exp], records)
    [row] = found["comparisons"]
    assert (row["n"], row["seeds"]) == (3, [0, 3, 4])
    assert row["left_out"] == [
        "seed 1: 'a' diverged at step 12", "seed 2: 'b' has no finite test_accuracy",
        "seed 5: 'a' is not run", "seed 6: 'a' has no such seed",
    ]  # fmt: skip
    assert row["reason"].endswith(f"Left out: {'; '.join(row['left_out'])}.")
    assert "n = 3 of 5 planned" in row["reason"]


def test_a_record_of_another_run_never_gives_a_number() -> None:
    records: Records = {}
    exp = experiment("e", shifted(1.0), records)
    records[key("e", "a", 0)]["settings"]["seed"] = 3
    records[key("e", "a", 1)]["key"] = "another"
    records[key("e", "a", 2)]["status"] = "running"
    [found] = judge([claim(comparison())], "smoke", [exp], records)
    [row] = found["comparisons"]
    assert row["seeds"] == [3, 4]
    assert row["left_out"] == [
        "seeds 0, 1: 'a' has the record of another run",
        "seed 2: 'a' has a record that is not of a finished run",
    ]


def test_all_diverged_is_inconclusive_but_no_record_is_not_run() -> None:
    records: Records = {}
    exp = experiment("e", shifted(1.0), records)
    for seed in range(5):
        diverge(records, key("e", "a", seed))
    [found] = judge([claim(comparison())], "smoke", [exp], records)
    assert found["verdict"] == "inconclusive" and found["n"] == 0
    assert found["reason"].startswith("No usable pair of runs; n = 0 of 5 planned.")
    assert "seeds 0, 1, 2, 3 and 1 more: 'a' diverged at step 7" in found["reason"]
    row = one({"a": [None] * 3, "b": [90.0] * 3})
    assert (row["verdict"], row["effect"], row["reason"]) == ("not run", None, "No run of 'a' yet.")
    assert one({"a": [91.0] * 3, "b": [None] * 3})["verdict"] == "not run"


def test_seeds_that_share_a_parent_count_once() -> None:
    records: Records = {}
    exp = experiment("e", {"a": [91.0, 91.2, 92.0, 92.2, 91.5], "b": [90.0] * 5}, records)
    for seed, teacher in enumerate(["t0", "t0", "t1", "t1", "t2"]):
        for arm in "ab":
            inputs = records[key("e", arm, seed)]["inputs"]
            inputs["parents"] = {"teacher": [{"key": teacher, "sha256": "x"}]}
    [found] = judge([claim(comparison())], "smoke", [exp], records)
    [row] = found["comparisons"]
    assert row["n"] == 3 and row["units"] == [[0, 1], [2, 3], [4]]
    expected = scipy_stats.ttest_1samp([1.1, 2.1, 1.5], 0)
    assert row["p"] == pytest.approx(expected.pvalue)
    assert len(row["differences"]) == 5
    assert "n = 3 parents of 5 seeds" in row["reason"]
    for each in records.values():
        each["inputs"]["parents"] = {"teacher": [{"key": "t", "sha256": "x"}]}
    [found] = judge([claim(comparison())], "smoke", [exp], records)
    assert found["reason"].startswith("All seeds share one parent: at least 2 are needed")


def test_parents_chain_seeds_together() -> None:
    records: Records = {}
    exp = experiment("e", {"a": [91.0, 91.1, 91.2, 91.3], "b": [90.0] * 4}, records)
    pairs = {("a", 0): "t", ("a", 1): "u", ("b", 0): "v", ("b", 1): "v", ("a", 3): "t"}
    for (arm, seed), parent in pairs.items():
        parents = {"p": [{"key": parent, "sha256": ""}]}
        records[key("e", arm, seed)]["inputs"]["parents"] = parents
    found = collect(comparison(), {"e": exp}, records)
    assert found.units == [[0, 1, 3], [2]]


def test_an_arm_against_itself_is_no_comparison() -> None:
    records: Records = {}
    exp = experiment("e", shifted(1.0), records)
    exp["arms"][1]["runs"] = exp["arms"][0]["runs"]
    [found] = judge([claim(comparison())], "smoke", [exp], records)
    assert found["verdict"] == "inconclusive"
    assert found["reason"].startswith("Both arms are the same runs, so there is nothing to compare")
    # but one metric against another of the same runs is
    late = comparison("a", metric="test_accuracy", against_metric="test_accuracy@0.5")
    [found] = judge([claim(late)], "smoke", [exp], records)
    assert found["verdict"] == "reproduced"


def test_against_a_constant() -> None:
    row = one(shifted(1.0), against={"constant": 90.5})
    assert row["verdict"] == "reproduced" and row["against"] == "90.5"
    assert row["effect"] == pytest.approx(0.5)
    assert row["keys"][0] == [key("e", "a", 0), None]


BEST = {"best_of": ["b", "c"], "by": "val_accuracy"}


def test_best_control_is_chosen_on_validation_not_on_test() -> None:
    records: Records = {}
    exp = experiment("e", {**shifted(1.0), "c": [89.0] * 5}, records)
    for seed in range(5):
        records[key("e", "c", seed)]["final"]["val_accuracy"] = 0.95
    [found] = judge([claim(comparison(BEST))], "smoke", [exp], records)
    [row] = found["comparisons"]
    assert (row["chosen"], row["against"]) == ("c", "best of b, c")
    assert row["effect"] == pytest.approx(2.0)
    assert row["keys"][0][1] == key("e", "c", 0)
    # equal on validation: the first declared
    for each in records.values():
        each["final"]["val_accuracy"] = 0.9
    assert judge([claim(comparison(BEST))], "smoke", [exp], records)[0]["comparisons"][0][
        "chosen"
    ] == "b"  # fmt: skip


def test_best_control_by_a_loss_and_on_common_seeds() -> None:
    records: Records = {}
    exp = experiment("e", {**shifted(1.0), "c": [88.0, 88.0, 88.0, 88.0, None]}, records)
    for seed in range(4):
        records[key("e", "b", seed)]["final"]["val_nll"] = 0.3
        records[key("e", "c", seed)]["final"]["val_nll"] = 0.2
    records[key("e", "b", 4)]["final"]["val_nll"] = -99.0
    best = {"best_of": ["b", "c"], "by": "val_nll"}
    pairs = collect(comparison(best), {"e": exp}, records)
    assert (pairs.chosen, pairs.seeds) == ("c", [0, 1, 2, 3])
    for arm in "bc":
        records[key("e", arm, 0)]["final"].pop("val_nll")
    assert collect(comparison({**best, "by": "nothing"}), {"e": exp}, records).problem == (
        "the best control is unknown: no seed has nothing in all of them"
    )


def test_best_control_unknown_or_unstable() -> None:
    records: Records = {}
    exp = experiment("e", {**shifted(1.0), "c": [95.0] * 5, "d": [None] * 5}, records)
    for seed in range(5):
        records[key("e", "a", seed)]["seconds"] = 10.0
    three = {"best_of": ["b", "c", "d"], "by": "val_accuracy"}
    [found] = judge([claim(comparison(three))], "smoke", [exp], records)
    assert found["verdict"] == "inconclusive"
    assert found["reason"].startswith("The best control is unknown: no run of d")
    # c is better, but a tuned control does not diverge
    diverge(records, key("e", "c", 0))
    pairs = collect(comparison(BEST), {"e": exp}, records)
    assert (pairs.chosen, pairs.left_out) == ("b", ["c set aside for diverged runs"])
    diverge(records, key("e", "b", 1))
    assert collect(comparison(BEST), {"e": exp}, records).chosen == "c"
