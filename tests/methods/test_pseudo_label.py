"""Pseudo-Label: the code's loss, and which samples the running statistics are of."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from factories.semi_supervised import N, buffers_equal, image_case, network, run_table, seen, step
from factories.threads import one_thread

from cyclery.methods import pseudo_label

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)


@pytest.mark.parametrize("forward", ["joint", "separate"])
def test_pseudo_label_is_the_codes_loss(forward):
    given = {"forward": forward, "statistics": "all"}
    loss, logs, table, (batch, rows) = run_table(pseudo_label, given, weight=0.3)
    z = table.detach().clone().requires_grad_()
    z_u = z[rows["u1"]]
    mask = z_u.softmax(1).max(1).values > 0.5
    assert 0 < mask.sum() < N
    loss_u = (F.cross_entropy(z_u, z_u.argmax(1), reduction="none") * mask).mean()
    expected = F.cross_entropy(z[rows["x"]], batch.y) + 0.3 * loss_u
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert logs["loss_unlabelled"].item() == pytest.approx(loss_u.item(), rel=1e-5)
    assert logs["mask_rate"].item() == pytest.approx(mask.double().mean().item())
    assert torch.allclose(table.grad, z.grad, rtol=1e-5, atol=1e-7)
    assert table.grad[rows["u1"]].any()


@pytest.mark.parametrize(
    ("forward", "statistics"), [("joint", "all"), ("separate", "all"), ("separate", "labelled")]
)
def test_pseudo_label_keeps_statistics_as_it_is_set(forward, statistics):
    batch, net = image_case(), network()
    x, u = batch.x, batch.unlabelled.x
    expected = seen(net, *{"joint": [torch.cat([x, u])], "separate": [x, u]}[forward])
    if statistics == "labelled":
        expected = seen(net, x)
    step(pseudo_label, {"main": net}, batch, {"forward": forward, "statistics": statistics})
    assert buffers_equal(net, expected)
    assert pseudo_label.Settings() == pseudo_label.Settings(
        forward="separate", statistics="labelled"
    )
