"""What makes the sketches of DP-SGD, deep reference priors and re-initialisation theirs."""

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
from factories.cards_semi_supervised import CARDS, CLAIMS

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


# Deep reference priors.


def test_the_loss_of_deep_reference_priors_equals_its_formulas(tmp_path: Path) -> None:
    run = begun(tmp_path, "deep-reference-priors", "ensemble")
    particles = [run.models["main"], *(run.models[f"particle_{k}"] for k in (1, 2, 3))]
    for net in particles:
        net.head.weight.data *= 12  # so that some pass the threshold
    batch = run._batch(20, None)
    x = torch.cat([batch.x, *batch.unlabelled.views])
    p = torch.stack([F.softmax(copy.deepcopy(net)(x), 1) for net in particles])
    row = run.table.row(run.update)
    loss, logs = run.method.step(
        run.models, batch, row, run.method_settings, run.generators["method"]
    )
    labelled, weak, strong = p.split([20, 60, 60], 1)
    cost = -labelled[:, range(20), batch.y].log().mean()
    both = weak / 3 + strong * 2 / 3
    h = -(both * (weak.log() / 3 + strong.log() * 2 / 3)).sum(2)
    mask = (weak.amax(2) >= 0.95).float()
    assert 0 < mask.mean() < 1
    entropies = [
        torch.distributions.Categorical(
            probs=sum(torch.outer(weak[k, b], weak[k, 30 + b]) for k in range(4)).flatten() / 4
        ).entropy()
        for b in range(30)
    ]
    h_y = torch.stack(entropies).mean() / 2
    torch.testing.assert_close(logs["h_y"], h_y)
    torch.testing.assert_close(loss, cost + 1.125 * ((mask * h).mean() - 0.05 * h_y))


def test_the_ensemble_is_evaluated_and_above_its_particles(tmp_path: Path) -> None:
    run = begun(tmp_path, "deep-reference-priors", "ensemble", epochs=20)
    names = ("main", "particle_1", "particle_2", "particle_3")
    drawn = [run.models[name].body[1].weight for name in names]
    assert not any(torch.equal(drawn[0], other) for other in drawn[1:])
    factory.finish(run)
    final = run.final()
    assert final["test_accuracy"] > final["test_particle_accuracy"] > 0.5
    # Four networks see 20 labelled images and both views of 60 others.
    assert run.method.spent(run.method_settings, 20, 3) == (140, 560)


def test_an_ensemble_is_compared_with_one_network_at_equal_passes(tmp_path: Path) -> None:
    arms = copy.deepcopy(CARDS["deep-reference-priors"])
    plan = sketches.planned(tmp_path, arms, CLAIMS["deep-reference-priors"])
    assert len(sketches.jobs(plan)) == 3
    arms["fixmatch"]["epochs"] = 3
    with pytest.raises(UserError, match=r"forward passes \(ensemble 8,400, fixmatch 2,100\)"):
        sketches.planned(tmp_path, arms, CLAIMS["deep-reference-priors"])


def test_a_child_learns_from_the_whole_ensemble(tmp_path: Path) -> None:
    parent = begun(tmp_path, "deep-reference-priors", "ensemble")
    factory.finish(parent)
    child = factory.run(factory.settings("kd"), parents={"teacher": [factory.trained(parent)]})
    x = torch.randn(5, 1, 8, 8)
    nets = parent.networks.evaluated[0]
    for net in nets.values():
        net.eval()
    mean = sum(nets[name](x) for name in ("main", "particle_1", "particle_2", "particle_3")) / 4
    torch.testing.assert_close(child.models["teacher"](x), mean.detach().log_softmax(1))


# Re-initialisation.


