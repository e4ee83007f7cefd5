"""Arms of sketches: annotations that are used well."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
Cards = dict[str, Json]

FEW: Json = {"test": 200, "validation": 100, "per_class": 4, "unlabelled": "all"}


def _self_training(kind: str) -> Json:
    return {"method": {"name": "self_training", "kind": kind}, "split": FEW,
            "parents": {"teacher": "teacher"}, "init": "teacher", "epoch_images": 80}  # fmt: skip


CARDS: Cards = {
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
    "annotation-efficient": [{"experiment": "main", "arm": "proxies", "against": {"constant": 20},
                              "metric": "unlabelled_near_recall_at_1"}],
}  # fmt: skip
