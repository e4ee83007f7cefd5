"""BYOL's loss, its gradients, its target and its other forms, against closed forms."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from factories import byol as small
from factories import engine as factory
from torch import Tensor, nn

from cyclery import methods
from cyclery.common.errors import UserError
from cyclery.methods import byol
from cyclery.methods._contrastive import nt_xent, similarities, unit
from cyclery.models.layers.standardised import StandardisedLinear

B, D = 6, 5


def vectors(seed: int = 0) -> tuple[list[Tensor], list[Tensor]]:
    """Return predictions and targets of both views, which take gradients."""
    g = torch.Generator().manual_seed(seed)
    p, z = ([torch.randn(B, D, generator=g).requires_grad_() for _ in range(2)] for _ in range(2))
    return p, z


def loss(p: list[Tensor], z: list[Tensor], temperature: float = 0.1, **chosen: Any) -> Tensor:
    settings = byol.Settings(**{"predictor": "none", **chosen})
    return byol.loss_of(p, z, {"temperature": torch.tensor(temperature)}, settings)


def test_the_loss_is_four_less_twice_the_cosines_of_both_directions() -> None:
    """What lightly's NegativeCosineSimilarity gives: 4 + 2 (nc(p1, t2) + nc(p2, t1))."""
    p, z = vectors()
    cosines = [F.cosine_similarity(p[0], z[1]).mean(), F.cosine_similarity(p[1], z[0]).mean()]
    torch.testing.assert_close(loss(p, z), 4 - 2 * sum(cosines))
    assert float(loss(p, [p[1], p[0]]).detach()) == pytest.approx(0, abs=1e-6)
    assert float(loss(p, [-p[1], -p[0]]).detach()) == pytest.approx(8, abs=1e-5)
    # Lengths do not matter.
    torch.testing.assert_close(loss([3 * x for x in p], z), loss(p, z))


def test_negatives_are_those_of_a_plain_loop() -> None:
    p, z = vectors()
    alpha, beta = 0.2, 0.7
    pn, zn = ([F.normalize(x.detach()).double().numpy() for x in each] for each in (p, z))
    objective = 0.0
    for own, other in ((0, 1), (1, 0)):
        for i in range(B):
            objective += 2 / B * float(pn[own][i] @ zn[other][i])
            total = sum(
                math.exp(float(pn[own][i] @ zn[own][j]) / alpha) for j in range(B) if j != i
            ) + sum(math.exp(float(pn[own][i] @ zn[other][j]) / alpha) for j in range(B))
            objective -= beta * 2 * alpha / B * math.log(total)
    found = loss(p, z, alpha, beta=beta)
    assert float(found.detach()) == pytest.approx(4 - objective, rel=1e-5)


def test_without_predictor_and_target_it_is_the_loss_of_simclr_at_its_scale() -> None:
    """But for a constant: 4 a NT-Xent, whose log-sum has the same terms and the positive too."""
    _, z = vectors()
    alpha = 0.1
    whole = nt_xent(similarities(unit(torch.cat(z))), alpha)
    torch.testing.assert_close(loss(z, z, alpha, beta=1.0), 4 + 4 * alpha * whole)


def test_without_negatives_the_temperature_is_not_read() -> None:
    p, z = vectors()
    assert torch.equal(loss(p, z, 0.1), loss(p, z, 7.0))
    assert not torch.equal(loss(p, z, 0.1, beta=1.0), loss(p, z, 7.0, beta=1.0))
    assert byol.ignored(byol.Settings()) == {"temperature": "beta: 0"}


def test_other_normalisations_of_the_loss() -> None:
    x = 3 + 2 * torch.randn(50, D, generator=torch.Generator().manual_seed(1))
    found = {kind: byol.normalised(x, kind) for kind in ("l2", "layernorm", "batchnorm", "none")}
    n = x.double().numpy()
    expected = {
        "l2": n / np.linalg.norm(n, axis=1, keepdims=True),
        "layernorm": (n - n.mean(1, keepdims=True)) / n.std(1, keepdims=True) / D**0.5,
        "batchnorm": (n - n.mean(0)) / n.std(0) / D**0.5,
        "none": n,
    }
    for kind, value in expected.items():
        assert found[kind].numpy() == pytest.approx(value, abs=1e-4), kind
        p, z = vectors()
        own = sum(
            (byol.normalised(a, kind) - byol.normalised(b, kind)).square().sum(1).mean()
            for a, b in zip(p, reversed(z), strict=True)
        )
        torch.testing.assert_close(loss(p, z, normalise=kind), own)
    with pytest.raises(UserError, match=r"normalise: must be l2 with a beta above 0.*layernorm"):
        byol.Settings(beta=1.0, normalise="layernorm")


