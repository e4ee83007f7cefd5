"""Tiny runs on the real digits: resolved settings, prepared data, jobs and stores.

The digits are prepared once per session. Everything has defaults, so a test names only what it
is about: ``settings(method="cyclical_focal", epochs=5, weight_decay=cycle(8e-4, 2e-4))``.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import cache, partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch

from cyclery import methods
from cyclery.common.settings import plain
from cyclery.data.prepare import prepare
from cyclery.engine import ENGINE_VERSION
from cyclery.engine.datasets import Datasets
from cyclery.engine.execution import Execution
from cyclery.engine.run import Data, Run
from cyclery.engine.teachers import Trained
from cyclery.engine.train import Trainer
from cyclery.records.run_store import Store
from factories.data import KNOWN

Json = dict[str, Any]
CPU = torch.device("cpu")
RATES = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "weight_decay_norm": 0.0, "batch": 50}
# Of methods that refuse batch norm.
MODELS = {"dp_sgd": "dp_mlp"}
SPLIT = {"test": 300, "validation": 100, "labels": 200, "per_class": None, "choose": "random",
         "imbalance": None, "unlabelled": None}  # fmt: skip


@cache
def manifest() -> Path:
    """Return the manifest of the digits, prepared once."""
    folder = Path(tempfile.mkdtemp(prefix="cyclery-digits-"))
    _remove_at_exit(folder)
    prepare(KNOWN["digits"], folder, folder / "digits.json")
    return folder / "digits.json"


def _remove_at_exit(folder: Path) -> None:
    import atexit

    owner = os.getpid()  # not in the processes that tests fork

    def remove() -> None:
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)


@cache
def data() -> Data:
    """Return the digits on the CPU."""
    given: Any = {"dataset": {"name": "digits"}, "split": {}}
    return Datasets({"digits": manifest()}, None).of(given, CPU)


def settings(
    method: str = "supervised",
    *,
    epochs: int = 3,
    seed: int = 0,
    model: str = "",
    model_settings: Json | None = None,
    method_settings: Json | None = None,
    optimiser: str = "sgd",
    optimiser_settings: Json | None = None,
    augment: tuple[Json, ...] = ({"op": "shift", "size": 1},),
    split: Json | None = None,
    evaluations: int = 2,
    strong: tuple[Json, ...] = (),
    mu: int | None = None,
    epoch_images: int | None = None,
    ema_buffers: str = "shared",
    **quantities: Any,
) -> Json:
    """Return resolved settings; ``quantities`` are schedules, those of the method among them."""
    declared = methods.load(method)
    model = model or MODELS.get(method, "bn_mlp")
    chosen = declared.chosen(method_settings or {})
    streams = declared.streams(chosen)
    if next(iter(streams.values())).pool == "own":
        # It fills its pools with samples without labels, and how many there are is not known.
        split, epoch_images = {"unlabelled": "rest", **(split or {})}, epoch_images or 200
    if "unlabelled" in streams:
        split, mu = {"unlabelled": "all", **(split or {})}, mu or 2
    if "unlabelled" in streams or any("strong" in each.views for each in streams.values()):
        strong = strong or ({"op": "cutout", "size": 3},)
    if declared.uses_ema(chosen):
        quantities = {"ema_decay": 0.9, **quantities}
    values = plain(declared.settings_type()) | (method_settings or {})
    scheduled = {name: values.pop(name) for name in declared.quantities}
    identity = KNOWN["digits"].identity
    return {
        "engine": ENGINE_VERSION,
        "method": {"name": method, "version": declared.version, "settings": values},
        "dataset": {"name": "digits", "identity": identity},
        "split": {**SPLIT, **(split or {})},
        "model": {"name": model, "settings": model_settings or _small(model)},
        "optimiser": {"name": optimiser, "settings": optimiser_settings or {}},
        "schedules": {**RATES, **scheduled, **quantities},
        "augment": list(augment),
        "strong": list(strong),
        "mu": mu,
        "epoch_images": epoch_images,
        "ema_buffers": ema_buffers,
        "init": None,
        "init_share": None,
        "draw": None,
        "epochs": epochs,
        "precision": "fp32",
        "compile": False,
        "deterministic": True,
        "threads": 1,
        "evaluations": evaluations,
        "seed": seed,
        "parents": {},
        "range": None,
    }


def _small(model: str) -> Json:
    return {
        "bn_mlp": {"hidden": [32]},
        "dp_mlp": {"hidden": [32], "groups": 4},
        "small_cnn": {"width": 4},
        "wrn": {"depth": 10, "width": 1, "dropout": 0.3},
        "stochastic_depth": {"depth": 8},
    }.get(model, {})


def cycle(easy: float, hard: float, factor: float = 2.0, order: str = "easy-hard-easy") -> Json:
    """Return a cyclical schedule."""
    return {"kind": "cycle", "easy": easy, "hard": hard, "factor": factor, "order": order}


def everything(method: str, **changes: Any) -> Json:
    """Return settings of ``method`` with all that can vary varying, augmentation included."""
    augment = ({"op": "shift", "size": 1}, {"op": "flip"}, {"op": "randaugment", "n": 2})
    varying: Json = {
        "augment": augment, "epochs": 5,
        "lr": {"kind": "triangular", "low": 0.01, "high": 0.1, "cycles": 2},
        "momentum": cycle(0.95, 0.85), "weight_decay": cycle(8e-4, 2e-4),
        "weight_decay_norm": cycle(1e-4, 2e-4), "clip_norm": cycle(2.0, 0.5),
        "magnitude": cycle(0.0, 9.0), "batch": cycle(25, 50), "ema_decay": cycle(0.8, 0.5),
    }  # fmt: skip
    # A high threshold would keep every pseudo-label of an untrained network out, and a sum over
    # all weights would drown the rest of the loss.
    special = {"threshold": cycle(0.1, 0.2), "lipschitz_weight": cycle(1e-3, 5e-4),
               "tau": cycle(0.4, 0.2)}  # fmt: skip
    for name in methods.load(method).quantities:
        varying[name] = special.get(name) or cycle(1.0, 0.5)
    return settings(method, **{**varying, **changes})


def run(given: Json, **options: Any) -> Run:
    """Return a new run on the CPU; parents that it learns from are untrained unless given."""
    parents = {name: [untrained(name)] for name in methods.parents_of(given["method"])}
    parents |= options.pop("parents", {})
    return Run(given, data(), CPU, parents=parents, **options)


def trained(made: Run) -> Trained:
    """Return a run as its children take it."""
    return Trained(made.settings, made.weights(), made.data.manifest["classes"])


@cache
def untrained(name: str) -> Trained:
    """Return a network of its own as it is drawn; `fold-0` to `fold-4` leave a fifth out each."""
    fold = {"folds": 5, "fold": int(name[-1])} if name.startswith("fold-") else {}
    return trained(Run({**settings(split=fold), "draw": f"untrained {name}"}, data(), CPU))


def begun(given: Json, **options: Any) -> Run:
    """Return a run before its first update."""
    made = run(given, **options)
    made.begin_epoch()
    made._before(0)
    return made


def stepped(made: Run, batch: Any = None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss, with its graph, and the logs of a step, which changes no weight."""
    batch = made._batch(made.table.batches[made.epoch], None) if batch is None else batch
    row = made.table.row(made.update)
    return made.method.step(
        made.models, batch, row, made.method_settings, made.generators["method"]
    )  # fmt: skip


