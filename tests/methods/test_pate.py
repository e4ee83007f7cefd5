"""The private student: votes, their noise, what it is shown, and what that spends."""

from __future__ import annotations

from dataclasses import fields, replace
from math import isfinite, log
from typing import Any

import numpy as np
import pytest
import torch
from factories import engine as factory
from factories.threads import one_thread

from cyclery import methods
from cyclery.common.errors import UserError
from cyclery.engine.run import Run
from cyclery.methods import _pate
from cyclery.methods._accounting import epsilon
from cyclery.methods._pate import Votes, answers, multipliers

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

Json = dict[str, Any]
NAME = "private_supervised"
# The card's worked case, of MixMatch's student on SVHN.
PUBLISHED = Votes(queries=250, threshold=200, threshold_noise=200, answer_noise=40, delta=1e-6)


def settings(name: str = NAME, votes: Json | None = None, **more: Any) -> Json:
    chosen = {"queries": 60, "threshold": 1.0, "answer_noise": 0.3, **(votes or {})}
    return factory.settings(name, method_settings=chosen, **more)


def run(given: Json, data: Any = None, teachers: int = 3) -> Run:
    """Return a run whose teachers are so many networks that were trained a little."""
    found = [taught(seed) for seed in range(teachers)]
    if data is None:
        return factory.run(given, parents={"teachers": found})
    return Run(given, data, factory.CPU, parents={"teachers": found})


def taught(seed: int) -> Any:
    if seed not in TAUGHT:
        TAUGHT[seed] = factory.trained(factory.train(factory.settings(seed=0, lr=0.05 + seed / 10)))
    return TAUGHT[seed]


TAUGHT: dict[int, Any] = {}


# What is spent.


def test_the_epsilon_of_the_published_student():
    spent = multipliers(250, 138, PUBLISHED)
    assert epsilon(spent, 1e-6) == pytest.approx(2.0155, abs=1e-4)
    # By the plain conversion, whose minimum over all orders has a closed form.
    slope = sum(times / (2 * noise**2) for noise, times in spent)
    assert slope == pytest.approx(138 / 1600 + 250 / 80_000)
    assert slope + 2 * (slope * log(1e6)) ** 0.5 == pytest.approx(2.312, abs=1e-3)