def test_the_closed_form_predictor_is_least_squares_and_has_no_gradient_in_its_weights() -> None:
    g = torch.Generator().manual_seed(0)
    z = torch.randn(40, D, generator=g).requires_grad_()
    target = torch.randn(40, D, generator=g)
    solution = torch.linalg.lstsq(z.detach(), target).solution
    found = byol.best_linear(z, target)
    torch.testing.assert_close(found, z @ solution, rtol=1e-3, atol=1e-4)
    [grad] = torch.autograd.grad(found.sum(), z)
    torch.testing.assert_close(grad, solution.sum(1).expand(40, D), rtol=1e-3, atol=1e-4)
    # Where all has collapsed it stays finite.
    assert byol.best_linear(torch.zeros(4, D), torch.ones(4, D)).isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(byol.best_linear(z, target), found)


def test_an_untrained_network_is_near_chance() -> None:
    run = small.begun()
    assert float(small.stepped(run, run._batch(20, None)).detach()) == pytest.approx(4, abs=1)


# Gradients.


def test_no_gradient_flows_into_the_target() -> None:
    run = small.begun()
    batch = run._batch(20, None)
    for name in small.TARGET:
        run.models[name].requires_grad_(True)
    found = small.stepped(run, batch)
    theirs = [p for name in small.TARGET for p in run.models[name].parameters()]
    assert all(g is None for g in torch.autograd.grad(
        found, theirs, allow_unused=True, retain_graph=True))  # fmt: skip
    assert set(run.flat.params) - small.gradients(run, batch).keys() == {
        "main.head.weight", "main.head.bias",
    }  # fmt: skip


def test_without_a_target_the_gradient_flows_through_both_sides() -> None:
    """Then, without a predictor, it is twice that of the loss with a stopped gradient."""
    one, both = (
        small.begun(target=target, predictor="none") for target in ("stop_gradient", "online")
    )
    batch = one._batch(20, None)
    stopped, through = small.gradients(one, batch), small.gradients(both, batch)
    assert stopped.keys() == through.keys()
    for name, gradient in stopped.items():
        torch.testing.assert_close(through[name], 2 * gradient, rtol=1e-3, atol=1e-6)
    # With one it is another gradient, of the same loss.
    one, both = (small.begun(target=target) for target in ("stop_gradient", "online"))
    assert torch.equal(small.stepped(one, batch), small.stepped(both, batch))
    stopped, through = small.gradients(one, batch), small.gradients(both, batch)
    key = "projector.0.weight"
    assert not torch.allclose(stopped[key], through[key], rtol=0.1)
    assert torch.equal(stopped["predictor.0.weight"], through["predictor.0.weight"])


def test_a_target_that_was_just_copied_is_the_online_network_with_a_stopped_gradient() -> None:
    """tau = 0: at every update the average has the weights of the network."""
    copied = factory.train(small.settings(more={"ema_decay": 0.0}))
    stopped = factory.train(small.settings(target="stop_gradient"))
    assert copied.curve["train_loss"] == pytest.approx(stopped.curve["train_loss"], rel=1e-4)
    torch.testing.assert_close(copied.flat.data, stopped.flat.data, rtol=1e-3, atol=1e-5)


# Batch norm: a pass for each view and each network.


def test_each_view_has_a_pass_and_statistics_of_its_own() -> None:
    run = small.begun()
    batch = run._batch(20, None)
    nets: dict[str, Any] = copy.deepcopy(run.models)
    found = small.stepped(run, batch)

    def z(net: str, projector: str, x: Tensor) -> Tensor:
        made: Tensor = nets[projector](nets[net].features(x))
        return made

    first, second = batch["pairs"].views
    with torch.no_grad():
        expected = sum(
            (F.normalize(nets["predictor"](z("main", "projector", x)))
             - F.normalize(z(*small.TARGET, other))).square().sum(1).mean()
            for x, other in ((first, second), (second, first))
        )  # fmt: skip
        assert float(found.detach()) == pytest.approx(float(expected), abs=1e-5)
        joint = nets["projector"](nets["main"].features(torch.cat([first, second])))
        alone = z("main", "projector", first)
    assert not torch.allclose(joint[: len(first)], alone, rtol=1e-2)


