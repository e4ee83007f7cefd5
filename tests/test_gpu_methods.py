"""Every method on a CUDA device: a captured step computes what an eager one does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from factories import gpu
from factories.gpu import GPU, captured, of_method, trained

from cyclery import methods
from cyclery.engine.cuda import Graphs
from cyclery.engine.run import Data, Run

pytestmark = gpu.MARKS
manifest, data, own_stream = gpu.manifest, gpu.data, gpu.own_stream


def assert_captured(config: dict[str, Any], data: Data) -> tuple[Run, Run]:
    """Fail unless a run's steps are captured and train as eager ones do; return both runs."""
    graphs = Graphs()
    eager, replayed = trained(config, data, GPU), captured(config, data, graphs)
    assert not graphs.refused
    assert int(eager.update) == 50
    assert max(eager.curve.get("train_mask_rate", [1.0])) > 0.5
    for one, other in (
        (eager.flat.data, replayed.flat.data),
        (eager.models["ema"].head.weight, replayed.models["ema"].head.weight),
    ):
        assert (one - other).norm() <= 1e-5 * one.norm()
    return eager, replayed


@pytest.mark.parametrize("name", methods.names())
def test_captured_and_eager_agree(name: str, data: Data, own_stream: None) -> None:
    assert_captured(of_method(name), data)


LEVELS = {"hierarchy": [[0, 1, 2, 2, 1, 2, 0, 1, 0, 0]], "coarse": [100]}
PATHS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("fixmatch", {"prediction_view": "ctaugment"}, {}),
    ("mixmatch", {"views": 3, "mixing": "within", "share": "batch", "statistics": "all"}, {}),
    ("mixmatch", {"labels_from": "ema_train", "interleave": False}, {}),
    ("mixup_ssl", {"pools": "labelled"}, {}),
    ("uda", {"signal": "largest", "mean_over": "all", "mask_from": "sharpened"}, {}),
    ("vat", {"divergence": "reverse", "iterations": 2}, {}),
    ("vat", {"forward": "joint", "statistics": "all"}, {}),
    ("hiermatch", {"levels": 2}, LEVELS),
    ("remixmatch", {"alignment": "history", "share": "batch", "statistics": "all"}, {}),
    ("remixmatch", {"prediction_view": "ctaugment", "views": 2}, {}),
    ("hiermatch", {"levels": 2, "pools": "levels"}, LEVELS),
    ("hiermatch", {"levels": 2, "pools": "levels", "core": "fixmatch"}, LEVELS),
    ("private_mixmatch", {"threshold": 1.0, "balanced": True}, {}),
    ("dp_sgd", {"views": 2, "epsilon": 3.0, "chunk": 40}, {}),
    ("dp_sgd", {"private": False, "views": 2}, {}),
    ("grad_l2", {"statistics": "twice"}, {}),
    ("cosine_loss", {"weight": 0.1}, {}),
    ("s4l", {"vat": True}, {}),
    ("s4l", {"task": "exemplar", "copies": 4, "embedding": 64}, {}),
    ("s4l", {"samples": "unlabelled"}, {}),
    ("s4l", {"labels": "teacher", "vat": True}, {}),
]


@pytest.mark.parametrize(("name", "given", "split"), PATHS, ids=str)
def test_every_path_of_semi_supervised_methods_is_captured(
    name: str, given: dict[str, Any], split: dict[str, Any], data: Data, own_stream: None
) -> None:
    assert_captured(of_method(name, given, split), data)


@pytest.mark.parametrize("changes", [{"precision": "bf16"}, {"compile": True}], ids=str)
def test_a_gradient_by_the_input_is_captured(
    changes: dict[str, Any], data: Data, own_stream: None
) -> None:
    """That of VAT, which is taken of the network as it was written."""
    graphs = Graphs()
    run = captured(of_method("vat", **changes), data, graphs)
    assert not graphs.refused
    assert run.curve["train_loss_vat"][-1] > 0 and run.flat.data.isfinite().all()


DISTILLED = [
    ("kd", {"mixup": 1.0, "hard": 0.0}),
    ("kd", {"mixup": 0.4, "hard": 0.0, "inputs": "both"}),
    ("kd", {"targets": "permuted"}),
    ("kd", {"inputs": "unlabelled"}),
    ("kd", {"form": "cross_entropy", "reduction": "mean", "inputs": "both"}),
    ("ces_kd", {"assignment": "random", "unlocking": "easy_first"}),
    ("ces_kd", {"assignment": "reversed", "difficulty": "first_correct"}),
    ("ces_kd", {"assignment": "single", "expert": 2}),
    ("ces_kd", {"assignment": "mean"}),
    ("ces_kd", {"assignment": "all", "difficulty": "teacher_loss"}),
]


@pytest.mark.parametrize(("name", "given"), DISTILLED, ids=str)
def test_every_path_of_distillation_is_captured(
    name: str, given: dict[str, Any], data: Data, own_stream: None
) -> None:
    eager, replayed = assert_captured(of_method(name, given), data)
    teachers = zip(eager.networks.teachers.values(), replayed.networks.teachers.values(),
                   strict=True)  # fmt: skip
    for one, other in teachers:
        for first, second in zip(one.buffers(), other.buffers(), strict=True):
            assert torch.equal(first, second)
