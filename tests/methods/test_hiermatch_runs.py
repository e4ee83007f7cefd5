"""Runs of HIERMATCH: one level is the method of its core, coarse labels, figures of levels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from factories import engine as factory
from factories import hiermatch, packs
from factories.hiermatch import CORES, THREE, TWO
from factories.threads import one_thread
from torch import Tensor

from cyclery.engine.run import Run
from cyclery.methods import hiermatch as method

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

# Settings with which a core is the method of its name.
SAME: dict[str, dict[str, Any]] = {
    "fixmatch": {},
    "mixmatch": {"share": "batch", "statistics": "all"},
}


@pytest.mark.parametrize("core", SAME)
@pytest.mark.parametrize("pools", ["shared", "levels"])
def test_one_level_is_the_method_of_its_core_bit_for_bit(core: str, pools: str) -> None:
    own = hiermatch.settings(core, pools, hierarchy=None, threshold=0.3, epochs=2)
    plain = factory.settings(core, method_settings=SAME[core])
    wanted = {*plain["schedules"], "ema_decay"}
    schedules = {k: v for k, v in own["schedules"].items() if k in wanted}
    if core == "fixmatch":
        # `fixmatch` has one of its own, which sharpens what the mask looks at.
        schedules["temperature"] = 1.0
    other = {**own, "method": plain["method"], "schedules": schedules}
    runs = factory.train(own), factory.train(other)
    assert torch.equal(runs[0].flat.data, runs[1].flat.data)
    for name, value in runs[1].weights().items():
        assert torch.equal(runs[0].weights()[name], value), name
    # `mixmatch` measures one figure more.
    assert runs[0].final().items() <= runs[1].final().items()
    for name in ("train_loss", "train_loss_labelled", "train_loss_unlabelled"):
        assert runs[0].curve[name] == runs[1].curve[name]


@pytest.mark.parametrize("core", CORES)
def test_fine_labels_of_samples_with_coarse_ones_are_never_read(core: str) -> None:
    # Each coarse image gets the label of another class of its group.
    group = torch.tensor(TWO[0])
    other = torch.tensor([6, 4, 3, 5, 7, 2, 8, 1, 9, 0])
    assert (group == group[other]).all()
    weights = []
    for hidden in (False, True):
        data = replace(factory.data(), labels=factory.data().labels.clone())
        run = Run(hiermatch.settings(core, "levels", threshold=0.2), data, factory.CPU)
        coarse = run.ids["labelled.2"][~torch.isin(run.ids["labelled.2"], run.ids["train"])]
        assert len(coarse) == 40
        run.begin_epoch()
        batch = run._batch(20, None)
        assert batch.y.max() == 9 and batch["labelled_2"].y.max() == 2
        assert batch["unlabelled_2"].y.max() == 2
        if hidden:
            # Only now, for the split looks at labels.
            data.labels[coarse] = other[data.labels[coarse]]
        run.train_epoch()
        weights.append(run.flat.data.clone())
    assert torch.equal(*weights)


def test_a_coarse_label_is_unlabelled_for_a_finer_level() -> None:
    run = factory.run(hiermatch.settings("fixmatch", "levels", THREE, split={"unlabelled": "rest"}))
    pools = {
        name: set(run.ids[name].tolist())
        for name in ("train", "labelled.2", "labelled.3", "unlabelled.1", "unlabelled.2",
                     "unlabelled.3")
    }  # fmt: skip
    assert [len(pools[name]) for name in ("train", "labelled.2", "labelled.3")] == [40, 80, 120]
    assert pools["train"] < pools["labelled.2"] < pools["labelled.3"]
    every = pools["train"] | pools["unlabelled.1"]
    for level, labelled in ((2, "labelled.2"), (3, "labelled.3")):
        assert pools[f"unlabelled.{level}"] == every - pools[labelled]


def test_a_class_that_is_not_known_has_no_group() -> None:
    data = replace(factory.data(), labels=torch.tensor([-1, 0, 5]))
    split = {"hierarchy": TWO}
    assert data.labelled_as("unlabelled.2", split, 0).labels.tolist() == [-1, 0, 2]
    assert data.labelled_as("unlabelled", split, 0) is data


def by_hand(run: Run, groups: list[int]) -> tuple[float, float]:
    """Return the accuracies of the coarse head, and of the fine head's probabilities, in numpy."""
    nets = {name: module.eval() for name, module in run.networks.evaluated[0].items()}
    ids = run.ids["test"]

    def joined(x: Tensor) -> Tensor:
        return torch.cat(method.logits(nets, x, run.method_settings), 1)

    found = run.evaluator.outputs(joined, ids)
    fine, coarse = found[:, :10].double().softmax(1).numpy(), found[:, 10:].numpy()
    truth = np.array(groups)[run.data.labels[ids].numpy()]
    summed = np.stack([fine[:, np.array(groups) == g].sum(1) for g in range(coarse.shape[1])], 1)
    return (coarse.argmax(1) == truth).mean(), (summed.argmax(1) == truth).mean()


