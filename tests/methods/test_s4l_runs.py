"""Runs of S4L: the control, pretraining and its children, pseudo-labels, the chain of steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from factories import engine as factory
from factories import small_paper
from factories.threads import one_thread
from torch import Tensor

from cyclery.engine.run import Run
from cyclery.methods._rotations import averaged

Json = dict[str, Any]
_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

FEW: Json = {"test": 200, "validation": 100, "per_class": 4, "unlabelled": "all"}
BASE: Json = {"split": FEW, "epoch_images": 80}
MOAM: Json = {"name": "s4l", "vat": True, "weight": 0.4, "class_weight": 0.3, "epsilon": 1.6}
ALL: Json = {"parts": ["features", "head", "task"], "head": "keep"}
ARMS: Json = {
    "supervised": BASE,
    "rotation": {**BASE, "method": "s4l"},
    "exemplar": {**BASE, "method": {"name": "s4l", "task": "exemplar", "copies": 3,
                                    "embedding": 16}},
    "control": {**BASE, "method": {"name": "s4l", "samples": "labelled", "weight": 0}},
    "pretraining": {**BASE, "method": {"name": "s4l", "samples": "unlabelled"}},
    "linear": {**BASE, "parents": {"encoder": "pretraining"}, "frozen": ["features"],
               "init": {"from": "encoder", "parts": ["features"]}},
    "tuned": {**BASE, "parents": {"encoder": "pretraining"},
              "init": {"from": "encoder", "parts": ["features"]}},
    "step-1": {**BASE, "method": MOAM, "ema_decay": 0.9},
    "step-2": {**BASE, "method": {**MOAM, "labels": "teacher"}, "ema_decay": 0.9,
               "epoch_images": 200, "parents": {"teacher": "step-1"},
               "init": {**ALL, "from": "teacher"}},
    "step-3": {**BASE, "parents": {"start": "step-2"}, "init": "start"},
    "retrained": {**BASE, "method": "retraining", "epoch_images": 200,
                  "parents": {"teacher": "rotation"}},
    "retrained-turned": {**BASE, "method": {"name": "retraining", "predictions": "rotations"},
                         "epoch_images": 200, "parents": {"teacher": "rotation"}},
}  # fmt: skip


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return small_paper.planned(tmp_path_factory.mktemp("s4l"), ARMS)


@pytest.fixture(scope="module")
def records(plan: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Json]:
    return small_paper.trained(tmp_path_factory.mktemp("trained"), plan)


def normalised(ids: Tensor) -> Tensor:
    manifest = factory.data().manifest
    mean, std = (torch.tensor(manifest[k])[:, None, None] for k in ("mean", "std"))
    return (factory.data().images[ids].float() / manifest["max_value"] - mean) / std


def test_the_whole_chain_trains_through_the_graph(records: dict[str, Json]) -> None:
    assert all(records[name]["status"] == "done" for name in ARMS)
    assert "test_accuracy" not in records["pretraining"]["final"]
    assert "test_rotations_accuracy" not in records["pretraining"]["final"]


@pytest.mark.slow
def test_resumed_runs_are_those_that_went_on(
    plan: Any, records: dict[str, Json], tmp_path: Path
) -> None:
    again = small_paper.resumed(tmp_path, plan)
    for arm, record in records.items():
        assert factory.figures(record) == factory.figures(again[arm]), arm


def test_a_run_without_a_task_is_supervised_training_on_rotations(plan: Any) -> None:
    """Update by update, with an optimiser of torch's own."""
    run = small_paper.run(plan, "control")
    twin = small_paper.run(plan, "control").models["main"]
    rates = {name: each["value"] for name, each in run.settings["schedules"].items()}
    optimiser = torch.optim.SGD([
        {"params": [p for p in twin.parameters() if p.ndim > 1],
         "weight_decay": rates["weight_decay"]},
        {"params": [p for p in twin.parameters() if p.ndim == 1]},
    ], lr=rates["lr"], momentum=rates["momentum"],
        nesterov=run.settings["optimiser"]["settings"]["nesterov"])  # fmt: skip
    seen: list[Any] = []
    make = run._batch

    def kept(*given: Any) -> Any:
        seen.append(make(*given))
        return seen[-1]

    run._batch = kept  # type: ignore[method-assign]
    run.train_epoch()
    for batch in seen:
        optimiser.zero_grad()
        x = torch.cat([torch.rot90(batch.x, k, (2, 3)) for k in range(4)])
        F.cross_entropy(twin(x), batch.y.repeat(4)).backward()
        optimiser.step()
    assert len(seen) == 4
    expected = twin.state_dict()
    for name, value in run.models["main"].state_dict().items():
        assert torch.allclose(value, expected[name], rtol=1e-4, atol=1e-5), name


