"""FixMatch: the paper's loss, whose labels are learnt, alignment of distributions."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from factories.batches import made
from factories.semi_supervised import (
    B,
    K,
    N,
    Table,
    assert_same_gradients,
    buffers_equal,
    frozen,
    image_case,
    network,
    numbers,
    run_table,
    softmax,
    step,
    table_case,
)
from factories.threads import one_thread
from torch import nn

from cyclery import methods
from cyclery.common.errors import UserError
from cyclery.common.settings import read
from cyclery.methods import _alignment, fixmatch

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("target", ["hard", "soft"])
@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.8])
def test_fixmatch_is_the_papers_loss(target, temperature, threshold):
    loss, logs, table, (batch, rows) = run_table(
        fixmatch, {"target": target}, threshold=threshold, temperature=temperature, weight=0.3
    )
    z = {part: numbers(table[place]) for part, place in rows.items()}
    y, hidden = numbers(batch.y).astype(int), numbers(batch.unlabelled.y).astype(int)
    sharp, flat = softmax(z["u1"] / temperature), softmax(z["u1"])
    mask = (sharp if target == "hard" else flat).max(1) >= threshold
    chosen = np.eye(K)[sharp.argmax(1)] if target == "hard" else sharp
    loss_x = -np.log(softmax(z["x"]))[np.arange(B), y].mean()
    loss_u = -(mask[:, None] * chosen * np.log(softmax(z["u2"]))).sum() / N
    assert mask.any()
    assert loss.item() == pytest.approx(loss_x + 0.3 * loss_u, rel=1e-5)
    assert logs["loss_labelled"].item() == pytest.approx(loss_x, rel=1e-5)
    assert logs["loss_unlabelled"].item() == pytest.approx(loss_u, rel=1e-5)
    assert logs["mask_rate"].item() == pytest.approx(mask.mean())
    correct = mask & (flat.argmax(1) == hidden)
    assert logs["pseudo_correct"].item() == pytest.approx(correct.mean())
    share = np.bincount(flat.argmax(1)[mask], minlength=K) / mask.sum()
    classes = np.exp(-sum(s * np.log(s) for s in share if s))
    assert logs["pseudo_classes"].item() == pytest.approx(classes, rel=1e-5)


def test_fixmatch_is_the_cards_check_and_divides_by_all_unlabelled():
    _, logs, table, (_, rows) = run_table(fixmatch, threshold=0.8)
    z_w, z_s = table[rows["u1"]].detach(), table[rows["u2"]].detach()
    q = z_w.softmax(1)
    mask = q.max(1).values >= 0.8
    assert 0 < mask.sum() < N
    losses = F.cross_entropy(z_s, q.argmax(1), reduction="none")
    assert logs["loss_unlabelled"] == pytest.approx((losses * mask).mean().item(), rel=1e-6)
    assert logs["loss_unlabelled"] == pytest.approx(losses[mask].sum().item() / N, rel=1e-6)


@pytest.mark.parametrize("target", ["hard", "soft"])
def test_fixmatch_sends_no_gradient_through_the_label_view(target):
    _, _, table, (batch, rows) = run_table(fixmatch, {"target": target}, weight=0.3, threshold=0.0)
    direct = table.detach().clone().requires_grad_()
    q = direct[rows["u1"]].detach().softmax(1)
    chosen = q.argmax(1) if target == "hard" else q
    loss = F.cross_entropy(direct[rows["x"]], batch.y)
    (loss + 0.3 * F.cross_entropy(direct[rows["u2"]], chosen)).backward()
    assert torch.allclose(table.grad, direct.grad, rtol=1e-5, atol=1e-7)
    assert not table.grad[rows["u1"]].any()
    assert table.grad[rows["u2"]].any()


@pytest.mark.parametrize("label_view", ["weak", "strong"])
@pytest.mark.parametrize("prediction_view", ["weak", "strong"])
def test_fixmatch_asks_for_two_views_label_first(label_view, prediction_view):
    settings = fixmatch.Settings(label_view=label_view, prediction_view=prediction_view)
    found = fixmatch.streams(settings)
    assert found == {"labelled": ("weak",), "unlabelled": (label_view, prediction_view)}


def test_alignment_is_the_hand_computation_over_several_updates(monkeypatch):
    monkeypatch.setattr(_alignment, "UPDATES", 3)
    settings = fixmatch.Settings(alignment="average")
    memory = fixmatch.modules(settings, made(nn.Identity(), K))["alignment"]
    places = {name: buffer.data_ptr() for name, buffer in memory.named_buffers()}
    assert not list(memory.parameters())
    window, p_data = [np.full(K, 1 / K)] * 3, np.full(K, 1 / K)
    for update in range(5):
        batch, logits, rows = table_case(update)
        networks = {"main": Table(logits), "alignment": memory}
        _, logs = step(fixmatch, networks, batch, {"alignment": "average"}, threshold=0.6)
        z_w, z_s = numbers(logits[rows["u1"]]), numbers(logits[rows["u2"]])
        q = softmax(z_w)
        ratio = (1e-6 + p_data) / (1e-6 + np.mean(window, axis=0))
        window = [*window[1:], q.mean(0)]
        p_data = 0.999 * p_data + 0.001 * np.bincount(batch.y.numpy(), minlength=K) / B
        aligned = q * ratio / (q * ratio).sum(1, keepdims=True)
        mask = aligned.max(1) >= 0.6
        losses = -np.log(softmax(z_s))[np.arange(N), aligned.argmax(1)]
        assert logs["mask_rate"].item() == pytest.approx(mask.mean())
        assert logs["loss_unlabelled"].item() == pytest.approx((losses * mask).mean(), rel=1e-5)
    assert (aligned.argmax(1) != q.argmax(1)).any()
    assert {name: buffer.data_ptr() for name, buffer in memory.named_buffers()} == places
    assert numbers(memory.get_buffer("means")).mean(0) == pytest.approx(np.mean(window, axis=0))
    assert numbers(memory.get_buffer("p_data")) == pytest.approx(p_data)


def aligning(classes: int) -> nn.Module:
    settings = fixmatch.Settings(alignment="average")
    return fixmatch.modules(settings, made(nn.Identity(), classes))["alignment"]


def test_alignment_remembers_128_updates_and_starts_uniform():
    memory = aligning(K)
    uniform = torch.full((N, K), 1 / K)
    assert torch.equal(memory.get_buffer("means"), torch.full((128, K), 1 / K))
    y = torch.arange(K)
    assert _alignment.alignment(memory, uniform, y).tolist() == pytest.approx([0.0] * K, abs=1e-5)
    assert fixmatch.modules(fixmatch.Settings(), made(nn.Identity(), K)) == {}


def test_alignment_spares_the_classes_that_the_first_batches_lack():
    """At most 64 of CIFAR-100's classes are in a batch; no other one may be shut out for that."""
    memory, uniform = aligning(100), torch.full((448, 100), 0.01)
    for update in range(20):
        y = torch.randint(100, (64,), generator=torch.Generator().manual_seed(update))
        ratio = _alignment.alignment(memory, uniform, y).exp()
        assert ratio.min() >= 0.98 and ratio.max() <= 1.1, update
    # After many updates it is the distribution of the labels.
    for _ in range(4000):
        _alignment.alignment(memory, uniform[:1], torch.tensor([3, 3, 3, 8]))
    p_data = memory.get_buffer("p_data")
    assert p_data[[3, 8]].tolist() == pytest.approx([0.75, 0.25], abs=0.02)


