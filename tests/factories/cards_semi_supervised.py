"""Arms on digits of the sketches of private learning."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

NORMED: Json = {"name": "small_cnn", "width": 4, "norm": "group"}

CARDS: dict[str, Json] = {
    "dp-sgd": {
        "private": {
            "model": NORMED, "lr": 0.5, "momentum": 0,
            "ema_decay": {"kind": "running_mean", "end": 0.999, "delay": 9},
            "method": {"name": "dp_sgd", "noise": 2.0},
        },
    },
}  # fmt: skip
CLAIMS: dict[str, list[Json]] = {
    "dp-sgd": [{"experiment": "main", "arm": "private", "against": {"constant": 100},
                "metric": "train_epsilon", "lower_is_better": True}],
}  # fmt: skip