def test_both_predictions_are_measured(plan: Any) -> None:
    run = small_paper.run(plan, "rotation", done=True)
    net, ids = run.models["main"].eval(), run.ids["test"]
    final = run.final()
    with torch.no_grad():
        for name, z in (("test_accuracy", net(normalised(ids))),
                        ("test_rotations_accuracy", averaged(net, normalised(ids)))):  # fmt: skip
            right = (z.argmax(1) == factory.data().labels[ids]).double().mean()
            assert final[name] == pytest.approx(float(right))
    assert final["test_accuracy"] != final["test_rotations_accuracy"]


def test_a_linear_child_has_the_features_that_were_pretrained(plan: Any) -> None:
    parent = small_paper.run(plan, "pretraining", done=True).weights()
    for arm in ("linear", "tuned"):
        start, end = (small_paper.run(plan, arm, done=done).weights() for done in (False, True))
        for name, value in start.items():
            if not name.startswith("head"):
                assert torch.equal(value, parent[name]), name
                if value.is_floating_point():
                    assert torch.equal(end[name], value) == (arm == "linear"), name
            else:
                assert not torch.equal(end[name], value), name


@pytest.mark.parametrize("arm", ["retrained", "retrained-turned", "step-2"])
def test_samples_have_their_labels_or_the_parents(plan: Any, arm: str) -> None:
    run = small_paper.run(plan, arm)
    parent = small_paper.run(plan, {"step-2": "step-1"}.get(arm, "rotation"), done=True)
    net = parent.networks.evaluated[0]["main"].eval()
    known = set(run.ids["train"].tolist())
    run.begin_epoch()
    seen: dict[int, int] = {}
    for _ in range(10):
        batch = run._batch(20, None)
        seen |= dict(zip(batch.ids.tolist(), batch.y.tolist(), strict=True))
    assert known & set(seen) and set(seen) - known
    assert set(seen) <= set(run.ids["unlabelled"].tolist())
    ids = torch.tensor(list(seen))
    with torch.no_grad():
        x = normalised(ids)
        own = (net(x) if arm == "retrained" else averaged(net, x)).argmax(1)
    true = factory.data().labels[ids]
    expected = torch.where(torch.isin(ids, run.ids["train"]), true, own)
    assert torch.tensor(list(seen.values())).equal(expected)
    assert not own.equal(true)


def test_pseudo_labels_of_the_mean_over_rotations_are_others(plan: Any) -> None:
    weights = [small_paper.run(plan, arm, done=True).flat.data
               for arm in ("retrained", "retrained-turned")]  # fmt: skip
    assert not torch.equal(*weights)


def test_the_second_step_goes_on_from_all_layers_of_the_first(plan: Any) -> None:
    first = small_paper.run(plan, "step-1", done=True).weights()
    run = small_paper.run(plan, "step-2")
    for name, value in run.weights().items():
        assert torch.equal(value, first[name]), name
    for name, value in run.models["task"].state_dict().items():
        assert torch.equal(value, first[f"task/{name}"]), name


@pytest.mark.parametrize("arm", ["rotation", "exemplar", "step-2", "retrained", "linear"])
def test_no_hidden_label_is_looked_at(plan: Any, arm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small_paper.assert_no_hidden_label_trains(plan, arm, monkeypatch)


def run_of(seed: int, **given: Any) -> Run:
    split = {"labels": 60, "unlabelled": "all"}
    return factory.train(factory.settings("s4l", method_settings=given, split=split, epochs=2,
                                          seed=seed, epoch_images=100, mu=1))  # fmt: skip


@pytest.mark.parametrize("given", [{}, {"vat": True}, {"task": "exemplar", "copies": 2}], ids=str)
def test_a_step_repeats_and_its_loss_falls(given: Json) -> None:
    one, other = run_of(0, **given), run_of(0, **given)
    assert torch.equal(one.flat.data, other.flat.data)
    assert one.curve["train_loss"][-1] < one.curve["train_loss"][0]
