"""DP-SGD: what is clipped, the noise, and what is spent."""

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
from factories.threads import one_thread
from opacus import GradSampleModule
from sklearn.metrics import roc_auc_score
from torch.optim.swa_utils import AveragedModel

from cyclery import methods
from cyclery.common.errors import UserError
from cyclery.engine.run import Run
from cyclery.engine.stream import Batch, Samples
from cyclery.methods import Course, Gradients, _sampled_gaussian
from cyclery.methods._auroc import auroc
from cyclery.methods._gradients import per_example

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)
Json = dict[str, Any]
PLAIN: Json = {"momentum": 0.0, "weight_decay": 0.0, "lr": 0.5, "batch": 20}


def begun(views: int = 4, **changes: Any) -> tuple[Run, Samples]:
    """Return a run before its first update, and the samples of it."""
    chosen = {"views": views, **changes.pop("method_settings", {})}
    run = factory.begun(factory.settings("dp_sgd", method_settings=chosen, **{**PLAIN, **changes}))
    return run, run._batch(20, None).labelled


def gradients(run: Run, samples: Samples, **row: float) -> dict[str, torch.Tensor]:
    """Return what a step makes of labelled samples, with some quantities set."""
    values = {**run.table.row(run.update), **{k: torch.tensor(v) for k, v in row.items()}}
    loss, _ = run.method.step(
        run.models, Batch({"labelled": samples}), values, run.method_settings,
        run.generators["method"],
    )  # fmt: skip
    assert isinstance(loss, Gradients)
    return dict(loss.of)


def one_by_one(run: Run, samples: Samples, clip: float) -> dict[str, torch.Tensor]:
    """Return the clipped mean by autograd, an image after another."""
    net = run.models["main"]
    total = {name: torch.zeros_like(p) for name, p in run.flat.params.items()}
    for index in samples.mask.nonzero().flatten().tolist():
        views = torch.stack([view[index] for view in samples.views])
        label = samples.y[index].repeat(len(views))
        found = torch.autograd.grad(
            F.cross_entropy(net(views), label), list(run.flat.params.values())
        )
        norm = math.sqrt(sum(float(g.square().sum()) for g in found))
        for name, g in zip(run.flat.params, found, strict=True):
            total[name] += g * min(1 / clip, 1 / norm) / 20
    return total


@pytest.mark.parametrize("model", ["dp_mlp", "small_cnn"])
@pytest.mark.parametrize("chunk", [None, 7])
def test_the_gradient_of_an_image_is_that_of_all_its_views_clipped_once(
    model: str, chunk: int | None
) -> None:
    """Per-image gradients against a loop over autograd, to 1e-6; whatever the chunks."""
    net = {"hidden": [16, 16], "groups": 4} if model == "dp_mlp" else {"width": 4, "norm": "group"}
    run, samples = begun(model=model, model_settings=net, method_settings={"chunk": chunk})
    assert len(samples.views) == 4 and not torch.equal(*samples.views[:2])
    assert run.method.spent(run.method_settings, 20, None) == (80, 80)
    for clip in (0.1, 2.0, 1e4):
        found = gradients(run, samples, noise=0.0, clip=clip)
        expected = one_by_one(run, samples, clip)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name] * clip, value * clip, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("model", ["dp_mlp", "small_cnn"])
def test_per_example_gradients_are_those_of_opacus(model: str) -> None:
    net = {"hidden": [16, 16], "groups": 4} if model == "dp_mlp" else {"width": 4, "norm": "group"}
    run, samples = begun(model=model, model_settings=net)
    x, y = samples.views[0].double(), samples.y
    # Opacus takes strides for those of contiguous tensors.
    trained = run.models["main"].double().to(memory_format=torch.contiguous_format)
    found, losses = per_example(
        trained, lambda call, x, y: F.cross_entropy(call(x[None])[0], y), x, y
    )
    theirs = GradSampleModule(copy.deepcopy(trained), loss_reduction="sum")
    # Hooks of layers that get no gradient by their input warn.
    x = x.contiguous().requires_grad_()
    expected = F.cross_entropy(theirs(x), y, reduction="none")
    expected.sum().backward()
    torch.testing.assert_close(losses, expected.detach())
    each = dict(theirs._module.named_parameters())
    assert found.keys() == each.keys()
    for name, parameter in each.items():
        torch.testing.assert_close(found[name], parameter.grad_sample, rtol=1e-9, atol=1e-9)


