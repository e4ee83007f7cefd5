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
    "annotation-efficient": [{"experiment": "main", "arm": "gist", "against": "fist"}],
}  # fmt: skip
