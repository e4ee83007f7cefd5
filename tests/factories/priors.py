"""Small runs of what distils visual priors, on digits."""

from __future__ import annotations

from typing import Any

from cyclery.engine.run import Run
from factories import engine as factory

Json = dict[str, Any]
VIEWS: tuple[Json, ...] = ({"op": "random_resized_crop", "area": [0.4, 1.0]},)
MOCO: Json = {"keys": 50, "output": 16, "hidden": 32, "groups": 4}
SMALL: Json = {"split": {"labels": 60}, "epoch_images": 200, "batch": 20, "epochs": 2}


def moco(seed: int = 0, more: Json | None = None, **chosen: Any) -> Run:
    """Return a run of MoCo before its first update."""
    return factory.begun(factory.settings(
        "moco", seed=seed, method_settings={**MOCO, **chosen}, ema_buffers="own",
        **{**SMALL, "strong": VIEWS, **(more or {})},
    ))  # fmt: skip
