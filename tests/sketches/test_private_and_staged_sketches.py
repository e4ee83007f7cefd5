"""What makes the sketch of DP-SGD its own."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from factories import engine as factory
from factories import sketches
from factories.cards_semi_supervised import CARDS

from cyclery import methods
from cyclery.common.errors import UserError
from cyclery.engine.hooks import Measured
from cyclery.engine.run import Run
from cyclery.engine.stream import Batch, Samples

Json = dict[str, Any]


def begun(root: Path, card: str, arm: str, **changes: Any) -> Run:
    """Return a run of an arm of a card before its first update."""
    arms = {arm: {**copy.deepcopy(CARDS[card][arm]), **changes}}
    [job] = sketches.jobs(sketches.planned(root, arms))
    run = factory.run(job["settings"])
    run.begin_epoch()
    return run


def stepped(run: Run, samples: Samples | None = None, **row: float) -> Any:
    """Return what the step of a run returns for the next batch, or for labelled samples."""
    batch = Batch({"labelled": samples}) if samples else run._batch(run.table.batches[0], None)
    given = {**run.table.row(run.update), **{k: torch.tensor(v) for k, v in row.items()}}
    return run.method.step(run.models, batch, given, run.method_settings, run.generators["method"])


# DP-SGD.


def private(root: Path, **changes: Any) -> tuple[Run, Samples]:
    run = begun(root, "dp-sgd", "private", **changes)
    return run, run._batch(run.table.batches[0], None).labelled


@pytest.mark.parametrize(("scale", "low", "high"), [(1.0, 1, 9), (0.05, 0, 1)])
def test_dp_sgd_clips_the_gradient_of_each_sample_over_all_its_views(
    tmp_path: Path, scale: float, low: float, high: float
) -> None:
    run, samples = private(tmp_path)
    run.flat.data.mul_(scale)
    gradients = stepped(run, samples, noise=0.0)[0].of
    assert len(samples.views) == 4 and not torch.equal(*samples.views[:2])
    assert run.method.spent(run.method_settings, 20, None) == (80, 80)
    net, expected = run.models["main"], torch.zeros(len(run.flat))
    for index in samples.mask.nonzero().flatten().tolist():
        views = torch.stack([view[index] for view in samples.views])
        cost = F.cross_entropy(net(views), samples.y[index].repeat(4))
        found = torch.autograd.grad(cost, list(run.flat.params.values()))
        norm = math.sqrt(sum(float(g.square().sum()) for g in found))
        assert low < norm < high
        for name, g in zip(run.flat.params, found, strict=True):
            run.flat.views(expected)[name].add_(g / max(1, norm) / 20)
    for name, view in run.flat.views(expected).items():
        torch.testing.assert_close(gradients[name], view, rtol=1e-4, atol=1e-6)


def test_one_sample_moves_the_sum_by_no_more_than_one_share_of_the_expected_batch(
    tmp_path: Path,
) -> None:
    run, samples = private(tmp_path)
    for factor in (1, 1e3):
        samples = replace(samples, views=tuple(view * factor for view in samples.views))
        sums = []
        for index in (None, 0):
            mask = samples.mask.clone()
            mask[0] = float(index is None)
            found = stepped(run, replace(samples, mask=mask), noise=0.0)[0].of
            sums.append(torch.cat([found[name].flatten() for name in run.flat.params]))
        moved = float((sums[0] - sums[1]).norm()) * 20
        assert moved == pytest.approx(1, rel=1e-4) if factor > 1 else 0 < moved <= 1 + 1e-5


def test_the_noise_of_dp_sgd_is_a_share_of_the_expected_batch(tmp_path: Path) -> None:
    run, samples = private(tmp_path)
    found = stepped(run, replace(samples, mask=0 * samples.mask), noise=3.0)[0].of
    noise = torch.cat([value.flatten() for value in found.values()])
    assert float(noise.std()) == pytest.approx(3 / 20, rel=0.05)
    assert abs(float(noise.mean())) < 4 * 3 / 20 / math.sqrt(len(noise))


@pytest.mark.parametrize(
    ("noise", "batch", "updates", "known"),
    [(10, 4096, 875, 0.9877), (21.1, 16384, 250, 0.9976), (3, 4096, 2500, 7.0985)],
)
def test_epsilon_is_that_of_other_accountants(
    noise: float, batch: int, updates: int, known: float
) -> None:
    # Opacus and dp-accounting, with fractional orders besides; delta is 1e-5.
    method = methods.load("dp_sgd")
    history = {"batch": np.full(updates, float(batch)), "noise": np.full(updates, float(noise))}
    measured = SimpleNamespace(history=history.__getitem__, pool=lambda name: range(50_000))
    found = method.evaluate({}, measured, method.chosen({}))["train_epsilon"]
    assert known - 1e-4 < found < known * 1.001


def test_epsilon_grows_with_the_updates_and_follows_the_noise(tmp_path: Path) -> None:
    spent = {}
    for name, noise in {
        "constant": 2.0,
        "rising": {"kind": "linear", "start": 2, "end": 4},
    }.items():
        how = {"name": "dp_sgd", "noise": noise}
        run = begun(tmp_path / name, "dp-sgd", "private", method=how)
        factory.finish(run)
        spent[name] = run.curve["train_epsilon"]
        assert run.final()["train_epsilon"] == spent[name][-1]
    assert spent["constant"] == sorted(set(spent["constant"]))
    assert spent["rising"][-1] < spent["constant"][-1]


def test_the_history_of_what_no_schedule_gives_is_refused(tmp_path: Path) -> None:
    run = begun(tmp_path, "dp-sgd", "private")
    measured = Measured(run._inside, 0, last=False)
    assert len(measured.history("batch")) == 0
    with pytest.raises(UserError, match=r"no quantity 'sigma'; there are batch, .*noise"):
        measured.history("sigma")


def test_batch_norm_has_no_gradient_of_one_sample(tmp_path: Path) -> None:
    run = begun(tmp_path, "dp-sgd", "private", model={"name": "bn_mlp", "hidden": [8]})
    with pytest.raises(UserError, match=r"model: has batch norm, which mixes .* `norm: group`"):
        run.step(20)


def test_the_average_of_dp_sgd_warms_up(tmp_path: Path) -> None:
    run = begun(tmp_path, "dp-sgd", "private")
    average = run.flat.data.clone()
    for t in range(4):
        run.step(20)
        decay = min(0.999, (1 + t) / (10 + t))
        average = decay * average + (1 - decay) * run.flat.data
    torch.testing.assert_close(run.networks.averaged.data, average)
