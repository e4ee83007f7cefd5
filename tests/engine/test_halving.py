"""Successive halving of trials in turn: a table made by hand, and optuna's own loop."""

from __future__ import annotations

import warnings

import numpy as np
import optuna
import pytest

from cyclery.engine.halving import Halving


def played(curves: list[list[float]], grace: int, reduction: int) -> list[int]:
    """Return after how many epochs each trial with such metrics stops."""
    halving, found = Halving(grace, reduction), []
    for curve in curves:
        halving.begin()
        stopped = next(
            (e for e, value in enumerate(curve, 1) if halving.prunes(e, value)), len(curve)
        )
        done = stopped == len(curve)
        halving.end("finished" if done else "pruned", curve[stopped - 1])
        found.append(stopped)
    return found


def test_the_table_of_eight_trials() -> None:
    # Rungs at 2, 4 and 8 epochs. At each, a trial goes on if it is among the best half (rounded
    # down, at least one) of those that came there so far, itself included.
    values = [0.5, 0.4, 0.6, 0.3, 0.55, 0.7, 0.2, 0.6]
    curves = [[value] * 8 for value in values]
    #   0.5: alone at 2, 4 and 8
    #   0.4: best 1 of {.5 .4} is .5: stops at 2
    #   0.6: best 1 of 3; at 4 best 1 of {.5 .6}; at 8 likewise
    #   0.3: best 2 of 4 are .6 .5: stops at 2
    #   0.55: best 2 of 5 are .6 .55; at 4 best 1 of {.5 .6 .55} is .6: stops at 4
    #   0.7: the best everywhere
    #   0.2: stops at 2
    #   0.6: best 4 of 8 are .7 .6 .6 .55; at 4 best 2 of {.5 .6 .55 .7 .6} are .7 .6, equal to the
    #        second; at 8 best 2 of {.5 .6 .7 .6} likewise
    assert played(curves, grace=2, reduction=2) == [8, 2, 8, 2, 4, 8, 2, 8]


@pytest.mark.parametrize(("grace", "reduction"), [(1, 2), (3, 2), (2, 3)])
def test_it_is_what_optuna_does_by_itself(grace: int, reduction: int) -> None:
    rng = np.random.default_rng(grace)
    curves = np.sort(rng.random((40, 20)), axis=1).tolist()
    found: list[int] = []

    def objective(trial: optuna.Trial) -> float:
        curve = curves[trial.number]
        for epoch in range(grace, len(curve) + 1):
            trial.report(curve[epoch - 1], epoch)
            if trial.should_prune() and epoch < len(curve):
                found.append(epoch)
                raise optuna.TrialPruned
        found.append(len(curve))
        return float(curve[-1])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruner = optuna.pruners.SuccessiveHalvingPruner(
            min_resource=grace, reduction_factor=reduction
        )
        optuna.create_study(direction="maximize", pruner=pruner).optimize(objective, n_trials=40)
    assert played(curves, grace, reduction) == found
    assert len(set(found)) > 2


def test_a_trial_that_diverged_counts_at_the_rungs_that_it_passed() -> None:
    halving = Halving(1, 2)
    halving.begin()
    assert not halving.prunes(1, 0.9)
    halving.end("diverged", None)
    halving.begin()
    assert halving.prunes(1, 0.8)
    halving.end("pruned", 0.8)
