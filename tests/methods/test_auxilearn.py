"""AuxiLearn: implicit gradients in closed form, its labels and combiner, and what trains what."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from factories import engine as factory
from factories import priors
from factories.threads import one_thread
from torch import Tensor, nn

from cyclery.common.errors import UserError
from cyclery.engine.run import Run
from cyclery.methods import auxilearn
from cyclery.methods.cyclical_focal import focal_loss

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)
Json = dict[str, Any]
SHORT: Json = {"embedding": None, "inner": 20, "every": 4}
DOUBLE = torch.float64


def given(more: Json | None = None, **chosen: Any) -> Json:
    changed = {**priors.SMALL, "split": {"per_class": 6, "labels": None}, **(more or {})}
    return factory.settings("auxilearn", method_settings={**SHORT, **chosen}, **changed)


def begun(more: Json | None = None, **chosen: Any) -> Run:
    """Return a run before its first update."""
    return factory.begun(given(more, **chosen))


def quadratic() -> tuple[Any, Any, Tensor, Tensor, Tensor]:
    """Return L(w, phi) = (w - B phi) A (w - B phi) / 2, a held-out loss of w, and w, phi, A."""
    torch.manual_seed(0)
    root = torch.randn(4, 4, dtype=DOUBLE)
    a = root @ root.T + torch.eye(4, dtype=DOUBLE)
    b, to = torch.randn(4, 3, dtype=DOUBLE), torch.randn(4, dtype=DOUBLE)
    phi = torch.randn(3, dtype=DOUBLE, requires_grad=True)
    w = (b @ phi).detach().requires_grad_()

    def inner(w: Tensor, phi: Tensor) -> Tensor:
        apart = w - b @ phi
        return apart @ a @ apart / 2

    def outer(w: Tensor) -> Tensor:
        return (w - to).square().sum()

    # The weights follow phi as w = B phi, so the gradient is B' of the held-out loss's.
    return inner, outer, w, phi, b.T @ (2 * (w.detach() - to))


def test_with_many_terms_it_is_the_gradient_through_the_minimum() -> None:
    inner, outer, w, phi, exact = quadratic()
    [found] = auxilearn.implicit_gradient(inner(w, phi), outer(w), [w], [phi], 0.05, 2000)
    torch.testing.assert_close(0.05 * found, exact, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("terms", [0, 1, 3])
def test_few_terms_are_the_series_and_its_products_are_the_hessian_s(terms: int) -> None:
    inner, outer, w, phi, exact = quadratic()
    [found] = auxilearn.implicit_gradient(inner(w, phi), outer(w), [w], [phi], 0.05, terms)
    v = total = torch.autograd.grad(outer(w), w)[0]
    for _ in range(terms):
        _, curved = torch.autograd.functional.hvp(lambda w: inner(w, phi.detach()), w, v)
        v = v - 0.05 * curved
        total = total + v
    both = torch.cat([w, phi]).detach()
    hessian = torch.autograd.functional.hessian(lambda x: inner(x[:4], x[4:]), both)
    torch.testing.assert_close(found, -total @ hessian[:4, 4:])  # type: ignore[index, call-overload]
    assert not torch.allclose(0.05 * found, exact, rtol=1e-2)


def test_labels_are_a_softmax_over_the_slots_of_the_class() -> None:
    logits = torch.randn(4, 15, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 2, 1, 2])
    found = auxilearn.soft_labels(logits, y, 5)
    for row, z, label in zip(found, logits, y.tolist(), strict=True):
        own = slice(5 * label, 5 * label + 5)
        torch.testing.assert_close(row[own], z[own].softmax(0))
        assert float(row.sum()) == pytest.approx(1) and int((row > 0).sum()) == 5


def test_a_focal_loss_with_hard_labels_is_the_usual_one() -> None:
    z = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 1, 2, 3, 0, 1])
    row = {name: torch.tensor(value) for name, value in
           {"eta": 0.0, "gamma_hc": 0.0, "gamma_pos": 2.0, "gamma_neg": 2.0}.items()}  # fmt: skip
    found = auxilearn.focal(z, F.one_hot(y, 4).float()).mean()
    torch.testing.assert_close(found, focal_loss(z, y, row, 0.0))


@pytest.mark.parametrize("embedding", [None, 24])
def test_the_loss_is_what_its_parts_make(embedding: int | None) -> None:
    run = begun(embedding=embedding, hidden=16)
    learnt: Any = run.models["learnt"]
    learnt.combiner.data.copy_(torch.tensor([0.5, 2.0]))
    batch = run._batch(20, None)
    nets = copy.deepcopy(dict(run.models))
    with torch.no_grad():
        h = nets["main"].features(batch.x)  # type: ignore[operator]
        if embedding:
            h = nets["embedding"](h)
        main = (nets["main_head"] if embedding else nets["main"].head)(h).softmax(1)  # type: ignore[operator]
        aux = nets["aux_head"](h).softmax(1)
        labels = auxilearn.soft_labels(nets["learnt"].generator(batch.x), batch.y, 5)  # type: ignore[operator]
    total = 0.0
    for p, a, q, y in zip(main, aux, labels, batch.y.tolist(), strict=True):
        own = float((1 - p[y]) ** 2 * -p[y].log())
        other = 0.25 * float((q * (1 - a) ** 2 * -a.log()).sum())
        total += (own + 0.5 * own + 2.0 * other) / 20
    loss, _ = factory.stepped(run, batch)
    assert float(loss.detach()) == pytest.approx(total, rel=1e-4)


def test_without_the_auxiliary_task_it_is_twice_plain_focal_training() -> None:
    """The combiner's first weight and the skip connection are 1 each until it moves."""
    run = begun(aux_weight=0.0, every=10_000)
    plain: Any = copy.deepcopy(run.models["main"])
    for _ in range(3):
        batch = run._batch(20, None)
        params = dict(plain.named_parameters())
        loss = 2 * auxilearn.focal(plain(batch.x), torch.eye(10)[batch.y]).mean()
        expected = dict(zip(params, torch.autograd.grad(loss, list(params.values())), strict=True))
        found, _ = factory.stepped(run, batch)
        trained = list(run.flat.params.values())
        for (name, _), g in zip(
            run.flat.params.items(), torch.autograd.grad(found, trained), strict=True
        ):
            if name.startswith("aux_head"):
                assert not g.any()
            else:
                assert torch.equal(g, expected[name.removeprefix("main.")]), name
    other, _ = factory.stepped(begun(every=10_000), batch)
    assert float(other.detach()) != float(found.detach())


