"""Feature distillation: its distance against numpy, margins in closed form, and what learns."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from factories import engine as factory
from factories import priors
from factories.threads import one_thread
from scipy import integrate, stats
from torch import nn

from cyclery.common.errors import UserError
from cyclery.engine.run import Run
from cyclery.engine.teachers import Trained
from cyclery.methods import feature_distillation as method
from cyclery.models._stages import features_and_maps, stage_norms
from cyclery.models.layers import batch_norms

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)
Json = dict[str, Any]
MODELS: dict[str, Json] = {
    "bn_mlp": {"hidden": [24, 12]}, "small_cnn": {"width": 4}, "wrn": {"depth": 10, "width": 1}
}  # fmt: skip


def prior(model: str = "bn_mlp", **more: Any) -> Trained:
    """Return a network with norms unlike new ones."""
    run = factory.run(factory.settings(
        model=model, model_settings={**MODELS[model], **more}, seed=7, epochs=1
    ))  # fmt: skip
    torch.manual_seed(0)
    for norm in batch_norms(run.models["main"]):
        nn.init.normal_(norm.weight, 1, 0.3)
        nn.init.normal_(norm.bias, 0, 0.5)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    return factory.trained(run)


def begun(model: str = "bn_mlp", parent: Trained | None = None, **chosen: Any) -> Run:
    """Return a run before its first update, started from its teacher."""
    more = {**priors.SMALL, **chosen.pop("more", {})}
    given = factory.settings(
        "feature_distillation", model=model, model_settings=MODELS[model],
        method_settings={"weight": 0.1, **chosen}, **more,
    )  # fmt: skip
    given |= {"init": "prior", "init_parts": ["features"]}
    return factory.begun(given, parents={"prior": [parent or prior(model)]})


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (0.7, 0.4), (-0.5, -2.0), (1.0, 0.4)])
def test_a_margin_is_the_mean_of_a_normal_law_below_zero(mean: float, deviation: float) -> None:
    norm = nn.BatchNorm1d(1)
    nn.init.constant_(norm.bias, mean)
    nn.init.constant_(norm.weight, deviation)
    law = stats.norm(mean, abs(deviation))
    below, _ = integrate.quad(lambda x: x * law.pdf(x), -np.inf, 0)
    assert float(method.margin(norm)) == pytest.approx(below / law.cdf(0), rel=1e-5)
    half = stats.truncnorm(-np.inf, -mean / abs(deviation), mean, abs(deviation)).mean()
    assert float(method.margin(norm)) == pytest.approx(half, rel=1e-5)


def test_a_channel_that_is_never_below_zero_has_a_margin_far_off() -> None:
    norm = nn.BatchNorm1d(3)
    with torch.no_grad():
        norm.bias.copy_(torch.tensor([3.2, 3.0, 1.0]))
        norm.weight.copy_(torch.tensor([-1.0, 1.0, 0.0]))
    # 0.07 and 0.13 per cent of a normal law are as low.
    found = method.margin(norm).tolist()
    assert found[0] == -3.0 and found[2] == 0.0
    assert found[1] == pytest.approx(stats.truncnorm(-np.inf, -3, 3, 1).mean(), rel=1e-4)


def by_hand(s: np.ndarray, t: np.ndarray, margins: np.ndarray) -> float:
    """Return the distance element by element: the paper's cases."""
    total = 0.0
    for place in np.ndindex(*s.shape):
        wanted = max(t[place], margins[place[1]])
        if not (s[place] <= wanted <= 0):
            total += (s[place] - wanted) ** 2
    return total


