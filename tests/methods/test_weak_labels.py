"""Weak labels: which groups images get, what learns them, and what is handed on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from factories import engine as factory
from factories import small_paper
from factories.threads import one_thread

from cyclery.common.errors import UserError
from cyclery.engine.run import Run
from cyclery.engine.stream import Data
from cyclery.methods import proxynca

Json = dict[str, Any]
_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

GROUPS = [0, 1, 2, 2, 1, 2, 0, 1, 0, 0]
SPLIT: Json = {"labels": 100, "hierarchy": [GROUPS]}


def given(seed: int = 0, more: Json | None = None, **method: Any) -> Json:
    """Return settings of the method on digits with three groups."""
    return factory.settings(
        "weak_labels", seed=seed, split=SPLIT, method_settings=method, **(more or {})
    )


def labelled(run: Run) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the pool [N] of the images, the groups [N] that they have, and the right ones [N]."""
    feed, ids = run.feeds["labelled"], run.ids["unlabelled"]
    own = feed._labels.index_select(0, ids)
    return ids, own, torch.tensor(GROUPS)[run.data.labels[ids]]


def test_a_tenth_of_the_groups_is_wrong_and_each_other_one_as_likely() -> None:
    shares, pairs = [], np.zeros((3, 3))
    for seed in range(8):
        run = factory.begun(given(seed))
        _, own, right = labelled(run)
        shares.append(float((own != right).double().mean()))
        np.add.at(pairs, (right.numpy(), own.numpy()), 1)
    assert np.mean(shares) == pytest.approx(0.1, abs=0.01) and np.std(shares) > 0
    for group in range(3):
        others = np.delete(pairs[group], group)
        assert others[0] == pytest.approx(others[1], rel=0.35)
    _, own, right = labelled(factory.begun(given(wrong=0.0)))
    assert torch.equal(own, right)


def test_images_are_those_without_labels_and_both_losses_have_the_same_groups() -> None:
    one, two, other = (
        factory.begun(each) for each in (given(), given(loss="proxies"), given(seed=1))
    )
    ids, own, _ = labelled(one)
    for part in ("train", "validation", "test"):
        assert not torch.isin(ids, one.ids[part]).any()
    assert len(ids) == 1797 - 300 - 100 - 100
    for found, expected in zip(labelled(two), (ids, own), strict=False):
        assert torch.equal(found, expected)
    assert not torch.equal(labelled(other)[1], own)
    batch = one._batch(50, None)
    assert torch.isin(batch.ids, ids).all()


@pytest.mark.parametrize("loss", ["softmax", "proxies"])
def test_the_loss_is_that_of_the_groups(loss: str) -> None:
    run = factory.begun(given(loss=loss))
    batch, models = run._batch(50, None), run.models
    v = models["main"].features(batch.x)  # type: ignore[operator]
    if loss == "softmax":
        expected = F.cross_entropy(models["classifier"](v), batch.y)
    else:
        proxies: Any = models["proxies"].weight
        assert proxies.shape == (3, 32)
        d = proxynca.distances(models["embedding"](v), proxies, 1.0)
        expected = proxynca.loss(d, batch.y, "original")
    found, _ = factory.stepped(run, batch)
    torch.testing.assert_close(found, expected)
    assert int(batch.y.max()) <= 2


def test_classes_matter_by_their_groups_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    # Another class of the same group for each: 6 for 0, 4 for 1, and so on.
    swapped = torch.tensor([6, 4, 3, 5, 7, 2, 8, 1, 9, 0])
    assert torch.equal(torch.tensor(GROUPS)[swapped], torch.tensor(GROUPS))
    weights, honest = factory.train(given()).weights(), Data.trained_on

    def misled(data: Data, settings: Any, seed: int, ids: Any) -> Data:
        found = honest(data, settings, seed, ids)
        return replace(found, labels=swapped[found.labels])

    monkeypatch.setattr(Data, "trained_on", misled)
    again = factory.train(given()).weights()
    assert all(torch.equal(again[name], value) for name, value in weights.items())


def test_the_accuracy_is_that_on_the_true_groups() -> None:
    run = factory.train(given(more={"epochs": 4}))
    ids = run.ids["test"]
    models: Any = run.models
    models["main"].eval()
    x = run.evaluator.outputs(lambda x: x, ids)
    own = models["classifier"](models["main"].features(x)).argmax(1)
    expected = (own == torch.tensor(GROUPS)[run.data.labels[ids]]).double().mean()
    final = run.final()
    assert final["test_group_accuracy"] == pytest.approx(float(expected), abs=1e-9)
    assert final["test_group_accuracy"] > 0.6 and "test_accuracy" not in final


def test_unknown_classes_are_refused_and_without_a_hierarchy_classes_are_the_groups() -> None:
    known = {"open_set": {"classes": [0, 1, 2, 3, 4], "pool": 200, "contamination": 0.5}}
    with pytest.raises(UserError, match=r"split\.open_set: must be null"):
        factory.run(factory.settings("weak_labels", split=known))
    run = factory.run(factory.settings("weak_labels"))
    assert torch.equal(run.models["groups"].get_buffer("of"), torch.arange(10))


def test_weak_labels_first_is_more_accurate_than_scratch_at_five_labels_a_class(
    tmp_path: Path,
) -> None:
    few: Json = {"split": {"per_class": 5}, "epoch_images": 400}
    start: Json = {**few, "init": {"from": "start", "parts": ["features"]}}
    first: Json = {"batch": 50, "epoch_images": 1000, "epochs": 10}
    arms: Json = {
        "source": {"method": "weak_labels", **first},
        "proxies": {"method": {"name": "weak_labels", "loss": "proxies"}, **first},
        "softmax-first": {**start, "parents": {"start": "source"}},
        "proxies-first": {**start, "parents": {"start": "proxies"}},
        "scratch": few,
    }
    split = {"test": 500, "validation": 100, "per_class": 50, "unlabelled": "rest",
             "unlabelled_pool": 500, "hierarchy": "shape"}  # fmt: skip
    plan = small_paper.planned(tmp_path, arms, split=split, lr={"kind": "cosine", "peak": 0.1},
                            model={"name": "bn_mlp", "hidden": [128, 128]})  # fmt: skip
    found = {name: r["final"] for name, r in small_paper.trained(tmp_path, plan).items()}
    accuracy = {name: final.get("test_accuracy") for name, final in found.items()}
    assert found["source"]["test_group_accuracy"] > 0.85
    for arm in ("softmax-first", "proxies-first"):
        assert accuracy[arm] > accuracy["scratch"] + 0.01, accuracy
