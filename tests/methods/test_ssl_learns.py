"""Semi-supervised methods on real digits with hidden labels: correctness, apart from claims."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from factories import engine as factory

from cyclery.engine.run import Run

FEW: dict[str, Any] = {
    "model": "small_cnn", "model_settings": {"width": 8}, "split": {"per_class": 4, "labels": None},
    "batch": 20, "epoch_images": 400, "epochs": 20, "ema_decay": 0.95, "lr": 0.05,
}  # fmt: skip


def of(method: str, **changes: Any) -> Run:
    given = {**FEW, **changes}
    if method != "supervised":
        strong = ({"op": "policy"}, {"op": "cutout", "size": 3})
        given = {"mu": 4, "strong": strong, **given}
    return factory.train(factory.settings(method, **given))


# One draw of 40 labels may leave a method little to gain; so gains are means of several.
SEEDS = range(4)


@pytest.fixture(scope="module")
def plain() -> float:
    """Return the mean accuracy of training on the labels alone."""
    return accuracy([of("supervised", seed=seed) for seed in SEEDS])


def accuracy(runs: list[Run]) -> float:
    return sum(run.final()["test_accuracy"] for run in runs) / len(runs)


def test_fixmatch_improves_on_the_labels_alone(plain: float) -> None:
    """An easy case: 40 labels, 1,300 digits that hide theirs."""
    runs = [of("fixmatch", seed=seed) for seed in SEEDS]
    assert accuracy(runs) - plain > 0.03
    run = runs[0]
    mask, correct = run.curve["train_mask_rate"], run.curve["train_pseudo_correct"]
    assert mask[0] < mask[-1] and correct[-1] / mask[-1] > 0.85
    assert all(0 <= c <= m <= 1 for c, m in zip(correct, mask, strict=True))
    assert run.curve["train_pseudo_classes"][-1] > 5


@pytest.mark.slow
def test_ctaugment_finds_out_how_much_digits_bear(plain: float) -> None:
    learnt = {"method_settings": {"prediction_view": "ctaugment"}}
    runs = [of("fixmatch", seed=seed, **learnt) for seed in SEEDS]
    assert accuracy(runs) - plain > 0.03
    net: Any = runs[0].models["ctaugment"]
    weights = dict(zip(net.names, net.weights[:, 0], strict=True))
    rotate, bits = weights["rotate"], weights["posterize"]
    # The middle bins rotate little, the first one of the other leaves a single bit.
    assert rotate[7:10].mean() > max(rotate[:2].mean(), rotate[-2:].mean())
    assert bits[0] < bits[4:8].mean()
    proximity = runs[0].curve["train_proximity"]
    assert 0 < proximity[0] < proximity[-1] < 1


@pytest.mark.slow
def test_uda_improves_on_the_labels_alone_and_on_their_augmentation(plain: float) -> None:
    strong = ({"op": "policy_uda"}, {"op": "cutout", "size": 3})
    runs = [of("uda", strong=strong, seed=seed) for seed in SEEDS]
    assert accuracy(runs) - plain > 0.03
    weak = ({"op": "shift", "size": 1},)
    noised = [of("supervised", augment=(*weak, *strong), seed=seed) for seed in SEEDS]
    assert accuracy(runs) - accuracy(noised) > 0.03


@pytest.mark.slow
def test_remixmatch_improves_on_the_labels_alone(plain: float) -> None:
    """With weak views of the labelled digits, for its weights rise within a few updates here."""
    learnt = {"views": 2, "labelled_view": "weak"}
    runs = [of("remixmatch", mu=1, method_settings=learnt, seed=seed) for seed in SEEDS]
    assert accuracy(runs) - plain > 0.03
    # Four ways to turn an image, a quarter of them each.
    assert runs[0].curve["train_loss_rotation"][-1] < 0.8 * math.log(4)


def test_mean_teacher_improves_on_the_labels_alone(plain: float) -> None:
    ramp = {"kind": "ramp", "start": 0.0, "end": 10.0, "over": 0.3}
    runs = [of("mean_teacher", method_settings={"weight": ramp}, seed=seed) for seed in SEEDS]
    assert accuracy(runs) - plain > 0.03
    assert min(runs[0].curve["train_loss_consistency"]) > 0


@pytest.mark.slow
def test_vat_improves_on_the_labels_alone(plain: float) -> None:
    runs = [of("vat", method_settings={"epsilon": 2.0}, seed=seed) for seed in SEEDS]
    assert accuracy(runs) - plain > 0.03
    entropy = runs[0].curve["train_entropy"]
    assert entropy[-1] < entropy[0]


@pytest.mark.parametrize("method", ["fixmatch", "mean_teacher", "pseudo_label", "uda", "vat"])
def test_without_weight_a_method_is_supervised_training(method: str) -> None:
    """With GroupNorm, because samples of a shared pass have batch statistics in common."""
    net = {"model_settings": {"width": 4, "norm": "group"}, "epochs": 2, "epoch_images": 200}
    off = {"weight": 0.0} | ({"entropy_weight": 0.0} if method == "vat" else {})
    plain, run = of("supervised", **net), of(method, method_settings=off, **net)
    assert int(run.update) == 20
    for name in ("main", "ema"):
        one, other = plain.models[name].state_dict(), run.models[name].state_dict()
        for key, value in one.items():
            assert torch.allclose(value, other[key], rtol=1e-4, atol=1e-5), key


def test_without_averaging_mean_teacher_is_the_pi_model() -> None:
    few = {"epochs": 2, "epoch_images": 100, "method_settings": {"weight": 10.0}}
    averaged = of("mean_teacher", **{**few, "ema_decay": 0.0})
    few["method_settings"] = {"weight": 10.0, "target": "current"}
    current = of("mean_teacher", **few)
    assert averaged.curve["train_loss_consistency"][-1] > 0
    assert torch.allclose(averaged.flat.data, current.flat.data, rtol=1e-4, atol=1e-5)


# Of those that choose unlabelled samples by their confidence, a bound that some are above.
LOW = {"fixmatch": {"threshold": 0.1}, "pseudo_label": {"threshold": 0.1},
       "uda": {"confidence": 0.1}}  # fmt: skip


@pytest.mark.parametrize(
    "method", [*LOW, "mean_teacher", "mixmatch", "mixup_ssl", "ict", "remixmatch"]
)
def test_hidden_labels_train_nothing(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other hidden labels change the figures that are logged and no weight."""
    given = {**FEW, "epochs": 1, "epoch_images": 100}
    settings = factory.settings(method, **given, **LOW.get(method, {}))
    honest, misled = factory.run(settings), factory.run(settings)
    wrong = (misled.data.labels + 1) % 10
    monkeypatch.setattr(misled.feeds["unlabelled"], "_labels", wrong)
    factory.finish(misled)
    factory.finish(honest)
    assert torch.equal(honest.flat.data, misled.flat.data)
    logged = "train_pseudo_correct" if method in LOW else "train_target_correct"
    assert honest.curve[logged] != misled.curve[logged]
