"""Packs: a run's bits depend on neither the width, nor its place, nor its neighbours."""

from __future__ import annotations

from typing import Any

import pytest
from factories import engine as factory
from factories import packs
from factories.threads import one_thread

from cyclery.models import heads

Json = dict[str, Any]
_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

SEMI: Json = {"split": {"labels": 60, "unlabelled": "all"}, "epoch_images": 200, "mu": 2,
              "batch": 20}  # fmt: skip
LEVELS: Json = {**SEMI, "split": {**SEMI["split"], "coarse": [40],
                                  "hierarchy": [[0, 1, 2, 2, 1, 2, 0, 1, 0, 0]],
                                  "hierarchy_order": "random"}}  # fmt: skip
REST: Json = {"split": {"labels": 60, "unlabelled": "rest"}}
VOTES: Json = {"queries": 60, "answer_noise": 0.5, "balanced": True}
EVEN: Json = {**SEMI, "mu": 1}
# A long step of VAT's search, for a short one is lost in roundings that differ.
LONG: Json = {"xi": 0.5}
PAIRS: Json = {"strong": ({"op": "random_resized_crop", "area": [0.4, 1.0]},)}
# Programs: the method, its settings, and what else.
PROGRAMS: dict[str, tuple[str, Json, Json]] = {
    "supervised": ("supervised", {"label_smoothing": 0.1, "temperature": 2.0}, {}),
    "cyclical focal": ("cyclical_focal", {}, {}),
    "focal, mean weight": ("cyclical_focal", {"control": "mean_weight"}, {}),
    "pseudo-labels": ("pseudo_label", {}, SEMI),
    "pseudo-labels, joint": ("pseudo_label", {"forward": "joint", "statistics": "all"}, SEMI),
    "fixmatch": ("fixmatch", {"threshold": 0.2}, SEMI),
    "fixmatch, soft": ("fixmatch", {"target": "soft"}, SEMI),
    "fixmatch, aligned": ("fixmatch", {"alignment": "average", "threshold": 0.2}, SEMI),
    "fixmatch of the average": ("fixmatch", {"labels_from": "ema_eval"}, SEMI),
    "fixmatch of its pass": (
        "fixmatch", {"labels_from": "ema_train", "alignment": "average", "threshold": 0.2}, SEMI),
    "fixmatch, ctaugment": (
        "fixmatch", {"prediction_view": "ctaugment", "threshold": 0.2}, SEMI),
    "mean teacher": ("mean_teacher", {}, SEMI),
    "pi model": ("mean_teacher", {"target": "current", "gradient": "both"}, SEMI),
    "mean teacher, separate": (
        "mean_teacher", {"forward": "separate", "items": "unlabelled", "consistency": "kl"}, SEMI),
    "mean teacher, statistics": (
        "mean_teacher", {"forward": "separate", "statistics": "labelled"}, SEMI),
    "mean teacher, two heads": (
        "mean_teacher", {"logit_distance": 0.1, "denominator": "all"}, SEMI),
    "vat": ("vat", {}, SEMI),
    "vat, both streams": (
        "vat", {"forward": "joint", "statistics": "all", "divergence": "reverse"},
        {**SEMI, **LONG}),
    "uda": ("uda", {"confidence": 0.2, "release": {"kind": "linear", "start": 0, "end": 1}}, SEMI),
    "uda, as in ports": (
        "uda", {"signal": "largest", "mean_over": "all", "mask_from": "sharpened",
                "confidence": 0.2, "release": 0.5, "entropy": 0.1}, SEMI),
    "hiermatch": ("hiermatch", {"levels": 2}, LEVELS),
    "hiermatch, coarse labels": ("hiermatch", {"levels": 2, "pools": "levels"}, LEVELS),
    "hiermatch, fixmatch": (
        "hiermatch", {"levels": 2, "pools": "levels", "core": "fixmatch"}, LEVELS),
    "reference priors": (
        "deep_reference_priors", {"particles": 3, "order": 3, "threshold": 0.3}, SEMI),
    "reference priors, exact": (
        "deep_reference_priors", {"particles": 2, "order": 1, "logarithm": "exact",
                                  "threshold": 0.3}, SEMI),
    "networks beside one another": (
        "deep_reference_priors", {"particles": 2, "objective": "fixmatch", "threshold": 0.2}, SEMI),
    "opencos": ("opencos", {}, {"split": {**SEMI["split"], "unlabelled": "rest"}}),
    "opencos, fixmatch": (
        "opencos", {"core": "fixmatch", "auxiliary": False, "outside": "uniform"},
        {"split": {**SEMI["split"], "unlabelled": "rest"}, "mu": 2}),
    "mixmatch": ("mixmatch", {}, EVEN),
    "mixmatch, other forms": (
        "mixmatch", {"views": 3, "mixing": "within", "share": "batch", "statistics": "all"}, EVEN),
    "mixmatch of the average": (
        "mixmatch", {"labels_from": "ema_train", "interleave": False}, EVEN),
    "remixmatch": ("remixmatch", {"views": 2}, EVEN),
    "remixmatch, as in opencos": (
        "remixmatch",
        {"alignment": "history", "share": "batch", "statistics": "all", "labelled_view": "weak",
         "views": 1, "unmixed": False, "rotation": False}, EVEN),
    "remixmatch, ctaugment": (
        "remixmatch", {"views": 1, "prediction_view": "ctaugment"}, EVEN),
    "mixup": ("mixup_ssl", {}, SEMI),
    "mixup, labelled": ("mixup_ssl", {"pools": "labelled"}, {}),
    "interpolation consistency": ("ict", {}, SEMI),
    "distillation": ("kd", {}, {}),
    "distillation, hard null": ("kd", {"hard": None, "soft": 0.7}, {}),
    "distillation, cross-entropy": (
        "kd", {"form": "cross_entropy", "reduction": "mean", "squared": False}, {}),
    "distillation, unlabelled": ("kd", {"inputs": "both", "hard": 0.0}, SEMI),
    "losses of dsk-net": ("dual_selective_kernel", {}, {}),
    "experts": ("ces_kd", {}, {}),
    "experts, random": ("ces_kd", {"assignment": "random"}, {}),
    "experts, mean": ("ces_kd", {"assignment": "mean"}, {}),
    "experts, easy first": ("ces_kd", {"unlocking": "easy_first"}, {}),
    "byol": ("byol", {"hidden": 32, "output": 16}, {**PAIRS, "ema_buffers": "own"}),
    "byol, simclr's loss": (
        "byol", {"hidden": 32, "output": 16, "beta": 1.0, "target": "online", "predictor": "none",
                 "head_norm": "group_ws"}, PAIRS),
    "byol, parts": (
        "byol", {"hidden": 32, "output": 16, "chunk": 10, "normalise": "batchnorm",
                 "target_init": "other"}, {**PAIRS, "batch": 20}),
    "byol, closed form": (
        "byol", {"hidden": 32, "output": 16, "predictor": "closed_form",
                 "target": "stop_gradient"}, PAIRS),
    "moco": (
        "moco", {"keys": 64, "output": 16, "groups": 5}, {**PAIRS, "ema_buffers": "own"}),
    "moco, own keys left out": (
        "moco", {"keys": 64, "output": 16, "groups": 1, "own_keys": "left_out"}, PAIRS),
    "feature distillation": ("feature_distillation", {}, {}),
    "feature distillation, as in the code": (
        "feature_distillation", {"teacher": "training", "margins": "new"}, {}),
    "auxilearn": ("auxilearn", {"embedding": None, "every": 3}, {}),
    "auxilearn, heads of two layers": (
        "auxilearn", {"embedding": 24, "hidden": 16, "every": 3, "clamp": False}, {}),
    "private supervised": ("private_supervised", VOTES, {**SEMI, **REST}),
    "private vat": ("private_vat", VOTES, {**SEMI, **REST, **LONG}),
    "private mixmatch": ("private_mixmatch", VOTES, {**SEMI, **REST}),
    "private gradients": ("dp_sgd", {"views": 2, "epsilon": 3.0}, {}),
    "private gradients, parts": ("dp_sgd", {"views": 1, "chunk": 20}, {}),
    "private gradients, neither clipped nor noise": ("dp_sgd", {"views": 2, "private": False}, {}),
    "simclr": ("simclr", {}, PAIRS),
    "simclr, logistic": (
        "simclr", {"loss": "nt_logistic", "mining": "semi_hard", "head": "linear"}, PAIRS),
    "simclr, margin": (
        "simclr", {"loss": "margin", "negatives": "other", "head": "none"}, PAIRS),
    "transformations": ("transformation_probe", {}, {}),
    "transformations, noise": ("transformation_probe", {"task": "noise"}, {}),
    "s4l": ("s4l", {}, SEMI),
    "s4l, exemplar": ("s4l", {"task": "exemplar", "copies": 3, "embedding": 32}, SEMI),
    "s4l, all terms": ("s4l", {"vat": True}, {**SEMI, **LONG}),
    "s4l, task alone": ("s4l", {"samples": "unlabelled"}, SEMI),
    "s4l, labels of a parent": ("s4l", {"labels": "teacher"}, SEMI),
    "stages": ("reinit", {"distil": True, "reset": "full"}, {}),
    "stages, layer by layer": (
        "reinit", {"reset": "layerwise", "stages": 3, "distil": True, "tau": 2.0},
        {"model_settings": {"hidden": [32, 16]}}),
    "stages, early stopping": ("reinit", {"stages": 1, "early_stopping": True}, {}),
    "self-training, greedy": ("self_training", {}, EVEN),
    "self-training, random": ("self_training", {"kind": "rist", "stages": 2}, EVEN),
    "self-training, fixed": (
        "self_training", {"kind": "fist", "stages": 2, "alpha": 0.25}, EVEN),
    "retraining": ("retraining", {"predictions": "rotations"}, SEMI),
    "ole": ("ole", {}, {}),
    "gradient penalty": ("grad_l2", {"statistics": "twice"}, {}),
    "cosine loss": ("cosine_loss", {}, {}),
    "cosine loss, cross-entropy": ("cosine_loss", {"weight": 0.1}, {}),
    "proxynca": ("proxynca", {}, {"optimiser": "adam", "optimiser_settings": {"eps": 1.0}}),
    "proxynca, original": (
        "proxynca", {"form": "original", "scale": 1.0, "norm": False, "embedding": 8, "classes": 5},
        {"backbone": {"kind": "linear", "start": 0, "end": 1}}),
    "weak labels": ("weak_labels", {}, LEVELS),
    "weak labels, proxies": ("weak_labels", {"loss": "proxies"}, LEVELS),
    "soteacher": ("soteacher", {}, {}),
    "soteacher, l1": ("soteacher", {"penalty": "l1_matched"}, {}),
}  # fmt: skip
# Variants that take seconds each, and whose parts are in other programs.
SLOW = (
    "private gradients, parts", "fixmatch, ctaugment", "auxilearn, heads of two layers",
    "reference priors, exact", "networks beside one another",
    "uda, as in ports", "hiermatch, fixmatch", "mixmatch, other forms", "mixup, labelled",
    "remixmatch", "remixmatch, ctaugment", "self-training, fixed",
    "private supervised", "private vat", "simclr, margin", "transformations, noise", "byol, parts",
)  # fmt: skip


