"""Samplers: what an epoch takes of a pool, against draws by hand and laws of probability."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from factories import engine as factory
from factories.batches import seen
from factories.data import KNOWN
from scipy import stats
from torch import Tensor

from cyclery.common.errors import UserError
from cyclery.config.resolve import budget, merge, resolve
from cyclery.config.settings import Settings
from cyclery.engine.samplers import Balanced, Poisson, Sampler, Shuffled, sampler
from cyclery.engine.stream import Stream as Samples
from cyclery.engine.stream import derive
from cyclery.methods import Stream

Json = dict[str, Any]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def stream(
    drawn: Sampler, ids: Tensor, samples: int, batches: list[int], numbers: tuple[str, ...] = ()
) -> Samples:
    return Samples("pool", ids, numbers, drawn, samples=samples, batches=batches, origin="3")


def updates(run: Samples, batch: int, count: int) -> list[tuple[Tensor, Tensor, Tensor | None]]:
    run.begin_epoch(batch)
    return [run.take(batch) for _ in range(count)]


# Shuffled.


@pytest.mark.parametrize("times", [1, 3])
def test_shuffled_is_one_permutation_after_another_from_the_purpose_of_the_stream(
    times: int,
) -> None:
    """The order that runs have had since before there were samplers."""
    ids = torch.tensor([7, 3, 20, 11, 5])
    drawn = seeded(derive("3", "pool/order"))
    expected = []
    for _ in range(2):
        passes = [torch.randperm(5, generator=drawn) for _ in range(-(-8 * times // 5))]
        expected.append(ids[torch.cat(passes)[: 8 * times]])
    made = stream(Shuffled(times), ids, 8, [4, 2])
    first = torch.cat([found for found, _, _ in updates(made, 4, 2)])
    second = torch.cat([found for found, _, _ in updates(made, 2, 4)])
    assert torch.equal(first, expected[0]) and torch.equal(second, expected[1])


def test_an_epoch_of_every_batch_size_has_the_same_numbers_for_a_position() -> None:
    ids = torch.arange(30)
    small, large = (stream(Shuffled(), ids, 24, [4, 12], ("weak.0/a", "weak.0/b")) for _ in "ab")
    one = torch.cat([noise for _, noise, _ in updates(small, 4, 6)])
    other = torch.cat([noise for _, noise, _ in updates(large, 12, 2)])
    assert torch.equal(one, other) and one.shape == (24, 2)
    drawn = seeded(derive("3", "pool/weak.0/b"))
    assert torch.equal(one[:, 1], torch.empty(24).uniform_(generator=drawn))


# Balanced.

TAIL = torch.tensor([0] * 90 + [1] * 9 + [2] * 1)


def test_balanced_draws_each_class_as_often_and_each_of_its_samples() -> None:
    found, mask = Balanced(TAIL).draw(torch.arange(100), 90_000, 10, seeded())
    assert len(found) == 90_000 and not len(mask)
    by_class = np.bincount(TAIL[found].numpy())
    assert stats.chisquare(by_class).pvalue > 0.001
    # Half of what is expected of the common class would be seen at once.
    rare = found[TAIL[found] == 1]
    assert stats.chisquare(np.bincount(rare.numpy() - 90)).pvalue > 0.001
    common = np.bincount(found[TAIL[found] == 0].numpy(), minlength=90)
    assert stats.chisquare(common).pvalue > 0.001


def test_balanced_takes_nothing_but_its_pool() -> None:
    ids = torch.tensor([3, 92, 95, 40])
    found, _ = Balanced(TAIL).draw(ids, 1000, 10, seeded())
    assert set(found.tolist()) == set(ids.tolist())
    # Two classes of two samples each: a quarter each.
    assert stats.chisquare(np.bincount(found.numpy())[ids.numpy()]).pvalue > 0.001


def test_a_few_classes_have_as_many_different_samples_each_at_every_update() -> None:
    labels = torch.arange(60) % 6
    drawn = Balanced(labels, classes=3)
    found, _ = drawn.draw(torch.arange(60), 12 * 400, 12, seeded())
    rows = found.view(400, 3, 4)
    seen = labels[rows]
    assert (seen == seen[:, :, :1]).all(), "one class after another"
    assert all(len(set(row[:, 0].tolist())) == 3 for row in seen)
    assert all(len(set(row.flatten().tolist())) == 12 for row in rows)
    assert stats.chisquare(np.bincount(seen[:, :, 0].flatten().numpy())).pvalue > 0.001


def test_a_class_of_too_few_samples_gives_each_of_them_again() -> None:
    found, _ = Balanced(torch.tensor([0, 0, 1, 1, 1, 1]), classes=2).draw(
        torch.arange(6), 8 * 50, 8, seeded()
    )
    for row in found.view(50, 8):
        counts = np.bincount(row.numpy(), minlength=6)
        assert counts.tolist() == [2, 2, 1, 1, 1, 1]


def test_fewer_classes_than_an_update_takes_is_refused_and_not_filled_up() -> None:
    with pytest.raises(UserError, match="samples of 3 classes at each update, and its pool has 2"):
        Balanced(torch.tensor([0, 1, 2]), classes=3).draw(torch.arange(2), 6, 6, seeded())


# Poisson.


def test_poisson_includes_each_sample_with_the_rate_whatever_the_others_do() -> None:
    pool, batch, epochs = 50, 5, 100
    ids = torch.arange(100, 100 + pool)
    made = stream(Poisson(), ids, 200, [batch])
    rows = []
    for _ in range(epochs):
        for found, _, mask in updates(made, batch, 40):
            assert mask is not None and set(mask.tolist()) <= {0.0, 1.0}
            kept = found[mask.bool()]
            assert len(set(kept.tolist())) == len(kept), "no sample twice in an update"
            rows.append(np.isin(ids.numpy(), kept.numpy()))
    seen, rate = np.array(rows), batch / pool
    n = len(seen)
    assert stats.binomtest(int(seen.sum()), n * pool, rate).pvalue > 0.001
    each = (seen.sum(0) - n * rate) / np.sqrt(n * rate * (1 - rate))
    assert stats.chi2.sf((each**2).sum(), pool) > 0.001
    # Batch sizes are binomial, not constant; neighbours, in the pool and in time, are independent.
    sizes = seen.sum(1)
    assert sizes.var() == pytest.approx(pool * rate * (1 - rate), rel=0.1)
    for one, other in ((seen[:, :-1], seen[:, 1:]), (seen[:-1], seen[1:])):
        pairs = one.size
        together = (one & other).sum()
        assert abs(together - pairs * rate**2) < 4 * np.sqrt(pairs) * rate


@pytest.mark.parametrize(("pool", "batch"), [(50_000, 1), (50_000, 256), (200, 100), (30, 30)])
def test_the_room_holds_all_but_one_draw_in_ten_to_the_thirteen(pool: int, batch: int) -> None:
    room = Poisson().size(batch, pool)
    assert stats.binom.sf(room, pool, batch / pool) < 1e-13
    assert room <= pool and room <= batch + 8 * batch**0.5 + 9


def test_a_rate_of_one_takes_the_whole_pool() -> None:
    found, mask = Poisson().draw(torch.arange(4), 8, 4, seeded())
    assert found.tolist() == [0, 1, 2, 3] * 2 and mask.tolist() == [1.0] * 8


def test_what_fills_up_an_update_is_of_the_pool_and_marked() -> None:
    made = stream(Poisson(), torch.arange(500, 700), 200, [10, 20], ("weak.0/a",))
    for batch in (10, 20, 10):
        for found, noise, mask in updates(made, batch, 200 // batch):
            assert mask is not None and len(found) == len(mask) == len(noise)
            assert len(found) == Poisson().size(batch, 200)
            assert (found >= 500).all() and (found[mask == 0] == 500).all()


# State, and what runs of them need.


@pytest.mark.parametrize(
    "drawn", [Shuffled(2), Balanced(TAIL), Balanced(TAIL, classes=3), Poisson()]
)
def test_every_sampler_goes_on_where_its_state_was_taken(drawn: Sampler) -> None:
    def make() -> Samples:
        return stream(drawn, torch.arange(100), 36, [6, 12], ("weak.0/a",))

    made = make()
    updates(made, 6, 6)
    state = {name: value.clone() for name, value in made.state().items()}
    expected = updates(made, 12, 3)
    other = make()
    other.load_state(state)
    for one, two in zip(updates(other, 12, 3), expected, strict=True):
        assert all(
            (a is None and b is None) or torch.equal(a, b) for a, b in zip(one, two, strict=True)
        )  # type: ignore[arg-type]


def test_a_stream_names_its_sampler() -> None:
    labels = torch.arange(4)
    kinds = {"shuffled": Shuffled, "balanced": Balanced, "poisson": Poisson}
    for name, kind in kinds.items():
        made = sampler(Stream(("weak",), times="mu", sampler=name), labels, 5)  # type: ignore[arg-type]
        assert type(made) is kind and made.times == 5


def test_an_empty_pool_is_named_when_an_epoch_begins() -> None:
    with pytest.raises(UserError, match="streams: pool: its pool is empty"):
        stream(Shuffled(), torch.arange(0), 4, [2]).begin_epoch(2)


def declared(monkeypatch: pytest.MonkeyPatch, **streams: Stream) -> None:
    """Let the supervised method have these streams, and learn from the labelled one."""
    factory.use_method(monkeypatch, streams=lambda settings: streams)


VARIED = {
    "shuffled": Stream(("weak",)),
    "balanced": Stream(("weak",), sampler="balanced"),
    "classes": Stream(("weak",), sampler="balanced", classes=5),
    "poisson": Stream(("weak", "plain"), sampler="poisson"),
}


@pytest.mark.parametrize("kind", VARIED)
def test_a_run_that_changes_its_batch_resumes_exactly(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared(monkeypatch, labelled=VARIED[kind])
    settings = factory.settings(epochs=4, batch=factory.cycle(20, 50))
    whole = factory.train(settings)
    assert len(set(whole.table.batches)) > 1
    half = factory.run(settings)
    half.train_epoch()
    half.train_epoch()
    other = factory.run(settings)
    other.load_state(half.state(), 2, {k: [*v] for k, v in half.curve.items()})
    factory.finish(other)
    assert torch.equal(whole.flat.data, other.flat.data)
    assert whole.curve["train_loss"] == other.curve["train_loss"]


def test_a_balanced_run_sees_a_long_tail_as_if_it_had_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    declared(monkeypatch, labelled=VARIED["balanced"])
    tail = {"kind": "long_tail", "ratio": 0.05}
    split = {"labels": None, "per_class": 60, "imbalance": tail}
    run = factory.run(factory.settings(split=split, batch=25, epochs=4))
    found = torch.cat([batch.y for batch in seen(run)])
    counts = np.bincount(run.data.labels[run.ids["train"]].numpy())
    assert counts.max() > 10 * counts.min()
    assert stats.chisquare(np.bincount(found.numpy(), minlength=10)).pvalue > 0.001


# What is refused before any job.

FULL: Json = {"dataset": "digits", "split": {"test": 200, "labels": 40}, "model": "bn_mlp",
              "lr": 0.1, "batch": 20, "epochs": 3}  # fmt: skip


def cost(monkeypatch: pytest.MonkeyPatch, stream: Stream, **changes: Any) -> Json:
    declared(monkeypatch, labelled=stream)
    given = merge([Settings.model_validate({**FULL, **changes})])
    return budget(resolve(given, KNOWN), KNOWN)


@pytest.mark.parametrize(
    ("stream", "changes", "said"),
    [
        (
            Stream(("weak",), sampler="poisson"),
            {"batch": 50, "epoch_images": 100},
            "batch: a Poisson stream .* at most 1 .found 50 / 40",
        ),
        (
            Stream(("weak",), sampler="balanced", classes=8),
            {},
            "batch: the stream 'labelled' .* 8 classes, so it must be a multiple of that .found 20",
        ),
        # Of every batch that a schedule has, not of the largest alone.
        (
            Stream(("weak",), sampler="balanced", classes=10),
            {"batch": {"kind": "cycle", "easy": 20, "hard": 16, "factor": 2}},
            "batch: the stream 'labelled' .* 10 classes",
        ),
        (
            Stream(("weak",), sampler="balanced", classes=20),
            {},
            "method: the stream 'labelled' takes samples of 20 classes .* there are 10",
        ),
        (
            Stream(("weak",), pool="labelled.2"),
            {},
            "split.hierarchy: the stream 'labelled' takes the pool labelled.2",
        ),
        (Stream(("weak",), pool="own"), {}, "epoch_images: the method 'supervised' chooses its sa"),
    ],
)
def test_what_a_pool_cannot_give_is_one_message_before_any_job(
    stream: Stream, changes: Json, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=said):
        cost(monkeypatch, stream, **changes)


def test_a_poisson_rate_of_one_and_labels_of_the_finest_level_are_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert cost(monkeypatch, Stream(("weak",), sampler="poisson"), batch=40)["updates"] == 3
    assert cost(monkeypatch, Stream(("weak",), pool="labelled.1"))["samples"] == 40


def test_views_and_passes_of_several_streams_are_counted_as_by_hand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At each of 2 updates of 20: 20 x 2, 3 x 20 x 1 and 20 x 3 images."""
    streams = {
        "labelled": Stream(("weak", "weak")),
        "other": Stream(("plain",), times=3),
        "chance": Stream(("weak", "plain", "weak"), sampler="poisson"),
    }
    factory.use_method(
        monkeypatch,
        streams=lambda settings: streams,
        forwards=lambda settings, images: 2 * images["labelled"] + images["other"],
    )
    given = merge([Settings.model_validate(FULL)])
    found = budget(resolve(given, KNOWN), KNOWN)
    assert found == {"samples": 40, "updates": 6, "images": 120, "views": 6 * 160,
                     "forwards": 6 * 140}  # fmt: skip
    run = factory.train(factory.settings(epochs=3, batch=20, split={"labels": 40}))
    assert run.spent() == (6 * 160, 6 * 140) and run.images == 120
    assert run.spent(1) == (2 * 160, 2 * 140)