def test_held_out_samples_are_of_all_classes_and_never_trained_on() -> None:
    for share, count in ((0.015, 10), (0.5, 30)):
        run = begun(held_out=share)
        learnt: Any = run.models["learnt"]
        held = learnt.held.nonzero().view(-1)
        labels = run.data.labels[held].bincount(minlength=10).tolist()
        assert labels == [count // 10] * 10
        train, pool = set(run.ids["train"].tolist()), set(run.feeds["labelled"].ids.tolist())
        assert pool == train - set(held.tolist()) and set(held.tolist()) < train
    with pytest.raises(UserError, match=r"held_out: leaves a class without .*\(10 of 10 are held"):
        begun({"split": {"per_class": 1, "labels": None}})


def test_generator_and_combiner_move_at_events_alone() -> None:
    run = begun()
    learnt: Any = run.models["learnt"]
    moved, before = [], copy.deepcopy(learnt.state_dict())
    honest = run.step

    def step(size: int) -> None:
        now = learnt.state_dict()
        names = [name for name, _ in learnt.named_parameters()]
        moved.append([not torch.equal(now[name], before[name]) for name in names])
        before.update(copy.deepcopy(now))
        honest(size)

    run.step = step  # type: ignore[method-assign]
    factory.finish(run)
    assert [i for i, each in enumerate(moved) if any(each)] == list(range(4, run.updates, 4))
    assert all(moved[4])
    assert not any(p.requires_grad for p in learnt.parameters())


def test_an_implicit_step_moves_no_running_statistics_nor_the_network() -> None:
    run = begun()
    run.train_epoch()
    before = {name: x.clone() for name, x in run.state().items()}
    run._before(4)
    changed = {name for name, x in run.state().items() if not torch.equal(x, before[name])}
    assert changed and all("learnt" in name for name in changed), changed
    assert not any("running" in name or "held" in name or "rate" in name for name in changed)


def test_the_step_is_that_of_sgd_and_the_combiner_stays_above_zero() -> None:
    for clamp in (True, False):
        run = begun(clamp=clamp, clip=1.0)
        learnt: Any = run.models["learnt"]
        of = list(learnt.parameters())
        twins = [p.detach().clone().requires_grad_() for p in of]
        torch_sgd = torch.optim.SGD(twins, lr=0.5, momentum=0.9, weight_decay=0.01)
        # The combiner's gradient is large enough to go below zero.
        for _ in range(3):
            found = [torch.full_like(p, 3.0) for p in of]
            for twin, g in zip(twins, found, strict=True):
                twin.grad = g.clone()
            nn.utils.clip_grad_norm_(twins, 1.0)
            if not clamp:
                torch_sgd.step()
            auxilearn._descend(learnt, of, found, 0.5, 0.01, run.method_settings)
        if clamp:
            learnt.combiner.data.fill_(-1)
            auxilearn._descend(learnt, of, [p * 0 for p in of], 0.5, 0.0, run.method_settings)
            assert learnt.combiner.tolist() == [0.0, 0.0]
        else:
            for p, twin in zip(of, twins, strict=True):
                torch.testing.assert_close(p, twin)
            learnt.combiner.data.fill_(-1)
            learnt.velocity.zero_()
            auxilearn._descend(learnt, of, [p * 0 for p in of], 0.5, 0.0, run.method_settings)
            assert learnt.combiner.tolist() == [-1.0, -1.0]


def test_a_label_that_helps_is_found() -> None:
    """Implicit steps alone, at a minimum of the inner loss, lower the held-out loss."""
    torch.manual_seed(0)
    inner, outer, w, phi, _ = quadratic()
    losses = []
    for _ in range(50):
        losses.append(float(outer(w).detach()))
        [g] = auxilearn.implicit_gradient(inner(w, phi), outer(w), [w], [phi], 0.05, 200)
        with torch.no_grad():
            phi -= 0.01 * 0.05 * g
        # The inner minimum again.
        for _ in range(400):
            [slope] = torch.autograd.grad(inner(w, phi), w)
            with torch.no_grad():
                w -= 0.05 * slope
    assert losses[-1] < losses[0] * 0.8 and losses == sorted(losses, reverse=True)


def test_rates_follow_the_run_and_its_largest_one_counts() -> None:
    run = begun({"lr": {"kind": "cosine", "peak": 0.2}, "weight_decay": 0.003})
    factory.finish(run)
    learnt: Any = run.models["learnt"]
    assert learnt.rate.tolist() == pytest.approx([0.2, 0.003])


def test_the_main_head_is_evaluated() -> None:
    for embedding in (None, 24):
        run = begun(embedding=embedding, hidden=16)
        x = torch.randn(3, 1, 8, 8)
        run.models["main"].eval()
        found = auxilearn.predict(run.models, x, run.method_settings)
        h = run.models["main"].features(x)  # type: ignore[operator]
        if embedding:
            expected = run.models["main_head"](run.models["embedding"](h))
        else:
            expected = run.models["main"](x)
        assert torch.equal(found, expected) and found.shape == (3, 10)


def test_a_generator_with_dropout_draws_from_the_run_s_own_generator() -> None:
    """So a run with it repeats, which draws from the global one would not let it."""
    more: Json = {"model": "small_cnn", "model_settings": {"width": 4, "dropout": 0.3}, "epochs": 1}
    first = factory.train(given(more))
    torch.rand(7)
    again = factory.train(given(more))
    assert first.curve == again.curve
    for own, other in zip(first.weights().items(), again.weights().items(), strict=True):
        assert own[0] == other[0] and torch.equal(own[1], other[1])
