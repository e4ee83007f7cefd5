"""The soft loss of distillation: its forms, scales and limits, and its settings."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from factories.kd import B, K, double
from factories.threads import one_thread
from torch import Tensor

from cyclery import methods
from cyclery.common.errors import UserError
from cyclery.methods import kd

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

FORMS = list(product(("kl", "cross_entropy"), ("batchmean", "mean"), (True, False)))
each_form = pytest.mark.parametrize(("form", "reduction", "squared"), FORMS)


def logits(seed: int, rows: int = B, spread: float = 3.0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return spread * torch.randn(rows, K, generator=g, dtype=torch.float64)


def soft(student: Tensor, answer: Tensor, t: float, **given: Any) -> Tensor:
    """Return the mean soft loss of logits and a teacher's answer, which are float64."""
    settings = kd.Settings(**given)
    return kd.soft_losses(student, (answer / t).softmax(1), double(t), settings).mean()


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")  # it is what is meant
@pytest.mark.parametrize("t", [0.5, 1.0, 4.0, 20.0])
@each_form
def test_every_form_is_torchs_in_float64(form, reduction, squared, t):
    student, answer = logits(0).requires_grad_(), logits(1)
    found = soft(student, answer, t, form=form, reduction=reduction, squared=squared)
    twin = student.detach().clone().requires_grad_()
    target = (answer / t).softmax(1)
    if form == "kl":
        expected = F.kl_div((twin / t).log_softmax(1), target, reduction=reduction)
    else:
        expected = F.cross_entropy(twin / t, target) / (K if reduction == "mean" else 1)
    expected = expected * t**2 if squared else expected
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    found.backward()
    expected.backward()
    torch.testing.assert_close(student.grad, twin.grad, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("t", [1.0, 4.0])
def test_the_loss_of_each_sample_is_its_own(t):
    student, answer = logits(0), logits(1)
    target = (answer / t).softmax(1)
    found = kd.soft_losses(student, target, double(t), kd.Settings())
    expected = F.kl_div((student / t).log_softmax(1), target, reduction="none").sum(1) * t**2
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    alone = [kd.soft_losses(student[i : i + 1], target[i : i + 1], double(t), kd.Settings())
             for i in range(B)]  # fmt: skip
    torch.testing.assert_close(found, torch.cat(alone), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("form", ["kl", "cross_entropy"])
def test_the_mean_is_exactly_as_many_times_smaller_as_there_are_classes(form):
    per_sample = [
        soft(logits(0), logits(1), 4.0, form=form, reduction=reduction).item()
        for reduction in ("batchmean", "mean")
    ]
    assert per_sample[0] == pytest.approx(K * per_sample[1], rel=1e-14)


@pytest.mark.parametrize("t", [1.0, 2.0, 10.0])
def test_cross_entropy_is_divergence_and_the_teachers_entropy_with_the_same_gradient(t):
    student, twin, answer = logits(0).requires_grad_(), logits(0).requires_grad_(), logits(1)
    kl, ce = soft(student, answer, t), soft(twin, answer, t, form="cross_entropy")
    entropy = torch.distributions.Categorical(logits=answer / t).entropy().mean()
    torch.testing.assert_close(ce, kl + t**2 * entropy, rtol=1e-12, atol=0)
    kl.backward()
    ce.backward()
    torch.testing.assert_close(student.grad, twin.grad, rtol=1e-12, atol=1e-15)
    # The divergence alone ends at 0.
    assert soft(answer, answer, t).item() == pytest.approx(0.0, abs=1e-12)
    assert soft(answer, answer, t, form="cross_entropy") > 0


def test_at_a_high_temperature_it_is_the_squared_difference_of_centred_logits():
    student, answer = logits(0), logits(1)
    difference = (student - student.mean(1, True)) - (answer - answer.mean(1, True))
    limit = difference.square().sum(1).mean() / (2 * K)
    error = [abs(soft(student, answer, t) - limit) / limit for t in (10.0, 100.0, 1000.0)]
    assert error[1] < 0.02 and error[2] < 0.002
    assert error[0] > error[1] > error[2]


def test_only_the_square_keeps_the_gradients_scale_over_temperatures():
    norms: dict[bool, list[float]] = {}
    for squared in (True, False):
        for t in (4.0, 8.0, 16.0, 32.0):
            student = logits(0, spread=1.0).requires_grad_()
            soft(student, logits(1, spread=1.0), t, squared=squared).backward()
            norms.setdefault(squared, []).append(student.grad.norm().item())
    assert max(norms[True]) < 2 * min(norms[True])
    assert norms[False] == pytest.approx(
        [norm / t**2 for norm, t in zip(norms[True], (4, 8, 16, 32), strict=True)]
    )


@each_form
def test_a_teacher_that_is_sure_gives_finite_gradients(form, reduction, squared):
    student = logits(0).float().requires_grad_()
    target = (1e4 * logits(1).float()).softmax(1)
    assert (target == 0).any()
    settings = kd.Settings(form=form, reduction=reduction, squared=squared)
    loss = kd.soft_losses(student, target, torch.tensor(4.0), settings).mean()
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all()


def test_the_defaults_are_the_benchmarks():
    method = methods.load("kd")
    assert kd.Settings() == kd.Settings(
        temperature=4.0, soft=0.9, hard=None, form="kl", reduction="batchmean", squared=True,
        targets="teacher", inputs="labelled", mixup=None,
    )  # fmt: skip
    assert method.quantities == ("temperature", "soft") and method.capture
    assert method.parents(kd.Settings()) == ("teacher",)
    assert not method.uses_ema(kd.Settings())


def test_settings_that_exclude_each_other_are_refused():
    for hard in (None, 0.5):
        with pytest.raises(UserError, match=rf"^mixup: .* set hard: 0 \(found {hard}\)"):
            kd.Settings(mixup=1.0, hard=hard)
    for inputs in ("unlabelled", "both"):
        with pytest.raises(UserError, match=rf"^targets: permuted needs .* \(found {inputs}\)"):
            kd.Settings(targets="permuted", inputs=inputs)
    with pytest.raises(UserError, match=r"^targets: permuted .* a mixture has two; drop mixup"):
        kd.Settings(targets="permuted", mixup=1.0, hard=0.0)


@pytest.mark.parametrize("inputs", ["labelled", "unlabelled", "both"])
def test_it_asks_for_the_streams_that_it_learns_from(inputs):
    found = kd.streams(kd.Settings(inputs=inputs))
    assert found.pop("labelled") == ("weak",)
    assert found == ({} if inputs == "labelled" else {"unlabelled": ("weak",)})
