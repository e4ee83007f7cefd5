"""Mean Teacher: the paper's loss, what gradients flow where, whose statistics move."""

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
    all_models,
    assert_same_gradients,
    buffers_equal,
    frozen,
    gradients,
    image_case,
    network,
    numbers,
    run_table,
    seen,
    softmax,
    step,
)
from factories.threads import one_thread

from cyclery.common.errors import UserError
from cyclery.methods import mean_teacher
from cyclery.models.layers import keep_statistics

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)


@pytest.mark.parametrize("consistency", ["mse", "kl"])
@pytest.mark.parametrize("items", ["all", "unlabelled"])
@pytest.mark.parametrize("denominator", ["labelled", "all"])
@pytest.mark.parametrize("forward", ["joint", "separate"])
def test_mean_teacher_is_the_papers_loss(consistency, items, denominator, forward):
    given = dict(consistency=consistency, items=items, denominator=denominator, forward=forward)
    loss, logs, table, (batch, rows) = run_table(mean_teacher, given, weight=3.0)
    f, g = table.detach(), table.detach().flip(0)
    student, teacher = f[rows["u1"]], g[rows["u2"]]
    if items == "all":
        student = torch.cat([f[rows["x"]], student])
        teacher = torch.cat([g[rows["x2"]], teacher])
    p, q = softmax(numbers(student)), softmax(numbers(teacher))
    costs = ((p - q) ** 2).mean(1) if consistency == "mse" else (q * np.log(q / p)).sum(1)
    class_costs = -np.log(softmax(numbers(f[rows["x"]])))[np.arange(B), batch.y.numpy()]
    over = (B, len(costs)) if denominator == "labelled" else (B + N, B + N)
    loss_x, loss_u = class_costs.sum() / over[0], costs.sum() / over[1]
    assert logs["loss_labelled"].item() == pytest.approx(loss_x, rel=1e-5)
    assert logs["loss_consistency"].item() == pytest.approx(loss_u, rel=1e-4)
    assert loss.item() == pytest.approx(loss_x + 3 * loss_u, rel=1e-4)
    right = (g[rows["u2"]].argmax(1) == batch.unlabelled.y).double().mean().item()
    assert logs["target_correct"].item() == pytest.approx(right)


def test_consistency_costs_are_those_of_torch():
    z, target = torch.randn(N, K), torch.randn(N, K)
    mse = F.mse_loss(z.softmax(1), target.softmax(1))
    kl = F.kl_div(z.log_softmax(1), target.softmax(1), reduction="batchmean")
    costs = {kind: mean_teacher.consistency_costs(z, target, kind) for kind in ("mse", "kl")}
    assert costs["mse"].mean().item() == pytest.approx(mse.item(), rel=1e-5)
    assert costs["kl"].mean().item() == pytest.approx(kl.item(), rel=1e-5)


@pytest.mark.parametrize("consistency", ["mse", "kl"])
@pytest.mark.parametrize("target", ["ema", "current"])
def test_the_student_learns_from_the_consistency_cost_and_the_teacher_never(target, consistency):
    given = {"target": target, "consistency": consistency}
    batch, net = image_case(), network("group")
    ema = frozen(network("group", seed=1))
    step(mean_teacher, {"main": net, "ema": ema}, batch, given, weight=5.0)
    plain = network("group")
    F.cross_entropy(plain(batch.x), batch.y).backward()
    teacher = ema if target == "ema" else copy.deepcopy(plain)
    twin = network("group")
    z = twin(torch.cat([batch.x, batch.unlabelled.x]))
    with torch.no_grad():
        t = teacher(torch.cat([batch.views[1], batch.unlabelled.views[1]]))
    cost = F.mse_loss(z.softmax(1), t.softmax(1))
    if consistency == "kl":
        cost = F.kl_div(z.log_softmax(1), t.softmax(1), reduction="batchmean")
    (F.cross_entropy(z[:B], batch.y) + 5 * cost).backward()
    assert_same_gradients(net, twin, 1e-5)
    for name, gradient in gradients(plain).items():
        assert not torch.allclose(gradient, gradients(net)[name], rtol=1e-2), name
    assert all(p.grad is None for p in ema.parameters())


@pytest.mark.parametrize("consistency", ["mse", "kl"])
@pytest.mark.parametrize("gradient", ["one", "both"])
def test_the_pi_models_gradient_is_that_of_the_formula(gradient, consistency):
    given = {"target": "current", "gradient": gradient, "consistency": consistency}
    _, _, table, (batch, rows) = run_table(mean_teacher, given, weight=2.0)
    z = table.detach().clone().requires_grad_()
    s, t = torch.cat([z[rows["x"]], z[rows["u1"]]]), torch.cat([z[rows["x2"]], z[rows["u2"]]])
    t = t if gradient == "both" else t.detach()
    p, q = s.softmax(1), t.softmax(1)
    cost = ((p - q) ** 2).mean() if consistency == "mse" else (q * (q / p).log()).sum(1).mean()
    (F.cross_entropy(z[rows["x"]], batch.y) + 2 * cost).backward()
    assert torch.allclose(table.grad, z.grad, rtol=1e-4, atol=1e-7)
    second = table.grad[rows["u2"]].any() and table.grad[rows["x2"]].any()
    assert second == (gradient == "both")


