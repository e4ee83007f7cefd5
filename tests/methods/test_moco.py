"""MoCo: logits against a hand-written loss, the queue, the averages, and where gradients go."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from factories import engine as factory
from factories import priors, small_paper
from factories.threads import one_thread
from torch import Tensor

from cyclery.common.errors import UserError
from cyclery.methods import moco
from cyclery.models.layers.grouped import grouped_norms

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)


def vectors(models: Any, names: tuple[str, str], x: Tensor, groups: int) -> Tensor:
    """Return unit vectors of images, by copies of networks, in float64."""
    net, projector = (copy.deepcopy(models[name]) for name in names)
    with torch.no_grad(), grouped_norms(net, groups):
        z = projector(net.features(x)).double()
    return z / z.square().sum(1, keepdim=True).sqrt()


def info_nce(q: Tensor, k: Tensor, queue: Tensor, margin: float, temperature: float) -> float:
    total = 0.0
    for one, key in zip(q, k, strict=True):
        positive = (float(one @ key) - margin) / temperature
        others = [float(one @ other) / temperature for other in queue.double()]
        most = max(positive, *others)
        below = math.exp(positive - most) + sum(math.exp(each - most) for each in others)
        total += math.log(below) + most - positive
    return total / len(q)


# Without groups the shuffle of keys changes nothing, so they can be made again here.
@pytest.mark.parametrize("margin", [0.0, 0.6])
def test_the_loss_is_that_of_queries_keys_and_the_queue(margin: float) -> None:
    run = priors.moco(groups=1, margin=margin, temperature=0.07)
    queue: Any = run.models["queue"]
    for _ in range(3):
        batch = run._batch(20, None)
        first, second = batch["pairs"].views
        q = vectors(run.models, ("main", "projector"), first, 1)
        k = vectors(run.models, ("ema", "ema.projector"), second, 1)
        before = queue.keys.clone()
        loss = factory.stepped(run, batch)[0]
        assert float(loss.detach()) == pytest.approx(info_nce(q, k, before, margin, 0.07), rel=1e-4)


def test_a_margin_is_taken_off_before_the_temperature_and_0_is_moco() -> None:
    torch.manual_seed(0)
    q, k, queue = (torch.nn.functional.normalize(torch.randn(n, 8)) for n in (4, 4, 9))
    row = {"margin": torch.tensor(0.6), "temperature": torch.tensor(0.07)}
    with_margin = moco.logits_of(q, k, queue, row)
    plain = moco.logits_of(q, k, queue, {**row, "margin": torch.tensor(0.0)})
    torch.testing.assert_close(plain[:, 0], (q * k).sum(1) / 0.07)
    torch.testing.assert_close(plain[:, 0] - with_margin[:, 0], torch.full((4,), 0.6 / 0.07))
    assert torch.equal(plain[:, 1:], with_margin[:, 1:])


def test_the_queue_is_a_ring_of_the_latest_keys_and_their_images() -> None:
    run = priors.moco(groups=1)
    queue: Any = run.models["queue"]
    made, ids = list(queue.keys.clone()), [-1] * 50
    for update in range(4):
        batch = run._batch(20, None)
        k = vectors(run.models, ("ema", "ema.projector"), batch["pairs"].views[1], 1)
        factory.stepped(run, batch)[0]
        for place, (key, image) in enumerate(zip(k, batch["pairs"].ids.tolist(), strict=True)):
            at = (20 * update + place) % 50
            made[at], ids[at] = key.float(), image
        torch.testing.assert_close(queue.keys, torch.stack(made), atol=1e-5, rtol=1e-4)
        assert queue.ids.tolist() == ids
    assert int(queue.oldest) == 80 % 50


def test_keys_of_the_same_image_are_negatives_unless_left_out() -> None:
    losses = {}
    for own in ("negatives", "left_out"):
        run = priors.moco(own_keys=own, more={"split": {"labels": 20}})
        # After an epoch every image has keys in the queue.
        run.train_epoch()
        run.begin_epoch()
        batch = run._batch(20, None)
        ids: Any = run.models["queue"].ids
        assert set(batch["pairs"].ids.tolist()) <= set(ids.tolist())
        losses[own] = float(factory.stepped(run, batch)[0].detach())
    assert losses["left_out"] != losses["negatives"]
    q = torch.eye(3)[:2]
    row = {"margin": torch.tensor(0.0), "temperature": torch.tensor(0.5)}
    out = torch.tensor([[True, False], [False, False]])
    assert moco.logits_of(q, q, torch.eye(3)[:2], row, out).tolist() == [
        [2.0, -math.inf, 0.0], [2.0, 0.0, 2.0]
    ]  # fmt: skip


def test_no_gradient_reaches_keys_and_all_that_queries_pass_has_one() -> None:
    run = priors.moco()
    batch = run._batch(20, None)
    before = {name: p.clone() for name, p in run.models["ema"].named_parameters()}
    loss = factory.stepped(run, batch)[0]
    found = torch.autograd.grad(loss, list(run.flat.params.values()), allow_unused=True)
    reached = {n for n, g in zip(run.flat.params, found, strict=True) if g is not None and g.any()}
    assert reached == {name for name in run.flat.params if "head" not in name}
    assert all(torch.equal(p, before[n]) for n, p in run.models["ema"].named_parameters())
    assert not any(p.requires_grad for p in run.models["ema.projector"].parameters())


def test_the_key_network_is_the_average_and_its_norm_has_statistics_of_its_own() -> None:
    run = priors.moco(more={"ema_decay": 0.75})
    names = [f"{m}.{n}" for m in ("main", "projector") for n, _ in run.models[m].named_parameters()]
    expected = {name: run.flat.params[name].detach().clone() for name in names}
    for _ in range(3):
        run.step(20)
        for name in names:
            expected[name] = 0.75 * expected[name] + 0.25 * run.flat.params[name].detach()
    average = {
        **{f"main.{n}": p for n, p in run.models["ema"].named_parameters()},
        **{f"projector.{n}": p for n, p in run.models["ema.projector"].named_parameters()},
    }
    for name in names:
        torch.testing.assert_close(average[name], expected[name], atol=1e-6, rtol=1e-5)
    own, keys = (dict(run.models[name].named_buffers()) for name in ("main", "ema"))
    assert not torch.equal(own["body.2.running_mean"], keys["body.2.running_mean"])
    assert keys["body.2.running_mean"].any()


def test_keys_are_shuffled_between_groups_and_come_back_in_order() -> None:
    run = priors.moco(groups=4)
    x = run._batch(20, None)["pairs"].views[1]
    models = {name: run.models[name].eval() for name in ("ema", "ema.projector")}
    generator = torch.Generator().manual_seed(0)
    # In evaluation no company counts, so the order is all that could differ.
    k = moco._keys(models, x, 4, generator)
    torch.testing.assert_close(k.double(), vectors(models, ("ema", "ema.projector"), x, 1))
    run.models["ema"].train()
    in_order = vectors(run.models, ("ema", "ema.projector"), x, 4).float()
    shuffled = moco._keys(models, x, 4, generator)
    assert not torch.allclose(shuffled, in_order, atol=1e-3)


def test_a_batch_has_as_many_groups_as_divide_it() -> None:
    found = {batch: moco.groups_of(batch, 8) for batch in (512, 50, 25, 10, 16, 8, 7, 2)}
    assert found == {512: 8, 50: 5, 25: 5, 10: 5, 16: 8, 8: 4, 7: 1, 2: 1}


def test_a_batch_beyond_the_queue_is_refused() -> None:
    with pytest.raises(UserError, match=r"^method.keys: must be at least the batch.*found 8"):
        moco.forwards(moco.Settings(keys=8), {"pairs": 20})
    assert moco.forwards(moco.Settings(keys=10), {"pairs": 20}) == 20


def test_no_label_is_looked_at_and_no_accuracy_is_measured() -> None:
    run = priors.moco()
    batch = run._batch(20, None)
    other = copy.deepcopy(batch)
    other["pairs"].y.add_(1).remainder_(10)
    again = priors.moco()
    assert torch.equal(factory.stepped(run, batch)[0], factory.stepped(again, other)[0])
    assert not moco.classifies(moco.Settings())


def test_features_are_learnt_from_few_images(tmp_path: Any) -> None:
    """A linear classifier of 10 labels a class is better on them than on random features."""
    few = {"test": 200, "validation": 100, "per_class": 10}
    moco_arm = {
        "method": {"name": "moco", "keys": 60, "output": 32, "temperature": 0.2, "groups": 2,
                   "own_keys": "left_out"},
        "ema_decay": 0.99, "ema_buffers": "own", "epochs": 40, "epoch_images": 200,
        "lr": {"kind": "cosine", "peak": 0.1, "warmup_epochs": 5},
    }  # fmt: skip
    frozen = {"frozen": ["features"], "epochs": 20, "epoch_images": 200, "lr": 0.1}
    start = {"parents": {"prior": "prior"}, "init": {"from": "prior", "parts": ["features"]}}
    arms = {"prior": moco_arm, "learnt": {**frozen, **start}, "random": frozen}
    plan = small_paper.planned(
        tmp_path, arms, split=few, strong=[*priors.VIEWS], augment=[], batch=20, evaluations=1
    )
    found = {name: small_paper.run(plan, name, done=True).final() for name in ("learnt", "random")}
    assert found["learnt"]["val_accuracy"] > found["random"]["val_accuracy"] + 0.05
    assert "val_accuracy" not in small_paper.run(plan, "prior", done=True).final()
