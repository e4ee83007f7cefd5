"""Made-up records, arms and claims for the tests of verdicts and evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cyclery.evidence.verdicts import judge

Json = dict[str, Any]
Records = dict[str, Json]


def key(experiment: str, arm: str, seed: int) -> str:
    return f"{experiment}-{arm}-{seed}"


def settings(seed: int) -> Json:
    """Return the resolved settings of a run."""
    split = {"test": 600, "validation": 200, "labels": 200, "per_class": None, "choose": "random",
             "imbalance": None, "unlabelled": None, "share": 1, "folds": None,
             "fold": None}  # fmt: skip
    constant = {"kind": "constant", "value": 0.1}
    return {
        "engine": 1, "method": {"name": "supervised", "version": 1, "settings": {}},
        "dataset": {"name": "digits", "identity": "d"}, "split": split,
        "model": {"name": "mlp", "settings": {}}, "optimiser": {"name": "sgd", "settings": {}},
        "schedules": {"lr": constant, "batch": constant}, "augment": [], "strong": [], "mu": None,
        "epoch_images": None, "ema_buffers": None, "init": None, "init_share": None, "draw": None,
        "epochs": 4, "precision": "fp32", "compile": False, "deterministic": True, "threads": 1,
        "evaluations": 2, "seed": seed, "parents": {}, "range": None,
    }  # fmt: skip


def record(name: str, seed: int, accuracy: float, **changes: Any) -> Json:
    """Return a finished run's record; accuracy is a fraction, also of the validation split."""
    made: Json = {
        "schema": 1, "key": name, "kind": "run", "status": "done", "diverged_step": None,
        "settings": settings(seed),
        "inputs": {"dataset": "c", "range": None, "parents": {}},
        "curve": {"epoch": [1, 2, 3, 4], "train_loss": [2.0, 1.0, 0.5, 0.25],
                  "eval_epoch": [2, 4], "test_accuracy": [accuracy / 2, accuracy],
                  "val_accuracy": [accuracy / 2, accuracy]},
        "final": {"test_accuracy": accuracy, "val_accuracy": accuracy, "test_nll": 0.2,
                  "test_class_accuracy": [accuracy] * 2, "train_class_count": [10, 10]},
        "images": 800, "views": 800, "cohort": 1, "updates": 16, "seconds": 2.0,
        "images_per_second": 400.0,
        "device": "CPU", "versions": {"python": "3.11", "torch": "2.14.1", "cyclery": "0.1.0"},
        "commit": "abc", "started": "2026-01-01T00:00:00+00:00", "sha256": "s",
    }  # fmt: skip
    for name, value in changes.items():
        made[name] = {**made[name], **value} if name in ("final", "settings", "inputs") else value
    return made


def experiment(
    name: str, values: Mapping[str, Sequence[float | None]], records: Records, **changes: Any
) -> Json:
    """Return an experiment whose arms have these test accuracies in pp, and file their records.

    None leaves the seed without a record.
    """
    arms = []
    for arm, column in values.items():
        runs = {seed: key(name, arm, seed) for seed in range(len(column))}
        for seed, value in enumerate(column):
            if value is not None:
                records[runs[seed]] = record(runs[seed], seed, value / 100, **changes)
        lr = {"epoch": [0, 1], "value": [0.1, 0.0]}
        arms.append({"id": arm, "label": arm.upper(), "role": "method", "own_definition": None,
                     "tuned": None, "runs": runs, "schedules": {"lr": lr}})  # fmt: skip
    return {"id": name, "title": name.title(), "description": "", "command": f"make {name}",
            "selection_rule": "last checkpoint", "settings": {"Dataset": "digits"},
            "not_run": {}, "chain": [], "arms": arms}  # fmt: skip


def diverge(records: Records, name: str, step: int = 7) -> None:
    """Turn a record into that of a diverged run."""
    records[name] |= {"status": "diverged", "diverged_step": step, "final": {}}


def comparison(against: Any = "b", **changes: Any) -> Json:
    return {"experiment": "e", "arm": "a", "against": against, "metric": "test_accuracy",
            "test": "superiority", "margin": 0.0, **changes}  # fmt: skip


def claim(*comparisons: Json, name: str = "C-1", **changes: Any) -> Json:
    return {"id": name, "statement": "A beats B.", "source": "Table 1", "own_definition": None,
            "planned_seeds": 5, "not_run": {},
            "comparisons": list(comparisons), **changes}  # fmt: skip


NOISE = [0.1, -0.2, 0.05, 0.2, -0.15]


def judged(
    values: dict[str, list[float | None]], *claims: Json, records: Records | None = None,
    **changes: Any,
) -> list[Json]:  # fmt: skip
    """Judge claims on one experiment ``e``."""
    filed: Records = {} if records is None else records
    exp = experiment("e", values, filed, **changes)
    return judge(list(claims), "smoke", [exp], filed)


def one(values: dict[str, list[float | None]], **changes: Any) -> Json:
    """Judge one comparison of a against b, with as many seeds planned as there are."""
    planned = max(map(len, values.values()))
    [found] = judged(values, claim(comparison(**changes), planned_seeds=planned))
    [row] = found["comparisons"]
    assert found["verdict"] == row["verdict"]
    return row


def shifted(by: float, base: float = 90.0) -> dict[str, list[float | None]]:
    """Return arms a and b with this effect and the same noise."""
    return {"a": [base + by + x for x in NOISE], "b": [base] * len(NOISE)}
