"""Arms on digits of the sketches of semi-supervised and private learning, and of stages."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

# Four labels of each class; the other training samples are unlabelled.
FEW: Json = {"test": 200, "validation": 100, "per_class": 4, "unlabelled": "all"}
EPOCHS: Json = {"split": FEW, "epoch_images": 100, "mu": 3}
STAGES = [{"fraction": 1 / 3, "schedule": {"kind": "cosine", "peak": 0.1}}] * 3
NOISE: Json = {"kind": "symmetric", "rate": 0.4}
NORMED: Json = {"name": "small_cnn", "width": 4, "norm": "group"}

CARDS: dict[str, Json] = {
    "uda": {
        "uda": {
            **EPOCHS, "ema_decay": 0.9, "ema_buffers": "average", "lr": {"kind": "cosine_arc",
                                                                         "peak": 0.03},
            "method": {"name": "uda", "release": {"kind": "exponential", "start": 0, "towards": 1,
                                                  "end": 0.0067}},
        },
    },
    "hiermatch": {
        "full": {**EPOCHS, "split": {**FEW, "hierarchy": "shape"}, "method": {"name": "hiermatch"}},
        "partial": {
            **EPOCHS, "split": {**FEW, "hierarchy": "shape", "coarse": [40]},
            "method": {"name": "hiermatch_partial", "levels": 2},
        },
    },
    "dp-sgd": {
        "private": {
            "model": NORMED, "lr": 0.5, "momentum": 0,
            "ema_decay": {"kind": "running_mean", "end": 0.999, "delay": 9},
            "method": {"name": "dp_sgd", "noise": 2.0},
        },
    },
    "deep-reference-priors": {
        "ensemble": {**EPOCHS, "ema_decay": 0.9, "method": {"name": "deep_reference_priors"}},
        "student": {"split": FEW, "parents": {"teacher": "ensemble"}, "method": {"name": "kd"}},
        # One network has four times the updates.
        "fixmatch": {**EPOCHS, "epochs": 12, "ema_decay": 0.9, "method": {"name": "fixmatch"}},
    },
    "reinit": {
        "restarts": {
            "split": {"test": 200, "validation": 100, "per_class": 10, "noise": NOISE},
            "lr": {"kind": "staged", "stages": STAGES}, "epochs": 6,
            "method": {"name": "reinit", "stages": 3},
        },
        "layers": {
            "model": {"name": "bn_mlp", "hidden": [32, 32]}, "epochs": 6,
            "split": {"test": 200, "validation": 100, "per_class": 10, "noise": NOISE},
            "lr": {"kind": "staged", "stages": STAGES}, "method": {"name": "reinit_layerwise"},
        },
    },
}  # fmt: skip
CLAIMS: dict[str, list[Json]] = {
    "hiermatch": [{"experiment": "main", "arm": "partial", "against": {"constant": 10},
                   "metric": "test_level_2_accuracy"}],
    "dp-sgd": [{"experiment": "main", "arm": "private", "against": {"constant": 100},
                "metric": "train_epsilon", "lower_is_better": True}],
    "deep-reference-priors": [
        {"experiment": "main", "arm": "ensemble", "against": "ensemble",
         "against_metric": "test_particle_accuracy"},
        {"experiment": "main", "arm": "ensemble", "against": "fixmatch",
         "equal": "forwards"},
    ],
    "reinit": [{"experiment": "main", "arm": "restarts", "against": {"constant": 100},
                "metric": "train_wrong_accuracy", "lower_is_better": True}],
}  # fmt: skip
