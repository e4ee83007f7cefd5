"""Runs of OpenCoS on digits: a parent that was trained without labels, and open sets."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

from cyclery.engine.run import Run
from cyclery.engine.teachers import Trained
from factories import engine as factory

Json = dict[str, Any]
CORES = ("remixmatch", "fixmatch")
KNOWN = (0, 1, 2, 3, 4, 5)
# All that is not the core's.
OFF: Json = {"filter": "none", "outside": "none", "confident": 0.0, "balanced": False}
MODEL: Json = {"hidden": [32]}


def split(contamination: float = 0.5, pool: int = 400, **changes: Any) -> Json:
    """Return a split whose pool has images of digits 6 to 9."""
    known = {"classes": list(KNOWN), "pool": pool, "contamination": contamination}
    return {"test": 100, "validation": 50, "labels": None, "per_class": 8, "unlabelled": "rest",
            "open_set": known, **changes}  # fmt: skip


@cache
def encoder(contamination: float = 0.5, seed: int = 0) -> Trained:
    """Return a network that contrasts views of the labelled and the unlabelled images."""
    views = ({"op": "random_resized_crop", "area": [0.5, 1.0]}, {"op": "colour_jitter"})
    chosen = {"pool": "unlabelled", "hidden_norm": False, "output_norm": "none",
              "weights_std": None, "output": 16}  # fmt: skip
    own = split(contamination, unlabelled="all")
    given = factory.settings(
        "simclr", method_settings=chosen, split=own, seed=seed, augment=(), strong=views,
        epochs=10, epoch_images=400, batch=100, lr=0.2, evaluations=1, model_settings=MODEL,
    )  # fmt: skip
    return factory.trained(factory.train(given))


def settings(core: str = "fixmatch", contamination: float = 0.5, **changes: Any) -> Json:
    """Return resolved settings; ``chosen`` are the method's."""
    chosen = {"core": core, **changes.pop("chosen", {})}
    own = {**split(contamination), **changes.pop("split", {})}
    given = {"mu": 2 if core == "fixmatch" else None, "batch": 20, "epoch_images": 100,
             "weight": 1.0, "threshold": 0.3, "ema_decay": 0.9, "model_settings": MODEL,
             "strong": ({"op": "cutout", "size": 3},), **changes}  # fmt: skip
    made = factory.settings("opencos", method_settings=chosen, split=own, **given)
    return {**made, "init": "encoder", "init_parts": ["features"], "init_share": None,
            "mu": given["mu"]}  # fmt: skip


def run(given: Json, **options: Any) -> Run:
    """Return a new run, which starts from the parent of its pool."""
    known = given["split"]["open_set"]
    parent = encoder(known["contamination"] if known else 0.5, given["seed"])
    return factory.run(copy.deepcopy(given), parents={"encoder": [parent]}, **options)


def trained(given: Json) -> Run:
    """Return a finished run."""
    made = run(given)
    factory.finish(made)
    return made
