"""Arms of sketches: small data, and annotations that are used well."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
Cards = dict[str, Json]

FEW: Json = {"test": 200, "validation": 100, "per_class": 4, "unlabelled": "all"}


def _self_training(kind: str) -> Json:
    return {"method": {"name": "self_training", "kind": kind}, "split": FEW,
            "parents": {"teacher": "teacher"}, "init": "teacher", "epoch_images": 80}  # fmt: skip


CARDS: Cards = {
    "small-data": {
        "plain": {},
        "auxiliary": {"method": "auxilearn", "epoch_images": 80},
        "prior": {"method": "moco", "ema_decay": 0.9, "ema_buffers": "own"},
        "distilled": {"method": {"name": "distil_features", "weight": {
                          "kind": "epoch_ramp", "wait": 1, "end": 0.1, "shape": "step"}},
                      "parents": {"prior": "prior"},
                      "init": {"from": "prior", "parts": ["features"]}},
    },
    "annotation-efficient": {
        "proxies": {"method": "proxynca", "rates": {"proxies": 10}, "lr": 0.05,
                    "probes": {"near": {"name": "retrieval", "k": [1, 4], "unseen": True}},
                    "split": {"test": 100, "validation": 50, "per_class": 10, "unlabelled": "rest",
                              "open_set": {"classes": [0, 1, 2, 3, 4], "contamination": 0.5}}},
        "teacher": {"split": FEW, "epoch_images": 40},
        "gist": _self_training("gist"),
        "rist": _self_training("rist"),
        "fist": _self_training("fist"),
        "coarse": {"model": {"name": "small_cnn", "width": 4},
                   "split": {"test": 200, "validation": 100, "per_class": 10,
                             "resolution": {"stored": 4, "input": 16}}},
    },
}  # fmt: skip
CLAIMS: dict[str, list[Json]] = {
    "small-data": [{"experiment": "main", "arm": "plain", "against": {"constant": 20},
                    "metric": "test_balanced_accuracy"}],
    "annotation-efficient": [{"experiment": "main", "arm": "proxies", "against": {"constant": 20},
                              "metric": "unlabelled_near_recall_at_1"}],
}  # fmt: skip
