"""UDA: the published loss, TSA and its schedules, and what public versions do otherwise."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from factories import engine as factory
from factories.schedules import clock
from factories.semi_supervised import (
    B,
    K,
    N,
    Table,
    assert_same_gradients,
    buffers_equal,
    image_case,
    network,
    numbers,
    run_table,
    softmax,
    step,
    table_case,
)
from factories.threads import one_thread
from torch import Tensor

from cyclery.common.errors import UserError
from cyclery.common.settings import read
from cyclery.methods import uda
from cyclery.schedules import column

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)


@pytest.mark.parametrize("mask_from", ["plain", "sharpened"])
@pytest.mark.parametrize("signal", ["correct", "largest"])
@pytest.mark.parametrize("mean_over", ["kept", "all"])
def test_uda_is_the_papers_loss(mean_over: str, signal: str, mask_from: str) -> None:
    given = {"mean_over": mean_over, "signal": signal, "mask_from": mask_from}
    values = {"confidence": 0.7, "temperature": 0.4, "release": 0.5, "weight": 0.3, "entropy": 0.2}
    loss, logs, table, (batch, rows) = run_table(uda, given, seed=9, **values)
    z = {part: numbers(table[place]) for part, place in rows.items()}
    y = numbers(batch.y).astype(int)
    p, original = softmax(z["x"]), softmax(z["u1"])
    right = p[np.arange(B), y]
    shown = right if signal == "correct" else p.max(1)
    kept = shown <= 0.5 * (1 - 1 / K) + 1 / K
    assert 0 < kept.sum() < B
    loss_x = -np.log(right)[kept].sum() / (kept.sum() if mean_over == "kept" else B)
    target = softmax(z["u1"] / 0.4)
    mask = (original if mask_from == "plain" else target).max(1) > 0.7
    assert 0 < mask.sum() < N
    loss_u = (target * np.log(target / softmax(z["u2"])))[mask].sum() / N
    entropy = -(original * np.log(original)).sum() / N
    assert logs["loss_labelled"].item() == pytest.approx(loss_x, rel=1e-5)
    assert logs["loss_unlabelled"].item() == pytest.approx(loss_u, rel=1e-5)
    assert logs["entropy"].item() == pytest.approx(entropy, rel=1e-5)
    assert loss.item() == pytest.approx(loss_x + 0.3 * loss_u + 0.2 * entropy, rel=1e-5)
    assert logs["bound"].item() == pytest.approx(0.625)
    assert logs["kept"].item() == pytest.approx(kept.mean())
    assert logs["mask_rate"].item() == pytest.approx(mask.mean())
    correct = mask & (original.argmax(1) == numbers(batch.unlabelled.y))
    assert logs["pseudo_correct"].item() == pytest.approx(correct.mean())


@pytest.mark.parametrize(
    "given",
    [{"signal": "largest"}, {"mean_over": "all"}, {"mask_from": "sharpened"}],
    ids=lambda given: next(iter(given)),
)
def test_what_public_versions_do_is_another_loss(given: dict[str, str]) -> None:
    values = {"confidence": 0.9, "temperature": 0.4, "release": 0.5}
    ours, theirs = (run_table(uda, each, seed=9, **values)[0] for each in ({}, given))
    assert abs(ours - theirs) > 0.01


def test_a_temperature_that_is_not_applied_is_one_of_1() -> None:
    """What USB computes: probabilities are taken for logits that are sharpened already."""
    _, logs, table, (_, rows) = run_table(uda, temperature=1.0, confidence=0.0)
    original, noised = (table[rows[part]].detach() for part in ("u1", "u2"))
    told = F.kl_div(noised.log_softmax(1), original.softmax(1), reduction="batchmean")
    assert logs["loss_unlabelled"].item() == pytest.approx(told.item(), rel=1e-5)
    assert run_table(uda, temperature=0.4, confidence=0.0)[1]["loss_unlabelled"] > 1.1 * told


def test_the_divergence_is_torchs_and_its_mean_is_over_all_unlabelled() -> None:
    _, logs, table, (_, rows) = run_table(uda, confidence=0.8, temperature=0.4)
    original, noised = (table[rows[part]].detach() for part in ("u1", "u2"))
    target = (original / 0.4).softmax(1)
    each = F.kl_div(noised.log_softmax(1), target, reduction="none").sum(1)
    mask = original.softmax(1).amax(1) > 0.8
    assert 0 < mask.sum() < N
    assert logs["loss_unlabelled"].item() == pytest.approx(each[mask].sum().item() / N, rel=1e-5)


def test_the_confidence_itself_is_not_enough() -> None:
    batch, logits, rows = table_case()
    logits[rows["u1"]] = torch.tensor([0.0, 0.0, -200.0, -200.0])
    rates = [step(uda, {"main": Table(logits)}, batch, confidence=c)[1]["mask_rate"]
             for c in (0.499, 0.5)]  # fmt: skip
    assert rates == [1.0, 0.0]


@pytest.mark.parametrize("seed", range(5))
def test_two_equal_views_have_no_loss_at_all(seed: int) -> None:
    """Exactly 0, as the card has it, and without a gradient that would move anything."""
    batch, logits, rows = table_case(seed, spread=8.0)
    logits[rows["u2"]] = logits[rows["u1"]]
    net = Table(logits)
    _, logs = step(uda, {"main": net}, batch, confidence=0.0, temperature=1.0, entropy=0.0)
    assert logs["mask_rate"] == 1 and logs["loss_unlabelled"] == 0
    assert net.logits.grad is not None
    assert net.logits.grad[rows["u2"]].abs().max() < 1e-7


def test_gradients_are_where_they_belong() -> None:
    _, _, table, (batch, rows) = run_table(uda, weight=0.3, confidence=0.0, entropy=0.0)
    direct = table.detach().clone().requires_grad_()
    target = (direct[rows["u1"]].detach() / 0.4).softmax(1)
    # The divergence and the cross-entropy with a constant target have the same gradient.
    loss = F.cross_entropy(direct[rows["x"]], batch.y)
    (loss + 0.3 * F.cross_entropy(direct[rows["u2"]], target)).backward()
    assert table.grad is not None and direct.grad is not None
    torch.testing.assert_close(table.grad, direct.grad, rtol=1e-5, atol=1e-7)
    assert not table.grad[rows["u1"]].any() and table.grad[rows["u2"]].any()


def test_the_entropy_alone_sends_a_gradient_through_the_original_view() -> None:
    _, _, table, (_, rows) = run_table(uda, weight=0.0, entropy=0.5)
    direct = table.detach()[rows["u1"]].requires_grad_()
    p = direct.softmax(1)
    (0.5 * torch.distributions.Categorical(p).entropy().mean()).backward()
    assert table.grad is not None and direct.grad is not None
    torch.testing.assert_close(table.grad[rows["u1"]], direct.grad, rtol=1e-4, atol=1e-7)
    assert not table.grad[rows["u2"]].any()


def labelled(z: list[list[float]], release: float, **given: Any) -> tuple[Tensor, Any, Tensor]:
    """Return the labelled loss of logits whose class is 0, what is logged, and the gradient."""
    logits = torch.tensor(z, requires_grad=True)
    y = torch.zeros(len(z), dtype=torch.long)
    loss, logs = uda.labelled_loss(logits, y, torch.tensor(release), uda.Settings(**given))
    loss.backward()
    assert logits.grad is not None
    return loss.detach(), logs, logits.grad


def test_labelled_samples_that_are_known_well_enough_are_left_out() -> None:
    # The probabilities of their classes are 0.88, 0.5 and 0.27; the bound is 0.75.
    z = [[2.0, 0.0], [0.0, 0.0], [0.0, 1.0]]
    loss, logs, gradient = labelled(z, 0.5)
    assert logs["bound"].item() == pytest.approx(0.75)
    assert logs["kept"].item() == pytest.approx(2 / 3)
    expected = F.cross_entropy(torch.tensor(z[1:]), torch.zeros(2, dtype=torch.long))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert not gradient[0].any() and gradient[1:].all()


def test_a_confident_mistake_is_kept_but_where_the_largest_probability_counts() -> None:
    z = [[-2.0, 2.0], [0.0, 0.0]]
    assert labelled(z, 0.5)[1]["kept"] == 1
    loss, logs, gradient = labelled(z, 0.5, signal="largest", mean_over="all")
    assert logs["kept"] == 0.5 and not gradient[0].any()
    assert loss.item() == pytest.approx(np.log(2) / 2, rel=1e-6)


def test_a_release_of_1_keeps_what_is_certain_and_one_of_0_what_is_worse_than_chance() -> None:
    certain, even, poor = [200.0, 0.0, 0.0], [0.0, 0.0, 0.0], [-1.0, 0.0, 0.0]
    assert labelled([certain, even, poor], 1.0)[1]["kept"] == 1
    assert labelled([certain, poor], 0.0)[1]["kept"] == 0.5
    loss, logs, gradient = labelled([certain, certain], 0.0)
    assert loss == 0 and logs["kept"] == 0 and not gradient.any()


# The table of the paper's schedules at t = 0, 1/4, 1/2, 3/4 and 1, for ten classes.
RELEASES: dict[str, Any] = {
    "linear": ({"kind": "linear", "start": 0, "end": 1}, [0.100, 0.325, 0.550, 0.775, 1.0]),
    "exp": (
        {"kind": "exponential", "start": 0.006737946999085467, "end": 148.4131591025766},
        [0.106, 0.121, 0.174, 0.358, 1.0],
    ),
    "log": (
        {"kind": "exponential", "start": 0, "towards": 1, "end": 0.006737946999085467},
        [0.100, 0.742, 0.926, 0.979, 0.994],
    ),
}
FORMULAS = {
    "linear": lambda t: t,
    "exp": lambda t: np.exp(5 * (t - 1)),
    "log": lambda t: 1 - np.exp(-5 * t),
}


@pytest.mark.parametrize("name", RELEASES)
def test_schedules_release_the_signal_as_the_paper_has_it(name: str) -> None:
    spec, known = RELEASES[name]
    t = np.arange(1000) / 1000
    released = column(spec, clock(1000))
    np.testing.assert_allclose(released, FORMULAS[name](t), rtol=1e-12, atol=1e-15)
    at = [FORMULAS[name](x) for x in (0, 0.25, 0.5, 0.75, 1.0)]
    bounds = [labelled([[0.0] * 10], float(a))[1]["bound"].item() for a in at]
    assert bounds == pytest.approx(known, abs=5e-4)


def test_the_slower_the_release_the_fewer_labels_a_run_uses() -> None:
    specs = {"none": 1.0, **{name: spec for name, (spec, _) in RELEASES.items()}}
    kept = {}
    for name, release in specs.items():
        given = {"epochs": 4, "epoch_images": 200, "release": release}
        kept[name] = np.mean(factory.train(factory.settings("uda", **given)).curve["train_kept"])
    order = [kept[name] for name in ("none", "log", "linear", "exp")]
    assert order[0] == 1 and all(a > b + 0.02 for a, b in pairwise(order)), kept


def test_uda_makes_one_pass_in_training_mode_over_all_three_views() -> None:
    batch, net, twin = image_case(), network(), network()
    loss, _ = step(uda, {"main": net}, batch, confidence=0.0, weight=0.3, entropy=0.0)
    z_x, z_w, z_s = twin(torch.cat([batch.x, *batch.unlabelled.views])).split([B, N, N])
    target = (z_w.detach() / 0.4).softmax(1)
    told = F.kl_div(z_s.log_softmax(1), target, reduction="batchmean")
    expected = F.cross_entropy(z_x, batch.y) + 0.3 * told
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert_same_gradients(net, twin)
    assert buffers_equal(net, twin)
    tracked = [b.item() for name, b in net.named_buffers() if name.endswith("tracked")]
    assert set(tracked) == {1}


def test_without_weight_the_gradient_is_that_of_supervised_training() -> None:
    batch, net, plain = image_case(), network("group"), network("group")
    step(uda, {"main": net}, batch, weight=0.0, entropy=0.0)
    F.cross_entropy(plain(batch.x), batch.y).backward()
    assert_same_gradients(net, plain, 1e-6)


@pytest.mark.parametrize("view", ["weak", "strong"])
def test_uda_asks_for_two_views_the_original_one_first(view: str) -> None:
    found = uda.streams(uda.Settings(prediction_view=view))  # type: ignore[arg-type]
    assert found == {"labelled": ("weak",), "unlabelled": ("weak", view)}


def test_averages_of_weights_and_of_statistics_are_evaluated() -> None:
    given = {"ema_decay": 0.9, "ema_buffers": "average", "epochs": 1}
    run = factory.run(factory.settings("uda", **given))
    average = copy.deepcopy(run.models["ema"].state_dict())
    run.begin_epoch()
    for _ in range(3):
        run.step(run.table.batches[0])
        for name, value in run.models["main"].state_dict().items():
            if value.is_floating_point():
                average[name] = 0.9 * average[name] + 0.1 * value
    assert any("running" in name for name in average)
    for name, value in run.models["ema"].state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, average[name], msg=name)


def test_decay_reaches_all_variables_or_kernels_alone() -> None:
    """The official code decays norms and biases, too; that of FixMatch kernels alone."""
    norms = {}
    for norm in (0.0, 0.5):
        given = {"weight_decay": 0.5, "weight_decay_norm": norm, "epochs": 1, "lr": 0.05}
        run = factory.train(factory.settings("uda", **given))
        norms[norm] = {n: p.norm().item() for n, p in run.models["main"].named_parameters()}
    changed = {n for n, length in norms[0.0].items() if norms[0.5][n] < 0.9 * length}
    assert {n for n in changed if n.endswith("2.weight")} == {"body.2.weight"}
    assert "body.1.weight" not in changed


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"signal": "right"}, r"method\.signal: must be one of correct, largest \(found 'right'"),
        ({"mean_over": "B"}, r"method\.mean_over: must be one of all, kept \(found 'B'"),
        ({"mask_from": "target"}, r"method\.mask_from: must be one of plain, sharpened"),
        ({"prediction_view": "plain"}, r"method\.prediction_view: must be one of strong, weak"),
        ({"release": 1.5}, r"method\.release: must be at least 0\.0 and at most 1\.0 \(found 1\.5"),
        ({"confidence": -1}, r"method\.confidence: must be at least 0\.0 and at most 1\.0"),
        ({"temperature": 0}, r"method\.temperature: must be above 0\.0 \(found 0"),
        ({"tsa": "exp"}, r"method: unknown key 'tsa'"),
    ],
)
def test_wrong_settings_are_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(uda.Settings, given, "method")