@pytest.mark.parametrize("forward", ["joint", "separate"])
@pytest.mark.parametrize("items", ["all", "unlabelled"])
def test_mean_teacher_asks_for_a_view_per_network(forward, items):
    found = mean_teacher.streams(mean_teacher.Settings(forward=forward, items=items))
    alone = forward == "separate" and items == "unlabelled"
    assert found["labelled"] == (("weak",) if alone else ("weak", "weak"))
    assert found["unlabelled"] == ("weak", "weak")
    assert mean_teacher.uses_ema(mean_teacher.Settings())
    assert not mean_teacher.uses_ema(mean_teacher.Settings(target="current"))


@pytest.mark.parametrize("target", ["ema", "current"])
@pytest.mark.parametrize("consistency_items", ["all", "unlabelled"])
@pytest.mark.parametrize(
    ("forward", "statistics"), [("joint", "all"), ("separate", "all"), ("separate", "labelled")]
)
def test_only_the_students_passes_move_its_statistics(
    target, consistency_items, forward, statistics
):
    batch, net = image_case(), network()
    x, u = batch.x, batch.unlabelled.x
    expected = seen(net, *{"joint": [torch.cat([x, u])], "separate": [x, u]}[forward])
    if statistics == "labelled":
        expected = seen(net, x)
    given = dict(target=target, items=consistency_items, forward=forward, statistics=statistics)
    step(mean_teacher, {"main": net, "ema": frozen(network(seed=1))}, batch, given)
    assert buffers_equal(net, expected)
    assert not buffers_equal(net, network())


@pytest.mark.parametrize("forward", ["joint", "separate"])
@pytest.mark.parametrize("items", ["all", "unlabelled"])
def test_the_teacher_is_in_training_mode_and_the_engine_rules_its_statistics(forward, items):
    batch = image_case()
    x, u = batch.views[1], batch.unlabelled.views[1]
    own, kept = frozen(network(seed=1)), frozen(network(seed=1))
    keep_statistics(kept)
    passes = {"joint": [torch.cat([x, u])], "separate": [x, u]}[forward]
    if forward == "separate" and items == "unlabelled":
        passes = [u]
    expected = seen(own, *passes)
    given = {"forward": forward, "items": items}
    losses = [
        step(mean_teacher, {"main": network(), "ema": ema}, batch, given)[0] for ema in (own, kept)
    ]
    assert buffers_equal(own, expected)
    assert buffers_equal(kept, frozen(network(seed=1)))
    assert losses[0] == losses[1]


@pytest.mark.parametrize("denominator", ["labelled", "all"])
def test_the_second_head_takes_the_consistency_cost(denominator):
    given = {"logit_distance": 0.2, "denominator": denominator}
    batch, net = image_case(), network("group")
    ema = frozen(network("group", seed=1))
    settings = mean_teacher.Settings(**given)
    networks = all_models(mean_teacher, settings, net, ema)
    second = networks["consistency_head"]
    twin, twin_second = copy.deepcopy(net), copy.deepcopy(second)
    loss, logs = step(mean_teacher, networks, batch, given, weight=4.0)
    features = twin.features(torch.cat([batch.x, batch.unlabelled.x]))
    one, two = twin.head(features), twin_second(features)
    t = ema(torch.cat([batch.views[1], batch.unlabelled.views[1]]))
    over = B if denominator == "labelled" else B + N
    expected = F.cross_entropy(one[:B], batch.y, reduction="sum") / over
    expected = expected + 4 * F.mse_loss(two.softmax(1), t.softmax(1))
    expected = expected + 0.2 * F.mse_loss(one, two)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert logs["logit_distance"].item() == pytest.approx(F.mse_loss(one, two).item(), rel=1e-5)
    assert_same_gradients(net, twin, 1e-5)
    assert_same_gradients(second, twin_second, 1e-5)


def test_a_second_head_needs_features():
    settings = mean_teacher.Settings(logit_distance=0.01)
    with pytest.raises(UserError, match="logit_distance"):
        mean_teacher.modules(settings, made(Table(torch.zeros(2, K)), K))
    assert mean_teacher.modules(mean_teacher.Settings(), made(Table(torch.zeros(2, K)), K)) == {}
