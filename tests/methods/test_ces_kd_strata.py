"""CES-KD/op: strata of difficulty, and when an expert begins to teach."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from factories.batches import made
from factories.ces_kd import FOLDS, NAMES, K, N, Planted, begun, by_numpy, folded
from factories.threads import one_thread
from torch import nn

from cyclery import methods, schedules
from cyclery.common.errors import UserError
from cyclery.methods import ces_kd

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)


# Strata.


@pytest.mark.parametrize("count", [2, 3, 4, 5])
@pytest.mark.parametrize("total", [60, 61, 62, 63, 64, 200])
def test_strata_are_quantiles_as_numpy_cuts_them(total, count):
    # Few values, so that many are equal.
    difficulty = np.random.default_rng(total + count).integers(0, 25, total).astype(float)
    found = ces_kd.quantiles(torch.tensor(difficulty), count).numpy()
    expected = by_numpy(difficulty, count)
    order = np.argsort(difficulty, kind="stable")
    assert (np.diff(found[order]) >= 0).all()
    ends = [np.searchsorted(strata[order], range(1, count)) for strata in (found, expected)]
    # Up to one element at the edges, where the total cannot be divided.
    assert abs(ends[0] - ends[1]).max() <= (1 if total % count else 0)
    sizes = np.bincount(found, minlength=count)
    assert sizes.max() - sizes.min() <= 1
    ranks = np.argsort(order)
    np.testing.assert_array_equal(found, [math.floor(count * rank / total) for rank in ranks])


def test_of_equal_difficulties_the_earlier_sample_is_the_easier_one():
    found = ces_kd.quantiles(torch.zeros(10), 3).tolist()
    assert found == sorted(found)


@pytest.mark.parametrize("experts", [2, 4, 5])
def test_the_losses_of_one_network_rank_the_samples(experts):
    samples = Planted()
    for number in range(1, experts + 1):
        samples.answer(f"expert-{number}", number)
    samples.answer("student", 77)
    for difficulty, name in (("teacher_loss", f"expert-{experts}"), ("student_loss", "student")):
        found = begun(samples, difficulty=difficulty, experts=experts)
        np.testing.assert_array_equal(found, by_numpy(samples.loss(name), experts))


def test_the_loss_of_the_network_that_did_not_see_a_sample_ranks_it():
    samples = folded()
    expected = np.stack([samples.loss(name) for name in FOLDS])
    left = np.stack([samples.left[name].numpy() for name in FOLDS])
    assert (left.sum(0) == 1).all()
    difficulty = expected.T[left.T]
    found = begun(samples, experts=4)
    np.testing.assert_array_equal(found, by_numpy(difficulty, 4))
    # Whatever the others say: a network that saw a sample has no say.
    for name in FOLDS:
        samples.said[name] = torch.where(samples.left[name][:, None], samples.said[name], math.nan)
    np.testing.assert_array_equal(begun(samples, experts=4), found)


def test_the_first_expert_that_is_right_is_the_stratum():
    samples = Planted()
    for number in range(1, 4):
        samples.answer(f"expert-{number}", number)
    found = begun(samples, difficulty="first_correct", experts=3)
    right = [(samples.said[name].argmax(1) == samples.y).tolist() for name in NAMES]
    expected = [
        next((stratum for stratum, ok in enumerate(column) if ok), 2)
        for column in zip(*right, strict=True)
    ]
    assert found.tolist() == expected
    # Some are right only later, and some never.
    assert len(set(expected)) == 3 and any(not any(column) for column in zip(*right, strict=True))


@pytest.mark.parametrize("difficulty", ["cv_loss", "first_correct"])
def test_the_controls_keep_how_many_samples_an_expert_has(difficulty):
    samples = folded()
    for number in range(1, 4):
        samples.answer(f"expert-{number}", number)
    found = {
        assignment: begun(samples, difficulty=difficulty, assignment=assignment)
        for assignment in ("curriculum", "random", "reversed")
    }
    sizes = {name: np.bincount(strata, minlength=3).tolist() for name, strata in found.items()}
    assert sizes["random"] == sizes["curriculum"]
    assert sizes["reversed"] == sizes["curriculum"][::-1]
    np.testing.assert_array_equal(found["reversed"], 2 - found["curriculum"])
    assert (found["random"] != found["curriculum"]).any()
    # Drawn once, by the run's generator.
    again = begun(samples, difficulty=difficulty, assignment="random")
    np.testing.assert_array_equal(again, found["random"])
    samples.seed = 1
    assert (begun(samples, difficulty=difficulty, assignment="random") != found["random"]).any()


def test_folds_that_leave_a_sample_to_nobody_are_refused():
    samples = folded()
    samples.left[FOLDS[3]] = torch.zeros(N, dtype=torch.bool)
    with pytest.raises(UserError, match=r"^parents: the folds leave some .* out of none"):
        begun(samples)


def test_what_needs_no_strata_remembers_none():
    for assignment in ("single", "mean", "all"):
        settings = ces_kd.Settings(assignment=assignment)
        assert ces_kd.modules(settings, made(nn.Identity(), K, 10)) == {}
        ces_kd.begin({}, object(), settings)


def test_each_setting_needs_its_own_parents():
    def needed(**given: Any) -> tuple[str, ...]:
        return ces_kd.parents(ces_kd.Settings(**given))

    assert needed() == (*NAMES, *FOLDS)
    assert needed(experts=2) == ("expert-1", "expert-2", *FOLDS)
    assert needed(difficulty="teacher_loss") == tuple(NAMES)
    assert needed(difficulty="first_correct", assignment="random") == tuple(NAMES)
    assert needed(difficulty="student_loss", assignment="reversed") == (*NAMES, "student")
    assert needed(assignment="single", expert=2) == ("expert-2",)
    assert needed(assignment="mean") == needed(assignment="all") == tuple(NAMES)
    with pytest.raises(UserError, match=r"^expert: must be at most 3, .* \(found 4\)"):
        ces_kd.Settings(expert=4)


# When an expert begins to teach.


@pytest.mark.parametrize("experts", [2, 3, 4, 7])
@pytest.mark.parametrize("rho", ["1/2", "1", "1/4", "3/10", "2/3"])
def test_experts_are_unlocked_by_the_cards_formula(rho, experts):
    method = methods.load("ces_kd")
    settings = ces_kd.Settings(experts=experts, rho=float(Fraction(rho)))
    for epochs in (1, 2, 3, 5, 10, 17, 60, 240):
        clock, _ = schedules.clock_for(np.full(epochs, 10), 35)
        spec = schedules.normalise(method.settings_type().progress)
        progress = torch.tensor(schedules.column(spec, clock), dtype=torch.float32)
        found = ces_kd.unlocked_experts(progress, settings).tolist()
        expected = [
            min(experts, 1 + math.floor(experts * (k - 1) / (Fraction(rho) * epochs)))
            for k in range(1, epochs + 1)
        ]
        assert found[::3] == found[1::3] == found[2::3] == expected
    static = replace(settings, unlocking="static")
    assert set(ces_kd.unlocked_experts(progress, static).tolist()) == {experts}


@pytest.mark.parametrize("experts", [2, 3, 4, 7])
@pytest.mark.parametrize("rho", ["1/2", "1", "3/10"])
def test_all_experts_teach_after_the_share_that_the_setting_says(rho, experts):
    """Of n turns that make up rho of the run, the last expert's begins with the last one."""
    settings = ces_kd.Settings(experts=experts, rho=float(Fraction(rho)))
    share = Fraction(rho) * (experts - 1) / experts
    doc = ces_kd.Settings.__dataclass_fields__["rho"].metadata["doc"]
    assert "all are unlocked after rho (n - 1) / n" in doc
    updates = 4200
    done = torch.arange(updates) / updates
    unlocked = ces_kd.unlocked_experts(done, settings)
    first = int((unlocked == experts).nonzero()[0])
    assert first / updates == pytest.approx(float(share), abs=1.5 / updates)
