"""Pools that a method fills, with labels of its own; events at the end; images for hooks."""

from __future__ import annotations

import pytest
import torch
from factories import component
from factories import engine as factory

from cyclery import methods
from cyclery.common.errors import UserError
from cyclery.engine.hooks import Moment

METHOD = """
    from dataclasses import dataclass
    from cyclery.common.lazy import F, torch
    from cyclery.methods import Stream
    VERSION, TITLE = 1, "Own pools"
    EVENTS = []
    @dataclass(frozen=True)
    class Settings:
        labels: str = "given"
        at: int = 0
    def streams(settings):
        return {"own": Stream(("weak",), "own", sampler="balanced"),
                "hidden": Stream(("weak",), "unlabelled")}
    def given(ids):
        return (ids * 7) % 3
    def begin(models, moment, settings):
        ids = moment.pool("unlabelled")
        labels = {"given": given(ids), "none": None, "few": given(ids)[1:], "soft": ids * 0.5}
        moment.fill("own", ids, labels[settings.labels])
    def events(settings, clock):
        return [settings.at] if settings.at else [0, clock.updates]
    def event(models, moment, settings):
        EVENTS.append((moment.update, moment.epoch))
    def step(models, batch, row, settings, generator):
        wrong = (batch["own"].y != given(batch["own"].ids)).float().mean()
        counts = F.one_hot(batch["own"].y, 10).float().mean(0)
        loss = F.cross_entropy(models["main"](batch["own"].x).float(), batch["own"].y)
        return loss, {"wrong": wrong, "first": counts[0], "none": counts[3:].sum()}
"""


def settings(**chosen):
    return factory.settings("own_pools", method_settings=chosen, epoch_images=1000, epochs=3,
                            split={"unlabelled": "all"})  # fmt: skip


@pytest.fixture(autouse=True)
def _method(tmp_path):
    with component.written(methods, tmp_path / "own") as write:
        write("own_pools", METHOD)
        yield


def test_a_filled_stream_has_and_balances_the_labels_that_it_is_given():
    """And hidden ones are nowhere to be seen: they are of ten classes, not of three."""
    run = factory.train(settings())
    assert run.curve["train_wrong"] == [0, 0, 0]
    assert run.curve["train_none"] == [0, 0, 0]
    # 3,000 draws of three classes: the deviation is below 0.01.
    assert sum(run.curve["train_first"]) / 3 == pytest.approx(1 / 3, abs=0.04)


def test_given_labels_leave_those_of_the_data_and_other_streams_alone():
    before = factory.data().labels.clone()
    run = factory.run(settings())
    run.begin_epoch()
    hidden = run.feeds["hidden"].samples(50, None, torch.contiguous_format)
    assert torch.equal(hidden.y, before[hidden.ids])
    assert torch.equal(run.data.labels, before)


def test_given_labels_are_resumed(monkeypatch):
    whole, run = factory.train(settings()), factory.run(settings())
    run.train_epoch()
    state = run.state()
    # As if they had been given by an event, not at the beginning.
    monkeypatch.setattr("cyclery.methods.own_pools.given", lambda ids: ids * 0)
    again = factory.run(settings())
    again.load_state(state, 1, run.curve)
    monkeypatch.undo()
    factory.finish(again)
    assert torch.equal(again.flat.data, whole.flat.data)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("none", "streams: own: the method fills its pool with samples whose labels are hidden"),
        ("few", r"samples and labels of shape \[1396\], torch.int64; each needs a whole number"),
        ("soft", r"labels of shape \[1397\], torch.float32; each needs a whole number"),
    ],
)
def test_labels_that_cannot_be_are_refused(labels, message):
    with pytest.raises(UserError, match=message):
        factory.run(settings(labels=labels))


@pytest.mark.parametrize(
    ("ids", "found"),
    [
        ([1, 2], r"\[1, 2\]"),
        (torch.tensor([True, False]), r"\[2\], torch.bool"),
        (torch.tensor([0, 1797]), r"\[2\], torch.int64"),
        (torch.tensor(3), r"\[\], torch.int64"),
    ],
)
def test_a_pool_is_filled_by_ids_of_samples(ids, found):
    run = factory.run(settings())
    with pytest.raises(UserError, match=rf"own: .* int64 from 0 to 1796 .found {found}\)"):
        Moment(run._inside).fill("own", ids)


def test_labels_given_within_an_epoch_are_had_from_the_next_one_on():
    run = factory.run(settings())
    feed, known = run.feeds["own"], run.ids["train"]
    run.begin_epoch()
    feed.fill(feed.ids[:9].clone(), torch.full((9,), 2), known)
    first = feed.samples(50, None, torch.contiguous_format)
    assert torch.equal(first.y, first.ids * 7 % 3)
    run.begin_epoch()
    assert set(feed.samples(50, None, torch.contiguous_format).y.tolist()) == {2}
    # Labels are those of one filling alone.
    feed.fill(known, None, known)
    run.begin_epoch()
    last = feed.samples(50, None, torch.contiguous_format)
    assert torch.equal(last.y, run.data.labels[last.ids])


def test_a_pool_of_the_split_is_not_filled():
    run = factory.run(settings())
    with pytest.raises(UserError, match="streams: hidden: the method fills its pool, which only"):
        Moment(run._inside).fill("hidden", run.ids["train"])


def test_an_event_may_be_at_the_end_of_a_run_before_its_evaluation(monkeypatch):
    run = factory.run(settings())
    seen = []
    monkeypatch.setattr("cyclery.methods.own_pools.EVENTS", seen)
    factory.finish(run)
    assert seen == [(0, 0), (run.updates, 3)]


@pytest.mark.parametrize("at", [61, -1])
def test_an_event_after_the_end_is_refused(at):
    message = f"whole numbers from 0 to 60, which is the end of the run .found {at}."
    with pytest.raises(UserError, match=message):
        factory.run(settings(at=at))


def test_events_that_are_no_list_are_refused(monkeypatch):
    factory.use_method(monkeypatch, events=lambda settings, clock: 3)
    with pytest.raises(UserError, match="`events` of 'supervised' must return updates, as a list"):
        factory.run(factory.settings())


def test_images_are_the_normalised_pixels():
    run = factory.run(settings())
    ids, manifest = torch.tensor([5, 3, 700]), factory.data().manifest
    pixels = factory.data().images[ids].float() / manifest["max_value"]
    mean, std = (torch.tensor(manifest[key])[:, None, None] for key in ("mean", "std"))
    found = Moment(run._inside).images(ids)
    torch.testing.assert_close(found, (pixels - mean) / std)


def test_a_pool_that_the_split_has_not_names_its_key():
    inside = factory.run(factory.settings())._inside
    with pytest.raises(UserError, match=r"split.unlabelled: the method looks at unlabelled"):
        Moment(inside).pool("unlabelled")