def test_what_is_spent_grows_with_queries_and_is_nothing_without_any():
    assert epsilon([], 1e-5) == epsilon([(3.0, 0)], 1e-5) == 0
    asked = [epsilon(multipliers(n, n // 2, PUBLISHED), 1e-6) for n in (50, 100, 200)]
    assert 0 < asked[0] < asked[1] < asked[2]
    # Tests cost, answered or not; without a threshold there is none.
    assert epsilon(multipliers(250, 0, PUBLISHED), 1e-6) > 0
    assert multipliers(250, 138, replace(PUBLISHED, threshold=None)) == [(40 / 2**0.5, 138)]


def test_a_vote_that_changes_moves_the_counts_by_what_the_noise_is_measured_in():
    """The distances that noise multipliers divide by, over all votes of 4 teachers of 3 classes."""
    votes = np.stack(np.meshgrid(*[range(3)] * 4), -1).reshape(-1, 4)
    counts = {tuple(v): np.bincount(v, minlength=3) for v in votes}
    pairs = [
        (counts[a], counts[(*a[:i], other, *a[i + 1 :])])
        for a in counts for i in range(4) for other in range(3)
    ]  # fmt: skip
    far = max(np.linalg.norm(a - b) for a, b in pairs)
    top = max(abs(int(a.max()) - int(b.max())) for a, b in pairs)
    assert multipliers(1, 1, replace(PUBLISHED, answer_noise=5.0)) == [
        (pytest.approx(5 / far), 1), (pytest.approx(200 / top), 1),
    ]  # fmt: skip


# Votes.


def test_answers_are_those_of_an_independent_computation():
    rng = np.random.default_rng(0)
    counts = rng.multinomial(20, [0.4, 0.3, 0.2, 0.1], size=500)
    first, second = rng.normal(size=500), rng.normal(size=(500, 4))
    votes = Votes(threshold=9.0, threshold_noise=2.0, answer_noise=1.5)
    expected = [
        int(np.argmax(n + 1.5 * b)) if n.max() + 2.0 * a >= 9.0 else -1
        for n, a, b in zip(counts, first, second, strict=True)
    ]
    given = [torch.from_numpy(each).float() for each in (counts, first, second)]
    found = answers(*given, votes)
    assert found.tolist() == expected and 0 < expected.count(-1) < 500
    everything = answers(*given, replace(votes, threshold=None))
    assert (everything >= 0).all() and torch.equal(everything[found >= 0], found[found >= 0])


def test_the_votes_of_the_members_are_counted():
    made = run(settings())
    teachers = made.models["teachers"]
    ids = made.ids["test"]
    x = made.plain(made.data.images[ids])
    each = torch.stack([member(x).argmax(1) for member in teachers.members])
    assert len({tuple(one.tolist()) for one in each}) == 3
    counted = _pate.tally(teachers)(x)
    for votes, column in zip(counted, each.T, strict=True):
        assert votes.tolist() == np.bincount(column, minlength=10).tolist()


def test_noise_moves_the_labels_and_more_of_it_the_further():
    def right(noise: float) -> float:
        found = factory.train(settings(votes={"answer_noise": noise, "queries": 1000}), parents={
            "teachers": [taught(seed) for seed in range(3)]}).final()  # fmt: skip
        return found["train_vote_accuracy"]

    none, some, much = (right(noise) for noise in (0.01, 1.0, 20.0))
    assert none > some > much and none > 0.6 and much < 0.25


def test_more_queries_keep_the_answers_to_the_first_ones():
    few, many = (
        run(settings(votes={"queries": number})).models["votes"].get_buffer("labels")
        for number in (40, 90)
    )
    asked = few != _pate.NOT_ASKED
    assert asked.sum() == 40 and (many != _pate.NOT_ASKED).sum() == 90
    assert torch.equal(few[asked], many[asked])


def test_votes_that_answer_nothing_are_one_message():
    message = r"^method\.threshold: must be so low .* none of 60 was \(found 99\.0, and at most 3"
    with pytest.raises(UserError, match=message):
        run(settings(votes={"threshold": 99.0}))


def test_a_pool_of_private_images_alone_is_one_message():
    message = r"^split\.unlabelled: .* \(found 200 unlabelled samples, and none of these\)"
    with pytest.raises(UserError, match=message):
        run(settings(split={"unlabelled": "all", "unlabelled_pool": 200}))


def test_what_is_spent_is_a_number_at_the_limits_of_all_settings():
    limits = {f.name: f.metadata for f in fields(Votes)}
    for name in ("threshold_noise", "answer_noise"):
        for end in ("low", "high"):
            votes = replace(PUBLISHED, **{name: limits[name][end]})
            found = [epsilon(multipliers(10**5, 10**5, votes), delta) for delta in (5e-324, 0.999)]
            assert isfinite(found[0]) and found[0] > found[1] >= 0


# What the student sees.


def test_answered_images_are_the_labelled_ones_and_no_private_one_is_among_them():
    made = run(settings(epochs=2))
    votes = made.models["votes"].get_buffer("labels")
    private, public = made.ids["train"], made.ids["unlabelled"]
    pool = made.feeds["labelled"].ids
    assert torch.equal(pool.sort()[0], (votes >= 0).nonzero()[:, 0])
    assert not torch.isin(pool, private).any() and torch.isin(pool, public).all()
    made.begin_epoch()
    samples = made.feeds["labelled"].samples(50, None, torch.contiguous_format)
    assert torch.equal(samples.y, votes[samples.ids])
    # Teachers are wrong of some, and so is the student's label.
    assert not torch.equal(votes[pool], made.data.labels[pool])


@pytest.mark.parametrize("unlabelled", ["rest", "all"])
def test_private_images_reach_the_student_through_votes_alone(unlabelled):
    """Whatever they show, it ends with the same weights."""
    given = settings(epochs=2, split={"labels": 200, "unlabelled": unlabelled})
    plain = run(given)
    data, private = factory.data(), plain.ids["train"]
    poisoned = replace(data, images=data.images.clone())
    poisoned.images[private] = 255 - poisoned.images[private]
    assert len(private) == 200
    other = run(given, poisoned)
    factory.finish(plain)
    factory.finish(other)
    assert torch.equal(plain.flat.data, other.flat.data)
    for name, value in plain.networks.models["main"].state_dict().items():
        assert torch.equal(value, other.networks.models["main"].state_dict()[name]), name
    assert plain.final()["test_nll"] == other.final()["test_nll"]
    assert plain.final()["train_nll"] != other.final()["train_nll"]


CORES = ("private_supervised", "private_vat", "private_mixmatch")


def test_students_of_all_kinds_learn_from_the_same_answers():
    found = [run(settings(name)) for name in CORES]
    first, *others = [made.models["votes"].get_buffer("labels") for made in found]
    assert all(torch.equal(first, each) for each in others)
    pools = [made.feeds["labelled"].ids for made in found]
    assert all(torch.equal(pools[0], each) for each in pools[1:])
    for made in found:
        assert set(made.feeds) == ({"labelled"} if made is found[0] else {"labelled", "unlabelled"})
        if len(made.feeds) > 1:
            rest = made.feeds["unlabelled"].ids
            everything = torch.cat([rest, pools[0]]).sort()[0]
            assert torch.equal(everything, made.ids["unlabelled"].sort()[0])


@pytest.mark.parametrize("name", CORES)
def test_a_student_sees_no_private_image(name):
    made = run(settings(name, epochs=2))
    made.begin_epoch()
    for feed in made.feeds.values():
        for _ in range(4):
            samples = feed.samples(50, None, torch.contiguous_format)
            assert not torch.isin(samples.ids, made.ids["train"]).any()


def test_where_all_are_answered_they_are_the_unlabelled_ones_too():
    made = run(settings(CORES[1], votes={"queries": 5000, "threshold": None}))
    public = made.ids["unlabelled"].sort()[0]
    for feed in made.feeds.values():
        assert torch.equal(feed.ids.sort()[0], public)
    # More queries than there are images cost no more.
    assert (made.models["votes"].get_buffer("labels") >= 0).sum() == len(public)


def test_balanced_answers_are_drawn_alike_whatever_their_number():
    made = run(settings(votes={"balanced": True}, epoch_images=5000))
    made.begin_epoch()
    labels = made.models["votes"].get_buffer("labels")
    counts = torch.bincount(labels[labels >= 0], minlength=10)
    taken = [
        made.feeds["labelled"].samples(50, None, torch.contiguous_format).y for _ in range(100)
    ]
    drawn = torch.bincount(torch.cat(taken), minlength=10)
    assert counts.max() > 2 * counts[counts > 0].min()
    there = [number for number, some in zip(drawn.tolist(), counts.tolist(), strict=True) if some]
    assert there == pytest.approx([5000 / len(there)] * len(there), rel=0.2)


def test_settings_and_figures_are_those_of_both():
    made = run(settings(CORES[2], votes={"threshold": None}, epochs=1))
    factory.finish(made)
    figures = {"test_batch_statistics_accuracy", "train_epsilon", "train_answers"}
    assert figures <= made.final().keys()
    method = methods.load(CORES[2])
    nothing = method.ignored(method.chosen({"mixing": "none", "threshold": None}))
    assert set(nothing) == {"alpha", "share", "threshold_noise"}
    assert {"weight", "alpha", "temperature"} == set(method.quantities)


def test_figures_are_of_what_was_asked_and_answered():
    made = run(settings(votes={"threshold": 2.0, "threshold_noise": 0.5}))
    factory.finish(made)
    votes, found = made.models["votes"].get_buffer("labels"), made.final()
    ids = (votes >= 0).nonzero()[:, 0]
    assert found["train_answers"] == len(ids) < 60
    right = (votes[ids] == made.data.labels[ids]).sum().item()
    assert found["train_vote_accuracy"] == pytest.approx(right / len(ids))
    spent = [(0.3 / 2**0.5, len(ids)), (0.5, 60)]
    assert found["train_epsilon"] == pytest.approx(epsilon(spent, 1e-5))
    assert "train_epsilon" not in made.curve


def test_a_threshold_that_is_none_leaves_its_noise_unread():
    assert _pate.ignored(Votes()) == {"threshold_noise": "threshold: null"}
    assert _pate.ignored(Votes(threshold=3.0)) == {}
