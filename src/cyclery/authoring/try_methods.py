"""Try methods on random images: ``cyclery check --method``.

Each choice of settings is tried twice, with the random generators of the whole process elsewhere
the second time, and must compute the same.
"""

from __future__ import annotations

import json
import traceback
import warnings
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch

from cyclery import methods, schedules
from cyclery.authoring import watching
from cyclery.authoring.try_networks import network_problems
from cyclery.authoring.watching import Findings
from cyclery.common.errors import UserError
from cyclery.common.settings import plain
from cyclery.config.resolve import VIEWS, merge, resolve
from cyclery.data.dataset import Dataset
from cyclery.data.split_settings import Split
from cyclery.engine.contract import check_step
from cyclery.engine.failures import Diverged
from cyclery.engine.machine import computes_bf16
from cyclery.engine.made import networks
from cyclery.engine.packs import Pack, reason
from cyclery.engine.run import Data, Run
from cyclery.engine.teachers import Trained, handed_on
from cyclery.methods._streams import OWN, UNLABELLED
from cyclery.plan.graph import Plan
from cyclery.records.record import ArmSettings, RunSettings

Json = dict[str, Any]
BATCH, STEPS = 8, 2
# The most steps that are made for the sake of stages: STEPS, doubled so often.
DOUBLED = 7
# Enough for every split: so many images of each class, of which some are held out.
CLASSES, EACH, HELD_OUT = 10, 6, 10
# Where the generators of the whole process stand in the first and the second try.
DISTURBED = (1, 2)
# Functions of a method that the engine names in what it says of them.
HOOKS = ("begin", "modules", "events", "event", "predict", "evaluate", "step")
# What a run has where the tier's base leaves it out.
BASE: Json = {"dataset": "digits", "model": "bn_mlp", "lr": 0.1, "batch": BATCH, "epochs": 1}


@dataclass(frozen=True)
class Choice:
    """Settings of a run that tries a choice of a method's settings, and those of its parents."""

    settings: ArmSettings
    parents: Mapping[str, ArmSettings]
    dataset: Dataset
    arm: str = ""
    # Of an epoch of the arm's own run; of a method by default as many as a batch.
    samples: int | None = None


def try_methods(plan: Plan, name: str = "") -> str:
    """Try a method, or without a name those of the tier's arms; return what was tried.

    Raises a UserError with a line for each mistake, ``file:line: what is wrong``.
    """
    choices = _of_arms(plan, name)
    if name and not choices:
        choices = [_by_default(plan, name)]
    # First, because a step with such a network would blame the method.
    if lines := network_problems((each.settings, each.dataset) for each in _arms(plan, name)):
        raise UserError("\n".join(lines))
    taken = choices if computes_bf16() else _mostly_fp32(choices, 1 if name else 0)
    problems: dict[str, str] = {}
    for choice in taken:
        for line in tried(choice):
            problems.setdefault(line, f" (arm {choice.arm})" if choice.arm else "")
    if problems:
        raise UserError("\n".join(line + arm for line, arm in problems.items()))
    of = f"of the method {name}" if name else "of methods"
    other = sum(one is not given for one, given in zip(taken, choices, strict=True))
    fp32 = f", {other} of them in fp32, since this processor has no bf16" if other else ""
    said = f"{len(choices)}{fp32}): all are good{_stacked(choices) if name else ''}"
    return (
        f"tier {plan.tier}: {STEPS} steps, or as many as stages need, made twice, with each "
        f"choice of the settings {of} ({said}"
    )


def _mostly_fp32(choices: list[Choice], bf16: int) -> list[Choice]:
    """Return the choices with only the first so many of those that ask for bf16 computed in it.

    A processor without bf16 emulates it: convolutions take ten times as long.
    """
    asking = [at for at, each in enumerate(choices) if each.settings["precision"] == "bf16"]
    others = set(asking[bf16:])
    return [_in_fp32(each) if at in others else each for at, each in enumerate(choices)]


def _in_fp32(choice: Choice) -> Choice:
    parents = {key: each | {"precision": "fp32"} for key, each in choice.parents.items()}
    return replace(choice, settings=choice.settings | {"precision": "fp32"}, parents=parents)


def _stacked(choices: list[Choice]) -> str:
    """Say which choices a CPU trains as one program, several runs at once, and why not others."""
    why = [alone for choice in choices if (alone := _alone(choice))]
    said = f"; a CPU stacks the runs of {len(choices) - len(why)} of them"
    reasons = "; ".join(dict.fromkeys(why))
    return f"{said}, others train one by one: {reasons}" if why else said


def _alone(choice: Choice) -> str | None:
    """Return why runs of a choice train one by one on a CPU; None where they are stacked."""
    run = _run(choice)
    if run.program is None:
        return "convolutions, bf16, more than one thread or `CAPTURE = False`"
    try:
        run.begin_epoch()
        Pack([run]).try_()
    except Exception as error:
        return reason(error)
    return None


