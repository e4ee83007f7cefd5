"""Two real steps of every method that a tier's arms use, on random images: `check --methods`."""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cyclery import models, schedules
from cyclery.common.errors import UserError
from cyclery.config.resolve import SPLIT_DEFAULTS
from cyclery.data import registry
from cyclery.engine.failures import RunFailed, naming
from cyclery.engine.run import Data, Run
from cyclery.engine.teachers import Trained
from cyclery.plan.graph import Plan
from cyclery.plan.model import ArmPlan, Parent
from cyclery.records.record import ArmSettings, Job, RunSettings

BATCH, STEPS = 8, 2
# Enough for every split: so many images of each class, of which some are held out.
CLASSES, EACH, HELD_OUT = 10, 6, 10
# What brings a value to the host, so that the device is waited for and no graph can be captured.
READS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2")
TORCH = Path(torch.__file__).parent


class _HostReads(TorchDispatchMode):
    """Notes the lines that read a value on the host."""

    def __init__(self, lines: dict[str, None]) -> None:
        super().__init__()
        self._lines = lines

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function.__name__.partition(".")[0] in READS:
            frames = traceback.extract_stack()[:-1]
            # By its folder, as a project may lie below one of the same name.
            own = [frame for frame in frames if TORCH not in Path(frame.filename).parents]
            self._lines[f"{own[-1].filename}:{own[-1].lineno}: `{own[-1].line}`"] = None
        return function(*args, **(kwargs or {}))


def try_methods(plan: Plan) -> int:
    """Try each choice of a method's settings that the tier's arms make; return how many.

    Raises a UserError with a line for each mistake, which names the first arm that makes it.
    """
    arms: dict[str, ArmPlan] = {}
    for paper in plan.project.selected():
        for name in plan.part_arms(paper):
            arm = plan.arm(*name)
            arms.setdefault(json.dumps(arm.settings["method"], sort_keys=True), arm)
    problems: dict[str, str] = {}
    for arm in arms.values():
        for text in tried(arm):
            problems.setdefault(text, arm.id)
    if problems:
        raise UserError("\n".join(f"{arm}: {text}" for text, arm in problems.items()))
    return len(arms)


def tried(arm: ArmPlan) -> list[str]:
    """Return what is wrong with an arm's method, after its steps on random images."""
    settings = _small(arm.settings)
    job: Job = {"key": "", "label": arm.id, "kind": "run", "settings": settings, "images": 0}
    reads: dict[str, None] = {}
    try:
        with naming(job):
            _steps(settings, arm.parents, reads)
    except RunFailed as failed:
        return [failed.failure.text]
    return [
        f"{line} waits for a value on the host, so no step can be captured on a GPU; compute it "
        "with tensors, or declare `CAPTURE = False`."
        for line in reads
    ]


def _steps(settings: RunSettings, parents: Mapping[str, Parent], reads: dict[str, None]) -> None:
    data = _images(settings["dataset"]["name"])
    taken = {name: [_untrained(parent.arm, data)] for name, parent in parents.items()}
    run = Run(settings, data, torch.device("cpu"), parents=taken)
    step = run.method.step

    def watched(*arguments: Any) -> Any:
        with _HostReads(reads):
            return step(*arguments)

    if run.method.capture:
        run.method = replace(run.method, step=watched)
    run.train_epoch()


def _small(given: ArmSettings) -> RunSettings:
    """Return an arm's settings for a few steps; its method, views and network stay as they are."""
    split = {key: given["split"].get(key) for key in ("unlabelled", "folds", "fold")}
    own = {
        "split": {**SPLIT_DEFAULTS, **split, "test": HELD_OUT},
        "schedules": {**_constant(given), "batch": BATCH},
        "epoch_images": BATCH * STEPS,
        "epochs": 1,
        "evaluations": 1,
        "compile": False,
        "seed": 0,
    }
    return cast(RunSettings, {**given, **own})


def _constant(given: ArmSettings) -> dict[str, float]:
    """Return every quantity as it is half way through the arm's own run."""
    specs = dict(given["schedules"])
    batches = schedules.epoch_batches(specs.pop("batch"), given["epochs"])
    clock, _ = schedules.clock_for(batches, int(batches.max()))
    return {
        # A range test may have to find its values first.
        name: 0.01
        if schedules.words(spec)
        else float(schedules.column(spec, clock, 0)[clock.updates // 2])
        for name, spec in specs.items()
    }


def _images(dataset: str) -> Data:
    """Return random images of a dataset's shape, the same at every call."""
    found = registry.get(dataset)
    count = CLASSES * EACH
    drawn = torch.Generator().manual_seed(0)
    images = torch.randint(
        0, found.max_value + 1, (count, *found.shape), generator=drawn, dtype=torch.uint8
    )
    half = [128.0 / found.max_value] * found.shape[0]
    manifest = {"shape": list(found.shape), "classes": CLASSES, "n_train": count,
                "mean": half, "std": half, "max_value": found.max_value}  # fmt: skip
    return Data(images, torch.arange(count) % CLASSES, manifest)


def _untrained(arm: ArmPlan, data: Data) -> Trained:
    """Return a parent's network as it is drawn."""
    kind, manifest = arm.settings["model"], data.manifest
    with torch.random.fork_rng(devices=[]):
        net = models.build(
            kind["name"], kind["settings"], tuple(manifest["shape"]), manifest["classes"]
        )
    return Trained(_small(arm.settings), net.state_dict())
