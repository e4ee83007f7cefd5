"""Runs of deep reference priors: ensembles of networks, their figures, their controls, gains."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from factories import checkout, packs
from factories import engine as factory
from factories.threads import one_thread
from torch import nn

from cyclery.config.load import load
from cyclery.engine.run import Run
from cyclery.engine.stack import Stack
from cyclery.plan.graph import Plan

Json = dict[str, Any]
PAPER = "deep-reference-priors"
_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

# Four labels of each class; the other training samples are unlabelled.
FEW: Json = {"split": {"per_class": 4, "labels": None, "unlabelled": "rest"}, "batch": 20, "mu": 3,
             "epoch_images": 200, "ema_decay": 0.9, "epochs": 2}  # fmt: skip


def settings(particles: int = 4, **changes: Any) -> Json:
    chosen = {"particles": particles, **changes.pop("chosen", {})}
    return factory.settings("deep_reference_priors", method_settings=chosen, **{**FEW, **changes})


def members(nets: Mapping[str, nn.Module], particles: int = 4) -> list[nn.Module]:
    return [nets["main"], *(nets[f"particle_{k}"] for k in range(2, particles + 1))]


def test_figures_are_those_of_the_averaged_and_of_the_trained_networks() -> None:
    run = factory.train(settings(epochs=4))
    final, ids = run.final(), run.ids["test"]
    x, y = run._inside.evaluator.outputs(lambda x: x, ids), run.data.labels[ids]
    for raw, nets in zip(("", "raw_"), run.networks.evaluated, strict=True):
        with torch.no_grad():
            z = torch.stack([net.eval()(x) for net in members(nets)])
        each = (z.argmax(2) == y).double().mean(1)
        whole = (z.mean(0).argmax(1) == y).double().mean().item()
        assert final[f"{raw}test_accuracy"] == pytest.approx(whole)
        assert final[f"{raw}test_particle_accuracy"] == pytest.approx(each.mean().item())
        assert final[f"{raw}test_ensemble_gain"] == pytest.approx(whole - each.mean().item())
        for k in range(4):
            assert final[f"{raw}test_particle_{k + 1}_accuracy"] == pytest.approx(each[k].item())
        assert len(set(each.tolist())) > 1
    assert final["test_nll"] != final["raw_test_nll"]
    assert run.curve["test_ensemble_gain"][-1] == final["test_ensemble_gain"]
    assert {"train_h_y", "train_h_yw", "train_information", "train_mask_rate"} <= run.curve.keys()


def test_without_an_average_there_are_figures_of_the_trained_networks() -> None:
    given = settings(2)
    del given["schedules"]["ema_decay"]
    final = factory.train(given).final()
    assert "test_ensemble_gain" in final and "raw_test_ensemble_gain" not in final


def test_particles_are_drawn_apart_and_averaged_each() -> None:
    run = factory.run(settings())
    drawn = [net.body[1].weight.clone() for net in members(run.models)]  # type: ignore[index,union-attr]
    assert not any(torch.equal(drawn[0], other) for other in drawn[1:])
    factory.finish(run)
    for name in ("main", "particle_2", "particle_3", "particle_4"):
        averaged = run.models["ema" if name == "main" else f"ema.{name}"]
        assert not torch.equal(averaged.head.weight, run.models[name].head.weight)  # type: ignore[arg-type]


@pytest.mark.parametrize("objective", ["fixmatch", "supervised"])
def test_one_independent_network_is_that_method_bit_for_bit(objective: str) -> None:
    one = factory.train(settings(1, chosen={"objective": objective}, threshold=0.3))
    more = {"threshold": 0.3} if objective == "fixmatch" else {}
    other = factory.train(factory.settings(objective, **{**FEW, **more}))
    assert torch.equal(one.flat.data, other.flat.data)
    assert one.curve["train_loss"] == other.curve["train_loss"]
    assert one.final()["test_accuracy"] == other.final()["test_accuracy"]


def test_at_k_times_the_rate_a_network_of_an_ensemble_trains_as_one_alone() -> None:
    """And at a K-th of the decay: the loss is a mean over networks."""
    rates = {"lr": 0.05, "weight_decay": 0.01, "threshold": 0.3}
    alone = factory.train(factory.settings("fixmatch", **{**FEW, **rates}))
    many = {"lr": 0.2, "weight_decay": 0.0025, "threshold": 0.3}
    beside = factory.train(settings(4, chosen={"objective": "fixmatch"}, **many))
    for name, value in beside.models["main"].named_parameters():
        torch.testing.assert_close(
            value, dict(alone.models["main"].named_parameters())[name], rtol=1e-3, atol=1e-4
        )


def test_a_child_learns_from_the_whole_ensemble() -> None:
    parent = factory.train(settings())
    child = factory.run(factory.settings("kd"), parents={"teacher": [factory.trained(parent)]})
    x = torch.randn(5, 1, 8, 8)
    mean = sum(net.eval()(x) for net in members(parent.networks.evaluated[0])) / 4
    torch.testing.assert_close(child.models["teacher"](x), mean.detach().log_softmax(1))


def accuracy(runs: list[Run]) -> float:
    """Return the mean accuracy of runs that were trained as a pack."""
    figures: list[Json] = [run.figures for run in runs]  # type: ignore[attr-defined]
    return sum(float(each["test_accuracy"]) for each in figures) / len(figures)


def test_it_improves_on_the_labels_alone() -> None:
    """The easy case: 20 labels, digits that hide theirs, as many networks and updates."""
    how: Json = {"split": {"per_class": 2, "labels": None, "unlabelled": "rest"}, "lr": 0.12,
                 "model_settings": {"hidden": [64, 64]}, "batch": 16, "epoch_images": 800,
                 "strong": ({"op": "policy"}, {"op": "cutout", "size": 4}), "ema_decay": 0.95,
                 "epochs": 5, "evaluations": 1}  # fmt: skip
    runs = {
        objective: packs.beside(
            [settings(seed=s, chosen={"objective": objective}, **how) for s in range(3)], Stack()
        )
        for objective in ("reference_prior", "supervised")
    }
    assert accuracy(runs["reference_prior"]) - accuracy(runs["supervised"]) > 0.02
    mask = runs["reference_prior"][0].curve["train_mask_rate"]
    assert mask[0] < mask[-1]


@pytest.fixture(scope="module")
def plan() -> Plan:
    return Plan(load(checkout.ROOT, {"papers": [PAPER], "tier": "paper", "device": "cpu"}))


def test_rates_and_decays_are_those_of_the_code(plan: Plan) -> None:
    """0.03 K and 5e-4 / K, by cos(7 pi t / 16 T), in arms of K networks at the paper tier."""
    seen = set()
    for name in ("fewest", "particles", "alpha", "order", "logarithm", "labels-1000"):
        for arm in (plan.arm(PAPER, name, each) for each in plan.arm_names(PAPER, name)):
            method, schedules = arm.settings["method"], arm.settings["schedules"]
            k = method["settings"].get("particles", 1)
            assert schedules["lr"]["peak"] == pytest.approx(0.03 * k), arm.id
            constant = {
                key: schedules[key]["value"] for key in ("weight_decay", "ema_decay", "batch")
            }
            wanted = {"weight_decay": pytest.approx(5e-4 / k), "ema_decay": 0.999, "batch": 64}
            assert constant == wanted, arm.id
            seen.add(k)
    assert seen == {1, 2, 4, 8}


def test_the_rate_falls_as_in_the_code() -> None:
    given = settings(lr={"kind": "cosine_arc", "peak": 0.12}, epochs=3)
    run = factory.run(given)
    total = len(run.table.columns["lr"])
    for t in (0, total // 2, total - 1):
        wanted = 0.12 * math.cos(7 * math.pi * t / (16 * total))
        assert run.table.columns["lr"][t] == pytest.approx(wanted, rel=1e-6)


def test_arms_of_four_networks_have_the_passes_of_their_rivals(plan: Plan) -> None:
    names = ("drp", "fixmatch-ensemble", "fixmatch-long")
    cost = {name: plan.arm(PAPER, "fewest", name).cost for name in names}
    assert cost["drp"]["forwards"] == cost["fixmatch-ensemble"]["forwards"]
    assert cost["drp"]["forwards"] == cost["fixmatch-long"]["forwards"]
    assert cost["fixmatch-long"]["updates"] == 4 * cost["drp"]["updates"] == 4 * 256_000