def _run(choice: Choice) -> Run:
    """Return a new run of a choice, small and on random images."""
    settings = _small(choice.settings, _constant(choice), _enough(choice))
    data = _images(choice.dataset)
    taken = {key: [_untrained(each, data)] for key, each in choice.parents.items()}
    return Run(settings, data, torch.device("cpu"), parents=taken)


def _of_arms(plan: Plan, name: str) -> list[Choice]:
    """Return the choices of settings that the tier's arms make, each from its first arm."""
    choices: dict[str, Choice] = {}
    for choice in _arms(plan, name):
        choices.setdefault(json.dumps(choice.settings["method"], sort_keys=True), choice)
    return list(choices.values())


def _arms(plan: Plan, name: str) -> list[Choice]:
    """Return what each of the tier's arms of a method chooses, of all methods without a name."""
    arms = [plan.arm(*each) for paper in plan.project.selected() for each in plan.part_arms(paper)]
    return [
        Choice(
            arm.settings,
            {key: parent.arm.settings for key, parent in arm.parents.items()},
            plan.project.datasets[arm.settings["dataset"]["name"]],
            arm.id,
            arm.cost["samples"],
        )
        for arm in arms
        if name in ("", arm.settings["method"]["name"])
    ]


def _by_default(plan: Plan, name: str) -> Choice:
    """Return a method's defaults, with whatever they ask for, on the tier's dataset and network."""
    method, datasets = methods.load(name), plan.project.datasets
    chosen = method.chosen({})
    given = BASE | merge([plan.project.tier.base]) | {"method": {"name": name}}
    streams = method.streams(chosen)
    pools = {each.pool.partition(".")[0] for each in streams.values()}
    if pools & {UNLABELLED, OWN}:
        # A pool of its own may be filled with any sample.
        kind = "all" if UNLABELLED in pools else "rest"
        given["split"] = {**given.get("split", {}), "unlabelled": kind}
    if any(each.sampler == "poisson" for each in streams.values()):
        # For gradients of single samples, which batch norm would mix.
        given["model"] = {"name": "dp_mlp"}
    kinds = {kind for each in streams.values() for kind in each.views}
    if "strong" in kinds:
        given["strong"] = given.get("strong") or [{"op": "cutout", "size": 2}]
    if further := kinds - set(VIEWS):
        given["views"] = {kind: [{"op": "cutout", "size": 2}] for kind in further}
    if method.uses_ema(chosen):
        given.setdefault("ema_decay", 0.9)
    plain = {**given, "method": {"name": "supervised"}, "strong": []}
    judges = method.judges(chosen)
    parents = {}
    for parent in method.parents(chosen):
        own = dict(plain)
        if parent in judges:
            # Each has to leave out another part of the samples.
            folds = {"folds": len(judges), "fold": judges.index(parent)}
            own["split"] = {**own.get("split", {}), **folds}
        parents[parent] = resolve(own, datasets)
    return Choice(resolve(given, datasets), parents, datasets[given["dataset"]])


def tried(choice: Choice) -> list[str]:
    """Make the steps of a choice twice; return a line for each mistake."""
    found, weights = Findings(), []
    for seed in DISTURBED:
        with watching.undisturbed():
            watching.disturb(seed)
            weights.append(_steps(choice, found))
    first, second = weights
    if not list(found) and not torch.equal(first, second):
        method = methods.load(choice.settings["method"]["name"])
        found.add(
            _function(method, "step"),
            f"{STEPS} steps computed something else when they were made again: something is drawn, "
            f"or kept between runs, that no seed decides; {watching.REMEDY}, and keep nothing in "
            "the module.",
        )
    return list(found)


def _steps(choice: Choice, found: Findings) -> torch.Tensor:
    """Return the weights after a few steps, or none where a mistake ended them."""
    method = methods.load(choice.settings["method"]["name"])
    try:
        run = _run(choice)
        run.method = replace(method, step=partial(_watched, run, found))
        run.train_epoch()
        weights = run.flat.data.clone()
        # Weights of random images may diverge, which is no mistake.
        with suppress(Diverged):
            run.evaluate_on_the_way()
            run.final()
    except Exception as error:
        text = f"{error}".strip().partition("\n")[0]
        place = watching.place(traceback.extract_tb(error.__traceback__))
        if isinstance(error, UserError):
            # What the engine says of a hook names it.
            hooks = [hook for hook in HOOKS if f"`{hook}`" in text]
            if not watching.in_a_method(place):
                place = _function(method, hooks[0] if hooks else "step")
        else:
            text = f"{type(error).__name__}: {text}"
        found.add(place, text)
        return torch.empty(0)
    return weights


def _function(method: methods.Method, name: str) -> str:
    """Return where a function of a method begins."""
    code = getattr(method, name).__code__
    return f"{code.co_filename}:{code.co_firstlineno}"