def test_one_image_moves_the_sum_by_no_more_than_one_share_of_the_expected_batch() -> None:
    run, samples = begun()
    for factor in (1, 1e3):
        samples = replace(samples, views=tuple(view * factor for view in samples.views))
        sums = []
        for present in (1.0, 0.0):
            mask = samples.mask.clone()
            mask[0] = present
            found = gradients(run, replace(samples, mask=mask), noise=0.0, clip=0.5)
            sums.append(torch.cat([found[name].flatten() for name in run.flat.params]))
        moved = float((sums[0] - sums[1]).norm()) * 20
        # Whole where the gradient is clipped, whatever C is.
        assert moved == pytest.approx(1, rel=1e-4) if factor > 1 else 0 < moved <= 1 + 1e-5


def test_a_batch_may_be_empty_and_then_moves_weights_by_noise_alone() -> None:
    """With zero gradients the update of each weight has the deviation rate x sigma / B."""
    chosen = {"hidden": [128, 128], "norm": "none", "standardised": False}
    run, samples = begun(views=0, lr=0.25, model_settings=chosen, method_settings={"noise": 3.0})
    before = run.flat.data.clone()
    found = gradients(run, replace(samples, mask=0 * samples.mask))
    run.flat.put(found)
    run.optimiser.step(run.table.row(run.update))
    change = run.flat.data - before
    assert float(change.std()) == pytest.approx(0.25 * 3 / 20, rel=0.02)
    assert abs(float(change.mean())) < 4 * 0.25 * 3 / 20 / math.sqrt(len(change))
    assert torch.isfinite(change).all()


def test_batches_are_drawn_by_poisson_and_divided_by_what_is_expected() -> None:
    run, samples = begun(views=1, epochs=40, split={"labels": 60}, batch=3, epoch_images=60)
    sizes = []
    for _ in range(40):
        feed = run.feeds["labelled"]
        feed.begin_epoch(3)
        sizes += [float(run._batch(3, None).labelled.mask.sum()) for _ in range(20)]
        assert samples.expected == 20 and run._batch.__self__.table.batches[0] == 3
    sizes = np.array(sizes)
    # Binomial of 60 with probability 1 / 20: empty in e^-3 of all cases, about.
    assert 0.02 < (sizes == 0).mean() < 0.08
    assert sizes.mean() == pytest.approx(3, abs=0.25)
    assert sizes.var() == pytest.approx(60 * 0.05 * 0.95, rel=0.2)


def test_without_privacy_it_is_the_mean_of_the_same_batch_over_what_is_expected() -> None:
    run, samples = begun(method_settings={"private": False})
    loss, logs = factory.stepped(run, Batch({"labelled": samples}))
    assert not logs
    found = torch.autograd.grad(loss, list(run.flat.params.values()))
    # As if nothing were clipped: C is divided by as well.
    other = one_by_one(run, samples, 1e6)
    for value, expected in zip(found, other.values(), strict=True):
        torch.testing.assert_close(value, expected * 1e6, rtol=1e-4, atol=1e-6)


def test_how_many_were_clipped_is_logged() -> None:
    run, samples = begun(views=1)
    for clip, share in ((1e-4, 1.0), (1e4, 0.0)):
        row = {**run.table.row(run.update), "clip": torch.tensor(clip)}
        _, logs = run.method.step(
            run.models, Batch({"labelled": samples}), row, run.method_settings,
            run.generators["method"],
        )  # fmt: skip
        assert float(logs["clipped_share"]) == share


def test_batch_norm_has_no_gradient_of_one_sample() -> None:
    run = factory.begun(factory.settings("dp_sgd", model="bn_mlp", **PLAIN))
    with pytest.raises(UserError, match=r"model: has batch norm, which mixes .* `norm: group`"):
        run.step(20)


