"""Runs on a CUDA device, of any method, captured or not.

Nothing here needs what a bare GPU machine lacks: numpy, torch, safetensors, pytest and
scikit-learn's digits.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from cyclery import methods
from cyclery.common.settings import plain
from cyclery.data.prepare import load_or_remake, prepare
from cyclery.engine.cuda import Graphs
from cyclery.engine.run import Data, Run
from cyclery.engine.teachers import Trained
from factories.data import DIGITS

GPU, CPU = torch.device("cuda"), torch.device("cpu")
MARKS = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
# For gradients of single images.
UNMIXED = {"name": "small_cnn", "settings": {"width": 16, "norm": "group"}}
# Parents of which a run takes several.
ENSEMBLES = ("teacher", "teachers")


def settings(**changes: Any) -> dict[str, Any]:
    """Return resolved settings of a short run on digits."""
    constant = {name: {"kind": "constant", "value": value} for name, value in {
        "batch": 50, "momentum": 0.9, "weight_decay": 5e-4, "weight_decay_norm": 0.0,
        "temperature": 1.0,
    }.items()}  # fmt: skip
    return {
        "engine": 1,
        "method": {"name": "supervised", "version": 1, "settings": {"label_smoothing": 0.1}},
        "dataset": {"name": "digits", "identity": DIGITS.identity},
        "split": {"test": 600, "validation": 200, "labels": 500},
        "model": {"name": "small_cnn", "settings": {"width": 16}},
        "optimiser": {"name": "sgd", "settings": {"nesterov": True}},
        "schedules": {**constant, "lr": {"kind": "cosine", "peak": 0.05}},
        "augment": [{"op": "shift", "size": 1}],
        "strong": [], "mu": None, "epoch_images": None, "ema_buffers": None, "compile": False,
        "epochs": 6, "precision": "fp32", "deterministic": True, "threads": 1,
        "evaluations": 2, "seed": 0, "parents": {}, "range": None,
        "init": None, "init_share": None, "draw": None,
    } | changes  # fmt: skip


def of_method(
    name: str,
    given: dict[str, Any] | None = None,
    split: dict[str, Any] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """Return settings of 50 steps with a method's own defaults and everything that it needs.

    ``given`` are other settings of the method, ``split`` others of the split.
    """
    method = methods.load(name)
    values = plain(method.settings_type()) | (given or {})
    quantities = {q: values.pop(q) for q in method.quantities}
    # So that pseudo-labels are used from the start.
    quantities |= dict.fromkeys({"threshold", "confidence"} & quantities.keys(), 0.1)
    streams = method.streams(method.chosen(values))
    unlabelled, own = "unlabelled" in streams, next(iter(streams.values())).pool == "own"
    base = settings()
    pool = {"unlabelled": "rest" if own else "all" if unlabelled else None}
    return settings(
        method={"name": name, "version": method.version, "settings": values},
        split={**base["split"], **pool, **(split or {})},
        epoch_images=500 if own else None,
        mu=2 if unlabelled else None,
        strong=[{"op": "policy"}, {"op": "cutout", "size": 3}] if unlabelled else [],
        ema_buffers="shared",
        **({"model": UNMIXED} if name == "dp_sgd" else {}),
        schedules={**base["schedules"], **quantities, "ema_decay": 0.9, "clip_norm": 1.0},
        epochs=5,
        **changes,
    )


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepare the digits."""
    folder = tmp_path_factory.mktemp("data")
    prepare(DIGITS, folder, folder / "digits.json")
    return folder / "digits.json"


@pytest.fixture(scope="module")
def data(manifest: Path) -> Data:
    """Return the digits on the CPU."""
    found, arrays = load_or_remake(manifest)
    return Data(torch.as_tensor(arrays["images"]), torch.as_tensor(arrays["labels"]), found)


@pytest.fixture
def own_stream() -> Iterator[None]:
    """Work on a stream of one's own, as a captured run must."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.default_stream())
    with torch.cuda.stream(stream):
        yield


def parents(config: dict[str, Any], data: Data) -> dict[str, list[Trained]]:
    """Return untrained networks for the parents of a method, two for each ensemble.

    Those of a fold have left it out.
    """
    found = {}
    for name in methods.parents_of(config["method"]):
        split = {key: config["split"][key] for key in ("test", "validation", "labels")}
        if name.startswith("fold-"):
            split |= {"folds": 5, "fold": int(name[-1])}
        draws = [name, f"second {name}"] if name in ENSEMBLES else [name]
        runs = [settings(split=split, draw=draw) for draw in draws]
        found[name] = [
            Trained(given, Run(given, data.to(CPU), CPU).weights(), data.manifest["classes"])
            for given in runs
        ]
    return found


def trained(config: dict[str, Any], data: Data, device: torch.device) -> Run:
    """Return a finished run whose steps are eager."""
    run = Run(config, data.to(device), device, parents=parents(config, data))
    while not run.finished:
        run.train_epoch()
    return run


def captured(config: dict[str, Any], data: Data, graphs: Graphs | None = None) -> Run:
    """Return a finished run whose steps are replayed."""
    given = {"recorder": graphs or Graphs(), "parents": parents(config, data)}
    run = Run(config, data.to(GPU), GPU, **given)
    while not run.finished:
        run.train_epoch()
        run.evaluate_on_the_way()
    return run