def _watched(run: Run, found: Findings, *given: Any) -> Any:
    """Call the step of a run's method under watch."""
    nets, batch, row, settings, generator = given
    method = methods.load(run.method.name)
    undeclared = {
        name: f"`parents` must name {name!r}"
        for name in run.networks.teachers.keys() - set(method.parents(settings))
    }
    averaged = [name for name in nets if name.partition(".")[0] == "ema"]
    if not method.uses_ema(settings):
        undeclared |= dict.fromkeys(averaged, "`uses_ema` must return True")
    with ExitStack() as watch:
        if not method.trains_ema(settings):
            for name in averaged:
                watch.enter_context(watching.training_passes(nets[name], found))
        watch.enter_context(watching.global_draws(found))
        if method.capture:
            watch.enter_context(watching.host_reads(found))
        watch.enter_context(warnings.catch_warnings())
        # What is wrong with it is told by line below.
        warnings.filterwarnings("ignore", "Converting a tensor with requires_grad")
        result = method.step(
            watching.Models(nets, undeclared, found),
            watching.Batch(batch),
            watching.Row(row),
            watching.Settings(settings, method.settings_type(), method.quantities, found),
            generator,
        )
    check_step(method.name, result, run.flat.params)
    return result


def _enough(choice: Choice) -> int:
    """Return how many steps are made: more than a few where the method's stages need them."""
    given = choice.settings["method"]
    method = methods.load(given["name"])
    for steps in (STEPS << times for times in range(DOUBLED + 1)):
        clock, _ = schedules.clock_for(schedules.epoch_batches(BATCH, 1), BATCH * steps)
        with suppress(UserError):
            method.events(method.chosen(given["settings"]), clock)
            return steps
    return STEPS


def _small(given: ArmSettings, values: Mapping[str, float], count: int = STEPS) -> RunSettings:
    """Return a run's settings for so many steps; its method, views and network stay as they are.

    ``values`` are those of its quantities.
    """
    split: dict[str, Any] = {"unlabelled": given["split"]["unlabelled"]}
    if given["split"]["fold"] is not None:
        split |= {key: given["split"][key] for key in ("folds", "fold")}
    asked = max(_level(stream.pool) for stream in _streams(given).values())
    if depth := max(asked - 1, len(given["split"].get("hierarchy") or ())):
        # As many levels as there, of pairs of classes, of pairs of these and so on.
        steps = range(1, depth + 1)
        split["hierarchy"] = [[each >> step for each in range(CLASSES)] for step in steps]
        if asked > 1 or given["split"].get("coarse"):
            split["coarse"] = [EACH for _ in steps]
    split |= {"test": HELD_OUT, "validation": HELD_OUT if given["split"]["validation"] else 0}
    if given["split"].get("noise"):
        # Whatever its kind: classes are others here.
        split["noise"] = {"kind": "symmetric", "rate": 0.5}
    if split["unlabelled"] == "rest" or "coarse" in split:
        # So that others are left.
        split["labels"] = CLASSES * EACH // 3
    own = {
        "split": {**plain(Split()), **split},
        "schedules": {**values, "batch": BATCH},
        "epoch_images": BATCH * count,
        "epochs": 1,
        "evaluations": 1,
        "compile": False,
        "seed": 0,
    }
    return cast(RunSettings, {**given, **own})


def _streams(given: ArmSettings) -> dict[str, methods.Stream]:
    """Return the streams of an arm's method."""
    method = methods.load(given["method"]["name"])
    return method.streams(method.chosen(given["method"]["settings"]))


def _level(pool: str) -> int:
    """Return the level of a hierarchy that a pool is of, 1 where it is of none."""
    return int(pool.partition(".")[2] or 1)


def _constant(choice: Choice) -> dict[str, float]:
    """Return every quantity as it is half way through the arm's own run."""
    specs = dict(choice.settings["schedules"])
    batches = schedules.epoch_batches(specs.pop("batch"), choice.settings["epochs"])
    clock, _ = schedules.clock_for(batches, choice.samples or int(batches.max()))
    return {
        # A range test may have to find its values first.
        name: 0.01
        if schedules.words(spec)
        else float(schedules.column(spec, clock, 0)[clock.updates // 2])
        for name, spec in specs.items()
    }


def _images(dataset: Dataset) -> Data:
    """Return random images of a dataset's shape, the same at every call."""
    count = CLASSES * EACH
    drawn = torch.Generator().manual_seed(0)
    images = torch.randint(
        0, dataset.max_value + 1, (count, *dataset.shape), generator=drawn, dtype=torch.uint8
    )
    half = [128.0 / dataset.max_value] * dataset.shape[0]
    manifest = {"shape": list(dataset.shape), "classes": CLASSES, "n_train": count,
                "mean": half, "std": half, "max_value": dataset.max_value}  # fmt: skip
    return Data(images, torch.arange(count) % CLASSES, manifest)


def _untrained(settings: ArmSettings, data: Data) -> Trained:
    """Return a parent's network as it is drawn, the same in every try."""
    method = methods.load(settings["method"]["name"])
    kept = method.keeps(method.chosen(settings["method"]["settings"]))
    # It is not trained, so any values do.
    small = _small(settings, dict.fromkeys(settings["schedules"], 0.01))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        nets = networks(small, data.shape, data.classes, len(data.labels))
    return Trained(small, handed_on(nets, kept), data.classes)