def test_the_average_warms_up_as_that_of_another_implementation() -> None:
    decay = {"kind": "running_mean", "end": 0.3, "delay": 9}
    run, _ = begun(ema_decay=decay, views=1)
    net = run.models["main"]
    other = AveragedModel(
        net, avg_fn=lambda e, p, n: (m := min(0.3, float((1 + n) / (10 + n)))) * e + (1 - m) * p
    )
    # It takes the first weights as they are; a step of it before any update does.
    other.update_parameters(net)
    other.n_averaged.zero_()
    for t in range(6):
        run.step(20)
        other.n_averaged.fill_(t)
        if t == 0:
            # At 0 it would copy; the average begins with the weights before training.
            for mean, p in zip(other.module.parameters(), net.parameters(), strict=True):
                mean.data.mul_(0.1).add_(p.data, alpha=0.9)
        else:
            other.update_parameters(net)
    for mean, p in zip(other.module.parameters(), run.models["ema"].parameters(), strict=True):
        torch.testing.assert_close(p.data, mean.data, rtol=1e-5, atol=1e-6)
    final = run.table.columns["ema_decay"]
    assert final[:4].tolist() == [0.1, 2 / 11, 3 / 12, 0.3]


# What is spent.


@pytest.mark.parametrize(
    ("noise", "batch", "samples", "updates", "delta", "known"),
    [
        (10.0, 4096, 50_000, 875, 1e-5, 0.9877),
        (3.0, 4096, 50_000, 2500, 1e-5, 7.0985),
        (21.1, 16_384, 50_000, 250, 1e-5, 0.9976),
        (2.5, 16_384, 1_281_167, 71_589, 8e-7, 7.927),
    ],
)
def test_epsilon_is_that_of_other_accountants_to_four_digits(
    noise: float, batch: int, samples: int, updates: int, delta: float, known: float
) -> None:
    """Opacus and dp-accounting give these (RDP, the improved conversion)."""
    method = methods.load("dp_sgd")
    history = {"batch": np.full(updates, float(batch)), "noise": np.full(updates, noise)}
    measured = SimpleNamespace(
        history=history.__getitem__, pool=lambda name: range(samples), last=False
    )
    found = method.evaluate({}, measured, method.chosen({"delta": delta}))
    assert found.keys() == {"train_epsilon"}
    assert found["train_epsilon"] == pytest.approx(known, abs=0.6 * 10 ** -(4 - (known > 7.9)))


def test_another_accountant_is_tighter() -> None:
    spent = ((4096 / 50_000, 10.0, 875),)
    assert _sampled_gaussian.epsilon(spent, 1e-5, "pld") == pytest.approx(0.903, abs=5e-4)


def test_epsilon_is_just_below_the_closed_form_of_whole_orders() -> None:
    """Mironov et al., section 3.3, and proposition 12 of Canonne et al., for whole orders."""
    q, noise, updates, delta = 256 / 1437, 2.0, 120, 1e-4
    k = torch.arange(257, dtype=torch.float64)
    a = k[2:, None]
    ways = (a + 1).lgamma() - (k + 1).lgamma() - (a - k + 1).lgamma()
    parts = ways + (a - k) * math.log(1 - q) + k * math.log(q) + (k * k - k) / (2 * noise**2)
    parts = parts.masked_fill(k > a, -math.inf)
    spent = updates * parts.logsumexp(1, True) / (a - 1)
    spent = spent + (-1 / a).log1p() - (a * delta).log() / (a - 1)
    found = _sampled_gaussian.epsilon(((q, noise, updates),), delta, "rdp")
    # The accountant has orders between whole ones besides.
    assert float(spent.min()) * 0.99 < found <= float(spent.min()) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("samples", "batch", "updates", "delta", "target", "known"),
    [
        (50_000, 4096, 875, 1e-5, 1.0, 9.92),
        (50_000, 4096, 1687, 1e-5, 4.0, 4.00),
        (60_000, 2048, 600, 1e-5, 3.0, 1.50),
        (1_437, 256, 200, 1e-4, 3.0, 3.51),
        (1_437, 256, 200, 1e-4, 8.0, 1.67),
    ],
)
def test_noise_is_the_least_that_keeps_the_budget(
    samples: int, batch: int, updates: int, delta: float, target: float, known: float
) -> None:
    rate = batch / samples
    noise = _sampled_gaussian.calibrated(((rate, updates),), target, delta, "rdp")
    # Others searched to a hundredth of epsilon.
    assert noise == pytest.approx(known, rel=0.006)

    def spent(sigma: float) -> float:
        return _sampled_gaussian.epsilon(((rate, sigma, updates),), delta, "rdp")

    assert spent(noise) <= target < spent(noise - 3 * _sampled_gaussian.STEP)


