"""Sketches for few annotations: proxies and unseen classes."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from factories import engine as factory
from factories import sketches
from factories.cards_self_supervised import CARDS, CLAIMS
from sklearn.neighbors import NearestNeighbors

NAME = "annotation-efficient"


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return sketches.planned(tmp_path_factory.mktemp("few"), CARDS[NAME], CLAIMS[NAME])


def sketch(name: str) -> Any:
    return importlib.import_module(f"cyclery.methods.{name}")


# Proxies.


def test_the_loss_is_a_cross_entropy_of_cosines_at_a_low_temperature(plan: Any) -> None:
    run = sketches.run(plan, "proxies")
    run.begin_epoch()
    batch = run._batch(20, None)
    loss, _ = sketch("proxynca").step(run.models, batch, {}, run.method_settings, None)
    e = sketches.run(plan, "proxies").models
    x = e["embedding"](e["main"].features(batch.x))  # type: ignore[operator]
    cosine = F.normalize(x) @ F.normalize(e["proxies"].weight).T  # type: ignore[arg-type]
    expected = F.cross_entropy(18 * cosine, batch.y)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_a_batch_has_as_many_samples_of_each_of_a_few_classes(plan: Any) -> None:
    run = sketches.run(plan, "proxies")
    run.begin_epoch()
    for _ in range(2):
        batch = run._batch(20, None)
        assert np.bincount(batch.y).tolist() == [4] * 5 and len(set(batch.ids.tolist())) == 20


def test_proxies_move_ten_times_as_fast(tmp_path: Path) -> None:
    arms = {"fast": CARDS[NAME]["proxies"], "slow": {**CARDS[NAME]["proxies"], "rates": None}}
    plan = sketches.planned(tmp_path, arms)
    moved = {}
    for arm in arms:
        run = sketches.run(plan, arm)
        before = {name: p.detach().clone() for name, p in run.flat.params.items()}
        run.begin_epoch()
        run.step(20)
        moved[arm] = {name: p.detach() - before[name] for name, p in run.flat.params.items()}
    for name, fast in moved["fast"].items():
        factor = 10 if name == "proxies.weight" else 1
        torch.testing.assert_close(fast, factor * moved["slow"][name], atol=1e-6, rtol=1e-4)
    assert moved["slow"]["proxies.weight"].any()


def test_retrieval_is_measured_on_classes_that_were_not_trained(plan: Any, tmp_path: Path) -> None:
    record = sketches.trained(tmp_path, plan)["proxies"]
    run = sketches.run(plan, "proxies", done=True)
    pool = run.ids["unlabelled"]
    unseen = pool[run.data.labels[pool] < 0]
    own = factory.data().labels[unseen].numpy()
    assert set(own.tolist()) == {5, 6, 7, 8, 9}
    x = run.evaluator.features(unseen)["features"].numpy()
    _, near = NearestNeighbors(n_neighbors=2).fit(x).kneighbors(x)
    expected = np.mean(own[near[:, 1]] == own)
    assert record["final"]["unlabelled_near_recall_at_1"] == pytest.approx(expected, abs=1e-9)
