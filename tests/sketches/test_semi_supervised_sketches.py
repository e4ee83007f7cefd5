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
from factories import batches, sketches
from factories import engine as factory
from factories.cards_semi_supervised import CARDS, FEW
from factories.schedules import clock
from torch import Tensor, nn

from cyclery import methods
from cyclery.common.errors import UserError
from cyclery.engine.run import Run
from cyclery.engine.stream import Samples
from cyclery.schedules import column

Json = dict[str, Any]


def begun(root: Path, card: str, arm: str, **changes: Any) -> Run:
    """Return a run of an arm of a card before its first update."""
    arms = {arm: {**copy.deepcopy(CARDS[card][arm]), **changes}}
    [job] = sketches.jobs(sketches.planned(root, arms))
    return factory.run(job["settings"])


# UDA.


class Table(nn.Module):
    """Gives the logits of a table, whose rows images name by their pixel."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits[x[:, 0, 0, 0].long()]


def uda(logits: list[list[float]], y: list[int], release: float, **chosen: Any) -> Any:
    """Return a step of UDA: rows are the labelled samples, then one in a weak and a strong view."""
    method = methods.load("uda")
    net = Table(torch.tensor(logits))
    x = torch.arange(float(len(logits))).view(-1, 1, 1, 1)
    unlabelled = Samples((x[-2:-1], x[-1:]), torch.zeros(1), torch.zeros(1))
    batch = batches.batch([x[:-2]], torch.tensor(y), unlabelled=unlabelled)
    row = {"release": torch.tensor(release), "weight": torch.tensor(1.0)}
    loss, logs = method.step({"main": net}, batch, row, method.chosen(chosen), torch.Generator())
    loss.backward()
    return loss.detach(), logs, net.logits.grad


def test_uda_leaves_out_labelled_samples_that_are_known_well_enough() -> None:
    # The probabilities of their classes are 0.88, 0.5 and 0.27; the threshold is 0.75.
    rows = [[2.0, 0.0], [0.0, 0.0], [0.0, 1.0]]
    _, logs, gradient = uda([*rows, [0.0, 0.0], [1.0, 0.0]], [0, 0, 0], release=0.5)
    assert float(logs["threshold"]) == pytest.approx(0.75)
    assert float(logs["kept"]) == pytest.approx(2 / 3)
    costs = F.cross_entropy(torch.tensor(rows[1:], requires_grad=True), torch.zeros(2).long())
    loss, *_ = uda([*rows, [0.0, 0.0], [1.0, 0.0]], [0, 0, 0], release=0.5)
    torch.testing.assert_close(loss, costs.detach())
    assert gradient[0].abs().max() == 0 < gradient[1].abs().max()


def test_udas_mask_is_strict_and_its_target_is_sharpened_and_constant() -> None:
    weak, strong = [0.0, 0.0], [1.0, 0.0]
    # The confidence is 0.5 exactly, which is not above 0.5.
    assert float(uda([[0.0, 0.0], weak, strong], [0], 1.0, confidence=0.5)[1]["mask_rate"]) == 0
    weak = [3.0, 0.0]
    loss, _, gradient = uda([[0.0, 0.0], weak, strong], [0], 1.0)
    target = F.softmax(torch.tensor([weak]) / 0.4, 1)
    log_p = F.log_softmax(torch.tensor([strong]), 1)
    told = F.kl_div(log_p, target, reduction="batchmean")
    torch.testing.assert_close(loss, np.log(2) + told, check_dtype=False)
    assert gradient[1].abs().max() == 0 < gradient[2].abs().max()


def test_udas_signal_is_annealed_by_schedules() -> None:
    # The card's table at t = 0, 1/4, 1/2, 3/4 for ten classes.
    known = {"log": [0.100, 0.742, 0.926, 0.979], "exp": [0.106, 0.121, 0.174, 0.358]}
    spec = {
        "log": {"kind": "exponential", "start": 0, "towards": 1, "end": np.exp(-5)},
        "exp": {"kind": "exponential", "start": np.exp(-5), "end": np.exp(5)},
    }
    for name, values in known.items():
        released = column(spec[name], clock(4))
        np.testing.assert_allclose(released * 0.9 + 0.1, values, atol=5e-4)


def test_uda_evaluates_averages_of_weights_and_of_statistics(tmp_path: Path) -> None:
    run = begun(tmp_path, "uda", "uda")
    average = {k: v.clone() for k, v in run.models["ema"].state_dict().items()}
    for _ in range(2):
        run.begin_epoch()
        run.step(run.table.batches[0])
        for name, value in run.models["main"].state_dict().items():
            if value.is_floating_point():
                average[name] = 0.9 * average[name] + 0.1 * value
    for name, value in run.models["ema"].state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, average[name], msg=name)
    assert any("running" in name for name in average)


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
