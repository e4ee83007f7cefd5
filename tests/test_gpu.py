"""The engine on a CUDA device; skipped where there is none."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import gpu
from factories.gpu import CPU, GPU, captured, of_method, parents, settings, trained

from cyclery import methods
from cyclery.engine.cohort import drain
from cyclery.engine.cuda import Graphs
from cyclery.engine.execution import Execution
from cyclery.engine.run import Data, Run
from cyclery.engine.train import Trainer
from cyclery.records.run_store import Store

pytestmark = gpu.MARKS
manifest, data, own_stream = gpu.manifest, gpu.data, gpu.own_stream

CUDA = Execution(device="cuda")
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
    feeds = [run.feeds["labelled"] for run in (here, there)]
    for feed in feeds:
        feed.begin_epoch()
    assert torch.equal(feeds[0].take(50)[0], feeds[1].take(50)[0].cpu())


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
    run.begin_epoch()
    run.step(50)
    torch.cuda.set_sync_debug_mode("error")
    try:
        run.step(50)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_trainer_names_the_device(manifest: Path, tmp_path: Path) -> None:
    job = {"key": "a" * 24, "label": "gpu", "kind": "run", "settings": settings(), "images": 1,
           "keep": True, "range_runs": []}  # fmt: skip
    record = Trainer(Store(tmp_path), {"digits": manifest}, CUDA).train([job])[0]
    assert record["device"] == torch.cuda.get_device_name(0)
    assert record["status"] == "done" and record["checkpoint_sha256"]


# Capture.


def test_frozen_and_rated_parts_are_captured(data: Data, own_stream: None) -> None:
    config = settings(frozen=["body.0"], rates={"head": 10.0, "features": 0.1})
    eager, replayed = trained(config, data, GPU), captured(config, data)
    assert (eager.flat.data - replayed.flat.data).norm() <= 1e-5 * eager.flat.data.norm()


@pytest.mark.parametrize("difficulty", ["cv_loss", "first_correct"])
def test_strata_are_those_of_a_cpu(difficulty: str, data: Data) -> None:
    config = of_method("ces_kd", {"difficulty": difficulty, "assignment": "random"})
    here, there = (Run(config, data.to(d), d, parents=parents(config, data)) for d in (CPU, GPU))
    one, other = (run.models["curriculum"].get_buffer("strata").cpu() for run in (here, there))
    # Losses that are all but equal may change places.
    assert (one != other).double().mean() < 0.01
    assert torch.equal(one.bincount(), other.bincount()) or difficulty == "first_correct"


def test_a_captured_run_resumes_bit_for_bit(data: Data, own_stream: None) -> None:
    config = of_method("fixmatch")
    whole = captured(config, data)
    half = Run(config, data.to(GPU), GPU, recorder=Graphs())
    for _ in range(2):
        half.train_epoch()
        half.evaluate_on_the_way()
    rest = Run(config, data.to(GPU), GPU, recorder=Graphs())
    rest.load_state(half.state(), 2, half.curve)
    while not rest.finished:
        rest.train_epoch()
        rest.evaluate_on_the_way()
    assert torch.equal(whole.flat.data, rest.flat.data)


def job_of(config: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(config, sort_keys=True)
    return {"key": sha256(text.encode()).hexdigest()[:24], "label": f"s{config['seed']}",
            "kind": "run", "settings": config, "images": 1, "keep": True,
            "range_runs": []}  # fmt: skip


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_cohort_of_resnet_18_equals_the_runs_alone(
    precision: str, manifest: Path, tmp_path: Path
) -> None:
    """Three times, because what a shared workspace corrupts is not corrupted every time."""
    jobs = [
        job_of(settings(model={"name": "resnet18", "settings": {}}, precision=precision, epochs=3,
                        seed=seed))
        for seed in range(4)
    ]  # fmt: skip
    found = []
    for turn, width in enumerate((1, 4, 4, 4)):
        store = Store(tmp_path / str(turn))
        records = Trainer(
            store, {"digits": manifest}, Execution(device="cuda", cohort=width)
        ).train(jobs)
        found.append([record["checkpoint_sha256"] for record in records])
        assert [record["status"] for record in records] == ["done"] * 4
    assert found[1:] == [found[0]] * 3


def test_runs_of_different_nets_and_lengths_share_a_device(manifest: Path, tmp_path: Path) -> None:
    jobs = [job_of(settings(model=net, epochs=2 + n)) for n, net in enumerate(NETS)]
    alone = [
        Trainer(Store(tmp_path / str(n)), {"digits": manifest}, CUDA).train([job])[0]
        for n, job in enumerate(jobs)
    ]
    beside = Trainer(Store(tmp_path / "all"), {"digits": manifest}, CUDA).train(jobs[::-1])
    sums = [record["checkpoint_sha256"] for record in alone]
    assert [record["checkpoint_sha256"] for record in beside[::-1]] == sums


def test_students_and_range_tests_share_a_device(manifest: Path, tmp_path: Path) -> None:
    """Through the trainer: parents out of the store, all methods that have any, and a sweep."""
    split = {"test": 600, "validation": 200, "labels": 500}
    teachers = [job_of(settings(draw=name, split=split)) for name in ("teacher", "second")]
    folds = {f"fold-{k}": job_of(settings(split=split | {"folds": 5, "fold": k})) for k in range(5)}
    chosen = {"teacher": teachers, **{name: [job] for name, job in folds.items()}}
    jobs = []
    for name in ("kd", "soteacher", "ces_kd"):
        config = of_method(name)
        names = methods.parents_of(config["method"])
        sources = {name: chosen.get(name, teachers[:1]) for name in names}
        config["parents"] = {name: [job["key"] for job in its] for name, its in sources.items()}
        models = {name: [len(its), config["model"]] for name, its in sources.items()}
        jobs.append(job_of(config) | {"parent_models": models})
    sweep = settings(schedules=settings()["schedules"] | {
        "lr": {"kind": "linear", "start": 0.001, "end": 1.0}}, evaluations=6)  # fmt: skip
    del sweep["parents"], sweep["range"]
    jobs.append(job_of(sweep) | {"kind": "range"})
    found = []
    for width in (1, 4):
        how = Execution(device="cuda", cohort=width)
        trainer = Trainer(Store(tmp_path / str(width)), {"digits": manifest}, how)
        trainer.train([*teachers, *folds.values()])
        records = trainer.train(jobs)
        assert [record["status"] for record in records] == ["done"] * 4
        found.append([record.get("checkpoint_sha256", record.get("bounds")) for record in records])
    assert found[0] == found[1]


def test_a_step_that_cannot_be_captured_runs_eager(
    data: Data, own_stream: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = methods.load("supervised")

    def step(*given: Any) -> Any:
        loss, logs = declared.step(*given)
        return loss * float(loss.detach() > -1), logs

    refusing = replace(declared, step=step)
    monkeypatch.setattr(methods, "load", lambda name: refusing)
    with caplog.at_level(logging.WARNING):
        run = captured(settings(), data)
    assert "cannot be captured at `return loss * float" in caplog.text
    monkeypatch.undo()
    assert torch.equal(run.flat.data, trained(settings(), data, GPU).flat.data)


def test_a_replayed_epoch_is_one_launch_per_step(data: Data, own_stream: None) -> None:
    config = settings(epochs=4, split={"test": 600, "validation": 0, "labels": 1000})
    run = Run(config, data.to(GPU), GPU, recorder=Graphs())
    run.train_epoch()
    run.begin_epoch()
    torch.cuda.synchronize()
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    ) as seen:
        for _ in range(20):
            drain(run.launch(50))
    calls = {event.key: event.count for event in seen.key_averages()}
    assert calls.get("cudaGraphLaunch", 0) == 20
    assert calls.get("cudaMalloc", 0) == calls.get("cudaStreamSynchronize", 0) == 0