def train(given: Json, **options: Any) -> Run:
    """Return a finished run."""
    made = run(given, **options)
    finish(made)
    return made


def finish(made: Run) -> None:
    """Train what is left."""
    while not made.finished:
        made.train_epoch()
        made.evaluate_on_the_way()


def job(given: Json, **changes: Any) -> Json:
    """Return the job of these settings, under a key made of all that decides its numbers."""
    text = json.dumps([given, changes.get("range_runs")], sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:24]
    return {"key": key, "label": f"{given['method']['name']} {key[:6]}", "kind": "run",
            "settings": given, "keep": False, "range_runs": [], "images": 1000,
            **changes}  # fmt: skip


def trainer(root: Path, **changes: Any) -> Trainer:
    """Return a trainer with its store under ``root``."""
    given = {"device": "cpu", "resume_seconds": 1e9, **changes}
    names = {item.name for item in fields(Execution)} & given.keys()
    how = Execution(**{name: given.pop(name) for name in names})
    return Trainer(Store(root), {"digits": manifest()}, how, **given)


def figures(record: Json) -> Json:
    """Return what must not depend on when and beside whom a run was trained."""
    names = ("status", "diverged_step", "curve", "final", "inputs", "images", "updates",
             "checkpoint_sha256")  # fmt: skip
    return {name: record.get(name) for name in names}


def start(jobs: list[Json], root: Path, *options: str) -> subprocess.Popen[str]:
    """Start a process that trains these jobs, with its store in ``root``/store."""
    root.mkdir(parents=True, exist_ok=True)
    path = root / "jobs.json"
    path.write_text(json.dumps(jobs))
    places = [Path(sys.modules["cyclery"].__file__ or "").parents[1], Path(__file__).parents[1]]
    return subprocess.Popen(
        [sys.executable, "-m", "factories.train_jobs", str(path), "--store", str(root / "store"),
         "--data", str(manifest().parent), "--device", "cpu", *options],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))}, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def use_step(monkeypatch: pytest.MonkeyPatch, step: Callable[..., Any]) -> None:
    """Let every run take its loss from ``step``, which gets the supervised step first."""
    use_method(monkeypatch, step=partial(step, methods.load("supervised").step))


def use_method(monkeypatch: pytest.MonkeyPatch, name: str = "supervised", **hooks: Any) -> None:
    """Let a method have other functions than its file declares."""
    declared, load = methods.load(name), methods.load
    made = replace(declared, **hooks)
    monkeypatch.setattr(methods, "load", lambda found: made if found == name else load(found))


def forked(function: Callable[..., Any], *arguments: Any) -> BaseProcess:
    """Start a function in a process of its own, which has torch and the digits already."""
    data()
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    return process


@contextmanager
def forked_until_the_end(function: Callable[..., Any], *arguments: Any) -> Iterator[BaseProcess]:
    """Start a function as `forked` does, and kill it where the block leaves it running.

    At its own end Python would wait for it for ever.
    """
    process = forked(function, *arguments)
    try:
        yield process
    finally:
        process.kill()
        process.join()


def wait_for(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    """Return once ``condition`` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def _hold(store: Store, key: str, ready: Path) -> None:
    with store.lock(key, wait=False) as held:
        ready.write_text(str(held))
        time.sleep(60)


@contextmanager
def locked(store: Store, key: str) -> Iterator[None]:
    """Let another process hold a run's lock; in the end it is killed.

    Not this process: what it forks would inherit the lock.
    """
    ready = store.root / "held"
    ready.parent.mkdir(parents=True, exist_ok=True)
    process = forked(_hold, store, key, ready)
    try:
        wait_for(lambda: ready.exists() and ready.read_text())
        assert ready.read_text() == "True"
        yield
    finally:
        process.kill()
        process.join()
        ready.unlink()
