"""The outcome of a run, before it has one."""

from __future__ import annotations

from cyclery.records.record import RunOutcome


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
