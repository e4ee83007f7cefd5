"""Arms on digits of the sketches of semi-supervised learning."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

# Four labels of each class; the other training samples are unlabelled.
FEW: Json = {"test": 200, "validation": 100, "per_class": 4, "unlabelled": "all"}
EPOCHS: Json = {"split": FEW, "epoch_images": 100, "mu": 3}

CARDS: dict[str, Json] = {
    "deep-reference-priors": {
        "ensemble": {**EPOCHS, "ema_decay": 0.9, "method": {"name": "deep_reference_priors"}},
        "student": {"split": FEW, "parents": {"teacher": "ensemble"}, "method": {"name": "kd"}},
        # One network has four times the updates.
        "fixmatch": {**EPOCHS, "epochs": 12, "ema_decay": 0.9, "method": {"name": "fixmatch"}},
    },
}  # fmt: skip
CLAIMS: dict[str, list[Json]] = {
    "deep-reference-priors": [
        {"experiment": "main", "arm": "ensemble", "against": "ensemble",
         "against_metric": "test_particle_accuracy"},
        {"experiment": "main", "arm": "ensemble", "against": "fixmatch",
         "equal": "forwards"},
    ],
}  # fmt: skip
