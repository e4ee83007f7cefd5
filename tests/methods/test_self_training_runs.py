"""Self-training of digits with few labels: what it must win; and a run at another resolution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import engine as factory
from factories.threads import one_thread

Json = dict[str, Any]
_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)
STAGES, TURN = 4, 40


def few(kind: str, seed: int) -> Json:
    """Return settings with two labels per class, and so many updates in each turn."""
    turns = 1 + STAGES * (2 if kind == "gist" else 1)
    return factory.settings(
        "self_training",
        epochs=turns,
        seed=seed,
        method_settings={"kind": kind, "stages": STAGES},
        split={
            "test": 600,
            "validation": 200,
            "labels": None,
            "per_class": 2,
            "unlabelled": "rest",
        },
        model_settings={"hidden": [64]},
        epoch_images=50 * TURN,
        mu=1,
        lr={"kind": "repeated", "times": turns, "schedule": {"kind": "cosine", "peak": 0.03}},
    )


def test_gist_is_better_than_its_teacher_and_so_are_its_pseudo_labels(tmp_path: Path) -> None:
    kinds, seeds = ("gist", "human"), range(5)
    records = factory.trainer(tmp_path).train(
        [factory.job(few(kind, seed)) for kind in kinds for seed in seeds]
    )
    final = {kind: [r["final"] for r in records[i * 5 :][:5]] for i, kind in enumerate(kinds)}

    def mean(kind: str, name: str) -> float:
        return float(np.mean([figures[name] for figures in final[kind]]))

    # The teacher is the same in all arms where turns are equally long.
    first = [[f["test_stage_0_accuracy"] for f in final[kind]] for kind in kinds]
    assert first[0] == first[1]
    assert mean("gist", "test_accuracy") > mean("gist", "test_stage_0_accuracy") + 0.01
    assert mean("gist", "test_accuracy") > mean("human", "test_accuracy") + 0.01
    right = [mean("gist", f"unlabelled_stage_{stage}_accuracy") for stage in (1, STAGES)]
    assert right[1] > right[0] + 0.01
    slopes = [mean(kind, "test_accuracy_slope") for kind in kinds]
    assert slopes[0] > max(0.002, slopes[1])


def test_images_keep_the_detail_that_they_are_stored_with(tmp_path: Path) -> None:
    given = factory.settings(
        model="vgg", model_settings={"width": 0.0625}, epochs=1, augment=(), batch=32,
        epoch_images=32 * 24, lr={"kind": "cosine", "peak": 0.3},
        split={"resolution": {"stored": 4, "input": 16}},
    )  # fmt: skip
    [record] = factory.trainer(tmp_path).train([factory.job(given)])
    assert record["settings"]["split"]["resolution"] == {"stored": 4, "input": 16}
    assert record["final"]["test_accuracy"] > 0.4
