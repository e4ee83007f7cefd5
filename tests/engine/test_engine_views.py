"""Labelled and unlabelled streams, their views, and averaged weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from factories import engine as factory
from factories.batches import seen
from factories.data import KNOWN
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cyclery.common.errors import UserError
from cyclery.config.resolve import budget, merge, resolve
from cyclery.config.settings import Settings
from cyclery.data import splits
from cyclery.engine.cohort import drain
from cyclery.engine.samplers import Shuffled
from cyclery.engine.stream import Stream

Json = dict[str, Any]
SHIFT, CUTOUT = {"op": "shift", "size": 1}, {"op": "cutout", "size": 3}


# Pools.


@pytest.mark.parametrize("pool", ["all", "rest"])
def test_the_pool_is_the_training_set_without_what_is_held_out(pool: str) -> None:
    settings = {"test": 300, "validation": 100, "per_class": 4, "unlabelled": pool}
    labels = np.arange(1797) % 10
    parts = splits.split(labels, 1797, 10, settings, seed=3)
    held = np.concatenate([parts["test"], parts["validation"]])
    expected = np.setdiff1d(np.arange(1797), held)
    if pool == "rest":
        expected = np.setdiff1d(expected, parts["train"])
    assert np.array_equal(parts["unlabelled"], expected)
    plain = splits.split(labels, 1797, 10, {**settings, "unlabelled": None}, seed=3)
    assert all(np.array_equal(plain[name], parts[name]) for name in plain)


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ({"test": 300, "unlabelled": "rest"}, "split.unlabelled: must be all, or `labels` fewer"),
        ({"test": 300, "unlabelled": "everything"}, "split.unlabelled: must be one of all, rest"),
    ],
)
def test_a_pool_that_cannot_be(split: Json, words: str) -> None:
    with pytest.raises(UserError, match=words):
        splits.split(np.arange(1797) % 10, 1797, 10, split, seed=0)


# Streams.


def stream_of(ids: int, length: int, numbers: tuple[str, ...] = ()) -> Stream:
    pool = torch.arange(ids)
    return Stream(
        "labelled", pool, numbers, Shuffled(), samples=length, batches=[length, 20], origin="1"
    )


@pytest.mark.parametrize("length", [7, 20, 65])
def test_an_epoch_is_shuffled_passes(length: int) -> None:
    stream = stream_of(20, length)
    for _ in range(3):
        stream.begin_epoch(20)
        taken = torch.bincount(stream.take(length)[0], minlength=20)
        assert taken.sum() == length and taken.max() - taken.min() <= 1


def test_numbers_are_drawn_by_purpose_and_not_by_place() -> None:
    one, other = stream_of(9, 9, ("a", "b")), stream_of(9, 9, ("c", "b"))
    for stream in (one, other):
        stream.begin_epoch(20)
    first, second = one.take(9)[1], other.take(9)[1]
    assert torch.equal(first[:, 1], second[:, 1])
    assert not torch.equal(first[:, 0], second[:, 0])


def test_arms_see_the_same_labelled_and_unlabelled_views() -> None:
    common: Json = {"split": {"labels": 40, "unlabelled": "all"}, "batch": 20, "epochs": 2,
                    "epoch_images": 60, "ema_decay": 0.9}  # fmt: skip
    supervised = seen(factory.run(factory.settings(**common)))
    matched = seen(factory.run(factory.settings("fixmatch", mu=3, **common)))
    pseudo = seen(factory.run(factory.settings("pseudo_label", mu=3, **common)))
    assert len(supervised) == len(matched) == len(pseudo) == 6
    for plain, one, other in zip(supervised, matched, pseudo, strict=True):
        assert torch.equal(plain.x, one.x) and torch.equal(plain.x, other.x)
        assert set(plain.streams) == {"labelled"}
        assert torch.equal(one.unlabelled.ids, other.unlabelled.ids)
        assert torch.equal(one.unlabelled.x, other.unlabelled.x)
        assert len(one.unlabelled.ids) == 60


def test_the_weak_draw_of_a_strong_view_is_its_own() -> None:
    run = factory.run(
        factory.settings("fixmatch", ema_decay=0.9, epochs=1, strong=({"op": "flip", "p": 0.001},))
    )
    for batch in seen(run):
        weak, strong = batch.unlabelled.views  # type: ignore[union-attr]
        # All but the shift is the same: one in 25 shifts agree by chance.
        assert 0.5 < (weak != strong).flatten(1).any(1).float().mean() < 1


def test_unlabelled_samples_carry_their_hidden_labels_for_measuring() -> None:
    run = factory.run(factory.settings("fixmatch", ema_decay=0.9, epochs=1))
    for batch in seen(run):
        assert torch.equal(batch.unlabelled.y, run.data.labels[batch.unlabelled.ids])  # type: ignore[union-attr]


def test_what_a_run_saw_is_counted() -> None:
    settings = factory.settings("fixmatch", mu=3, epochs=2, epoch_images=100)
    run = factory.train(settings)
    assert (run.images, *run.spent()) == (200, 200 * 7, 200 * 7)
    plain = factory.train(factory.settings(epochs=2))
    assert (plain.images, *plain.spent()) == (400, 400, 400)


# Averaged weights.


@pytest.mark.parametrize("buffers", ["shared", "average"])
def test_the_average_is_torchs(buffers: str) -> None:
    settings = factory.settings(
        model="small_cnn", ema_decay=0.9, ema_buffers=buffers, epochs=2, augment=()
    )
    run = factory.run(settings)
    # Its first update copies, so that the average starts at the initial weights.
    mirror = AveragedModel(
        run.models["main"],
        multi_avg_fn=get_ema_multi_avg_fn(0.9),
        use_buffers=buffers == "average",
    )
    mirror.update_parameters(run.models["main"])
    run.begin_epoch()
    for _ in range(4):
        run.step(50)
        mirror.update_parameters(run.models["main"])
    expected, found = mirror.module.state_dict(), run.models["ema"].state_dict()
    for name, value in run.models["main"].state_dict().items():
        if "running" in name and buffers == "shared":
            expected[name] = value
        if not name.endswith("num_batches_tracked"):
            assert torch.allclose(found[name], expected[name], rtol=1e-5, atol=1e-6), name
    assert not torch.equal(run.models["main"].head.weight, run.models["ema"].head.weight)


@pytest.mark.parametrize("buffers", ["shared", "average", "own"])
def test_who_writes_the_running_statistics_of_the_average(buffers: str) -> None:
    """``own`` are written by its own passes in training, ``shared`` by the trained network."""
    run = factory.run(factory.settings(model="small_cnn", ema_decay=0.5, ema_buffers=buffers))
    names = [name for name, _ in run.models["main"].named_buffers() if "running_mean" in name]
    x = torch.randn(8, 1, 8, 8)

    def of(network: str) -> Tensor:
        return torch.cat([run.models[network].get_buffer(name) for name in names]).clone()

    before = of("ema")
    run.models["ema"](x)
    assert torch.equal(of("ema"), before) == (buffers != "own")
    changed, trained = of("ema"), of("main")
    run.models["main"](x)
    assert not torch.equal(of("main"), trained)
    assert torch.equal(of("ema"), of("main") if buffers == "shared" else changed)


def test_the_average_is_frozen_and_is_what_is_evaluated_and_kept() -> None:
    settings = factory.settings(ema_decay=0.99, epochs=2, evaluations=2)
    run = factory.train(settings)
    assert not any(p.requires_grad for p in run.models["ema"].parameters())
    final, plain = run.final(), factory.train(factory.settings(epochs=2)).final()
    assert final["raw_test_nll"] == plain["test_nll"] != final["test_nll"]
    assert run.curve["raw_test_accuracy"][-1] == final["raw_test_accuracy"]
    both = drain(run.evaluation("test"))
    assert both[""]["nll"] == final["test_nll"] and both["raw_"]["nll"] == final["raw_test_nll"]
    kept = run.weights()
    assert torch.equal(kept["head.weight"], run.models["ema"].head.weight)


def test_averaging_changes_no_trained_weight() -> None:
    with_, without = factory.settings(ema_decay=0.9), factory.settings()
    assert torch.equal(factory.train(with_).flat.data, factory.train(without).flat.data)


# Settings.

FULL: Json = {"dataset": "digits", "split": {"test": 200, "labels": 40, "unlabelled": "all"},
              "model": "bn_mlp", "lr": 0.1, "batch": 20, "epochs": 5, "method": "fixmatch",
              "augment": [SHIFT], "strong": [CUTOUT]}  # fmt: skip


def resolved(**changes: Any) -> Json:
    return resolve(merge([Settings.model_validate({**FULL, **changes})]), KNOWN)


def test_a_run_that_takes_no_unlabelled_samples_is_the_same_whatever_is_said_of_them() -> None:
    plain = {"split": {"test": 200, "labels": 40}, "method": "supervised"}
    one = resolved(**plain, strong=None)
    assert resolved(method="supervised", mu=7) == one
    assert one["mu"] is None and one["strong"] == [] and one["split"]["unlabelled"] is None


def test_the_cost_counts_every_view() -> None:
    cost = budget(resolved(mu=3, epoch_images=100), KNOWN)
    assert cost == {"samples": 100, "updates": 25, "images": 500, "views": 500 * 7,
                    "forwards": 500 * 7}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"split": {"test": 200}}, "split.unlabelled: the method 'fixmatch' trains on unlabelled"),
        ({"strong": None}, "strong: the method 'fixmatch' asks for strong views"),
        ({"method": {"name": "fixmatch", "labels_from": "ema_eval"}}, "ema_decay: the method"),
        ({"augment": [CUTOUT], "strong": [SHIFT]}, r"strong\[1\]: shift cannot follow cutout"),
        ({"strong": [{"op": "randaugment"}]}, "strong: randaugment as set here needs the key"),
    ],
)
def test_settings_that_do_not_fit_are_named(changes: Json, words: str) -> None:
    with pytest.raises(UserError, match=words):
        resolved(**changes)


def test_a_batch_beyond_the_epoch_is_named() -> None:
    with pytest.raises(UserError, match="batch: must be at most 40, the labelled samples"):
        budget(resolved(batch=50), KNOWN)
    assert budget(resolved(batch=50, epoch_images=100), KNOWN)["updates"] == 10
