"""The engine on a CUDA device; skipped where there is none.

These need nothing that a bare GPU machine lacks: numpy, torch, safetensors, pytest and
scikit-learn's digits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from cyclery.data import registry
from cyclery.data.prepare import load_or_remake, prepare
from cyclery.engine.run import Data, Run
from cyclery.engine.train import Trainer
from cyclery.store import Store

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
GPU, CPU = torch.device("cuda"), torch.device("cpu")


def settings(**changes: Any) -> dict[str, Any]:
    """Return resolved settings of a short run on digits."""
    constant = {name: {"kind": "constant", "value": value} for name, value in {
        "batch": 50, "momentum": 0.9, "weight_decay": 5e-4, "weight_decay_norm": 0.0,
        "temperature": 1.0,
    }.items()}  # fmt: skip
    return {
        "engine": 1,
        "method": {"name": "supervised", "version": 1, "settings": {"label_smoothing": 0.1}},
        "dataset": {"name": "digits", "identity": registry.get("digits").identity},
        "split": {"test": 600, "validation": 200, "labels": 500},
        "model": {"name": "small_cnn", "settings": {"width": 16}},
        "optimiser": {"name": "sgd", "settings": {"nesterov": True}},
        "schedules": {**constant, "lr": {"kind": "cosine", "peak": 0.05}},
        "augment": [{"op": "shift", "size": 1}],
        "epochs": 6, "precision": "fp32", "deterministic": True, "threads": 1,
        "evaluations": 2, "seed": 0, "parents": {}, "range": None, "init": None,
    } | changes  # fmt: skip


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    prepare("digits", folder, folder / "digits.json")
    return folder / "digits.json"


@pytest.fixture(scope="module")
def data(manifest: Path) -> Data:
    found, arrays = load_or_remake(manifest)
    return Data(torch.as_tensor(arrays["images"]), torch.as_tensor(arrays["labels"]), found)


def trained(config: dict[str, Any], data: Data, device: torch.device) -> Run:
    run = Run(config, data.to(device), device)
    while not run.finished:
        run.train_epoch()
    return run


NETS = [
    {"name": "bn_mlp", "settings": {}},
    {"name": "small_cnn", "settings": {"width": 16}},
    {"name": "resnet", "settings": {"depth": 20}},
    {"name": "wrn", "settings": {"depth": 10, "width": 2}},
]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("net", NETS, ids=lambda net: net["name"])
def test_learns_and_repeats_bit_for_bit(net: dict[str, Any], precision: str, data: Data) -> None:
    config = settings(model=net, precision=precision)
    first, second = trained(config, data, GPU), trained(config, data, GPU)
    assert torch.equal(first.flat.data, second.flat.data)
    assert first.final()["test_accuracy"] > 0.5


def test_same_samples_and_weights_as_on_a_cpu(data: Data) -> None:
    here, there = (Run(settings(), data.to(d), d) for d in (CPU, GPU))
    assert torch.equal(here.flat.data, there.flat.data.cpu())
    for part in here.ids:
        assert torch.equal(here.ids[part], there.ids[part].cpu())
    for run in (here, there):
        run.stream.begin_epoch()
    assert torch.equal(here.stream.take(50)[0], there.stream.take(50)[0].cpu())


def test_a_few_steps_agree_with_a_cpu(data: Data) -> None:
    # Without augmentation both see the same images; convolutions sum in another order.
    config = settings(epochs=1, augment=[])
    here, there = trained(config, data, CPU), trained(config, data, GPU)
    difference = (here.flat.data - there.flat.data.cpu()).norm() / here.flat.data.norm()
    assert difference < 1e-4


def test_resumes_bit_for_bit(data: Data) -> None:
    config = settings(precision="bf16")
    whole = trained(config, data, GPU)
    half = Run(config, data.to(GPU), GPU)
    for _ in range(3):
        half.train_epoch()
    state, curve = half.state(), half.curve
    rest = Run(config, data.to(GPU), GPU)
    rest.load_state(state, 3, curve)
    while not rest.finished:
        rest.train_epoch()
    assert torch.equal(whole.flat.data, rest.flat.data)


def test_a_step_never_waits_for_the_device(data: Data) -> None:
    extra = {"clip_norm": {"kind": "constant", "value": 1.0},
             "magnitude": {"kind": "cycle", "easy": 0, "hard": 9}}  # fmt: skip
    base = settings()
    config = settings(
        schedules={**base["schedules"], **extra},
        augment=[{"op": "shift", "size": 1}, {"op": "randaugment"}],
    )
    run = Run(config, data.to(GPU), GPU)
    run.stream.begin_epoch()
    run.step(50)
    torch.cuda.set_sync_debug_mode("error")
    try:
        run.step(50)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_trainer_names_the_device(manifest: Path, tmp_path: Path) -> None:
    job = {"key": "a" * 24, "label": "gpu", "kind": "run", "settings": settings(), "images": 1,
           "keep": True, "range_runs": []}  # fmt: skip
    record = Trainer(Store(tmp_path), {"digits": manifest}, device="cuda").train([job])[0]
    assert record["device"] == torch.cuda.get_device_name(0)
    assert record["status"] == "done" and record["checkpoint_sha256"]
