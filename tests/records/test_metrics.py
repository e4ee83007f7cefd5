"""Metrics are files: what each reads off a record, and how one more is added and refused."""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import engine as engine_factory
from factories.page import unpacked
from factories.project import PAPER, TIER, arms, comparison, evidence, refused, run, write
from factories.record import record

from cyclery.authoring.docs import documents
from cyclery.common.errors import UserError
from cyclery.engine.metrics import named
from cyclery.records import metrics
from cyclery.report.model import metric_name

Json = dict[str, Any]


def test_metrics_of_a_record() -> None:
    made = record("k", 0, 0.9, final={
        "test_class_accuracy": [0.9, 0.8, 0.7, 0.6, None], "test_ece": float("inf"),
        "train_class_count": [50, 30, 50, 30, 30], "flag": True,
    })  # fmt: skip
    value = metrics.value
    assert value(made, "test_accuracy") == 0.9
    assert metrics.shown(made, "test_accuracy") == pytest.approx(90)
    assert metrics.shown(made, "test_nll") == 0.2
    assert value(made, "test_ece") is None and value(made, "flag") is None
    assert value(made, "unheard_of") is None and value({}, "test_accuracy") is None
    assert value(made, "seconds") == 2.0
    assert value(made, "log:seconds") == pytest.approx(np.log(2))
    assert value({"seconds": 0}, "log:seconds") is None
    # the last class has no test sample
    assert value(made, "minority_accuracy") == pytest.approx(0.7)
    assert value(made, "many_accuracy") == pytest.approx(0.8)
    assert value(made, "medium_accuracy") == pytest.approx(0.7)
    assert value(made, "few_accuracy") is None
    assert metrics.unit("log:test_accuracy") == ""
    assert metrics.unit("test_accuracy@0.5") == "pp"


@pytest.mark.parametrize(
    ("count", "last"), [(1, 1), (4, 1), (5, 2), (12, 3), (20, 5), (80, 20), (1024, 20)]
)
def test_reporting_rules_of_semi_supervised_papers(count: int, last: int) -> None:
    """Median and mean of the last 20 evaluations, and of no more than their last quarter."""
    values = [((7 * k) % 11) / 100 + k / 2000 for k in range(count)]
    accuracy = {"test_accuracy": values, "raw_test_accuracy": [v / 2 for v in values]}
    made = {"curve": {"eval_epoch": list(range(1, count + 1)), **accuracy}}
    value = metrics.value
    late = values[count - last :]
    assert value(made, "test_accuracy_median20") == pytest.approx(np.median(late))
    assert value(made, "test_accuracy_mean20") == pytest.approx(np.mean(late))
    assert value(made, "raw_test_accuracy_mean20") == pytest.approx(np.mean(late) / 2)
    assert value(made, "test_accuracy_best") == max(values)
    assert value(made, "val_accuracy_median20") is None
    # A value that is missing at the end is missed, one before it is not.
    accuracy["test_accuracy"][-1] = None
    assert value(made, "test_accuracy_median20") is None
    if count > last:
        values[:] = [None, *values[1:-1], 0.5]
        assert value(made, "test_accuracy_median20") is not None


def test_accuracy_of_pseudo_labels_is_that_of_those_used() -> None:
    curve = {"epoch": [1, 2, 3], "train_pseudo_correct": [0.0, 0.1, 0.6],
             "train_mask_rate": [0.0, 0.4, 0.8]}  # fmt: skip
    made = {"settings": {"epochs": 3}, "curve": curve}
    value = metrics.value
    assert value(made, "train_pseudo_accuracy@1") == pytest.approx(0.75)
    assert value(made, "train_pseudo_accuracy@0.67") == pytest.approx(0.25)
    assert value(made, "train_pseudo_accuracy@0.33") is None  # none was used
    assert value({"curve": {"epoch": [1]}}, "train_pseudo_accuracy@1") is None


def test_thirds_of_a_long_tail() -> None:
    count = [int(100 * 0.01 ** (k / 9)) for k in range(10)]
    final = {"train_class_count": count[::-1], "test_class_accuracy": [k / 10 for k in range(10)]}
    made = {"final": final}
    value = metrics.value
    assert value(made, "many_accuracy") == pytest.approx(np.mean([0.9, 0.8, 0.7, 0.6]))
    assert value(made, "medium_accuracy") == pytest.approx(np.mean([0.5, 0.4, 0.3]))
    assert value(made, "few_accuracy") == pytest.approx(np.mean([0.2, 0.1, 0.0]))
    balanced = {"final": {"train_class_count": [5, 5], "test_class_accuracy": [1.0, 0.0]}}
    assert value(balanced, "minority_accuracy") is None
    assert value({"final": {"train_class_count": [5]}}, "minority_accuracy") is None


