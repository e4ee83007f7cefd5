"""Evidence of a part: schema, tables, curves, warnings and provenance."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from factories.record import Json, Records, claim, comparison, diverge, experiment, key
from factories.record import settings as settings_of
from scipy import stats as scipy_stats

from cyclery.evidence import build as evidence

PAPER = {"id": "p", "title": "A paper", "authors": "A", "year": 2022, "arxiv": None, "venue": "",
         "summary": "", "deviations": []}  # fmt: skip
MADE = "2026-01-01T00:00:00+00:00"
A = [91.0, 91.5, 90.5, 92.0, 91.2]
B = [90.0, 90.2, 89.9, 90.4, 90.1]


def setting() -> tuple[list[Json], Records]:
    records: Records = {}
    return [experiment("e", {"a": A, "b": B}, records)], records


def build(
    exps: list[Json], records: Records, claims: list[Json] | None = None, **more: Any
) -> Json:
    claims = [claim(comparison())] if claims is None else claims
    made = evidence.build("smoke", "p", PAPER, exps, claims, records, made=MADE, **more)
    json.dumps(made, allow_nan=False)  # every number is finite or null
    return made


def only_warnings(exps: list[Json], records: Records) -> list[str]:
    [found] = build(exps, records)["experiments"]
    return list(found["warnings"])


def test_evidence_has_the_agreed_keys() -> None:
    exps, records = setting()
    made = build(exps, records, ranges=[{"key": "r"}], printed=[{"table": "1", "value": None}])
    assert list(made) == ["schema", "tier", "part", "title", "paper", "claims", "experiments",
                          "ranges", "printed", "provenance"]  # fmt: skip
    assert (made["tier"], made["part"], made["title"]) == ("smoke", "p", "A paper")
    [found] = made["claims"]
    assert {"id", "statement", "source", "own_definition", "verdict", "reason", "planned_seeds",
            "n", "seeds_to_settle", "seconds_to_settle", "comparisons"} <= set(found)  # fmt: skip
    [row] = found["comparisons"]
    assert {"label", "experiment", "arm", "against", "chosen", "metric", "unit", "test", "margin",
            "effect", "ci95", "ci90", "p", "p_holm", "n", "sd", "verdict", "reason", "seeds",
            "differences", "keys"} <= set(row)  # fmt: skip
    assert isinstance(row["ci95"], list)
    [exp] = made["experiments"]
    assert set(exp) == {"id", "title", "description", "selection_rule", "command", "settings",
                        "not_run", "chain", "arms", "curves", "schedules", "warnings"}  # fmt: skip
    assert (exp["selection_rule"], exp["command"]) == ("last checkpoint", "make e")
    assert exp["schedules"][0] == {"quantity": "lr", "arm": "a", "epoch": [0, 1], "value": [0.1, 0]}
    assert made["ranges"] == [{"key": "r"}] and made["printed"][0]["value"] is None


def test_arms_table_holds_fractions() -> None:
    exps, records = setting()
    [exp] = build(exps, records)["experiments"]
    arm = exp["arms"][0]
    figure = arm["metrics"]["test_accuracy"]
    values = [x / 100 for x in A]
    assert figure["values"] == pytest.approx(values) and figure["seeds"] == [0, 1, 2, 3, 4]
    assert figure["mean"] == pytest.approx(np.mean(values))
    assert figure["sd"] == pytest.approx(np.std(values, ddof=1))
    ci = scipy_stats.ttest_1samp(values, 0).confidence_interval()
    assert figure["ci95"] == pytest.approx([ci.low, ci.high])
    assert arm["metrics"]["test_nll"]["sd"] == 0.0 and arm["metrics"]["test_nll"]["ci95"] is None
    assert (arm["n"], arm["images"], arm["updates"], arm["seconds"]) == (5, 800, 16, 2.0)
    assert (arm["label"], arm["role"], arm["diverged"]) == ("A", "method", [])
    assert arm["keys"] == [key("e", "a", s) for s in range(5)]


def test_curves_have_a_t_band_over_seeds() -> None:
    exps, records = setting()
    records[key("e", "a", 4)]["curve"]["test_accuracy"][0] = float("nan")
    [exp] = build(exps, records)["experiments"]
    assert [(c["arm"], c["metric"]) for c in exp["curves"]] == [
        ("a", "test_accuracy"), ("a", "val_accuracy"), ("b", "test_accuracy"),
        ("b", "val_accuracy"),
    ]  # fmt: skip
    band = exp["curves"][0]
    assert band["epoch"] == [2, 4] and band["n"] == 5
    early, late = np.array(A[:4]) / 200, np.array(A) / 100
    assert band["mean"] == pytest.approx([early.mean(), late.mean()])
    for i, values in enumerate((early, late)):
        ci = scipy_stats.ttest_1samp(values, 0).confidence_interval()
        assert (band["low"][i], band["high"][i]) == pytest.approx((ci.low, ci.high))


def test_curves_of_one_run_equal_runs_and_none() -> None:
    records: Records = {}
    exp = experiment("e", {"a": [90.0], "b": [80.0] * 3, "c": [None], "d": [70.0]}, records)
    records[key("e", "d", 0)]["curve"] = {"eval_epoch": [1], "test_accuracy": [None]}
    [found] = build([exp], records)["experiments"]
    single, _, same, _ = found["curves"]
    assert (single["low"], single["high"], single["n"]) == ([None, None], [None, None], 1)
    assert same["low"] == same["high"] == same["mean"] == [0.4, 0.8]


def test_build_is_deterministic_whatever_the_order_of_records() -> None:
    exps, records = setting()
    first = build(exps, records)
    shuffled = dict(sorted(records.items(), reverse=True))
    before = copy.deepcopy((exps, records))
    assert json.dumps(build(exps, shuffled)) == json.dumps(first)
    assert (exps, records) == before, "the inputs are left as they were"
    text = exps[0]["arms"][0]
    text["runs"] = dict(reversed(text["runs"].items()))
    assert json.dumps(build(exps, records)) == json.dumps(first)
    for number, record in enumerate(records.values()):
        record["started"] = f"2026-11-01T00:00:{number:02}+00:00"
    untold = [evidence.build("smoke", "p", PAPER, exps, [], records) for _ in range(2)]
    assert untold[0] == untold[1]
    newest = max(record["started"] for record in records.values())
    assert untold[0]["provenance"]["made"] == newest


def test_only_some_claims_are_shown_but_all_are_in_the_family() -> None:
    exps, records = setting()
    claims = [claim(comparison()), claim(comparison(experiment="x"), name="C-2")]
    made = build(exps, records, claims, only=["C-1"], title="One claim")
    [found] = made["claims"]
    [row] = found["comparisons"]
    assert row["p_holm"] == pytest.approx(2 * row["p"]) and made["title"] == "One claim"
    extra = claim(comparison(), name="C-3", not_run={"smoke": "Too slow."})
    [untested] = build(exps, records, [extra], needs={"C-3": "takes a day"})["claims"]
    assert untested["verdict"] == "not run" and untested["reason"].endswith("; takes a day")


def test_tidy_has_a_row_per_run_and_csv_is_stable(tmp_path: Path) -> None:
    exps, records = setting()
    diverge(records, key("e", "a", 1))
    records[key("e", "a", 2)]["final"]["test_nll"] = None
    del records[key("e", "b", 3)]
    records[key("e", "b", 4)]["settings"]["seed"] = 9
    frame = evidence.tidy(exps, records, ["minority_accuracy", "seconds"])
    assert list(frame.columns) == [
        "experiment", "arm", "seed", "key", "status", "minority_accuracy", "test_accuracy",
        "test_nll", "val_accuracy", "images", "views", "forwards", "updates", "seconds", "device",
        "commit",
    ]  # fmt: skip
    assert len(frame) == 10 and list(frame["seed"]) == [*range(5)] * 2
    assert list(frame["status"]) == ["done", "diverged", *["done"] * 6, "missing", "invalid"]
    assert frame["test_accuracy"].notna().sum() == 7 and frame["test_nll"].notna().sum() == 6
    exps[0]["arms"][0]["id"] = 'hos"tile,\n</script>'
    frame = evidence.tidy(exps, records)
    path = tmp_path / "new" / "runs.csv"
    evidence.write_csv(frame, path)
    first = path.read_bytes()
    evidence.write_csv(frame, path)
    assert path.read_bytes() == first and [p.name for p in path.parent.iterdir()] == ["runs.csv"]
    pd.testing.assert_frame_equal(pd.read_csv(path), frame, check_exact=False,
                                  check_dtype=False)  # fmt: skip
    assert list(evidence.tidy([], {}).columns)[:5] == list(frame.columns)[:5]


# Warnings.


def test_a_clean_experiment_has_no_warning() -> None:
    assert only_warnings(*setting()) == []


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (["device"], "GPU", "Mixed devices: CPU, GPU."),
        (["versions", "torch"], "2.11.0", "Mixed torch versions: 2.11.0, 2.14.1."),
        (["versions", "cyclery"], "0.2.0", "Mixed cyclery versions: 0.1.0, 0.2.0."),
        (["commit"], "def", "Mixed commits: abc, def."),
        (["inputs", "dataset"], "x", "Mixed contents of the dataset: c, x."),
        (["settings", "split"], {**settings_of(0)["split"], "labels": 100},
         "Mixed splits: labels 100, 200."),
        (["settings", "precision"], "bf16", 'Mixed precisions: "bf16", "fp32".'),
    ],
)  # fmt: skip
def test_mixed_provenance_is_named(path: list[str], value: Any, expected: str) -> None:
    exps, records = setting()
    inner: Any = records[key("e", "a", 3)]
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    own = [f"a: its runs differ in {path[1]}."] if path[0] == "settings" else []
    assert only_warnings(exps, records) == [expected, *own]


def test_code_that_changed_under_one_version_is_named_with_its_runs() -> None:
    exps, records = setting()
    # Older records say nothing of their code.
    assert only_warnings(exps, records) == []
    method = {"name": "kd", "version": 2, "settings": {}}
    for seed in range(5):
        record = records[key("e", "b", seed)]
        record["settings"] |= {"method": method, "engine": 3}
        record["code"] = {"method": f"{seed // 3}" * 16, "engine": "e" * 16}
    other = records[key("e", "a", 0)]
    other["settings"] |= {"method": {**method, "name": "supervised"}, "engine": 3}
    other["code"] = {"method": "f" * 16, "engine": "d" * 16}
    found = [text for text in only_warnings(exps, records) if text.startswith("Mixed code")]
    assert found == [
        "Mixed code of the engine (version 3): 1 runs by dddddddd, 5 runs by eeeeeeee.",
        "Mixed code of the method kd (version 2): 3 runs by 00000000, 2 runs by 11111111.",
    ]


def test_an_arm_of_several_versions_of_a_method_is_named() -> None:
    exps, records = setting()
    for seed in range(5):
        method = {"name": "supervised", "version": 1 + (seed == 2), "settings": {}}
        records[key("e", "b", seed)]["settings"] |= {"method": method, "parents": {"t": [seed]}}
    assert only_warnings(exps, records) == ["b: its runs differ in method."]


def test_runs_on_other_images_are_no_pair() -> None:
    exps, records = setting()
    records[key("e", "a", 3)]["inputs"]["dataset"] = "x"
    [row] = build(exps, records)["claims"][0]["comparisons"]
    assert row["seeds"] == [0, 1, 2, 4] and row["n"] == 4
    assert row["left_out"] == ["seed 3: the two runs saw different contents of the dataset"]
    # Both arms of a seed on the same other images are one.
    records[key("e", "b", 3)]["inputs"]["dataset"] = "x"
    [row] = build(exps, records)["claims"][0]["comparisons"]
    assert row["n"] == 5 and row["left_out"] == []


def test_an_arm_with_one_seed_has_no_interval_and_decides_nothing() -> None:
    exps, records = setting()
    exps[0]["arms"][0]["runs"] = {0: key("e", "a", 0)}
    made = build(exps, records)
    figure = made["experiments"][0]["arms"][0]["metrics"]["test_accuracy"]
    assert figure["ci95"] is None and figure["sd"] is None and len(figure["values"]) == 1
    [claim] = made["claims"]
    assert claim["verdict"] == "inconclusive" and claim["comparisons"][0]["ci95"] is None
    assert claim["comparisons"][0]["p"] is None and claim["n"] == 1
    assert any("'a' has no such seed" in text for text in claim["comparisons"][0]["left_out"])


@pytest.mark.parametrize(
    "part",
    [
        {"share": 5},
        {"folds": 2, "fold": 1},
        {"folds": 2, "part": "seed"},
        {"unlabelled": "rest", "unlabelled_pool": 9},
    ],
)
def test_parts_of_a_split_that_some_arms_need_are_not_mixed(part: Json) -> None:
    exps, records = setting()
    for seed in range(5):
        records[key("e", "a", seed)]["settings"]["split"] |= part
    assert only_warnings(exps, records) == []


def test_dataset_hash_may_be_a_plain_text() -> None:
    exps, records = setting()
    for each in records.values():
        each["inputs"]["dataset"] = "c"
    assert only_warnings(exps, records) == []


def test_gaps_duplicates_divergence_and_nan_are_named() -> None:
    exps, records = setting()
    runs = exps[0]["arms"][1]["runs"]
    del runs[4]
    runs[3] = runs[2]
    diverge(records, key("e", "a", 1), step=33)
    del records[key("e", "a", 2)]
    records[key("e", "a", 0)]["final"]["test_nll"] = float("nan")
    made = build(exps, records)
    [exp] = made["experiments"]
    assert exp["warnings"] == [
        "a: seed 2 not run.",
        "a: seed 1 diverged: not in the figures of the arm.",
        "a: seed 0 without a finite test_nll.",
        "b: seed 4 not planned, other arms have them.",
        "b: seeds 2, 3 are one and the same run.",
        "b: seed 3 left out, the record is of another run.",
    ]
    assert exp["arms"][0]["diverged"] == [{"seed": 1, "step": 33}]
    assert exp["arms"][0]["n"] == 3
    assert made["provenance"]["warnings"] == [f"e: {text}" for text in exp["warnings"]]
    assert made["claims"][0]["comparisons"][0]["seeds"] == [0]


def test_range_tests_have_seeds_of_their_own() -> None:
    exps, records = setting()
    exps[0] |= {"not_run": {"d": "Too slow."}}
    exps[0]["arms"][0]["tuned"] = {"chosen": {"lr": 2.0}}
    sweep = experiment("e", {"range": [50.0]}, records)["arms"][0]
    records[key("e", "range", 0)]["kind"] = "range"
    exps[0]["arms"].append(sweep)
    [exp] = build(exps, records)["experiments"]
    assert exp["warnings"] == [] and exp["not_run"] == {"d": "Too slow."}
    assert [arm["tuned"] for arm in exp["arms"]] == [{"chosen": {"lr": 2.0}}, None, None]


def test_unequal_budgets_are_named_unless_declared() -> None:
    exps, records = setting()
    for seed in range(5):
        records[key("e", "a", seed)]["images"] = 1600
    assert only_warnings(exps, records) == [
        "C-1: 'a' saw 1600 samples and its comparator 800 in the same seed."
    ]
    declared = [claim(comparison(unequal_budget="The claim is about a third of the updates."))]
    [exp] = build(exps, records, declared)["experiments"]
    assert exp["warnings"] == []


def test_provenance_counts_a_shared_run_once() -> None:
    exps, records = setting()
    second = copy.deepcopy(exps[0])
    second["id"] = "f"
    diverge(records, key("e", "b", 0))
    found = build([exps[0], second], records)["provenance"]
    assert found.pop("warnings")
    assert found == {
        "commits": ["abc"], "devices": ["CPU"], "seeds": [0, 1, 2, 3, 4], "records": 10,
        "versions": [{"cyclery": "0.1.0", "python": "3.11", "torch": "2.14.1"}],
        "diverged": 1, "seconds": 20.0, "images": 8000, "made": MADE,
    }  # fmt: skip


def test_nothing_run_yet() -> None:
    exps, _ = setting()
    made = build(exps, {})
    assert made["claims"][0]["verdict"] == "not run"
    [exp] = made["experiments"]
    assert exp["arms"][0]["n"] == 0 and exp["arms"][0]["metrics"] == {}
    assert exp["arms"][0]["seconds"] is None and exp["curves"] == []
    assert build([], {}, [])["experiments"] == []


def test_clean_makes_plain_json() -> None:
    dirty = {1: (np.float64(0.5), np.int64(2), np.array([1.0, np.nan])), "x": [float("-inf"), None]}
    assert evidence.clean(dirty) == {"1": [0.5, 2, [1.0, None]], "x": [None, None]}


def test_sums_in_another_order_are_written_alike() -> None:
    """Two processors' effects of one claim, a tie at the last digit shown, a small remainder."""
    one = {"a": [2.0461116056272513, 0.345, 2.2759997892470103e-05], "b": [7, True, None, "0.1"]}
    other = {"a": [2.0461116056272504, 0.345 * (1 - 1e-15), 2.27599978924897e-05], "b": one["b"]}
    assert one != other and evidence.rounded(one) == evidence.rounded(other)
    assert evidence.rounded(one)["b"] == [7, True, None, "0.1"]