def test_the_running_statistics_of_each_network_are_those_of_its_own_passes() -> None:
    run = small.begun()
    for _ in range(3):
        run.step(20)
    batch = run._batch(20, None)
    alone: Any = copy.deepcopy({name: run.models[name] for name in (*small.TARGET, "main")})
    for x in batch["pairs"].views:
        alone["ema.projector"](alone["ema"].features(x))
        alone["main"].features(x)
    small.stepped(run, batch)
    for net in alone:
        mine, theirs = run.models[net].named_buffers(), alone[net].buffers()
        for (name, own), other in zip(mine, theirs, strict=True):
            assert torch.equal(own, other), (net, name)
    one, two = (run.models[name].get_buffer("body.2.running_mean") for name in ("ema", "main"))
    assert not torch.equal(one, two)


# The target's weights.


def test_the_target_moves_after_the_optimiser_step_by_the_decay_of_that_update() -> None:
    run = small.begun(more={"ema_decay": {"kind": "cosine", "peak": 0.9, "end": 1}})
    assert run.networks.averaged is not None
    decays = run.table.columns["ema_decay"]
    before = run.networks.averaged.data.clone()
    for update in range(3):
        before = run.networks.averaged.data.clone()
        run.step(20)
        after = run.networks.averaged.data
        moved = before + (1 - decays[update]) * (run.flat.data - before)
        torch.testing.assert_close(after, moved)
        assert not torch.equal(after, before)


@pytest.mark.parametrize("base", [0.99, 0.996])
def test_the_decay_rises_to_one_by_the_papers_cosine(base: float) -> None:
    """0.995 at half of the updates from 0.99; it would be 1 after the last one."""
    schedule = {"kind": "cosine", "peak": base, "end": 1}
    run = small.begun(more={"ema_decay": schedule, "epochs": 10})
    k = run.updates
    assert k == 100
    found = run.table.columns["ema_decay"].tolist()
    rise = [1 - (1 - base) * (math.cos(math.pi * t / k) + 1) / 2 for t in range(k)]
    assert found == pytest.approx(rise, abs=1e-15)
    assert found[0] == base and found[50] == pytest.approx((1 + base) / 2) and found[-1] < 1


def test_a_frozen_target_never_moves() -> None:
    run = small.begun(more={"ema_decay": 1.0})
    first = run.models["ema"].state_dict()["body.1.weight"].clone()
    for _ in range(3):
        run.step(20)
    assert torch.equal(run.models["ema"].state_dict()["body.1.weight"], first)
    assert not torch.equal(run.models["main"].state_dict()["body.1.weight"], first)


def test_a_target_begins_as_the_online_network_or_with_other_weights() -> None:
    same, other = (small.begun(target_init=kind) for kind in ("online", "other"))
    for name, source in (("ema", "main"), ("ema.projector", "projector")):
        for run, equal in ((same, True), (other, False)):
            pairs = zip(
                run.models[name].named_parameters(), run.models[source].parameters(), strict=True
            )
            weights = [
                torch.equal(p, q) for (key, p), q in pairs if p.ndim > 1 and "head" not in key
            ]
            assert weights and all(each is equal for each in weights), (name, equal)
    # The online network is the same in both, and the other weights are of a seed.
    assert torch.equal(same.flat.data, other.flat.data)
    again = small.begun(target_init="other")
    assert torch.equal(again.models["ema"].body[1].weight, other.models["ema"].body[1].weight)  # type: ignore[union-attr, index]
    assert again.networks.averaged is not None
    assert not again.models["ema"].body[1].weight.requires_grad  # type: ignore[union-attr, index]


# Accumulated gradients.

BATCHLESS = {"model": "mlp", "model_settings": {"hidden": [32], "norm": "group"}}


def gradients(chunk: int | None, head_norm: str = "group_ws", **chosen: Any) -> dict[str, Tensor]:
    run = small.begun(chunk=chunk, head_norm=head_norm, **chosen)
    return small.gradients(run, run._batch(20, None))


@pytest.mark.parametrize("target", ["ema", "online"])
def test_parts_of_a_batch_have_its_gradient_without_batch_norm(target: str) -> None:
    whole, parts = (gradients(chunk, more=BATCHLESS, target=target) for chunk in (None, 5))
    assert whole.keys() == parts.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-3, atol=1e-5)


