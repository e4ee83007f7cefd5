"""What makes the sketched semi-supervised methods theirs, and hierarchies of labels."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import engine as factory
from factories import sketches
from factories.cards_semi_supervised import CARDS, FEW
from torch import Tensor

from cyclery.common.errors import UserError
from cyclery.engine.run import Run

Json = dict[str, Any]


def begun(root: Path, card: str, arm: str, **changes: Any) -> Run:
    """Return a run of an arm of a card before its first update."""
    arms = {arm: {**copy.deepcopy(CARDS[card][arm]), **changes}}
    [job] = sketches.jobs(sketches.planned(root, arms))
    return factory.run(job["settings"])


# HIERMATCH.


def hierarchical(root: Path, arm: str, **changes: Any) -> tuple[Run, Any]:
    run = begun(root, "hiermatch", arm, **changes)
    module = __import__("cyclery.methods.hiermatch", fromlist=["logits"])
    return run, module.logits


def test_a_coarse_loss_reaches_no_fine_feature_and_a_fine_one_no_coarse(tmp_path: Path) -> None:
    run, logits = hierarchical(tmp_path, "full")
    seen: dict[str, Tensor] = {}
    net, features = run.models["main"], run.models["main"].features

    def watched(x: Tensor) -> Tensor:
        v = features(x)
        v.retain_grad()
        seen["v"] = v
        return v

    net.features = watched
    x = torch.randn(7, 1, 8, 8)
    weight = net.body[1].weight
    for level, own in ((0, slice(16, 32)), (1, slice(0, 16))):
        net.zero_grad()
        list(logits(run.models, x))[level].square().sum().backward()
        reached = seen["v"].grad.abs().sum(0) > 0
        assert reached[own].any() and reached.sum() == reached[own].sum()
        assert weight.grad.abs().max() > 0
    # And yet the coarse head sees the fine features.
    assert run.models["heads"][1].in_features == 32
    assert [head.out_features for head in run.models["heads"]] == [10, 3]


def test_three_levels_share_the_features_and_the_finest_has_the_rest(tmp_path: Path) -> None:
    levels = [[0, 0, 1, 1, 2, 2, 3, 3, 4, 4], [0, 0, 0, 0, 0, 0, 1, 1, 1, 1]]
    run, _ = hierarchical(tmp_path, "full", split={**FEW, "hierarchy": levels})
    assert [head.in_features for head in run.models["heads"]] == [12, 22, 32]


def test_fine_labels_of_samples_with_coarse_ones_are_never_read(tmp_path: Path) -> None:
    weights = []
    for hidden in (False, True):
        run, _ = hierarchical(tmp_path / f"{hidden}", "partial")
        coarse = run.ids["labelled.2"][~torch.isin(run.ids["labelled.2"], run.ids["train"])]
        assert len(coarse) == 40
        run.begin_epoch()
        batch = run._batch(20, None)
        assert batch["x1"].y.max() == 9 and batch["x2"].y.max() == batch["u2"].y.max() == 2
        if hidden:
            group = torch.tensor([0, 1, 2, 2, 1, 2, 0, 1, 0, 0])
            other = torch.tensor([6, 4, 3, 5, 7, 2, 8, 1, 9, 0])
            assert (group == group[other]).all()
            run.data.labels[coarse] = other[run.data.labels[coarse]]
        run.train_epoch()
        weights.append(run.flat.data.clone())
    assert torch.equal(*weights)


def test_a_class_that_is_not_known_has_no_group() -> None:
    data = replace(factory.data(), labels=torch.tensor([-1, 0, 5]))
    split = {"hierarchy": [[0, 1, 2, 2, 1, 2, 0, 1, 0, 0]]}
    assert data.labelled_as("unlabelled.2", split, 0).labels.tolist() == [-1, 0, 2]
    assert data.labelled_as("unlabelled", split, 0) is data


def test_coarse_labels_teach_the_coarse_head(tmp_path: Path) -> None:
    run, _ = hierarchical(tmp_path, "partial", epochs=30)
    factory.finish(run)
    final = run.final()
    assert final["test_level_1_accuracy"] == pytest.approx(final["test_accuracy"])
    assert final["test_level_2_accuracy"] > final["test_level_1_accuracy"] > 0.5


def test_levels_that_the_hierarchy_has_not_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"split.hierarchy: the stream 'x3' takes .* labelled\.3"):
        hierarchical(tmp_path, "partial", method={"name": "hiermatch_partial", "levels": 3})
    levels = [[0, 0, 1, 1, 2, 2, 3, 3, 4, 4], [0, 0, 0, 0, 0, 0, 1, 1, 1, 1]]
    with pytest.raises(UserError, match=r"method.levels: must be 3, as `split.hierarchy`"):
        hierarchical(tmp_path, "partial", split={**FEW, "hierarchy": levels, "coarse": [20, 20]})
