"""BYOL's sketch: the target is moved by averaging alone, and the online network is handed on."""

from __future__ import annotations

import copy
import importlib
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from factories import sketches
from factories.cards_self_supervised import CARDS, CLAIMS

from cyclery.engine.run import Run

TARGET, ONLINE = ("ema", "ema.projector"), ("main", "projector", "predictor")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return sketches.planned(tmp_path_factory.mktemp("byol"), CARDS["byol"], CLAIMS["byol"])


def sketch() -> Any:
    return importlib.import_module("cyclery.methods.byol")


def begun(plan: Any) -> Run:
    run = sketches.run(plan, "encoder")
    run.begin_epoch()
    return run


def loss(run: Run, batch: Any) -> torch.Tensor:
    row = run.table.row(run.update)
    found: torch.Tensor = sketch().step(
        run.models, batch, row, run.method_settings, run.generators["method"]
    )[0]
    return found


def test_the_loss_is_the_distance_of_unit_vectors_and_has_no_gradient_in_the_target(
    plan: Any,
) -> None:
    run = begun(plan)
    batch = run._batch(20, None)
    nets = copy.deepcopy({name: run.models[name] for name in (*TARGET, *ONLINE)})
    for name in TARGET:
        run.models[name].requires_grad_(True)
    found = loss(run, batch)

    def z(net: str, projector: str, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = nets[projector](nets[net].features(x))  # type: ignore[operator]
        return made

    first, second = batch["pairs"].views
    expected: Any = sum(
        (F.normalize(nets["predictor"](z("main", "projector", x))) - F.normalize(z(*TARGET, other)))
        .square().sum(1).mean() for x, other in ((first, second), (second, first))
    )  # fmt: skip
    assert float(found.detach()) == pytest.approx(float(expected.detach()), abs=1e-5)

    def graded(names: tuple[str, ...]) -> dict[str, bool]:
        params = {
            f"{name}.{k}": p for name in names for k, p in run.models[name].named_parameters()
        }
        grads = torch.autograd.grad(
            found, list(params.values()), allow_unused=True, retain_graph=True
        )
        return {name: g is not None for name, g in zip(params, grads, strict=True)}

    assert not any(graded(TARGET).values())
    assert [name for name, has in graded(ONLINE).items() if not has] == [
        "main.head.weight", "main.head.bias",
    ]  # fmt: skip


def test_the_target_is_moved_by_averaging_alone_after_the_step(plan: Any) -> None:
    run = begun(plan)
    assert run.networks.averaged is not None
    decays = run.table.columns["ema_decay"]
    for update in range(3):
        before = run.networks.averaged.data.clone()
        run.step(20)
        after = run.networks.averaged.data
        part = 1 - decays[update]
        torch.testing.assert_close(after, before + part * (run.flat.data - before))
    assert not torch.equal(after, before)


def test_the_decay_rises_to_one_by_a_cosine(plan: Any) -> None:
    run, base = begun(plan), 0.9
    k = run.updates
    expected = [1 - (1 - base) * (math.cos(math.pi * t / k) + 1) / 2 for t in range(k)]
    assert run.table.columns["ema_decay"].tolist() == pytest.approx(expected)


def test_each_network_has_the_statistics_of_its_own_passes(plan: Any) -> None:
    run = begun(plan)
    for _ in range(3):
        run.step(20)
    batch = run._batch(20, None)
    alone = copy.deepcopy(run.models["ema"])
    for x in batch["pairs"].views:
        alone.features(x)  # type: ignore[operator]
    loss(run, batch)
    for (name, own), other in zip(run.models["ema"].named_buffers(), alone.buffers(), strict=True):
        assert torch.equal(own, other), name
    one, two = (run.models[name].get_buffer("body.2.running_mean") for name in ("ema", "main"))
    assert not torch.equal(one, two)


def test_the_online_network_is_evaluated_and_handed_on(plan: Any) -> None:
    run = sketches.run(plan, "encoder", done=True)
    kept, online = run.weights(), run.models["main"].state_dict()
    assert all(torch.equal(kept[name], online[name]) for name in online)
    assert not torch.equal(kept["body.1.weight"], run.models["ema"].state_dict()["body.1.weight"])
    child = sketches.run(plan, "linear")
    assert torch.equal(child.models["main"].state_dict()["body.1.weight"], kept["body.1.weight"])


def test_the_collapse_indicator_is_one_on_the_sphere_and_zero_in_a_point(plan: Any) -> None:
    drawn = torch.randn(4000, 16, generator=torch.Generator().manual_seed(0))
    assert float(sketch().collapse(drawn)) == pytest.approx(1, abs=0.02)
    assert float(sketch().collapse(drawn[:1].expand(100, 16) * torch.rand(100, 1))) < 1e-3


def test_the_indicator_is_a_figure_and_a_curve(plan: Any, tmp_path: Path) -> None:
    record = sketches.trained(tmp_path, plan)["encoder"]
    assert 0.3 < record["final"]["test_collapse"] < 1.1
    assert len(record["curve"]["test_collapse"]) == len(record["curve"]["eval_epoch"])
    assert set(record["final"]).isdisjoint({"test_accuracy", "val_accuracy"})