def test_coarse_labels_teach_the_coarse_head_and_figures_are_of_levels() -> None:
    given = hiermatch.settings(
        "fixmatch", "levels", epochs=30, lr=0.05, split={"labels": None, "per_class": 4}
    )
    run = factory.train(given)
    final = run.final()
    level, marginal = by_hand(run, TWO[0])
    assert final["test_level_2_accuracy"] == pytest.approx(level)
    assert final["test_marginal_2_accuracy"] == pytest.approx(marginal)
    assert level != marginal
    assert level > final["test_accuracy"] > 0.5 and marginal > final["test_accuracy"]


def test_marginal_probabilities_are_sums_over_the_classes_of_a_group() -> None:
    p = torch.randn(6, 10).softmax(1)
    groups = torch.tensor(TWO[0])
    found = method.marginal(p, groups, 3)
    torch.testing.assert_close(found.sum(1), torch.ones(6))
    torch.testing.assert_close(found[:, 1], p[:, [1, 4, 7]].sum(1))


def flat(**changes: Any) -> Tensor:
    return factory.train(hiermatch.settings(weight=10.0, threshold=0.3, **changes)).flat.data


@pytest.mark.parametrize(
    ("core", "chosen"),
    [
        ("fixmatch", {"stop_gradient": False}),
        ("mixmatch", {"stop_gradient": False}),
        ("mixmatch", {"share": "sample"}),
    ],
)
def test_each_switch_computes_something_else(core: str, chosen: dict[str, Any]) -> None:
    assert not torch.equal(flat(core=core, epochs=1), flat(core=core, epochs=1, chosen=chosen))


def test_a_random_hierarchy_is_another_one_of_the_same_sizes() -> None:
    true, placebo = (
        factory.run(hiermatch.settings(split=split)).models["heads"].groups
        for split in ({}, {"hierarchy_order": "random"})
    )
    assert not torch.equal(true, placebo)
    assert true[1].bincount().tolist() == placebo[1].bincount().tolist() == [4, 3, 3]


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("pools", ["shared", "levels"])
def test_hidden_labels_train_nothing(
    core: str, pools: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = hiermatch.settings(core, pools, threshold=0.1, epochs=1)
    honest, misled = factory.run(given), factory.run(given)
    for name, feed in misled.feeds.items():
        if name.startswith("unlabelled"):
            groups = 10 if name == "unlabelled" else 3
            monkeypatch.setattr(feed, "_labels", (feed._labels + 2) % groups)
    factory.finish(honest)
    factory.finish(misled)
    assert torch.equal(honest.flat.data, misled.flat.data)
    logged = "train_target_correct" if core == "mixmatch" else "train_pseudo_correct"
    for name in (logged, f"{logged}_2"):
        assert honest.curve[name] != misled.curve[name]


@pytest.mark.parametrize("core", CORES)
def test_it_improves_on_the_labels_alone(core: str) -> None:
    """An easy case: 20 labels and 200 coarse ones, 1,177 digits that hide theirs."""
    weight = {"mixmatch": {"kind": "ramp", "end": 20.0, "over": 1.0}, "fixmatch": 1.0}[core]
    strong = ({"op": "policy"}, {"op": "cutout", "size": 3})
    common: dict[str, Any] = {
        "model_settings": {"hidden": [64, 64, 64]}, "optimiser": "adam", "lr": 0.003,
        "epochs": 10, "epoch_images": 400, "batch": 20, "ema_decay": 0.95, "evaluations": 1,
        "split": {"labels": None, "per_class": 2, "coarse": [200]},
    }  # fmt: skip
    plain = {**common, "split": {"labels": None, "per_class": 2}}

    def accuracy(make: Any) -> float:
        runs = packs.beside([make(seed) for seed in range(4)], packs.Widths(4))
        return float(np.mean([run.figures["test_accuracy"] for run in runs]))  # type: ignore[attr-defined]

    alone = accuracy(lambda seed: factory.settings(seed=seed, **plain))
    found = accuracy(
        lambda seed: hiermatch.settings(
            core, "levels", seed=seed, weight=weight, strong=strong, **common
        )
    )
    assert found - alone > 0.03
