"""Arms of sketches: self-supervised methods, and those for few labels or many unknown ones."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
Cards = dict[str, Json]

LINEAR: Json = {"name": "linear", "l2": [0.01]}
FEW: Json = {"test": 200, "validation": 100, "per_class": 4, "unlabelled": "all"}
ENCODER: Json = {"method": {"name": "simclr", "pool": "unlabelled"}, "split": FEW,
                 "epoch_images": 400,
                 "probes": {"h": LINEAR, "z": {**LINEAR, "of": "z"}}}  # fmt: skip
CHILD: Json = {"parents": {"encoder": "encoder"}, "split": FEW, "epoch_images": 40,
               "init": {"from": "encoder", "parts": ["features"]}}  # fmt: skip
T: list[Json] = [
    {"op": "random_resized_crop", "area": [0.4, 1.0]},
    {"op": "colour_jitter", "form": "byol"},
    {"op": "gaussian_blur", "kernel": 0.4, "p": 1.0},
]
T_PRIME: list[Json] = [*T[:2], {"op": "solarise", "p": 0.2}]
COSINE: Json = {"kind": "cosine", "peak": 0.1, "warmup_epochs": 1}
DECAY: Json = {"kind": "piecewise", "value": 0.1, "drops": [0.6, 0.8]}


def _self_training(kind: str) -> Json:
    return {"method": {"name": "self_training", "kind": kind}, "split": FEW,
            "parents": {"teacher": "teacher"}, "init": "teacher", "epoch_images": 80}  # fmt: skip


CARDS: Cards = {
    "byol": {
        "encoder": {**ENCODER, "method": {"name": "byol", "pool": "unlabelled"},
                    "views": {"t": T, "t_prime": T_PRIME}, "probes": {"h": LINEAR},
                    "ema_decay": {"kind": "cosine", "peak": 0.9, "end": 1}, "ema_buffers": "own",
                    "optimiser": {"name": "lars", "variant": "byol", "eta": 0.02},
                    "lr": {**COSINE, "peak": 1}, "weight_decay": 1e-6},
        "linear": {**CHILD, "frozen": ["features"]},
    },
    "s4l": {
        "supervised": {"split": FEW, "epoch_images": 80, "lr": DECAY},
        "rotation": {"method": "s4l", "split": FEW, "epoch_images": 80, "lr": DECAY},
        "exemplar": {"method": {"name": "s4l", "task": "exemplar"}, "split": FEW,
                     "epoch_images": 80, "lr": DECAY},
        "retrained": {"method": "retrain", "split": FEW, "epoch_images": 200, "lr": DECAY,
                      "parents": {"teacher": "rotation"}},
    },
    "small-data": {
        "plain": {},
        "tailed": {"head": {"name": "tvmf", "kappa": 4}},
        "smooth": {"method": "grad_l2"},
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
    "byol": [{"experiment": "main", "arm": "encoder", "against": {"constant": 0.5},
              "metric": "test_collapse"}],
    "s4l": [{"experiment": "main", "arm": "rotation", "against": "supervised"}],
    "small-data": [{"experiment": "main", "arm": "smooth", "against": "plain",
                    "metric": "test_balanced_accuracy"}],
    "annotation-efficient": [{"experiment": "main", "arm": "proxies", "against": {"constant": 20},
                              "metric": "unlabelled_near_recall_at_1"}],
}  # fmt: skip
