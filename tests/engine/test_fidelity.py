"""The figures of a run: how well it copies its teacher, and how it fits what it was trained on."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from factories import engine as factory
from factories.parents import parent_of
from factories.threads import one_thread
from sklearn.metrics import accuracy_score, log_loss
from torch import Tensor, nn
from torch.distributions import Categorical, kl_divergence

from cyclery.engine import metrics
from cyclery.engine.run import Run

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

Json = dict[str, Any]


def logits(seed: int, rows: int = 400, classes: int = 7) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(rows, classes, generator=g)


def test_fidelity_is_that_of_other_libraries() -> None:
    student, answer = logits(0), (logits(0) + logits(1) / 2).double().log_softmax(1)
    agreement, divergence = metrics.fidelity(student, answer).tolist()
    assert agreement == pytest.approx(accuracy_score(answer.argmax(1), student.argmax(1)))
    assert 0.3 < agreement < 0.95
    laws = [Categorical(logits=z.double()) for z in (answer, student)]
    assert divergence == pytest.approx(kl_divergence(*laws).mean().item(), rel=1e-10)
    # The teacher comes first.
    assert divergence != pytest.approx(kl_divergence(*laws[::-1]).mean().item(), rel=1e-2)
    assert metrics.fidelity(answer, answer).tolist() == pytest.approx([1.0, 0.0], abs=1e-12)


def by_hand(run: Run, net: nn.Module, part: str) -> Tensor:
    """Return what a network says of a part, in evaluation mode and not augmented."""
    net = copy.deepcopy(net).eval()
    with torch.no_grad():
        found: Tensor = net(run.plain(run.data.images[run.ids[part]]))
    return found


def assert_fidelity(run: Run, student: nn.Module, copied: nn.Module) -> None:
    final = run.final()
    for part, prefix in (("test", "test"), ("validation", "val"), ("train", "train")):
        mine, theirs = by_hand(run, student, part), by_hand(run, copied, part)
        same = accuracy_score(theirs.argmax(1), mine.argmax(1))
        laws = [Categorical(logits=z.double()) for z in (theirs, mine)]
        assert final[f"{prefix}_agreement"] == pytest.approx(same)
        assert final[f"{prefix}_kl"] == pytest.approx(kl_divergence(*laws).mean().item(), rel=1e-4)


def test_a_run_says_how_well_it_copies_its_teacher() -> None:
    parents = {"teacher": [parent_of("wrn"), parent_of("small_cnn")]}
    plain = factory.train(factory.settings("kd"), parents=parents)
    assert_fidelity(plain, plain.models["main"], plain.models["teacher"])
    # The averaged network is the one that is evaluated.
    given = factory.settings("kd", ema_decay=0.9, lr=0.2)
    averaged = factory.train(given, parents=parents)
    assert_fidelity(averaged, averaged.models["ema"], averaged.models["teacher"])
    assert averaged.final()["test_kl"] != pytest.approx(
        metrics.fidelity(
            by_hand(averaged, averaged.models["main"], "test"),
            by_hand(averaged, averaged.models["teacher"], "test"),
        )[1].item(),
        rel=1e-3,
    )


def test_a_reference_is_what_figures_are_compared_with() -> None:
    """And it changes nothing of what is trained."""
    parents = {"teacher": [parent_of("wrn")], "reference": [parent_of("small_cnn")]}
    run = factory.train(factory.settings("kd"), parents=parents)
    assert_fidelity(run, run.models["main"], run.models["reference"])
    alone = factory.train(factory.settings("kd"), parents={"teacher": parents["teacher"]})
    assert torch.equal(run.flat.data, alone.flat.data)
    assert run.final()["test_accuracy"] == alone.final()["test_accuracy"]
    plain = factory.train(factory.settings(), parents={"reference": [parent_of("wrn")]})
    assert_fidelity(plain, plain.models["main"], plain.models["reference"])
    nobody = factory.train(factory.settings()).final()
    assert not any(name.endswith(("_agreement", "_kl")) for name in nobody)


def test_without_validation_there_are_no_such_figures() -> None:
    given = factory.settings("kd", split={"validation": 0})
    final = factory.train(given, parents={"teacher": [parent_of("wrn")]}).final()
    names = {name for name in final if name.endswith(("_agreement", "_kl"))}
    assert names == {"test_agreement", "test_kl", "train_agreement", "train_kl"}


@pytest.mark.parametrize("ema", [{}, {"ema_decay": 0.8}])
def test_figures_of_the_training_samples_are_of_the_end_and_not_augmented(ema: Json) -> None:
    run = factory.train(factory.settings(augment=({"op": "cutout", "size": 5},), **ema))
    final, y = run.final(), run.data.labels[run.ids["train"]]
    z = by_hand(run, run.models["ema" if ema else "main"], "train").double()
    assert final["train_accuracy"] == pytest.approx(accuracy_score(y, z.argmax(1)))
    assert final["train_nll"] == pytest.approx(
        log_loss(y, z.softmax(1), labels=list(range(10))), rel=1e-5
    )
    expected = metrics.figures(z, y)["ece"]
    assert final["train_ece"] == pytest.approx(expected, rel=1e-5)
