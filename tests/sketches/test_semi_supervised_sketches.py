"""What makes the sketched semi-supervised methods theirs, and hierarchies of labels."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from factories import engine as factory
from factories import sketches
from factories.cards_semi_supervised import CARDS, FEW
from torch import Tensor

from cyclery.common.errors import UserError
from cyclery.engine.run import Run
from cyclery.engine.stream import Batch

Json = dict[str, Any]


def begun(root: Path, card: str, arm: str, **changes: Any) -> Run:
    """Return a run of an arm of a card before its first update."""
    arms = {arm: {**copy.deepcopy(CARDS[card][arm]), **changes}}
    [job] = sketches.jobs(sketches.planned(root, arms))
    return factory.run(job["settings"])


def one_step(run: Run) -> tuple[Batch, Any, Tensor]:
    """Return a batch of a run, what its step returns for it, and the generator's state before."""
    run.begin_epoch()
    batch = run._batch(run.table.batches[0], None)
    state = run.generators["method"].get_state()
    row = run.table.row(run.update)
    found = run.method.step(run.models, batch, row, run.method_settings, run.generators["method"])
    return batch, found, state


# MixMatch.


def test_mixmatch_equals_its_formulas_with_statistics_of_the_first_pass(tmp_path: Path) -> None:
    run = begun(tmp_path, "mixmatch", "mixmatch")
    before = copy.deepcopy(run.models["main"])
    batch, (loss, logs), state = one_step(run)
    drawn, size = torch.Generator(), len(batch.x)
    drawn.set_state(state)
    guess = [F.softmax(copy.deepcopy(before)(view), 1) for view in batch.unlabelled.views]
    q = F.softmax((sum(guess) / 2).log() / 0.5, 1)
    a, b = torch._standard_gamma(torch.full((2, 3 * size), 0.75), generator=drawn)
    share = torch.max(a / (a + b), 1 - a / (a + b))
    other = torch.rand(3 * size, generator=drawn).argsort()
    x = torch.cat([batch.x, *batch.unlabelled.views])
    y = torch.cat([F.one_hot(batch.y, 10).float(), q, q])
    x = share.view(-1, 1, 1, 1) * x + (1 - share.view(-1, 1, 1, 1)) * x[other]
    y = share[:, None] * y + (1 - share[:, None]) * y[other]
    # As Google's code swaps parts: pass 0 gives its i-th third for that of pass i.
    parts = [list(part.tensor_split([7, 14])) for part in x.split(size)]
    for i in (1, 2):
        parts[0][i], parts[i][i] = parts[i][i], parts[0][i]
    passes = [torch.cat(part) for part in parts]
    z = [list(copy.deepcopy(before)(each).tensor_split([7, 14])) for each in passes]
    for i in (1, 2):
        z[0][i], z[i][i] = z[i][i], z[0][i]
    found = torch.cat([torch.cat(part) for part in z])
    weight = float(run.table.columns["weight"][0])
    loss_u = F.mse_loss(found[size:].softmax(1), y[size:])
    torch.testing.assert_close(logs["loss_unlabelled"], loss_u)
    torch.testing.assert_close(loss, F.cross_entropy(found[:size], y[:size]) + weight * loss_u)
    before(passes[0])
    for (name, own), expected in zip(
        run.models["main"].named_buffers(), before.buffers(), strict=True
    ):
        torch.testing.assert_close(own, expected, msg=name)


def test_mixmatch_counts_the_passes_of_its_guesses(tmp_path: Path) -> None:
    run = begun(tmp_path, "mixmatch", "mixmatch")
    # 20 labelled images, two views of 20 others; the views pass once more to be guessed.
    assert run.method.spent(run.method_settings, 20, None) == (60, 100)


def test_mixmatch_learns_more_from_four_labels_a_class_than_labels_alone(tmp_path: Path) -> None:
    accuracy: dict[str, list[float]] = {"mixmatch": [], "supervised": []}
    how = {"epochs": 40, "model": {"name": "small_cnn", "width": 8}}
    for arm, found in accuracy.items():
        settings = begun(tmp_path / arm, "mixmatch", arm, **how).settings
        for seed in range(3):
            run = factory.train({**settings, "seed": seed})
            found.append(run.evaluate("test")["accuracy"])
    gains = np.subtract(accuracy["mixmatch"], accuracy["supervised"])
    assert gains.mean() > 0.05 and gains.min() > 0, accuracy


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