@pytest.mark.parametrize("first", [0, 1])
def test_curve_at_a_fraction_of_the_run(first: int) -> None:
    """Epochs count from 0 or 1; the last evaluation is the end of the run."""
    made = {
        "settings": {"epochs": 40},
        "curve": {"eval_epoch": [e - 1 + first for e in (10, 20, 30, 40)],
                  "test_accuracy": [0.1, 0.2, 0.3, 0.4],
                  "epoch": [e + first for e in range(40)], "loss": list(range(40))},
    }  # fmt: skip
    value = metrics.value
    assert value(made, "test_accuracy@1") == 0.4
    assert value(made, "test_accuracy@0.36") == 0.1  # 0.25 is nearer than 0.5
    assert value(made, "test_accuracy@0.375") == 0.1  # as near: the earlier
    assert value(made, "test_accuracy@0.9") == 0.4
    assert value(made, "loss@0.5") == 19
    assert value(made, "nothing@0.5") is None


# One more file.

GAP = '''"""How much better a run is on validation samples than on test samples."""

from cyclery.records.metrics._reading import Record
from cyclery.records.metrics._units import POINTS

UNIT = POINTS
BETTER = "smaller"
WORDS = {"accuracy_gap": "validation minus test accuracy"}


def read(record: Record) -> float | None:
    """Return it; None where either is missing."""
    final = record.get("final") or {}
    if "val_accuracy" not in final or "test_accuracy" not in final:
        return None
    return final["val_accuracy"] - final["test_accuracy"]


def worst(classes: int) -> float:
    """Return the gap of a run that learnt nothing."""
    return 0.0
'''
Add = Callable[[str, str], Path]


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Add]:
    """Return what adds the file of a metric until the test is over."""
    folder = tmp_path / "metrics"
    folder.mkdir()
    monkeypatch.setattr(metrics, "__path__", [*metrics.__path__, str(folder)])
    added: list[str] = []

    def forget() -> None:
        importlib.invalidate_caches()
        for known in (metrics.declared, metrics.names, metrics.find):
            known.cache_clear()

    def file(name: str, text: str) -> Path:
        added.append(f"{metrics.__name__}.{name}")
        (folder / f"{name}.py").write_text(text)
        forget()
        return folder / f"{name}.py"

    yield file
    for name in added:
        sys.modules.pop(name, None)
        vars(metrics).pop(name.rpartition(".")[2], None)
    monkeypatch.undo()
    forget()


def test_a_metric_added_by_one_file_is_claimed_reported_and_documented(
    add: Add, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, paper = tmp_path / "project", copy.deepcopy(PAPER)
    comparison(paper).update(metric="accuracy_gap", lower_is_better=True, margin=150)
    write(root, TIER, paper, {"tier": "smoke", "device": "cpu"})
    assert "unknown metric 'accuracy_gap'" in refused(root, capsys)
    add("accuracy_gap", GAP)
    # Its unit bounds the margin.
    assert "margin: must be below 100, the largest difference in percentage" in refused(
        root, capsys
    )
    comparison(paper).update(margin=0)
    # A run that diverges counts as the worst.
    arms(paper)["fast"]["lr"] = 1e12
    write(root, TIER, paper, {"tier": "smoke", "device": "cpu"})
    out = f"{root}/results/smoke"
    run(root, "prepare", "digits")
    run(root, "train", "one/L0-0000", "--output", f"{out}/records/one/L0-0000.jsonl")
    run(root, "evidence", "one", "--output", f"{out}/evidence/one.json")
    run(root, "report", f"{out}/evidence/one.json", "--output", f"{out}/report/index.html")
    made = evidence(root)
    [row] = made["claims"][0]["comparisons"]
    plain = made["experiments"][0]["arms"][0]["metrics"]
    gap = plain["val_accuracy"]["mean"] - plain["test_accuracy"]["mean"]
    assert plain["accuracy_gap"]["mean"] == pytest.approx(gap, abs=1e-12)
    assert row["unit"] == "pp" and row["n"] == 2
    # Nothing of `fast` is left, and it is worth no gap at all; smaller is better.
    assert row["effect"] == pytest.approx(100 * gap, abs=1e-9)
    page = unpacked(Path(f"{out}/report/index.html").read_text(encoding="utf-8"))
    assert "alidation minus test acc" in page
    assert metric_name("accuracy_gap@0.5").startswith("validation minus test accuracy at 50")
    reference = documents(root)[Path("docs/configuration.md")]
    assert "| accuracy_gap | `accuracy_gap` | percentage points | smaller | How much" in reference


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("UNIT = POINTS", "", "declares no UNIT; every metric's file has UNIT (what it is"),
        ("UNIT = POINTS", "UNIT = 'pp'", "UNIT must be one of records/metrics/_units.py"),
        ('"smaller"', '"lower"', 'BETTER must be "larger", "smaller" or None (found \'lower\')'),
        (GAP.splitlines()[0], "", "has no docstring, which says what the metric is"),
        ("def read", "def reed", "declares none of PARTS, CURVES, read, OF_RANGE_TEST and BY_END"),
        ("WORDS =", "PARTS = 'test'\nWORDS =", "PARTS must be a tuple of texts (found 'test')"),
        ("def worst", "worst = 3\n\n\ndef ignored", "worst must be a function (found 3)"),
        ("WORDS =", "PARTS = ('test',)\nWORDS =", None),
        ("import POINTS", "import POIMTS", "cannot be imported: ImportError"),
        ("def read(", "def read((", "mend the metric's file."),
    ],
)
def test_a_wrong_file_is_one_message_with_its_name(
    add: Add, before: str, after: str, message: str | None
) -> None:
    assert before in GAP
    path = add("accuracy_gap", GAP.replace(before, after))
    if message is None:
        assert "test_accuracy_gap" in metrics.names("finals")
        return
    with pytest.raises(UserError) as error:
        metrics.declared()
    assert str(path) in str(error.value) and message in str(error.value)