def test_batch_norm_and_negatives_see_one_part_alone() -> None:
    key = "projector.0.weight"
    whole, parts = (gradients(chunk, head_norm="batch", more=BATCHLESS) for chunk in (None, 5))
    assert not torch.allclose(whole[key], parts[key], rtol=0.05)
    whole, parts = (gradients(chunk, beta=1.0, more=BATCHLESS) for chunk in (None, 5))
    assert not torch.allclose(whole[key], parts[key], rtol=0.05)


def test_parts_must_be_equal() -> None:
    settings = byol.Settings(chunk=8)
    with pytest.raises(UserError, match=r"method.chunk: must divide the batch \(found 8, batch 20"):
        methods.load("byol").spent(settings, 20, None)
    assert methods.load("byol").spent(settings, 16, None) == (32, 64)


@pytest.mark.parametrize("name", ["byol", "simclr"])
def test_a_batch_of_one_image_has_nothing_to_compare(name: str) -> None:
    method = methods.load(name)
    message = r"batch: must be at least 2, .* \(found 1\)"
    with pytest.raises(UserError, match=message):
        method.spent(method.chosen({}), 1, None)
    assert method.spent(method.chosen({}), 2, None)[0] == 4


def test_heads_of_one_layer_have_nothing_hidden() -> None:
    one = {"projector_layers": 1, "predictor_layers": 1}
    assert {"hidden", "head_norm"} <= byol.ignored(byol.Settings(**one)).keys()
    assert "hidden" in byol.ignored(byol.Settings(projector_layers=1, predictor="none"))
    assert "hidden" not in byol.ignored(byol.Settings(projector_layers=1))


# What it declares.


def test_forward_passes_count_those_of_the_target() -> None:
    method = methods.load("byol")
    for target, times in (("ema", 4), ("stop_gradient", 2), ("online", 2)):
        settings = byol.Settings(target=target)  # type: ignore[arg-type]
        assert method.spent(settings, 10, None) == (20, 10 * times)
        assert byol.uses_ema(settings) is byol.trains_ema(settings) is (target == "ema")
        assert not byol.averages(settings) and not byol.classifies(settings)


def test_settings_that_nothing_reads_are_named() -> None:
    found = byol.ignored(byol.Settings(predictor="none", target="online", beta=1.0))
    assert found == {"predictor_layers": "predictor: none", "target_init": "target: online"}


def test_heads_are_those_of_the_paper() -> None:
    run = small.begun()
    defaults = byol.modules(byol.Settings(), type("Made", (), {"width": 512}))
    shapes = {f"{name}.{key}": list(p.shape) for name, head in defaults.items()
              for key, p in head.named_parameters() if p.ndim > 1}  # fmt: skip
    assert shapes == {
        "projector.0.weight": [4096, 512], "projector.3.weight": [256, 4096],
        "predictor.0.weight": [4096, 256], "predictor.3.weight": [256, 4096],
    }  # fmt: skip
    # A bias before the norm as in the code, none at the end, and no norm there.
    names = [key for key, _ in run.models["projector"].named_parameters()]
    assert names == ["0.weight", "0.bias", "1.weight", "1.bias", "3.weight"]
    assert set(run.models) == {"main", "projector", "predictor", "ema", "ema.projector",
                               "ema.predictor"}  # fmt: skip
    assert "predictor" not in small.begun(predictor="none").models


def test_heads_have_another_norm_or_none() -> None:
    for name in ("projector", "predictor"):
        heads = {norm: list(small.begun(head_norm=norm).models[name].children())
                 for norm in ("batch", "group_ws", "none")}  # fmt: skip
        kinds = {norm: [type(part) for part in parts] for norm, parts in heads.items()}
        assert kinds == {
            "batch": [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear],
            "group_ws": [StandardisedLinear, nn.GroupNorm, nn.ReLU, nn.Linear],
            "none": [nn.Linear, nn.ReLU, nn.Linear],
        }
        # The same draw of weights.
        first = [parts[0].weight for parts in heads.values()]
        assert torch.equal(first[0], first[1]) and torch.equal(first[0], first[2])


def test_views_are_two_strong_ones_or_of_two_kinds() -> None:
    [stream] = byol.streams(byol.Settings()).values()
    assert stream.views == ("strong", "strong") and stream.pool == "train"
    [stream] = byol.streams(byol.Settings(views="asymmetric", pool="unlabelled")).values()
    assert stream.views == ("t", "t_prime") and stream.pool == "unlabelled"
