"""What makes the sketch of deep reference priors its own."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from factories import engine as factory
from factories import sketches
from factories.cards_semi_supervised import CARDS, CLAIMS

from cyclery.common.errors import UserError
from cyclery.engine.run import Run

Json = dict[str, Any]


def begun(root: Path, card: str, arm: str, **changes: Any) -> Run:
    """Return a run of an arm of a card before its first update."""
    arms = {arm: {**copy.deepcopy(CARDS[card][arm]), **changes}}
    [job] = sketches.jobs(sketches.planned(root, arms))
    run = factory.run(job["settings"])
    run.begin_epoch()
    return run


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