def test_two_files_with_one_name_for_a_claim_are_refused(add: Add) -> None:
    add("balance", GAP.replace("WORDS =", "PARTS = ('test_x',)\nWORDS ="))
    add("x_balance", GAP.replace("WORDS =", "PARTS = ('test',)\nWORDS ="))
    with pytest.raises(UserError, match="'test_x_balance' is a name of the metric 'balance', too"):
        metrics.declared()


def test_a_name_of_no_file_is_what_it_ends_in() -> None:
    assert metrics.is_accuracy("train_teacher_accuracy") and not metrics.is_accuracy("inaccuracy")
    assert metrics.find("train_scale") is None and metrics.worst("train_scale", 10) is None
    assert metrics.smaller_is_better("log:train_other_loss")
    assert metrics.worst("test_accuracy@0.5", 7) == 100 / 7
    assert metrics.worst("log:test_accuracy", 7) is None and metrics.worst("test_nll", 7) is None


@pytest.mark.parametrize(
    ("name", "metric", "words", "smaller", "worst"),
    [
        ("test_few_accuracy", "few_accuracy", "percentage points", False, 12.5),
        ("val_near_accuracy", "accuracy", "percentage points", False, 12.5),
        ("test_recall_at_1", "recall", "percentage points", False, None),
        ("test_near_recall_at_16", "recall", "percentage points", False, None),
        ("unlabelled_auroc", "auroc", "percentage points", False, 50),
        ("unlabelled_open_fpr_at_95", "fpr", "percentage points", True, None),
        ("unlabelled_left_out_tpr", "tpr", "percentage points", False, None),
        ("unlabelled_tnr", "tnr", "percentage points", False, None),
        ("test_nmi", "nmi", "a share", False, 0),
        ("collapse", "collapse", "a share", False, 0),
        ("epsilon", "epsilon", "epsilon", True, None),
        ("few_l2", "l2", "an l2 penalty", False, None),
        ("few_converged", "converged", "a share", False, None),
    ],
)
def test_figures_that_probes_and_methods_name(
    name: str, metric: str, words: str, smaller: bool, worst: float | None
) -> None:
    found = metrics.find(name)
    assert found is not None and (found.name, metrics.scale(name).words) == (metric, words)
    assert metrics.smaller_is_better(name) is smaller and metrics.worst(name, 8) == worst
    made = {"final": {name: 0.25}}
    assert metrics.value(made, name) == 0.25
    shown = 25 if words == "percentage points" else 0.25
    assert metrics.shown(made, name) == shown and metrics.shown({"final": {}}, name) is None
    assert metrics.scale(f"log:{name}").words == f"the logarithm of {words}"


def test_a_metric_by_its_ending_has_no_name_that_every_run_has(add: Add) -> None:
    add("gain", GAP.replace("def read", "BY_ENDING = True\n\n\ndef reed"))
    assert metrics.declared()["gain"].by_ending and metrics.declared()["gain"].names == ()
    found = metrics.find("test_ensemble_gain")
    assert found is not None and found.name == "gain" and metrics.find("again") is None
    assert "gain" not in metrics.names("finals")


def test_every_figure_that_evaluation_stores_has_a_file() -> None:
    stored = named(np.zeros(4 + 2 * 3))
    assert set(stored) - {"class_accuracy"} <= set(metrics.declared())
    final = engine_factory.train(engine_factory.settings(epochs=1)).final()
    figures = {name for name, found in final.items() if isinstance(found, float)}
    assert figures and figures <= set(metrics.names("finals"))
