"""Pools of open sets and hierarchies in runs, views by name, and range tests of what draws anew."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from factories import engine as factory
from factories.batches import seen
from factories.data import KNOWN

from cyclery.common.errors import UserError
from cyclery.config.resolve import budget, merge, resolve
from cyclery.config.settings import Settings
from cyclery.engine.cohort import drain
from cyclery.engine.sweep import sweep
from cyclery.methods import Stream

Json = dict[str, Any]


def test_samples_of_unknown_classes_have_the_label_minus_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    two = {"labelled": Stream(("weak",)), "unlabelled": Stream(("weak",), "unlabelled", 3)}
    factory.use_method(monkeypatch, streams=lambda settings: two)
    split = {"labels": 60, "unlabelled": "all", "open_set": {"classes": [1, 4, 7]}}
    run = factory.run(factory.settings(split=split, batch=20, epochs=4))
    batches = seen(run)
    known = torch.cat([batch.y for batch in batches])
    assert set(known.tolist()) == {0, 1, 2} and run.data.manifest["classes"] == 3
    others = torch.cat([batch["unlabelled"].y for batch in batches])
    assert -1 in others and set(others.tolist()) <= {-1, 0, 1, 2}
    # As the digits themselves say it.
    ids = torch.cat([batch["unlabelled"].ids for batch in batches])
    digits = factory.data().labels[ids]
    numbers = {1: 0, 4: 1, 7: 2}
    assert others.tolist() == [numbers.get(int(digit), -1) for digit in digits]
    final = run.final()
    assert len(final["test_class_accuracy"]) == 3  # type: ignore[arg-type]


HALVES = [[0, 0, 0, 0, 0, 1, 1, 1, 1, 1]]


def test_pools_of_levels_are_streams_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    four = {
        "labelled": Stream(("weak",), pool="labelled.1"),
        "coarse": Stream(("weak",), pool="labelled.2", times=2),
        "rest": Stream(("plain", "weak"), pool="unlabelled.2", times=3),
    }
    levels: list[Any] = []
    factory.use_method(
        monkeypatch,
        streams=lambda settings: four,
        modules=lambda settings, made: levels.append(made.levels) or {},
    )
    split = {"labels": 60, "unlabelled": "rest", "hierarchy": HALVES, "coarse": [200]}
    run = factory.run(factory.settings(split=split, batch=20, epochs=2))
    batches = seen(run)
    assert [tuple(each) for each in levels[0]] == [tuple(HALVES[0])]
    for name, size, views in (("labelled", 20, 1), ("coarse", 40, 1), ("rest", 60, 2)):
        found = torch.cat([batch[name].ids for batch in batches])
        pool = run.ids["train" if name == "labelled" else four[name].pool]
        assert torch.isin(found, pool).all()
        assert all(batch[name].x.shape == (size, 1, 8, 8) for batch in batches)
        assert all(len(batch[name].views) == views for batch in batches)
        assert batches[0][name].mask is None
    assert len(run.ids["labelled.2"]) == 260
    assert not torch.isin(run.ids["unlabelled.2"], run.ids["labelled.2"]).any()
    with pytest.raises(UserError, match="the batch has no stream 'unlabelled', for `streams` does"):
        _ = batches[0].unlabelled


# Views by name.

SHIFT, CUTOUT = {"op": "shift", "size": 1}, {"op": "cutout", "size": 3}
FULL: Json = {"dataset": "digits", "split": {"test": 200, "labels": 40}, "model": "bn_mlp",
              "lr": 0.1, "batch": 20, "epochs": 5, "augment": [SHIFT]}  # fmt: skip


def resolved(**changes: Any) -> Json:
    return resolve(merge([Settings.model_validate({**FULL, **changes})]), KNOWN)  # type: ignore[return-value]


def test_a_view_by_name_is_a_list_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    factory.use_method(
        monkeypatch,
        streams=lambda settings: {"labelled": Stream(("weak", "holes", "plain", "holes"))},
    )
    found = resolved(views={"holes": [CUTOUT]})
    assert found["views"] == {"holes": [{"op": "cutout", "size": 3, "p": 1.0}]}
    assert budget(found, KNOWN)["views"] == 4 * budget(found, KNOWN)["images"]
    run = factory.run({**factory.settings(epochs=1), "views": found["views"]})
    batch = seen(run)[0]
    weak, first, plain, second = batch.views
    assert torch.equal(plain, run.plain(run.data.images[batch.ids]))
    # Holes are cut out of the plain image, each view's anew; nothing is shifted.
    for view in (first, second):
        kept = view == plain
        assert kept.any() and not kept.all()
        holes = (~kept).flatten(1).sum(1)
        assert (holes <= 9).all()
    assert not torch.equal(first, second) and not torch.equal(weak, plain)


@pytest.mark.parametrize(
    ("streams", "views", "said"),
    [
        (("hole",), {"holes": [CUTOUT]}, "views: .* asks for a view 'hole'; .* mean 'holes'"),
        (("holes",), None, "views: .* asks for a view 'holes'"),
        (("weak",), {"weak": [CUTOUT]}, r"\.weak: is a view that every run has"),
        (("holes",), {"holes": [{"op": "cutuot"}]}, r"\.holes\[0\]: unknown op .cutuot."),
        (("holes",), {"holes": [CUTOUT, SHIFT]}, r"\.holes\[1\]: shift cannot follow cutout"),
    ],
)
def test_a_view_that_is_not_there_is_named(
    streams: Any, views: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    factory.use_method(monkeypatch, streams=lambda settings: {"labelled": Stream(streams)})
    with pytest.raises((UserError, ValueError), match=said):
        resolved(views=views)


def test_a_view_that_nothing_asks_for_is_no_part_of_a_run() -> None:
    assert resolved(views={"holes": [CUTOUT]}) == resolved()


# Range tests.


def test_a_range_test_calls_events_and_draws_for_the_batch_of_each_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A Poisson epoch has other room for another batch."""
    told: list[int] = []

    def event(models: Any, moment: Any, settings: Any) -> None:
        told.append(moment.update)
        moment.fill("mine", moment.ids[:20])

    factory.use_method(
        monkeypatch,
        streams=lambda settings: {"labelled": Stream(("weak",), sampler="poisson"),
                                  "mine": Stream(("weak",), pool="own")},
        events=lambda settings, clock: clock.starts,
        event=event,
    )  # fmt: skip
    settings = factory.settings(
        epochs=4, evaluations=4, batch=factory.cycle(25, 50), lr={"kind": "linear", "start": 0.01,
                                                                  "end": 0.1},
    )  # fmt: skip
    found = drain(sweep({**settings, "sweep": "linear"}, factory.data(), factory.CPU))  # type: ignore[typeddict-item]
    run = factory.run(settings)
    assert told == [int(run.table.steps[:epoch].sum()) for epoch in range(4)]
    assert len(set(run.table.batches)) > 1 and len(found["lr"]) >= 4
