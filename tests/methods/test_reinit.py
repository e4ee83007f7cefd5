"""Re-initialisation between stages: what is drawn anew, what is kept, what teaches."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from factories import engine as factory
from factories.network import small
from factories.reinit import NOISE, RESETS, before_stage, begin_stage, same, staged, state_of
from factories.threads import one_thread
from scipy.stats import ks_2samp
from torch import nn

from cyclery import methods
from cyclery.methods import reinit

Json = dict[str, Any]
_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)


# Shrink and perturb.


@pytest.mark.parametrize(("shrink", "perturb"), [(0.4, 0.1), (0.7, 0.5), (0.0, 0.1)])
def test_a_stage_shrinks_and_perturbs_bit_for_bit(shrink: float, perturb: float) -> None:
    run, at = before_stage(shrink=shrink, perturb=perturb, more={"ema_decay": 0.9})
    old = state_of(run)
    assert any(value.any() for value in run.optimiser.state().values())
    fresh = begin_stage(run, at)
    for name, parameter in run.models["main"].named_parameters():
        assert torch.equal(parameter, shrink * old[name] + perturb * fresh[name]), name
    for name, buffer in run.models["main"].named_buffers():
        # Running statistics are those of a new network: 0 and 1.
        assert torch.equal(buffer, fresh[name]) and not torch.equal(buffer, old[name]), name
    assert not any(value.any() for value in run.optimiser.state().values())
    assert torch.equal(run.networks.averaged.data, run.flat.data)


def test_a_scale_of_one_becomes_a_half_with_the_usual_constants() -> None:
    run, at = before_stage()
    norm = run.models["main"].body[2]
    with torch.no_grad():
        norm.weight.fill_(1.0)
    run._before(at)
    torch.testing.assert_close(norm.weight, torch.full((32,), 0.5))


def test_norms_can_be_left_out_but_not_their_statistics() -> None:
    run, at = before_stage(norms=False)
    old, fresh = state_of(run), begin_stage(run, at)
    for name, value in run.models["main"].state_dict().items():
        module = run.models["main"].get_submodule(name.rpartition(".")[0])
        of_norm = isinstance(module, nn.BatchNorm1d) and name.endswith(("weight", "bias"))
        statistics = "running" in name or "tracked" in name
        expected = old[name] if of_norm else fresh[name] if statistics else (
            0.4 * old[name] + 0.1 * fresh[name])  # fmt: skip
        assert torch.equal(value, expected), name
        assert not of_norm or not torch.equal(old[name], fresh[name])


def test_the_spread_of_the_mixture_is_that_of_independent_parts() -> None:
    run, at = before_stage(more={"model_settings": {"hidden": [256, 256]}})
    own = run.models["main"].body[4].weight.detach()
    assert own.shape == (256, 256)
    old = own.clone()
    fresh = begin_stage(run, at)["body.4.weight"]
    expected = (0.16 * old.var() + 0.01 * fresh.var()).sqrt()
    assert float(own.std()) == pytest.approx(float(expected), rel=0.01)


def test_nothing_changes_without_shrinking_and_noise() -> None:
    ends = []
    for chosen in ({"shrink": 1.0, "perturb": 0.0}, {"reset": "none"}):
        run, at = before_stage(**chosen)
        old = state_of(run)
        run._before(at)
        assert same(state_of(run), old)
        assert not any(value.any() for value in run.optimiser.state().values())
        ends.append(factory.train(staged(**chosen)))
    assert torch.equal(ends[0].flat.data, ends[1].flat.data) and ends[0].curve == ends[1].curve


def test_only_noise_is_a_full_restart() -> None:
    ends = []
    for chosen in ({"shrink": 0.0, "perturb": 1.0}, {"reset": "full"}):
        run, at = before_stage(**chosen)
        assert same(begin_stage(run, at), state_of(run))
        ends.append(factory.train(staged(**chosen)))
    assert torch.equal(ends[0].flat.data, ends[1].flat.data) and ends[0].curve == ends[1].curve


def test_draws_are_those_of_each_layers_initialiser() -> None:
    run, at = before_stage(reset="full", more={"model": "small_cnn", "model_settings": {}})
    run._before(at)
    torch.manual_seed(0)
    for module in run.models["main"].modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            drawn, other = module.weight.detach().clone(), copy.deepcopy(module)
            if isinstance(module, nn.Conv2d):
                # He's, by the fan out, which the networks here have in place of torch's own.
                nn.init.kaiming_normal_(other.weight, mode="fan_out", nonlinearity="relu")
            else:
                other.reset_parameters()
            assert ks_2samp(drawn.flatten(), other.weight.detach().flatten()).pvalue > 1e-3


def test_draws_come_from_the_seed_and_the_stage() -> None:
    found = {}
    for seed in (0, 1):
        for stage in (1, 2):
            run, at = before_stage(stage, reset="full", more={"seed": seed})
            run._before(at)
            found[seed, stage] = state_of(run)["body.1.weight"]
            again, _ = before_stage(stage, reset="full", more={"seed": seed, "lr": 0.01})
            again._before(at)
            # Whatever else the arm does.
            assert torch.equal(found[seed, stage], state_of(again)["body.1.weight"])
        found[seed, 0] = state_of(factory.run(staged(more={"seed": seed})))["body.1.weight"]
    names = list(found)
    for index, one in enumerate(names):
        for other in names[:index]:
            assert not torch.equal(found[one], found[other]), (one, other)


# Stages.


@pytest.mark.parametrize("stages", [2, 3, 5])
def test_every_stage_begins_with_the_schedule_and_without_momentum(stages: int) -> None:
    run = factory.run(staged(10, stages))
    rates = run.table.columns["lr"]
    starts = np.flatnonzero(rates == rates.max())
    # No event at the end: what the last stage reached is what is evaluated.
    assert starts.tolist() == [0, *sorted(run._events)] and len(starts) == stages
    lengths = np.diff([*starts, run.updates])
    assert lengths.sum() == run.updates == 40 and np.ptp(lengths) <= 1


@pytest.mark.parametrize("reset", RESETS)
def test_one_stage_is_supervised_training_bit_for_bit(reset: str) -> None:
    chosen = {"stages": 1, "reset": reset, "distil": True}
    given: Json = {"epochs": 3, "lr": 0.1, "ema_decay": 0.9}
    plain = factory.train(factory.settings(**given))
    run = factory.train(factory.settings("reinit", method_settings=chosen, **given))
    assert torch.equal(run.flat.data, plain.flat.data)
    assert run.curve == plain.curve and run.final() == plain.final()


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("distil", [False, True])
def test_the_first_stage_is_supervised_training(reset: str, distil: bool) -> None:
    run, at = before_stage(reset=reset, distil=distil)
    rates = {"lr": run.settings["schedules"]["lr"], "model_settings": {"hidden": [32, 24, 16]}}
    plain = factory.run(factory.settings(epochs=6, **rates))
    while int(plain.update) < at:
        plain.train_epoch()
    assert torch.equal(run.flat.data, plain.flat.data)
    run._before(at)
    run.begin_epoch()
    plain.begin_epoch()
    run.step(50)
    plain.step(50)
    assert not torch.equal(run.flat.data, plain.flat.data)


def test_every_map_ends_elsewhere() -> None:
    ends = [factory.train(staged(reset=r, distil=d)).flat.data for r in RESETS for d in (0, 1)]
    for index, one in enumerate(ends):
        assert not any(torch.equal(one, other) for other in ends[:index])


# Blocks.


def test_the_last_block_and_the_head_are_drawn_anew() -> None:
    for last, kept in ((1, 2), (2, 1)):
        run, at = before_stage(reset="last_block", last=last)
        old, fresh = state_of(run), begin_stage(run, at)
        for name, value in state_of(run).items():
            place = int(name.split(".")[1]) if name.startswith("body.") else 99
            expected = old if place < 1 + 3 * kept else fresh
            assert torch.equal(value, expected[name]), (last, name)


@pytest.mark.parametrize(("stages", "kept"), [(3, [1, 2]), (2, [1]), (5, [0, 1, 1, 2])])
def test_each_stage_keeps_more_blocks(stages: int, kept: list[int]) -> None:
    found = methods.load("reinit").chosen({"stages": stages, "reset": "layerwise"})
    assert [reinit.kept_blocks(g, found, 3) for g in range(1, stages)] == kept
    assert reinit.kept_blocks(0, found, 3) == 0


@pytest.mark.parametrize("stage", [1, 2])
def test_kept_blocks_have_their_first_norms_and_their_statistics(stage: int) -> None:
    run, at = before_stage(stage, reset="layerwise")
    first = {k: v.norm() for k, v in state_of(factory.run(run.settings)).items()
             if v.is_floating_point()}  # fmt: skip
    old, fresh = state_of(run), begin_stage(run, at)
    parameters = dict(run.models["main"].named_parameters())
    for name, value in state_of(run).items():
        place = int(name.split(".")[1]) if name.startswith("body.") else 99
        if place >= 1 + 3 * stage:
            assert torch.equal(value, fresh[name]), name
        elif name not in parameters:
            assert torch.equal(value, old[name]), name
        elif name.endswith("bias"):
            # A shift begins at 0.
            assert old[name].any() and not value.any(), name
        else:
            assert float(value.norm()) == pytest.approx(float(first[name]), rel=1e-5), name
            torch.testing.assert_close(value / value.norm(), old[name] / old[name].norm())
    assert not any(value.any() for value in run.optimiser.state().values())


@pytest.mark.parametrize("model", ["bn_mlp", "small_cnn"])
def test_constants_are_those_of_the_first_training_batch(model: str) -> None:
    more = {"model": model} | ({"model_settings": {"width": 4}} if model == "small_cnn" else {})
    run, at = before_stage(reset="layerwise", more=more)
    run._before(at)
    memory, net = run.models["memory"], run.models["main"]
    off = memory.get_buffer("constants_0").clone()
    # An evaluation before it, in evaluation mode, freezes nothing.
    run.evaluate("test")
    assert torch.equal(memory.get_buffer("constants_0"), off)
    assert not off[0].any() and (off[1] == 1).all()
    run.begin_epoch()
    batch = run._batch(50, None)
    h = copy.deepcopy(net).body[:4](batch.x).detach()
    h = h.transpose(0, 1).flatten(1).double()
    with torch.no_grad():
        factory.stepped(run, batch)
    mean, deviation = memory.get_buffer("constants_0")
    torch.testing.assert_close(mean.double(), h.mean(1), rtol=1e-5, atol=1e-6)
    spread = h.std(1)
    torch.testing.assert_close(deviation.double(), spread.where(spread > 0, 1.0), rtol=1e-5,
                               atol=1e-6)  # fmt: skip
    frozen = memory.get_buffer("constants_0").clone()
    for _ in range(3):
        run.step(50)
    assert torch.equal(memory.get_buffer("constants_0"), frozen)
    # The next one is still off.
    assert not memory.get_buffer("constants_1")[0].any()


def test_what_is_evaluated_has_the_normalisations() -> None:
    run = factory.train(staged(reset="layerwise"))
    net, memory = run.models["main"].eval(), run.models["memory"]
    x = run.evaluator.outputs(lambda x: x, run.ids["test"])
    h = x
    for index, layer in enumerate(net.body):
        h = layer(h)
        if index in (3, 6):
            mean, deviation = memory.get_buffer(f"constants_{index // 3 - 1}")
            h = (h - mean) / deviation
    right = net.head(h).argmax(1) == run.data.labels[run.ids["test"]]
    assert run.final()["test_accuracy"] == pytest.approx(float(right.double().mean()))
    plain = net(x).argmax(1)
    assert not torch.equal(plain, net.head(h).argmax(1))
    features = run.method.features(run.models, x, run.method_settings)["features"]
    torch.testing.assert_close(features, h)
    # And a child that learns from it.
    child = factory.run(factory.settings("kd"), parents={"teacher": [factory.trained(run)]})
    torch.testing.assert_close(child.models["teacher"](x), net.head(h).log_softmax(1).detach())


def test_a_frozen_part_is_never_drawn_anew() -> None:
    for reset in ("full", "layerwise", "shrink_perturb"):
        given = {**staged(reset=reset), "frozen": ["body.4", "body.5"]}
        run = factory.run(given)
        [at, _] = sorted(run._events)
        old = state_of(run)
        run._before(at)
        for name, value in state_of(run).items():
            still = name.startswith(("body.4.", "body.5."))
            assert not still or torch.equal(value, old[name]), (reset, name)


@pytest.mark.parametrize("name", ["small_cnn", "resnet_b", "resnet18", "preact_resnet18", "wrn",
                                  "preresnet", "bn_mlp", "densenet", "vgg"])  # fmt: skip
def test_blocks_in_order_make_the_features(name: str) -> None:
    from cyclery.models._classifier import blocks

    net = small(name).eval()
    found = blocks(net)
    counts = {"small_cnn": 3, "resnet_b": 3, "resnet18": 8, "preact_resnet18": 8, "wrn": 3,
              "preresnet": 3, "bn_mlp": 2, "densenet": 5, "vgg": 5}  # fmt: skip
    assert len(found) == counts[name]
    x = torch.randn(2, *((1, 32, 32) if name == "vgg" else (1, 8, 8)))
    h = x
    for block in found:
        assert any(p.ndim > 1 for module in block for p in module.parameters())
        for module in block:
            h = module(h)
    assert torch.equal(h, net.features(x))
    inside = {id(p) for block in found for module in block for p in module.parameters()}
    assert inside == {id(p) for n, p in net.named_parameters() if not n.startswith("head.")}


# Distillation.


@pytest.mark.parametrize("tau", [1.0, 4.0])
@pytest.mark.parametrize("reset", ["full", "layerwise"])
def test_the_network_before_teaches_as_torch_distils(reset: str, tau: float) -> None:
    run, at = before_stage(reset=reset, distil=True, tau=tau, more={"beta": 0.3})
    old = copy.deepcopy(run.models["main"]).eval()
    run._before(at)
    assert same(state_of(run, "before"), dict(old.state_dict()))
    run.begin_epoch()
    batch = run._batch(50, None)
    q = old(batch.x).detach()
    loss, logs = factory.stepped(run, batch)
    # On one batch without running statistics it is a function of the weights alone.
    z = run.method.predict({**run.models, "main": run.models["main"]}, batch.x,
                           run.method_settings)  # fmt: skip
    told = F.kl_div(F.log_softmax(z / tau, 1), F.softmax(q / tau, 1), reduction="batchmean")
    ce = F.cross_entropy(z, batch.y)
    torch.testing.assert_close(logs["told"], told * tau * tau, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(loss, 0.7 * ce + 0.3 * told * tau * tau, rtol=1e-4, atol=1e-6)
    loss.backward()
    assert all(p.grad is None for p in run.models["before"].parameters())
    assert all(p.grad is not None for p in run.models["main"].parameters())
    before = state_of(run, "before")
    for _ in range(3):
        run.step(50)
    assert same(state_of(run, "before"), before)


def test_a_layerwise_teacher_keeps_its_own_constants() -> None:
    run, at = before_stage(2, reset="layerwise", distil=True)
    x = run.evaluator.outputs(lambda x: x, run.ids["test"])
    old = run.method.predict({**run.models, "main": run.models["main"].eval()}, x,
                             run.method_settings).detach()  # fmt: skip
    run.models["main"].train()
    run._before(at)
    run.begin_epoch()
    run.step(50)
    told = reinit._frozen_norms.features(
        run.models["before"].eval(), x, run.models["memory"], "before"
    )
    torch.testing.assert_close(run.models["before"].head(told), old)


def test_passes_of_the_teacher_count() -> None:
    method = methods.load("reinit")
    for chosen, passed in (({}, 50), ({"distil": True}, 100), ({"distil": True, "stages": 1}, 50)):
        assert method.spent(method.chosen(chosen), 50, None) == (50, passed)


# Early stopping.


@pytest.mark.parametrize("averaged", [False, True])
def test_early_stopping_ends_with_the_best_validation_epoch(averaged: bool) -> None:
    more: Json = {"split": {"noise": NOISE}, "epochs": 8, "evaluations": 8, "lr": 0.3}
    more |= {"ema_decay": 0.5} if averaged else {}
    chosen = {"stages": 1, "early_stopping": True}
    run = factory.run(factory.settings("reinit", method_settings=chosen, **more))
    plain = factory.run(factory.settings(**more))
    found = []
    while not plain.finished:
        plain.train_epoch()
        run.train_epoch()
        plain.evaluate_on_the_way()
        found.append(copy.deepcopy(plain.networks.evaluated[0]["main"].state_dict()))
    accuracies = plain.curve["val_accuracy"]
    best = int(np.argmax(accuracies))
    assert best < len(found) - 1
    assert same(state_of(run), found[best])
    assert run.final()["val_accuracy"] == max(accuracies)
    assert run.updates == plain.updates
    assert run.spent() == plain.spent()


# Memorisation.


def test_memorised_wrong_labels_are_counted() -> None:
    run = factory.train(staged(30, more={"split": {"noise": NOISE}}))
    ids = run.ids["train"]
    given, true = run.data.labels[ids], factory.data().labels[ids]
    wrong = given != true
    assert 0.2 < wrong.float().mean() < 0.6
    said = run.evaluator.outputs(run.models["main"].eval(), ids).argmax(1) == given
    final = run.final()
    assert final["train_corrupted_accuracy"] == pytest.approx(float(said[wrong].double().mean()))
    assert final["train_clean_accuracy"] == pytest.approx(float(said[~wrong].double().mean()))
    assert final["train_clean_accuracy"] > final["train_corrupted_accuracy"]
    assert "train_corrupted_accuracy@0.5" not in factory.train(staged()).curve