@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 2, 2)])
def test_the_distance_is_partial(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    s, t = rng.normal(size=(2, *shape))
    margins = np.array([-0.8, -0.1, -2.0])
    found = method.distance(*(torch.from_numpy(each) for each in (s, t, margins)))
    assert float(found) == pytest.approx(by_hand(s, t, margins), rel=1e-12)
    # Nothing pulls a value up that is below a target below zero.
    low = torch.full((1, 3), -9.0, requires_grad=True)
    method.distance(low, torch.full((1, 3), -1.0), torch.tensor([-0.5] * 3)).backward()
    assert low.grad is not None and not low.grad.any()


@pytest.mark.parametrize("model", MODELS)
def test_the_loss_sums_stages_by_halves(model: str) -> None:
    run = begun(model)
    batch = run._batch(20, None)
    nets = copy.deepcopy(dict(run.models))
    loss, logs = factory.stepped(run, batch)
    teacher: Any = nets["prior"]
    with torch.no_grad():
        _, maps = features_and_maps(nets["main"], batch.x)
        _, taught = features_and_maps(teacher.parts["main"].eval(), batch.x)
        logits = copy.deepcopy(nets["main"])(batch.x)
        total, stages = 0.0, len(maps)
        norms = stage_norms(teacher.parts["main"])
        for index, (s, t, norm) in enumerate(zip(maps, taught, norms, strict=True)):
            connected = nets["connectors"][index](s)  # type: ignore[index]
            law = stats.truncnorm(
                -np.inf, *(x.detach().numpy() for x in (-norm.bias / norm.weight.abs(), norm.bias,
                                                        norm.weight.abs()))
            )  # fmt: skip
            at = norm.bias / norm.weight.abs()
            margins = np.where(
                stats.norm.cdf(-at.numpy()) > 1e-3, law.mean(), -3 * norm.weight.abs().numpy()
            )
            own = by_hand(connected.double().numpy(), t.double().numpy(), margins)
            total += own / 2 ** (stages - 1 - index) / 20
    expected = float(torch.nn.functional.cross_entropy(logits, batch.y))
    assert float(logs["distance"].detach()) == pytest.approx(total, rel=1e-3)
    assert float(loss.detach()) == pytest.approx(expected + 0.1 * total, rel=1e-3)


def test_gradients_reach_the_student_and_its_connectors_alone() -> None:
    run = begun()
    batch = run._batch(20, None)
    before = copy.deepcopy(run.models["prior"].state_dict())
    loss, logs = factory.stepped(run, batch)
    trained = list(run.flat.params.values())
    found = torch.autograd.grad(logs["distance"], trained, allow_unused=True, retain_graph=True)
    reached = {name for name, g in zip(run.flat.params, found, strict=True) if g is not None}
    assert reached == {name for name in run.flat.params if not name.startswith("main.head")}
    assert all(g is not None for g in torch.autograd.grad(loss, trained))
    assert not any(p.requires_grad for p in run.models["prior"].parameters())
    assert all(torch.equal(v, before[k]) for k, v in run.models["prior"].state_dict().items())


def test_without_weight_it_is_fine_tuning_bit_for_bit() -> None:
    parent = prior()
    run = begun(parent=parent, weight=0.0)
    given = factory.settings("supervised", model_settings=MODELS["bn_mlp"], **priors.SMALL) | {
        "init": "prior",
        "init_parts": ["features"],
    }
    plain = factory.begun(given, parents={"prior": [parent]})
    for each in (run, plain):
        factory.finish(each)
    for name, value in plain.models["main"].state_dict().items():
        assert torch.equal(value, run.models["main"].state_dict()[name]), name
    distilled = begun(parent=parent)
    factory.finish(distilled)
    assert not torch.equal(
        distilled.models["main"].state_dict()["body.1.weight"],
        plain.models["main"].state_dict()["body.1.weight"],
    )


def test_a_teacher_in_training_mode_sees_the_batch_and_stays_itself() -> None:
    parent, found = prior(), {}
    for mode in ("evaluation", "training"):
        run = begun(parent=parent, teacher=mode)
        before = copy.deepcopy(run.models["prior"].state_dict())
        batch = run._batch(20, None)
        found[mode] = float(factory.stepped(run, batch)[1]["distance"].detach())
        assert all(torch.equal(v, before[k]) for k, v in run.models["prior"].state_dict().items())
        assert not any(module.training for module in run.models["prior"].modules())
    assert found["evaluation"] != found["training"]


def test_margins_of_a_new_norm_are_those_of_a_standard_law() -> None:
    run = begun(margins="new")
    for buffer in run.models["margins"].buffers():
        torch.testing.assert_close(buffer, torch.full_like(buffer, -math.sqrt(2 / math.pi)))
    assert not torch.allclose(
        next(begun().models["margins"].buffers()), next(run.models["margins"].buffers())
    )


def test_the_distance_sets_in_after_five_epochs() -> None:
    later = {"kind": "epoch_ramp", "wait": 5, "end": 1e-4, "shape": "step"}
    given = factory.settings("feature_distillation", weight=later, **{**priors.SMALL, "epochs": 7})
    weights = [factory.run(given).table.row(torch.tensor(10 * epoch))["weight"]
               for epoch in range(7)]  # fmt: skip
    assert [float(each) for each in weights] == pytest.approx([0.0] * 5 + [1e-4] * 2)


def test_another_network_of_the_teacher_is_refused() -> None:
    with pytest.raises(UserError, match=r"parents.prior: its stages must be as wide.*found"):
        given = factory.settings(
            "feature_distillation", model_settings=MODELS["bn_mlp"], weight=0.1, **priors.SMALL
        )
        factory.begun(given, parents={"prior": [prior(hidden=[24, 13])]})
