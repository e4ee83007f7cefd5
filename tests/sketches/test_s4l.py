"""S4L's sketches: rotations, triplets, and a new network trained on a parent's answers."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from factories import engine as factory
from factories import sketches
from factories.cards_self_supervised import CARDS, CLAIMS

from cyclery.engine.stream import Data


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return sketches.planned(tmp_path_factory.mktemp("s4l"), CARDS["s4l"], CLAIMS["s4l"])


def sketch() -> Any:
    return importlib.import_module("cyclery.methods.s4l")


class Watched(torch.nn.Module):
    """Keeps the images whose features it makes."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net, self.head = net, net.head
        self.seen: list[torch.Tensor] = []

    def features(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x)
        found: torch.Tensor = self.net.features(x)
        return found


def stepped(plan: Any, arm: str) -> tuple[Any, Any, Any, Any]:
    """Return a run, a batch, the images of its one pass, and what its step returned."""
    run = sketches.run(plan, arm)
    run.begin_epoch()
    batch, net = run._batch(20, None), Watched(run.models["main"])
    found = sketch().step(
        {**run.models, "main": net}, batch, run.table.row(run.update), run.method_settings,
        run.generators["method"],
    )  # fmt: skip
    [seen] = net.seen
    return run, batch, seen, found


def test_all_rotations_of_both_streams_are_one_pass(plan: Any) -> None:
    _, batch, seen, _ = stepped(plan, "rotation")
    expected = [np.rot90(each.x.numpy(), k, (2, 3)) for each in (batch.unlabelled, batch.labelled)
                for k in range(4)]  # fmt: skip
    assert np.array_equal(seen.numpy(), np.concatenate(expected))


def test_a_rotation_is_its_own_label() -> None:
    z = torch.zeros(4, 5, 4)
    for k in range(4):
        z[k, :, k] = 50.0
    assert float(sketch().rotations(z)) < 1e-6
    assert float(sketch().rotations(z.roll(1, 0))) == pytest.approx(50.0)


def test_classes_are_learnt_from_all_rotations_of_labelled_samples_alone(plan: Any) -> None:
    run, batch, seen, (_, logs) = stepped(plan, "rotation")
    fresh = sketches.run(plan, "rotation").models["main"]
    logits = fresh(seen)[len(seen) // 2 :].unflatten(0, (4, 20))
    expected = torch.stack([F.cross_entropy(each, batch.y) for each in logits]).mean()
    assert float(logs["loss_labelled"].detach()) == pytest.approx(
        float(expected.detach()), rel=1e-5
    )
    assert run.method.spent(run.method_settings, 20, None) == (40, 160)


def test_the_triplet_loss_is_that_of_the_hardest_pairs() -> None:
    z = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(0))
    unit = F.normalize(z, dim=2).double().numpy()
    losses = []
    for view in range(4):
        for image in range(6):
            others = [(v, i, float(np.linalg.norm(unit[view, image] - unit[v, i])))
                      for v in range(4) for i in range(6)]  # fmt: skip
            far = max(d for _, i, d in others if i == image)
            near = min(d for _, i, d in others if i != image)
            losses.append(np.log1p(np.exp(far - near)))
    assert float(sketch().triplet(z)) == pytest.approx(np.mean(losses), rel=1e-5)


def test_triplets_are_of_the_views_of_one_stream(plan: Any) -> None:
    _, _, seen, (_, logs) = stepped(plan, "exemplar")
    net, head = (sketches.run(plan, "exemplar").models[name] for name in ("main", "task"))
    parts = head(net.features(seen)).unflatten(0, (2, 4, 20))  # type: ignore[operator]
    expected = (sketch().triplet(parts[0]) + sketch().triplet(parts[1])) / 2
    assert float(logs["loss_task"].detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_a_new_network_learns_the_parents_answers_and_the_labels_there_are(plan: Any) -> None:
    parent, run = sketches.run(plan, "rotation", done=True), sketches.run(plan, "retrained")
    known = set(run.ids["train"].tolist())
    net = parent.models["main"].eval()
    run.begin_epoch()
    seen: dict[int, int] = {}
    for _ in range(10):
        samples = run._batch(20, None)["all"]
        seen |= dict(zip(samples.ids.tolist(), samples.y.tolist(), strict=True))
    assert known & set(seen) and set(seen) - known
    manifest = factory.data().manifest
    for i, label in seen.items():
        x = factory.data().images[i].float()[None] / manifest["max_value"]
        mean, std = (torch.tensor(manifest[k])[:, None, None] for k in ("mean", "std"))
        own = int(net((x - mean) / std).argmax())
        assert label == (int(factory.data().labels[i]) if i in known else own)


@pytest.mark.parametrize(
    ("card", "arm"),
    [("s4l", "rotation"), ("s4l", "exemplar"), ("s4l", "retrained"),
     ("annotation-efficient", "gist"), ("byol", "linear")],
)  # fmt: skip
def test_no_hidden_label_is_looked_at(
    card: str, arm: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plan = sketches.planned(tmp_path, CARDS[card], CLAIMS[card])
    weights = sketches.run(plan, arm, done=True).weights()
    honest = Data.trained_on

    def hidden(data: Data, settings: Any, seed: int, ids: Any) -> Data:
        found = honest(data, settings, seed, ids)
        # The dataset itself is shared by all runs.
        found = replace(found, labels=found.labels.clone())
        shown = torch.cat([torch.from_numpy(ids[p]) for p in ("train", "validation", "test")])
        lost = torch.ones(len(found.labels), dtype=torch.bool)
        lost[shown] = False
        # Which are of unknown classes decides what is drawn, and is measured.
        lost &= found.labels >= 0
        found.labels[lost] = (found.labels[lost] + 1).remainder(found.manifest["classes"])
        return found

    monkeypatch.setattr(Data, "trained_on", hidden)
    for name, value in sketches.run(plan, arm, done=True).weights().items():
        assert torch.equal(value, weights[name]), name
