"""Asynchronous successive halving of trials that are trained one after another: optuna's rule.

Li et al., arXiv 1810.05934, Algorithm 2, as ``optuna.pruners.SuccessiveHalvingPruner`` has it: a
trial passes a rung (``grace`` epochs, times a power of ``reduction``) if its metric there is among
the best 1 / ``reduction`` of all that reached the rung before it, itself included.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import optuna
from optuna.trial import TrialState

Ended = Literal["finished", "pruned", "diverged"]


class Halving:
    """Decides which trials stop; the metric is better where it is larger."""

    def __init__(self, grace: int, reduction: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(
            direction="maximize",
            # It samples nothing: each trial's values were drawn before.
            sampler=optuna.samplers.RandomSampler(seed=0),
            pruner=optuna.pruners.SuccessiveHalvingPruner(
                min_resource=grace, reduction_factor=reduction, min_early_stopping_rate=0
            ),
        )
        self._grace = grace
        self._trial: optuna.Trial | None = None

    def begin(self, metrics: Iterable[float] = ()) -> None:
        """Begin the next trial, or take one up again after epochs with these metrics."""
        self._trial = self._study.ask()
        for epoch, metric in enumerate(metrics, 1):
            self.prunes(epoch, metric)

    def prunes(self, epoch: int, metric: float) -> bool:
        """Report a trial's metric after so many epochs; return whether it stops there."""
        assert self._trial is not None, "`begin` comes first"
        if epoch < self._grace:
            return False
        self._trial.report(metric, epoch)
        return self._trial.should_prune()

    def end(self, ended: Ended, metric: float | None) -> None:
        """End the trial, with its last metric where it did not diverge."""
        assert self._trial is not None, "`begin` comes first"
        if ended == "finished":
            self._study.tell(self._trial, metric)
        else:
            state = TrialState.PRUNED if ended == "pruned" else TrialState.FAIL
            self._study.tell(self._trial, state=state)
        self._trial = None
