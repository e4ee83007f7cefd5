"""FixMatch with CTAugment: what is changed, who judges probes, and what the judgement moves."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from factories import engine as factory
from factories.replay import Recorder
from factories.semi_supervised import B, K, N, all_models, frozen, image_case, network, row
from factories.threads import one_thread
from torch import Tensor, nn

from cyclery.augment._ctaugment import COLUMNS, CTAugment
from cyclery.common.errors import UserError
from cyclery.engine.made import Made
from cyclery.engine.stream import Batch
from cyclery.methods import fixmatch

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

LEARNT: dict[str, Any] = {"prediction_view": "ctaugment"}
SETTINGS = fixmatch.Settings(**LEARNT)


def drawn() -> torch.Generator:
    return torch.Generator().manual_seed(8)


def case() -> tuple[Batch, dict[str, Any]]:
    """Return a batch of images in 0..1 and the networks of a step."""
    batch = image_case()
    for views in (batch.views, batch.unlabelled.views):
        for view in views:
            view.copy_(view.sigmoid())
    networks = all_models(fixmatch, SETTINGS, network(), frozen(network(seed=1)).train())
    return batch, networks


def independent(batch: Batch, networks: dict[str, nn.Module]) -> tuple[Tensor, Tensor, Any]:
    """Return what CTAugment makes of weak views and of labelled ones, and its policy."""
    net: Any = copy.deepcopy(networks["ctaugment"])
    u = torch.rand(B + N, COLUMNS, generator=drawn())
    policy = net.policy(u, probes=B)
    made = net(torch.cat([batch.x, batch.unlabelled.views[1]]), policy)
    return made[B:], made[:B], policy


def test_the_weak_view_is_changed_and_the_labels_come_from_the_other():
    batch, networks = case()
    strong, _, _ = independent(batch, networks)
    assert not torch.allclose(strong, batch.unlabelled.views[1])
    seen: list[Tensor] = []
    hook = networks["main"].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    loss, _ = fixmatch.step(networks, batch, row(fixmatch), SETTINGS, drawn())
    hook.remove()
    [x] = seen
    assert torch.equal(x, torch.cat([batch.x, batch.unlabelled.views[0], strong]))
    z_x, z_w, z_s = networks["main"](x).split([B, N, N])
    q, labels = z_w.detach().softmax(1).max(1)
    masked = F.cross_entropy(z_s, labels, reduction="none") * (q >= 0.5)
    expected = F.cross_entropy(z_x, batch.y) + 0.7 * masked.mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_averaged_network_judges_probes_in_evaluation_mode():
    batch, networks = case()
    ema, net = networks["ema"], copy.deepcopy(networks["ctaugment"])
    _, probes, policy = independent(batch, networks)
    before = copy.deepcopy(ema.state_dict())
    _, logs = fixmatch.step(networks, batch, row(fixmatch), SETTINGS, drawn())
    with torch.no_grad():
        p = copy.deepcopy(ema).eval()(probes).softmax(1)
    proximity = 1 - 0.5 * (p - F.one_hot(batch.y, K)).abs().sum(1)
    assert torch.allclose(logs["proximity"], proximity.mean(), rtol=1e-5)
    net.learn(policy, proximity)
    assert torch.allclose(networks["ctaugment"].weights, net.weights, rtol=1e-5)
    assert (net.weights != 1).sum() > B
    # It learns nothing by it, nor do its running statistics move.
    assert ema.training and all(p.grad is None for p in ema.parameters())
    assert all(torch.equal(value, ema.state_dict()[name]) for name, value in before.items())


def test_proximity_is_one_minus_half_the_distance():
    """Of a network that is sure: 1 where it is right, 0 where it is not."""
    batch, networks = case()

    class Sure(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 100.0 * F.one_hot(torch.zeros(len(x), dtype=torch.int64), K)

    networks["ema"] = Sure()
    _, logs = fixmatch.step(networks, batch, row(fixmatch), SETTINGS, drawn())
    assert logs["proximity"].item() == pytest.approx((batch.y == 0).float().mean().item())


def test_it_asks_for_weak_views_and_an_average_and_counts_probes():
    assert fixmatch.streams(SETTINGS) == {"labelled": ("weak",), "unlabelled": ("weak", "weak")}
    assert fixmatch.uses_ema(SETTINGS) and not fixmatch.trains_ema(SETTINGS)
    images = {"labelled": B, "unlabelled": 2 * N}
    assert fixmatch.forwards(SETTINGS, images) == 2 * B + 2 * N
    assert fixmatch.forwards(fixmatch.Settings(), images) == B + 2 * N


def test_images_of_two_channels_are_refused():
    made = Made(factory.settings(), (2, 8, 8), K, network())
    message = r"^method\.prediction_view: ctaugment needs images of 1 or 3 channels \(found 2\)"
    with pytest.raises(UserError, match=message):
        fixmatch.modules(SETTINGS, made)


def test_a_run_normalises_as_its_data_are_and_replays(monkeypatch: pytest.MonkeyPatch) -> None:
    given = factory.settings(
        "fixmatch", method_settings=LEARNT, epochs=2, ema_decay=0.9, split={"labels": 40}, batch=20
    )
    recorder = Recorder()
    run, replayed = factory.train(given), factory.train(given, recorder=recorder)
    assert recorder.recorded == 3
    net = run.models["ctaugment"]
    assert isinstance(net, CTAugment)
    assert torch.equal(net.weights, replayed.models["ctaugment"].weights)
    assert torch.equal(run.flat.data, replayed.flat.data)
    manifest = run.data.manifest
    assert net.mean.flatten().tolist() == pytest.approx(manifest["mean"])
    assert net.std.flatten().tolist() == pytest.approx(manifest["std"])