def test_the_last_update_that_fits_is_known_before_training() -> None:
    """895 at the paper's setting for an epsilon of 1, where its table has 875."""
    rates, noises = [4096 / 50_000] * 1000, [10.0] * 1000
    assert _sampled_gaussian.last_within(rates, noises, 1.0, 1e-5, "rdp") == 895
    assert _sampled_gaussian.last_within(rates[:800], noises[:800], 1.0, 1e-5, "rdp") == 800
    assert _sampled_gaussian.last_within(rates, [0.0] * 1000, 1.0, 1e-5, "rdp") == 0


def test_a_run_that_would_spend_more_is_refused() -> None:
    method = methods.load("dp_sgd")
    columns = {"batch": np.full(900, 4096.0), "noise": np.full(900, 10.0)}
    given = method.chosen({"epsilon": 1.0, "calibrate": False})
    for refused in (method.planned, method.columns):
        with pytest.raises(UserError, match=r"method\.epsilon: 1 allows 895 updates .* makes 900"):
            refused(given, Course(50_000, columns))
    assert method.columns(given, Course(50_000, {k: v[:895] for k, v in columns.items()})) == {}


def test_calibrated_noise_is_that_of_the_run_and_spends_no_more() -> None:
    chosen = {"views": 1, "epsilon": 2.0, "delta": 1e-3}
    given = factory.settings("dp_sgd", method_settings=chosen, **{**PLAIN, "batch": 25})
    run = factory.train(given)
    noise = run.table.columns["noise"]
    assert len(set(noise)) == 1 and noise[0] > 1 and float(run.table.row(run.update * 0)["noise"])
    final = run.final()
    assert 1.99 < final["train_epsilon"] <= 2.0
    assert final["train_noise_multiplier"] == pytest.approx(noise[0])
    assert run.curve["train_epsilon"] == sorted(set(run.curve["train_epsilon"]))
    spent = ((25 / 200, float(np.float32(noise[0])), run.updates),)
    assert final["train_epsilon"] == _sampled_gaussian.epsilon(spent, 1e-3, "rdp")
    # With noise and batches that change.
    other = factory.settings(
        "dp_sgd", method_settings={**chosen, "epsilon": None},
        **{**PLAIN, "batch": factory.cycle(25, 40), "noise": factory.cycle(2, 4)},
    )  # fmt: skip
    assert 0 < factory.train(other).final()["train_epsilon"] < math.inf


def test_clipping_alone_has_no_epsilon() -> None:
    given = factory.settings("dp_sgd", method_settings={"views": 0}, **{**PLAIN, "noise": 0.0})
    run = factory.train(given)
    final = run.final()
    assert "train_epsilon" not in final and "train_epsilon" not in run.curve
    assert final["train_noise_multiplier"] == 0 and 0 <= final["test_membership_auroc"] <= 1
    other = factory.settings("dp_sgd", method_settings={"views": 0, "private": False}, **PLAIN)
    assert set(factory.train(other).final()).isdisjoint({"train_epsilon", "train_noise_multiplier"})


def test_membership_is_the_area_under_the_curve_of_a_loss_threshold() -> None:
    torch.manual_seed(0)
    inside, outside = torch.randint(0, 9, (60,)) / 4, 0.3 + torch.randint(0, 9, (40,)) / 4
    labels = [1] * 60 + [0] * 40
    known = roc_auc_score(labels, (-torch.cat([inside, outside])).tolist())
    assert auroc(outside, inside) == pytest.approx(known)
    assert auroc(inside, inside) == 0.5


def test_what_a_choice_makes_useless_is_no_part_of_a_run() -> None:
    method = methods.load("dp_sgd")
    found = method.ignored(method.chosen({"private": False}))
    assert {"noise", "clip", "epsilon", "chunk"} <= found.keys()
    assert method.ignored(method.chosen({"epsilon": 3.0})).keys() == {"noise"}
    assert method.ignored(method.chosen({})).keys() == {"calibrate"}


def test_planning_loads_neither_torch_nor_an_accountant(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from cyclery import methods; m = methods.load('dp_sgd');"
        "s = m.chosen({'epsilon': 3.0}); m.streams(s); m.measures(s); m.ignored(s);"
        "m.planned(s, methods.Course(100, {}));"
        "assert not {'torch', 'dp_accounting'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