def test_alignment_off_is_written_as_ever_so_its_runs_keep_their_keys():
    assert methods.load("fixmatch").version == 1
    assert fixmatch.Settings().alignment is False
    for given in (0, "averages", True, None):
        with pytest.raises(UserError, match=r"alignment: must be one of average, false \(found"):
            read(fixmatch.Settings, {"alignment": given}, "method")
    assert read(fixmatch.Settings, {"alignment": False}, "method").alignment is False


@pytest.mark.parametrize("labels_from", ["ema_eval", "ema_train"])
def test_fixmatch_takes_labels_from_the_averaged_network_in_the_mode_that_is_asked(labels_from):
    batch, net = image_case(), network()
    ema = frozen(network(seed=1)).train()
    reference = copy.deepcopy(ema).train(labels_from == "ema_train")
    _, logs = step(fixmatch, {"main": net, "ema": ema}, batch, {"labels_from": labels_from})
    with torch.no_grad():
        labels = reference(batch.unlabelled.views[0]).argmax(1)
    assert logs["pseudo_correct"] <= logs["mask_rate"]
    assert fixmatch.uses_ema(fixmatch.Settings(labels_from=labels_from))
    assert not fixmatch.uses_ema(fixmatch.Settings())
    # With every label used, the loss says which labels they were and what the network saw.
    other = network()
    _, logs = step(
        fixmatch, {"main": other, "ema": ema}, batch, {"labels_from": labels_from}, threshold=0.0
    )
    twin = network()
    z = twin(torch.cat([batch.x, batch.unlabelled.views[1]]))
    expected = F.cross_entropy(z[B:], labels).item()
    assert logs["loss_unlabelled"].item() == pytest.approx(expected, rel=1e-5)
    assert buffers_equal(other, twin)
    assert all(module.training for module in ema.modules())
    assert all(p.grad is None for p in ema.parameters())


def test_fixmatch_makes_one_pass_in_training_mode_over_all_three_views():
    batch, net, twin = image_case(), network(), network()
    loss, _ = step(fixmatch, {"main": net}, batch, threshold=0.0, weight=0.3)
    z = twin(torch.cat([batch.x, *batch.unlabelled.views]))
    z_x, z_w, z_s = z.split([B, N, N])
    expected = F.cross_entropy(z_x, batch.y) + 0.3 * F.cross_entropy(z_s, z_w.argmax(1))
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert_same_gradients(net, twin)
    assert buffers_equal(net, twin)
    tracked = [b.item() for name, b in net.named_buffers() if name.endswith("tracked")]
    assert set(tracked) == {1}
    assert not buffers_equal(net, network())