def at_the_second_stage(root: Path, arm: str = "restarts", **changes: Any) -> tuple[Run, int]:
    """Return a run before its first event, and the update that the event is before."""
    run = begun(root, "reinit", arm, **changes)
    first = min(run._events)
    for _ in range(first // int(run.table.steps[0])):
        run.train_epoch()
    return run, first


@pytest.mark.parametrize(("shrink", "perturb"), [(0.4, 0.1), (1.0, 0.0), (0.0, 1.0)])
def test_an_event_shrinks_and_perturbs_bit_for_bit(
    tmp_path: Path, shrink: float, perturb: float
) -> None:
    chosen = {"name": "reinit", "stages": 3, "shrink": shrink, "perturb": perturb}
    run, first = at_the_second_stage(tmp_path, method=chosen, ema_decay=0.9)
    net = run.models["main"]
    old = {name: value.clone() for name, value in net.state_dict().items()}
    assert any(value.any() for value in run.optimiser.state().values())
    run._before(first)
    fresh = run.networks.drawn_again(f"init@{first}")["main"].state_dict()
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter, shrink * old[name] + perturb * fresh[name]), name
    for name, buffer in net.named_buffers():
        assert torch.equal(buffer, fresh[name]) and not torch.equal(buffer, old[name]), name
    assert not any(value.any() for value in run.optimiser.state().values())
    assert torch.equal(run.networks.averaged.data, run.flat.data)
    assert all(torch.equal(v, old[k]) for k, v in run.models["before"].state_dict().items())


def test_stages_begin_with_the_schedule_and_draw_other_weights(tmp_path: Path) -> None:
    run = begun(tmp_path, "reinit", "restarts")
    rates = run.table.columns["lr"]
    starts = np.flatnonzero(rates == rates.max())
    assert starts.tolist() == [0, *sorted(run._events)] and len(starts) == 3
    drawn = [run.networks.drawn_again(f"init@{at}")["main"].body[1].weight for at in starts]
    assert not torch.equal(drawn[1], drawn[2])


def test_the_network_before_teaches_and_stays_as_it_was(tmp_path: Path) -> None:
    chosen = {"name": "reinit", "stages": 3, "shrink": 0, "perturb": 1, "distil": 1.0}
    run, first = at_the_second_stage(tmp_path, method=chosen)
    run._before(first)
    before = copy.deepcopy(run.models["before"].state_dict())
    run.begin_epoch()
    batch = run._batch(20, None)
    z, q = copy.deepcopy(run.models["main"])(batch.x), run.models["before"].eval()(batch.x)
    loss, _ = stepped(run, batch.labelled)
    told = (q.softmax(1) * (q.log_softmax(1) - z.log_softmax(1))).sum(1).mean()
    torch.testing.assert_close(loss, told)
    for _ in range(3):
        run.step(20)
    assert all(torch.equal(v, before[k]) for k, v in run.models["before"].state_dict().items())


def test_memorised_wrong_labels_are_counted(tmp_path: Path) -> None:
    run = begun(tmp_path, "reinit", "restarts", epochs=30)
    ids = run.ids["train"]
    wrong = run.data.labels[ids] != factory.data().labels[ids]
    assert 0.2 < wrong.float().mean() < 0.6
    factory.finish(run)
    said = run.evaluator.outputs(run.models["main"].eval(), ids[wrong]).argmax(1)
    right = (said == run.data.labels[ids[wrong]]).float().mean().item()
    assert run.final()["train_wrong_accuracy"] == pytest.approx(right)


def test_layers_before_the_stage_are_kept_at_their_first_norms(tmp_path: Path) -> None:
    run, first = at_the_second_stage(tmp_path, "layers")
    net = run.models["main"]
    begun_as = run.networks.drawn_again("init")["main"]
    old = copy.deepcopy(net)
    run._before(first)
    fresh = run.networks.drawn_again(f"init@{first}")["main"]
    for name, parameter in net.named_parameters():
        if name.startswith(("body.1.", "body.2.")):  # the first layer and its norm
            was = old.get_parameter(name)
            norm = begun_as.get_parameter(name).norm()
            torch.testing.assert_close(parameter, was * norm / was.norm().clamp_min(1e-6))
        else:
            assert torch.equal(parameter, fresh.get_parameter(name)), name


def test_constants_of_a_stage_are_those_of_its_first_batch(tmp_path: Path) -> None:
    run, first = at_the_second_stage(tmp_path, "layers")
    run._before(first)
    memory, net = run.models["memory"], run.models["main"]
    run.evaluate("test")
    assert torch.equal(memory["moments"][1], torch.stack([torch.zeros(32), torch.ones(32)]))
    run.begin_epoch()
    batch = run._batch(20, None)
    h = copy.deepcopy(net).body[:4](batch.x).detach()
    stepped(run, batch.labelled)
    torch.testing.assert_close(memory["moments"][1][0], h.mean(0))
    torch.testing.assert_close(memory["moments"][1][1], h.std(0).clamp_min(1e-5))
    kept = memory["moments"].clone()
    for _ in range(3):
        run.step(20)
    assert torch.equal(memory["moments"], kept)