def given(program: str, seed: int, **more: Any) -> Json:
    """Return settings of a program whose seed and schedules are of this run, and its length."""
    method, chosen, others = PROGRAMS[program]
    return factory.settings(
        method,
        method_settings=chosen,
        seed=seed,
        **{
            "epochs": 3 + seed % 3,
            "lr": 0.01 * (1 + seed % 5),
            "momentum": factory.cycle(0.9 - 0.02 * (seed % 4), 0.8),
            "weight_decay": 1e-4 * (1 + seed % 3),
            "epoch_images": 500,
            "evaluations": 2,
            **others,
            **more,
        },
    )


def assert_independent(every: list[Json], *widths: int, make: packs.Make = packs.made) -> Any:
    """Fail unless these runs are stacked, and the same in packs of all widths, and in any order."""
    alone = [packs.bits(run) for run in packs.beside(every, packs.Widths(1), make)]
    for width in widths:
        stack = packs.Widths(width)
        turned = packs.beside(every[::-1], stack, make)[::-1]
        assert stack.refusals == {} and max(stack.seen) == min(width, len(every))
        for place, run in enumerate(turned):
            assert packs.differing(alone[place], packs.bits(run)) == [], (width, place)
    return alone


@pytest.mark.parametrize(
    "program", [pytest.param(p, marks=[pytest.mark.slow] * (p in SLOW)) for p in PROGRAMS]
)
def test_bits_depend_on_neither_width_nor_place(program: str) -> None:
    """Of thirty updates or more, and of all evaluations."""
    alone = assert_independent([given(program, seed) for seed in range(7)], 2, 7)
    # Rounding aside it is what one run after another computes. The first has the lowest learning
    # rate; at higher ones a weight that is changed by its last bit moves some runs by more.
    eager = packs.bits(packs.alone(given(program, 0)))
    assert eager["update"] == alone[0]["update"] and eager["update"] >= 30
    assert eager["curve"]["train_loss"] == pytest.approx(alone[0]["curve"]["train_loss"], rel=1e-4)
    for name in eager.keys() - {"curve", "figures"}:
        if eager[name].is_floating_point():
            assert eager[name].numpy() == pytest.approx(alone[0][name].numpy(), rel=1e-2, abs=1e-4)


