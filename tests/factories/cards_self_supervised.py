"""Arms of sketches: annotations that are used well."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
Cards = dict[str, Json]

CARDS: Cards = {
    "annotation-efficient": {
        "proxies": {"method": "proxynca", "rates": {"proxies": 10}, "lr": 0.05,
                    "probes": {"near": {"name": "retrieval", "k": [1, 4], "unseen": True}},
                    "split": {"test": 100, "validation": 50, "per_class": 10, "unlabelled": "rest",
                              "open_set": {"classes": [0, 1, 2, 3, 4], "contamination": 0.5}}},
    },
}  # fmt: skip
CLAIMS: dict[str, list[Json]] = {
    "annotation-efficient": [{"experiment": "main", "arm": "proxies", "against": {"constant": 20},
                              "metric": "unlabelled_near_recall_at_1"}],
}  # fmt: skip
