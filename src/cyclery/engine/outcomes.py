"""The outcome of a run, before it has one."""

from __future__ import annotations

import logging

from cyclery.records.record import Inputs, Job, RunOutcome

log = logging.getLogger(__name__)


def unfinished(curve: dict[str, list[float]] | None = None) -> RunOutcome:
    """Return the outcome of a run that is about to be trained, with the ``curve`` that it fills."""
    return {
        "status": "done", "diverged_step": None, "final": {}, "cohort": 1,
        "curve": {"epoch": [], "eval_epoch": []} if curve is None else curve,
        "images": 0, "views": 0, "forwards": 0, "updates": 0, "seconds": 0.0,
    }  # fmt: skip


def never_trained() -> RunOutcome:
    """Return the outcome of a run whose parent diverged: it diverged before its first update."""
    return {**unfinished(), "status": "diverged", "diverged_step": 0, "cohort": 0}


def lost_a_parent(job: Job, inputs: Inputs) -> bool:
    """Return whether a parent diverged, so that there is nothing to train, and say so."""
    lost = any(one["sha256"] is None for of in inputs["parents"].values() for one in of)
    if lost:
        log.warning("%s: not trained, because its parent diverged", job["label"])
    return lost