def test_sixteen_runs_are_one_pack() -> None:
    assert_independent([given("supervised", seed) for seed in range(16)], 16)


@pytest.mark.parametrize("batch", [1, 3, 17, 50])
@pytest.mark.parametrize("hidden", [[32], [64, 96]])
def test_bits_whatever_the_sizes(batch: int, hidden: list[int]) -> None:
    sizes: Json = {"batch": batch + 1, "epoch_images": 12 * batch + 12,
                   "model_settings": {"hidden": hidden}}  # fmt: skip
    assert_independent([given("supervised", seed, **sizes) for seed in range(7)], 2, 7)


OPTIMISERS: dict[str, tuple[str, Json, float]] = {
    "sgd": ("sgd", {"nesterov": False, "dampening": 0.3}, 1.0),
    "sgd, decoupled": ("sgd", {"decay": "decoupled"}, 1.0),
    "adam": ("adam", {}, 0.1),
    "adamw": ("adamw", {}, 0.1),
    "adadelta": ("adadelta", {}, 20.0),
    "adagrad": ("adagrad", {}, 1.0),
    "rmsprop": ("rmsprop", {}, 0.1),
    "lars": ("lars", {}, 20.0),
    "lars of BYOL": ("lars", {"variant": "byol", "adapts": "all"}, 20.0),
    "lars, clipped": ("lars", {"variant": "bolts", "clip": True}, 20.0),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_bits_of_every_optimiser(name: str) -> None:
    optimiser, chosen, times = OPTIMISERS[name]
    every = []
    for seed in range(7):
        varied = {"lr": times * 0.01 * (1 + seed % 3), "clip_norm": 0.5 + 0.3 * seed,
                  "ema_decay": 0.9 + 0.01 * seed,
                  "weight_decay_norm": 1e-4 * (1 + seed)}  # fmt: skip
        every.append(given("supervised", seed, optimiser=optimiser, optimiser_settings=chosen,
                           ema_buffers=("own", "average", "shared")[len(name) % 3],
                           model_settings={"hidden": [64, 32]}, **varied))  # fmt: skip
    assert_independent(every, 2, 7)


def test_bits_of_rates_and_bounds_by_part() -> None:
    parts = {"rates": {"head": 10.0}, "clip_values": {"features": 1e-3}}
    assert_independent([{**given("supervised", seed), **parts} for seed in range(4)], 2, 4)


@pytest.mark.parametrize("buffers", ["shared", "own", "average"])
@pytest.mark.parametrize("program", ["supervised", "fixmatch"])
def test_bits_of_averaged_weights(program: str, buffers: str) -> None:
    averaged = {"ema_decay": {"kind": "running_mean", "end": 0.99}, "ema_buffers": buffers}
    assert_independent([given(program, seed, **averaged) for seed in range(4)], 3)


@pytest.mark.parametrize("method", ["supervised", "cyclical_focal", "fixmatch"])
def test_bits_where_all_that_can_vary_varies(method: str) -> None:
    """Cyclical batch sizes, clipping, averaged weights and magnitudes of augmentation."""
    every = [factory.everything(method, seed=seed, epochs=3 + seed % 3) for seed in range(4)]
    assert_independent(every, 2, 4)


@pytest.mark.parametrize("head", [name for name in heads.names() if name != heads.DEFAULT])
def test_bits_of_every_head(head: str) -> None:
    chosen = heads.resolve(head, {})
    assert_independent([{**given("supervised", seed), "head": chosen} for seed in range(4)], 2, 4)


def test_teachers_of_another_width() -> None:
    other = factory.settings(seed=5, epochs=2, model_settings={"hidden": [64, 64]})
    teacher = factory.trained(factory.train(other))

    def make(settings: Json, stack: Any) -> Any:
        return factory.run(settings, stack=stack, parents={"teacher": [teacher]})

    assert_independent([given("distillation", seed) for seed in range(4)], 2, 4, make=make)


def test_an_ensemble_teaches_and_is_left_alone() -> None:
    teachers = [factory.untrained("fold-0"), factory.untrained("fold-1")]

    def make(settings: Json, stack: Any) -> Any:
        return factory.run(settings, stack=stack, parents={"teacher": teachers})

    assert_independent([given("distillation", seed) for seed in range(4)], 2, 4, make=make)
    run = packs.beside([given("distillation", 0)], packs.Widths(2), make)[0]
    for name, model in run.models.items():
        if name != "main":
            assert all(p.grad is None and not p.requires_grad for p in model.parameters())


def test_labels_that_differ_by_run() -> None:
    noise = {"split": {"noise": {"kind": "symmetric", "rate": 0.4}}}
    assert_independent([given("supervised", seed, **noise) for seed in range(4)], 2, 4)
