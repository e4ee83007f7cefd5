"""What bad configuration gets: one clear message, exit code 2, and nothing run.

Every message begins with the file and the key, and says the value, what is allowed and, where there
is one, the nearest name.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from factories.project import PAPER, TIER, arms, comparison, refused, write

from cyclery.cli.main import main

Json = dict[str, Any]
Change = Callable[[Json, Json], object]
# The change, the file, the key, and what else the message says.
Case = tuple[Change, str, str, list[str]]
ONE, SMOKE = "papers/one.yaml", "tiers/smoke.yaml"
FAST, MAIN = "experiments.main.arms.fast", "experiments.main"
PAIR = "claims.C-1.comparisons[0]"
TEACHER = f"{FAST}.parents.teacher"


def main_experiment(paper: Json) -> Json:
    found: Json = paper["experiments"]["main"]
    return found


def fast(**settings: Any) -> Change:
    """Change the settings of the arm `fast`."""
    return lambda tier, paper: arms(paper)["fast"].update(settings)


def base(**settings: Any) -> Change:
    """Change the settings of the tier."""
    return lambda tier, paper: tier["base"].update(settings)


def split(**settings: Any) -> Change:
    """Change the split of the tier."""
    return lambda tier, paper: tier["base"]["split"].update(settings)


def pair(**settings: Any) -> Change:
    """Change the comparison of the claim."""
    return lambda tier, paper: comparison(paper).update(settings)


def experiment(**settings: Any) -> Change:
    """Change the experiment."""
    return lambda tier, paper: main_experiment(paper).update(settings)


def ranged(**settings: Any) -> Change:
    """Give the experiment a range test, and an arm that asks for it."""
    test = {"low": 0.01, "high": 1, "epochs": 10} | settings
    return both(experiment(range=test), fast(lr="range"))


def both(*changes: Change) -> Change:
    """Make several changes."""
    return lambda tier, paper: [change(tier, paper) for change in changes]


def tuned(**factors: list[float]) -> Change:
    """Tune the experiment."""
    return both(lambda tier, paper: tier.update(tuning=True), experiment(tune=factors))


def taught(seeds: Any = None, **settings: Any) -> Change:
    """Let the arm `fast` learn from `plain`, by a rule for its seeds."""
    parent = "plain" if seeds is None else {"arm": "plain", "seeds": seeds}
    return fast(**{"method": "kd", "parents": {"teacher": parent}, **settings})


def kd(**settings: Any) -> Change:
    """Let it do so with these settings of the method."""
    return taught(method={"name": "kd", **settings})


KEYS: dict[str, Case] = {
    "unknown key in a tier": (
        base(epoch=3), SMOKE, "base: unknown key 'epoch'", ["Did you mean 'epochs'?", "Allowed:"],
    ),
    "unknown key of the tier itself": (
        lambda tier, paper: tier.update(seed=3), SMOKE, "unknown key 'seed'", ["'seeds'"],
    ),
    "unknown key in an arm": (
        fast(learning_rate=1), ONE, f"{FAST}: unknown key 'learning_rate'", ["Allowed: augment,"],
    ),
    "unknown key of a paper": (
        lambda tier, paper: paper.update(titel="x"), ONE, "unknown key 'titel'", ["'title'"],
    ),
    "unknown key of a claim": (
        lambda tier, paper: paper["claims"]["C-1"].update(sources="x"),
        ONE, "claims.C-1: unknown key 'sources'", ["Did you mean 'source'?"],
    ),
    "unknown key of a split": (
        split(label=3), SMOKE, "base.split: unknown key 'label'", ["Did you mean 'labels'?"],
    ),
    "a key that is no text": (
        lambda tier, paper: tier["base"].update({7: 1}), SMOKE, "base: unknown key 7", ["Allowed"],
    ),
    "a name that is no text": (
        lambda tier, paper: arms(paper).update({True: {}}),
        ONE, "experiments.main.arms.1: must be text (found True)", ["quotes"],
    ),
    "a key that is missing": (
        lambda tier, paper: paper.pop("title"), ONE, "title: missing", ["no default"],
    ),
}  # fmt: skip
TYPES: dict[str, Case] = {
    "text for a number": (
        lambda tier, paper: tier.update(seeds="many"),
        SMOKE, "seeds: must be a whole number (found 'many')", [],
    ),
    "a number in quotes": (
        base(epochs="5"), SMOKE, "base.epochs: must be a whole number (found '5')", ["the quotes"],
    ),
    "a part of an epoch": (
        base(epochs=2.5), SMOKE, "base.epochs: must be a whole number (found 2.5)", [],
    ),
    "true for a number": (
        base(epochs=True), SMOKE, "base.epochs: must be a whole number (found True)", [],
    ),
    "a number for true": (
        base(deterministic=1), SMOKE, "base.deterministic: must be true or false (found 1)", [],
    ),
    "a number for text": (
        lambda tier, paper: paper.update(arxiv=2202.08835),
        ONE, "arxiv: must be text (found 2202.08835)", ["quotes"],
    ),
    "text for a list": (
        lambda tier, paper: paper.update(deviations="none"),
        ONE, "deviations: must be a list (found 'none')", [],
    ),
    "a list for keys": (
        lambda tier, paper: paper.update(experiments=[]),
        ONE, "experiments: must be keys and values (found [])", [],
    ),
    "text for an arm": (
        lambda tier, paper: arms(paper).update(fast="plain"),
        ONE, f"{FAST}: must be keys and values (found 'plain')", [],
    ),
    "another word": (
        base(precision="bf61"),
        SMOKE, "base.precision: must be one of bf16, fp32 (found 'bf61')", ["mean 'bf16'?"],
    ),
    "a network that is a number": (
        base(model=18), SMOKE, "base.model: must be a name, or keys and values", ["(found 18)"],
    ),
    "a network whose name is a list": (
        base(model={"name": ["wrn"]}), SMOKE, "base.model: unknown model ['wrn']", ["There are:"],
    ),
    "an augmentation whose name is a list": (
        base(augment=[{"op": ["flip"]}]), SMOKE, "base.augment[0]", ["['flip']", "flip"],
    ),
    "augmentations that are no list": (
        base(augment={"op": "flip"}), SMOKE, "base.augment: must be a list", [],
    ),
    "an augmentation without a name": (
        base(augment=["flip"]), SMOKE, "base.augment[0]: must be a mapping", ["'op'"],
    ),
    "a rate that is a list": (
        base(lr=[0.1]), SMOKE, "base.lr: must be a number, or keys", ["[0.1]", "`kind`"],
    ),
    "an imbalance of another kind": (
        split(imbalance={"kind": "tail", "ratio": 0.1}),
        SMOKE, "base.split.imbalance: must be keys and values with `kind`", ["long_tail"],
    ),
    "an imbalance of three numbers": (
        split(imbalance={"kind": "two_level", "ratio": [5, 3, 1]}),
        SMOKE, "base.split.imbalance.ratio: must be a list of 2, each element", ["[5, 3, 1]"],
    ),
    "a comparison with a number": (
        pair(against=3), ONE, f"{PAIR}.against: must be an arm, or keys", ["(found 3)"],
    ),
    "a comparison with a misspelt control": (
        pair(against={"bestof": ["plain"]}),
        ONE, f"{PAIR}.against: unknown key 'bestof'", ["Did you mean 'best_of'?"],
    ),
}  # fmt: skip
NAMES: dict[str, Case] = {
    "unknown method": (
        fast(method="supervized"),
        ONE, f"{FAST}.method: unknown method 'supervized'", ["Did you mean 'supervised'?"],
    ),
    "unknown method in a tier": (
        base(method="supervized"), SMOKE, "base.method: unknown method 'supervized'", [],
    ),
    "unknown setting of a method": (
        fast(method={"name": "supervised", "temprature": 2}),
        ONE, f"{FAST}.method: unknown key 'temprature'", ["'temperature'", "label_smoothing"],
    ),
    "unknown dataset": (
        base(dataset="digitz"), SMOKE, "base.dataset: unknown dataset 'digitz'", ["'digits'?"],
    ),
    "unknown network": (
        base(model="resnet19"), SMOKE, "base.model: unknown model 'resnet19'", ["'resnet18'?"],
    ),
    "unknown setting of a network": (
        base(model={"name": "bn_mlp", "hiden": [8]}),
        SMOKE, "base.model: unknown key 'hiden'", ["Did you mean 'hidden'?"],
    ),
    "a network of no depth": (
        base(model={"name": "resnet", "depth": 21}),
        SMOKE, "base.model resnet.depth: must be 6n + 2", ["found 21", "and 1 more arm"],
    ),
    "unknown network of `plan`": (
        lambda tier, paper: tier.update(images_per_second={"mlp": 10}),
        SMOKE, "images_per_second: unknown model 'mlp'", ["bn_mlp"],
    ),
    "a network without a name": (
        lambda tier, paper: tier["base"].update(model={"hidden": [8]}),
        SMOKE, "base.model: `name` is missing", ["There are:", "bn_mlp"],
    ),
    "unknown optimiser": (
        fast(optimiser="adan"), ONE, f"{FAST}.optimiser: unknown optimiser 'adan'", ["'adam'?"],
    ),
    "unknown setting of an optimiser": (
        fast(optimiser={"name": "sgd", "nestrov": True}),
        ONE, f"{FAST}.optimiser: unknown key 'nestrov'", ["Did you mean 'nesterov'?"],
    ),
    "unknown augmentation": (
        fast(augment=[{"op": "flop"}]),
        ONE, f"{FAST}.augment[0]: unknown op 'flop'", ["Did you mean 'flip'?"],
    ),
    "an augmentation larger than the image": (
        fast(augment=[{"op": "shift", "size": 8}]),
        ONE, f"{FAST}.augment[0] shift.size: must be below", ["8 pixels"],
    ),
    "unknown schedule": (
        fast(lr={"kind": "cosin", "peak": 0.1}),
        ONE, f"{FAST}.lr.kind: unknown schedule 'cosin'", ["Did you mean 'cosine'?"],
    ),
    "unknown key of a schedule": (
        fast(lr={"kind": "cosine", "peek": 0.1}),
        ONE, f"{FAST}.lr: unknown key 'peek'", ["Did you mean 'peak'?"],
    ),
    "key of a schedule missing": (
        fast(lr={"kind": "cosine"}), ONE, f"{FAST}.lr.peak: missing", [],
    ),
    "unknown word for a rate": (
        fast(lr="rnge"), ONE, f"{FAST}.lr: unknown word 'rnge'", ["Did you mean 'range'?"],
    ),
    "claim about an arm that does not exist": (
        pair(arm="fasst"),
        ONE, f"{PAIR}.arm: unknown arm 'fasst' in 'main'", ["Did you mean 'fast'?"],
    ),
    "claim against an arm that does not exist": (
        pair(against="plane"), ONE, f"{PAIR}.against: unknown arm 'plane' in 'main'", ["'plain'?"],
    ),
    "claim against the best of arms that do not exist": (
        pair(against={"best_of": ["plain", "plane"]}),
        ONE, f"{PAIR}.against: unknown arm 'plane' in 'main'", ["'plain'?"],
    ),
    "claim about an experiment that does not exist": (
        pair(experiment="mian"),
        ONE, f"{PAIR}.experiment: unknown experiment 'mian'", ["Did you mean 'main'?"],
    ),
    "unknown metric": (
        pair(metric="test_acuracy"),
        ONE, f"{PAIR}.metric: unknown metric 'test_acuracy'", ["Did you mean 'test_accuracy'?"],
    ),
    "unknown metric of the other side": (
        pair(against_metric="accuracy"),
        ONE, f"{PAIR}.against_metric: unknown metric 'accuracy'", ["test_accuracy"],
    ),
    "a curve that no run has": (
        pair(metric="test_ece@0.5"),
        ONE, f"{PAIR}.metric: unknown curve 'test_ece'", ["There are: ", " test_accuracy,"],
    ),
    "a curve outside the run": (
        pair(metric="test_accuracy@1.5"),
        ONE, f"{PAIR}.metric: 'test_accuracy@1.5' needs a fraction", ["from 0 to 1"],
    ),
    "a figure of the range test for a trained arm": (
        pair(metric="log10_max"), ONE, f"{PAIR}.metric: unknown metric 'log10_max'", [],
    ),
    "a tier that does not exist": (
        experiment(tiers={"smoke": {}, "dask": {}}),
        ONE, f"{MAIN}.tiers.dask: unknown tier 'dask'", ["There are: smoke"],
    ),
    "a tier of a claim that does not exist": (
        lambda tier, paper: paper["claims"]["C-1"].update(not_run={"papr": "-"}),
        ONE, "claims.C-1.not_run: unknown tier 'papr'", ["There are: all, smoke"],
    ),
    "a tier of a paper's reason that does not exist": (
        both(
            lambda tier, paper: paper.update(not_run={"smok": "-"}),
            experiment(tiers={"smoke": {"arms": ["plain"]}}),
        ),
        ONE, "not_run: unknown tier 'smok'", ["Did you mean 'smoke'?"],
    ),
    "a paper's reason that no claim needs": (
        lambda tier, paper: paper.update(not_run={"smoke": "-"}),
        ONE, "not_run.smoke: every claim is tested there or has a reason", ["delete this one"],
    ),
    "seeds for a tier that does not exist": (
        lambda tier, paper: paper["claims"]["C-1"].update(seeds={"smok": 3}),
        ONE, "claims.C-1.seeds: unknown tier 'smok'", ["Did you mean 'smoke'?"],
    ),
    "an arm of a tier that does not exist": (
        experiment(tiers={"smoke": {"arms": ["plan", "fast"]}}),
        ONE, f"{MAIN}.tiers.smoke.arms: unknown arm 'plan'", ["Did you mean 'plain'?"],
    ),
    "an arm left out that does not exist": (
        experiment(tiers={"smoke": {"not_run": {"plan": "-"}}}),
        ONE, f"{MAIN}.tiers.smoke.not_run: unknown arm 'plan'", ["Did you mean 'plain'?"],
    ),
    "an arm that runs and is left out": (
        experiment(tiers={"smoke": {"not_run": {"plain": "-"}}}),
        ONE, f"{MAIN}.tiers.smoke.not_run: the arm 'plain' runs here", [],
    ),
    "unknown parent": (
        fast(parents={"teacher": "main/plane"}),
        ONE, f"{FAST}.parents.teacher: unknown arm 'plane' in 'one/main'", ["mean 'plain'?"],
    ),
    "parent in an unknown experiment": (
        fast(parents={"teacher": "mian/plain"}),
        ONE, f"{FAST}.parents.teacher: unknown experiment 'mian'", ["'main'?"],
    ),
    "parent in an unknown paper": (
        fast(parents={"teacher": "two/main/plain"}),
        ONE, f"{FAST}.parents.teacher: unknown paper 'two'", ["There are: one"],
    ),
    "a parent that is a path": (
        fast(parents={"teacher": "../../main/plain"}),
        ONE, f"{FAST}.parents.teacher: must be `arm`, `experiment/arm`", ["../../main/plain"],
    ),
    "init that is no parent": (
        fast(init="plain", parents={"plan": "plain"}),
        ONE, f"{FAST}.init: 'plain' is not a parent", ["Did you mean 'plan'?"],
    ),
    "tuning what cannot be tuned": (
        experiment(tune={"epochs": [1, 2]}),
        ONE, f"{MAIN}.tune: cannot tune 'epochs'", ["Quantities: clip_norm, lr,"],
    ),
    "tuning without the value as declared": (
        experiment(tune={"lr": [0.5, 2]}),
        ONE, f"{MAIN}.tune.lr: must be different factors, 1 among them", ["[0.5, 2.0]"],
    ),
    "tuning what is not set": (
        tuned(clip_norm=[1, 2]),
        ONE, f"{MAIN}.tune.clip_norm: is not set", ["one/main/plain and 1 more arm"],
    ),
}  # fmt: skip
NUMBERS: dict[str, Case] = {
    "no epochs": (base(epochs=0), SMOKE, "base.epochs: must be at least 1 (found 0)", []),
    "epochs without end": (base(epochs=10**9), SMOKE, "base.epochs: must be at most 100000", []),
    "negative seeds": (
        lambda tier, paper: tier.update(seeds=-1),
        SMOKE, "seeds: must be at least 1 (found -1)", [],
    ),
    "a batch larger than the split": (
        base(batch=128),
        SMOKE, "base.batch: must be at most 100, the labelled samples", ["found 128", "1 more arm"],
    ),
    "a schedule of batches larger than the split": (
        fast(batch={"kind": "cycle", "easy": 20, "hard": 200}),
        ONE, f"{FAST}.batch: must be at most 100", ["found 200", "(arm one/main/fast)"],
    ),
    "a batch of nothing": (base(batch=0), SMOKE, "base.batch.value: must", ["at least 1", "0)"]),
    "a part of a sample": (
        base(batch=12.5), SMOKE, "base.batch: must be a whole number (found 12.5)", [],
    ),
    "a batch that needs the clock": (
        base(batch={"kind": "cosine", "peak": 10}),
        SMOKE, "base.batch.kind: must be one of constant, cycle", ["(found 'cosine')"],
    ),
    "more labels than there are": (
        split(labels=1600), SMOKE, "base.split.labels: must ask for at most 1497 of 1797 training",
        ["(found 1600)", "1 more arm"],
    ),
    "more labels of a class than there are": (
        split(labels=None, per_class=180), SMOKE, "base.split.per_class: must ", ["(found 180"],
    ),
    "more to validate with than there is": (
        split(validation=1700), SMOKE, "base.split.validation: must be at most 1597", ["1700"],
    ),
    "labels in two ways": (
        fast(split={"per_class": 10}), SMOKE, "base.split.labels: must be null beside `per_class`",
        ["(found 100)"],
    ),
    "no test set": (split(test=None), SMOKE, "base.split.test: must be below", ["official test"]),
    "no validation for a range test": (
        both(split(validation=0), ranged()),
        SMOKE, "base.split.validation: must be above 0 for a range test", [],
    ),
    "no validation for tuning": (
        both(split(validation=0), tuned(lr=[1, 2])),
        SMOKE, "base.split.validation: must be above 0 where arms are tuned", [],
    ),
    "no validation for a choice": (
        both(split(validation=0), pair(against={"best_of": ["plain"]})),
        ONE, f"{PAIR}: 'val_accuracy' needs a validation split", [],
    ),
    "momentum of one": (
        base(momentum=1), SMOKE, "base.momentum: must be below 1 (found 1.0)", [],
    ),
    "momentum that rises to one": (
        fast(momentum={"kind": "linear", "start": 0.5, "end": 1.5}),
        ONE, f"{FAST}.momentum.end: must be below 1 (found 1.5)", [],
    ),
    "a magnitude that is too large": (
        base(magnitude=30), SMOKE, "base.magnitude: must be at most 10 (found 30.0)", [],
    ),
    "a temperature of nothing": (
        fast(method={"name": "supervised", "temperature": {"kind": "cycle", "easy": 0, "hard": 2}}),
        ONE, f"{FAST}.method.temperature.easy: must be above 0.0 (found 0.0)", [],
    ),
    "a beta beyond its limits": (
        fast(optimiser={"name": "adam", "beta2": 1.0}), ONE, f"{FAST}.optimiser", ["beta2", "1.0"],
    ),
    "settings that exclude each other": (
        fast(optimiser={"name": "sgd", "dampening": 0.5}),
        ONE, f"{FAST}.optimiser.dampening: 0.5 is not allowed", ["nesterov"],
    ),
    "a range test that falls": (
        ranged(low=3), ONE, f"{MAIN}.range.low: must be below `high`, 1.0 (found 3.0)", [],
    ),
    "an exponential sweep from zero": (
        ranged(low=0, sweep="exponential"), ONE, f"{MAIN}.range.low: must be above 0", [],
    ),
    "a range test that is too short": (
        ranged(epochs=2), ONE, f"{MAIN}.range.epochs: 4 updates are too few", ["at least 10"],
    ),
    "lr range without a range test": (
        fast(lr="range"), ONE, f"{FAST}.lr: takes its bounds from a range test", ["declares none"],
    ),
    "bounds of the range test elsewhere": (
        fast(weight_decay={"kind": "constant", "value": "range.max"}),
        ONE, f"{FAST}.weight_decay: range.base and range.max are learning rates", ["only `lr`"],
    ),
    "a warm-up longer than the run": (
        fast(lr={"kind": "cosine", "peak": 1, "warmup_epochs": 9}),
        ONE, f"{FAST}.lr.warmup_epochs: 9 of 5 epochs", [],
    ),
    "a cool-down longer than the run": (
        fast(weight_decay={"kind": "cycle", "easy": 1, "hard": 2, "cooldown": 5}),
        ONE, f"{FAST}.weight_decay.cooldown: 5 leaves none of 5 epochs", [],
    ),
    "a wait longer than the run": (
        fast(method={
            "name": "soteacher",
            "consistency_weight": {"kind": "epoch_ramp", "end": 1, "wait": 50, "shape": "step"},
        }),
        ONE, f"{FAST}.method.consistency_weight.wait: 50 leaves none of 5 epochs", [],
    ),
    "one over a schedule that reaches nothing": (
        fast(lr={"kind": "reciprocal", "of": {"kind": "cycle", "easy": 1, "hard": 0}}),
        ONE, f"{FAST}.lr.of:", ["must stay above 0"],
    ),
    "a schedule that turns negative": (
        fast(lr={"kind": "cycle", "easy": 0, "hard": 1, "cooldown": 2, "clamp": False}),
        ONE, f"{FAST}.lr: must be at least 0.0 and finite at every update (reaches -",
        ["at update 7 of 10); change the values, defaults or factors"],
    ),
    "batches that turn negative": (
        fast(batch={"kind": "cycle", "easy": 1, "hard": 50, "cooldown": 2, "clamp": False}),
        ONE, f"{FAST}.batch: must be at least 1 in every epoch (reaches -", ["or clamp it"],
    ),
    "a product that leaves the limits of momentum": (
        fast(momentum={"kind": "product", "of": [0.9, {"kind": "cycle", "easy": 1, "hard": 2}]}),
        ONE, f"{FAST}.momentum: must be at least 0.0 and below 1 and finite at every update",
        ["(reaches 1.35 at update 3 of 10)"],
    ),
    "a factor above one": (
        fast(magnitude={"kind": "piecewise", "value": 9, "drops": [0.5], "by": 2}),
        ONE, f"{FAST}.magnitude: must be", ["at most 10", "(reaches 18 at update 6 of 10)"],
    ),
    "a rate that begins above its peak": (
        fast(ema_decay={"kind": "one_cycle", "peak": 0.9, "start_div": 0.5}),
        ONE, f"{FAST}.ema_decay: must be", ["at most 1", "(reaches 1.8 at update 1 of 10)"],
    ),
    "a rate without end": (
        fast(lr={"kind": "exponential", "start": 1, "gamma": 1.0e+200}),
        ONE, f"{FAST}.lr: must be at least 0.0 and finite", ["(reaches 1e+200", "precision inf,"],
    ),
    "a weight of experts in a product": (
        taught(parents={"expert-1": "plain"},
               method={"name": "ces_kd", "assignment": "single",
                       "soft": {"kind": "product", "of": [0.9, 2]}}),
        ONE, f"{FAST}.method.soft: must be at least 0.0 and at most 1.0 and finite",
        ["(reaches 1.8 at update 1 of 10)"],
    ),
    "a temperature in a warm-up from its default": (
        kd(temperature={"kind": "cosine", "peak": 4, "end": 1, "warmup_epochs": 2}),
        ONE, f"{FAST}.method.temperature: must be above 0 and finite",
        ["(reaches 0 at update 1 of 10)"],
    ),
    "a temperature that starts at its default": (
        kd(temperature={"kind": "ramp", "end": 4}),
        ONE, f"{FAST}.method.temperature: must be above 0 and finite", ["(reaches 0 at update 1"],
    ),
    "a temperature in a product of nothing": (
        kd(temperature={"kind": "product", "of": [4, {"kind": "decay", "high": 1, "low": 0,
                                                      "over": 0.5}]}),
        ONE, f"{FAST}.method.temperature: must be above 0", ["(reaches 0 at update 6 of 10)"],
    ),
    "a temperature that single precision takes for nothing": (
        kd(temperature=1.0e-50),
        ONE, f"{FAST}.method.temperature: must be above 0",
        ["(reaches 1e-50, in single precision 0, at update 1 of 10)"],
    ),
    "randaugment without a magnitude": (
        fast(augment=[{"op": "randaugment"}]), ONE, f"{FAST}.augment: randaugment", ["`magnitude`"],
    ),
    "something required missing": (
        lambda tier, paper: tier["base"].pop("epochs"),
        SMOKE, "base.epochs: missing", ["no default", "one/main/plain and 1 more arm"],
    ),
}  # fmt: skip
RATE = {"kind": "cosine", "peak": 1}
NEGATIVE: dict[str, Case] = {
    "a rate": (fast(lr=-0.1), ONE, f"{FAST}.lr", ["-0.1", "at least 0"]),
    "momentum": (base(momentum=-0.9), SMOKE, "base.momentum", ["-0.9"]),
    "a decay": (base(weight_decay=-1e-4), SMOKE, "base.weight_decay", ["-0.0001"]),
    "a decay of norms": (base(weight_decay_norm=-1), SMOKE, "base.weight_decay_norm", ["-1"]),
    "a bound of gradients": (base(clip_norm=-1), SMOKE, "base.clip_norm", ["-1"]),
    "a batch": (base(batch=-50), SMOKE, "base.batch", ["-50"]),
    "a magnitude": (base(magnitude=-1), SMOKE, "base.magnitude", ["-1"]),
    "inside a schedule": (
        fast(weight_decay={"kind": "cycle", "easy": -1e-4, "hard": 1e-3}),
        ONE, f"{FAST}.weight_decay.easy", ["-0.0001"],
    ),
    "inside a product": (
        fast(lr={"kind": "product", "of": [RATE, -1]}), ONE, f"{FAST}.lr.of[1]", ["-1"],
    ),
    "inside a stage": (
        fast(lr={"kind": "staged", "stages": [{"fraction": 1, "schedule": {**RATE, "peak": -1}}]}),
        ONE, f"{FAST}.lr.stages[0].schedule.peak", ["-1"],
    ),
    "a quantity of a method": (
        fast(method={"name": "cyclical_focal", "gamma_hc": -1}),
        ONE, f"{FAST}.method.gamma_hc", ["-1"],
    ),
    "a setting of a method": (
        fast(method={"name": "supervised", "label_smoothing": -0.1}),
        ONE, f"{FAST}.method.label_smoothing: must be at least 0", ["(found -0.1)"],
    ),
    "a range test": (ranged(low=-1), ONE, f"{MAIN}.range.low: must be at least 0.0", ["-1"]),
    "a factor of tuning": (
        experiment(tune={"lr": [-1, 1]}), ONE, f"{MAIN}.tune.lr[0]: must be above 0.0", ["-1"],
    ),
    "a speed": (
        lambda tier, paper: tier.update(images_per_second={"bn_mlp": -1}),
        SMOKE, "images_per_second.bn_mlp: must be at least 0.001", ["-1"],
    ),
    "a margin": (pair(margin=-1), ONE, f"{PAIR}.margin: must be at least 0.0 (found -1", []),
    "not a number": (fast(lr=float("nan")), ONE, f"{FAST}.lr: must be a number", ["nan"]),
    "without end": (
        fast(lr={"kind": "cosine", "peak": float("inf")}),
        ONE, f"{FAST}.lr.peak: must be a number", ["inf", "at least 0"],
    ),
    "not a number for a limit": (
        ranged(high=float("inf")), ONE, f"{MAIN}.range.high: must be a finite number", ["inf"],
    ),
    "not a number for a setting": (
        fast(optimiser={"name": "adam", "eps": float("nan")}),
        ONE, f"{FAST}.optimiser.eps: must be a finite number (found nan)", [],
    ),
}  # fmt: skip
CLAIMS: dict[str, Case] = {
    "a control chosen on the test set": (
        pair(against={"best_of": ["plain"], "by": "test_accuracy"}),
        ONE, f"{PAIR}.against.by: 'test_accuracy' would choose on the test set", ["val_accuracy"],
    ),
    "a control chosen by its time": (
        pair(against={"best_of": ["plain"], "by": "seconds"}),
        ONE, f"{PAIR}.against.by: unknown metric 'seconds'", ["val_accuracy"],
    ),
    "a choice that favours the claim": (
        pair(against={"best_of": ["plain"]}, lower_is_better=True),
        ONE, f"{PAIR}.against: `best_of` is chosen by the same runs", ["Name the arm"],
    ),
    "a choice that favours a claim about a loss": (
        pair(against={"best_of": ["plain"]}, metric="test_nll"),
        ONE, f"{PAIR}.against: `best_of` is chosen by the same runs", [],
    ),
    "a choice in what is taken from a difference": (
        pair(interaction={"against": {"best_of": ["plain"]}}),
        ONE, f"{PAIR}.interaction.against: `best_of` is chosen by the same runs", [],
    ),
    "a choice that a second difference takes over": (
        pair(against={"best_of": ["plain"]}, interaction={"metric": "val_accuracy"}),
        ONE, f"{PAIR}.interaction.against: `best_of` is chosen by the same runs", [],
    ),
    "the best of nothing": (
        pair(against={"best_of": []}),
        ONE, f"{PAIR}.against.best_of: must have at least 1 element", [],
    ),
    "an arm compared with itself": (
        pair(against="fast"), ONE, f"{PAIR}.against: 'fast' would be compared with itself", [],
    ),
    "equivalence without a margin": (
        pair(test="equivalence"),
        ONE, f"{PAIR}.margin: must be above 0 for the test 'equivalence' (found 0.0)", [],
    ),
    "unequal budgets without a reason": (
        fast(epochs=10),
        ONE, f"{PAIR}: the arms see different numbers of samples (fast 1,000, plain 500)",
        ["`unequal_budget`"],
    ),
    "a cycle of parents": (
        both(
            fast(parents={"teacher": "plain"}),
            lambda tier, paper: arms(paper)["plain"].update(parents={"assistant": "fast"}),
        ),
        ONE, f"{FAST}.parents: a run cannot descend from itself",
        ["one/main/fast -> one/main/plain -> one/main/fast"],
    ),
    "an arm that is its own parent": (
        fast(parents={"teacher": "fast"}), ONE, f"{FAST}.parents: a run cannot descend", [],
    ),
    "an arm name that is a path": (
        lambda tier, paper: arms(paper).update({"../../etc": {}}),
        ONE, "experiments.main.arms.../../etc: must begin with a letter", ["'../../etc'"],
    ),
    "an experiment name with a space": (
        lambda tier, paper: paper["experiments"].update({"my main": main_experiment(paper)}),
        ONE, "experiments.my main: must begin with a letter", ["letters, digits"],
    ),
    "a claim name for the shell": (
        lambda tier, paper: paper["claims"].update({"C;rm": paper["claims"]["C-1"]}),
        ONE, "claims.C;rm: must begin with a letter", ["'C;rm'"],
    ),
    "an arm that would hide the range test": (
        lambda tier, paper: arms(paper).update({"range-test": {}}),
        ONE, "experiments.main.arms.range-test: this name means the range test", [],
    ),
    "an experiment named like a claim": (
        lambda tier, paper: paper["experiments"].update({"c-1": dict(main_experiment(paper))}),
        ONE, "claims.C-1: has the name of experiments.c-1; rename one", [],
    ),
    "an arm that stands twice": (
        experiment(tiers={"smoke": {"arms": ["plain", "fast", "plain"]}}),
        ONE, f"{MAIN}.tiers.smoke.arms: the arm 'plain' stands twice", [],
    ),
    "a claim without a test or a reason": (
        lambda tier, paper: paper["claims"].update({"C-2": {"statement": "-"}}),
        ONE, "claims.C-2: needs `comparisons`, or `not_run`", [],
    ),
    "a paper without claims": (
        lambda tier, paper: paper.update(claims={}),
        ONE, "claims: must have at least 1 element", [],
    ),
    "a range test that no arm asks for": (
        both(
            experiment(range={"low": 0.1, "high": 1}),
            pair(arm="range-test", against={"constant": 0}, metric="log10_max"),
        ),
        ONE, f"{PAIR}: no arm of 'main' asks for its range test", ["`lr: range`"],
    ),
}  # fmt: skip


def started(**settings: Any) -> Change:
    """Let the arm `fast` start from `plain`."""
    return fast(**{"parents": {"teacher": "plain"}, "init": "teacher", **settings})


PARENTS: dict[str, Case] = {
    "a teacher of another dataset": (
        taught(dataset="fashion-mnist", split={"test": None}),
        ONE, f"{TEACHER}: one/main/plain is trained on digits, this arm on fashion-mnist",
        ["same dataset, classes and shape of images"],
    ),
    "a start from another dataset": (
        started(dataset="fashion-mnist", split={"test": None}),
        ONE, f"{TEACHER}: one/main/plain is trained on digits", [],
    ),
    "a teacher that was trained on other test samples": (
        taught(split={"test": 150}),
        ONE, f"{TEACHER}: one/main/plain has split.test 200, this arm 150",
        ["same test and validation samples"],
    ),
    "a teacher that was trained on validation samples": (
        taught(split={"validation": 50}),
        ONE, f"{TEACHER}: one/main/plain has split.validation 100, this arm 50", [],
    ),
    "a teacher that was trained on samples chosen in another way": (
        taught(split={"choose": "first"}),
        ONE, f"{TEACHER}: one/main/plain has split.choose random, this arm first", [],
    ),
    "a teacher with other first samples": (
        both(split(choose="first"), taught(split={"labels": 80})),
        ONE, f"{TEACHER}: one/main/plain has split.labels 100, this arm 80", [],
    ),
    "a teacher whose seeds share no split": (
        taught(split={"share": 2}),
        ONE, f"{TEACHER}: seeds of one/main/plain share their splits by 1, of this arm by 2",
        ["tested on; set split.share 2 there."],
    ),
    "students of one teacher with splits of their own": (
        taught({"nested": 3}), ONE, f"{TEACHER}: seeds of", ["set split.share 3 here."],
    ),
    "students of one teacher that share splits otherwise": (
        taught({"nested": 2}, split={"share": 3}),
        ONE, f"{TEACHER}: seeds of one/main/plain share their splits by 1, of this arm by 3",
        ["set split.share 2 here."],
    ),
    "members with splits of their own": (
        taught({"members": 5}), ONE, f"{TEACHER}: seeds of", ["set split.share 5 there."],
    ),
    "no teacher": (
        fast(method="kd"),
        ONE, f"{FAST}.parents: the method 'kd' needs a parent 'teacher'", ["Parents: none."],
    ),
    "a misspelt teacher": (
        fast(method="kd", parents={"teecher": "plain"}),
        ONE, f"{FAST}.parents: the method 'kd' needs a parent 'teacher'",
        ["Did you mean 'teecher'? Parents: teecher."],
    ),
    "no expert": (
        fast(method="ces_kd", parents={"expert-1": "plain"}),
        ONE, f"{FAST}.parents: the method 'ces_kd' needs a parent 'expert-2'", ["expert-1"],
    ),
    "no network of a fold": (
        fast(method={"name": "ces_kd", "experts": 2},
             parents={"expert-1": "plain", "expert-2": "plain"}),
        ONE, f"{FAST}.parents: the method 'ces_kd' needs a parent 'fold-0'", [],
    ),
    "a parent that nothing uses": (
        fast(parents={"teacher": "plain"}),
        ONE, f"{TEACHER}: nothing uses it: the method 'supervised' does not (it takes none)",
        ["nor does `init`"],
    ),
    "a second parent that nothing uses": (
        taught(parents={"teacher": "plain", "refernce": "plain"}),
        ONE, f"{FAST}.parents.refernce: nothing uses it: the method 'kd' does not",
        ["(it takes teacher)", "Did you mean 'reference'?"],
    ),
    "an empty ensemble": (
        taught({"members": 0}),
        ONE, f"{TEACHER}.seeds.members: must be at least 1 (found 0)", [],
    ),
    "an ensemble of a part": (
        taught({"members": 2.5}),
        ONE, f"{TEACHER}.seeds.members: must be a whole number (found 2.5)", [],
    ),
    "a teacher for one student": (
        taught({"nested": 1}), ONE, f"{TEACHER}.seeds.nested: must be at least 2 (found 1)", [],
    ),
    "two rules for seeds": (
        taught({"nested": 2, "members": 2}),
        ONE, f"{TEACHER}.seeds: must have one of the keys `nested` and `members`", [],
    ),
    "no rule for seeds": (
        taught({}), ONE, f"{TEACHER}.seeds: must have one of the keys `nested` and `members`", [],
    ),
    "an unknown rule for seeds": (
        taught({"member": 2}),
        ONE, f"{TEACHER}.seeds: unknown key 'member'", ["Did you mean 'members'?"],
    ),
    "an unknown word for seeds": (
        taught("othr"),
        ONE, f"{TEACHER}.seeds: must be one of other, same (found 'othr')", ["mean 'other'?"],
    ),
    "a number for seeds": (
        taught(2), ONE, f"{TEACHER}.seeds: must be same, other, or a mapping", ["(found 2)"],
    ),
    "an unknown key of a parent": (
        fast(method="kd", parents={"teacher": {"arm": "plain", "seed": "other"}}),
        ONE, f"{TEACHER}: unknown key 'seed'", ["Did you mean 'seeds'?"],
    ),
    "a parent without an arm": (
        fast(method="kd", parents={"teacher": {"seeds": "other"}}),
        ONE, f"{TEACHER}.arm: missing", [],
    ),
    "a parent that is a number": (
        fast(method="kd", parents={"teacher": 3}),
        ONE, f"{TEACHER}: must be keys and values (found 3)", [],
    ),
    "a temperature of nothing": (
        kd(temperature=0), ONE, f"{FAST}.method.temperature: must be above 0 (found 0.0)", [],
    ),
    "a temperature below nothing": (
        kd(temperature=-4), ONE, f"{FAST}.method.temperature", ["-4"],
    ),
    "a temperature that falls to nothing": (
        kd(temperature={"kind": "linear", "start": 4, "end": 0}),
        ONE, f"{FAST}.method.temperature.end: must be above 0 (found 0.0)", [],
    ),
    "a temperature of nothing for experts": (
        fast(method={"name": "ces_kd", "temperature": 0}),
        ONE, f"{FAST}.method.temperature: must be above 0 (found 0.0)", [],
    ),
    "a weight below nothing": (
        kd(soft=-0.1), ONE, f"{FAST}.method.soft", ["-0.1"],
    ),
    "a weight of experts above one": (
        fast(method={"name": "ces_kd", "soft": 1.5}),
        ONE, f"{FAST}.method.soft: must be at least 0.0 and at most 1.0 (found 1.5)", [],
    ),
    "labels of mixtures": (
        kd(mixup=1.0), ONE, f"{FAST}.method.mixup: a mixture has no hard label", ["set hard: 0"],
    ),
    "a mixture of nothing": (
        kd(mixup=0, hard=0), ONE, f"{FAST}.method.mixup: must be above 0.0 (found 0)", [],
    ),
    "unlabelled samples whose right class is asked for": (
        kd(targets="permuted", inputs="both"),
        ONE, f"{FAST}.method.targets: permuted needs the right class", ["(found both)"],
    ),
    "mixtures whose right class is asked for": (
        kd(targets="permuted", mixup=1.0, hard=0),
        ONE, f"{FAST}.method.targets: permuted needs the right class", ["drop mixup (found 1.0)"],
    ),
    "unlabelled samples that are not there": (
        kd(inputs="unlabelled"),
        ONE, f"{FAST}.split.unlabelled: the method 'kd' trains on unlabelled samples",
        ["set it to all or rest"],
    ),
    "statistics of an average that never trains": (
        fast(ema_decay=0.9, ema_buffers="own"),
        ONE, f"{FAST}.ema_buffers: own needs a method that runs the averaged network in training",
        ["which 'supervised' as set here does not", "choose shared or average"],
    ),
    "a share of the run that nothing reads": (
        fast(method={"name": "ces_kd", "unlocking": "static", "rho": 0.3}),
        ONE, f"{FAST}.method.rho: nothing reads it with `unlocking: static` (found 0.3); drop it",
        ["choose another `unlocking`"],
    ),
    "a schedule that nothing reads": (
        fast(method={"name": "ces_kd", "assignment": "mean", "progress": 1}),
        ONE, f"{FAST}.method.progress: nothing reads it with `assignment: mean` (found 1)", [],
    ),
    "an expert where all teach": (
        fast(method={"name": "ces_kd", "assignment": "all", "expert": 2}),
        ONE, f"{FAST}.method.expert: nothing reads it with `assignment: all` (found 2)", [],
    ),
    "an expert beyond the last": (
        fast(method={"name": "ces_kd", "assignment": "single", "expert": 4}),
        ONE, f"{FAST}.method.expert: must be at most 3", ["(found 4)"],
    ),
    "a start from an ensemble": (
        both(
            lambda tier, paper: arms(paper)["plain"].update(split={"share": 2}),
            started(parents={"teacher": {"arm": "plain", "seeds": {"members": 2}}}),
        ),
        ONE, f"{FAST}.init: 'teacher' is several runs (`members`)", [],
    ),
    "a start from another network": (
        started(model={"name": "small_cnn"}),
        ONE, f"{FAST}.init: one/main/plain is a bn_mlp, this arm a small_cnn", [],
    ),
    "a start from a network of another size": (
        started(model={"hidden": [24]}),
        ONE, f"{FAST}.init: one/main/plain has model.hidden [",
        ["this arm [24]", "set both alike (only dropout, norm_momentum may differ)"],
    ),
    "a start from a network of another function": (
        started(model={"activation": "sigmoid"}),
        ONE, f"{FAST}.init: one/main/plain has model.activation relu, this arm sigmoid", [],
    ),
    "a share of no start": (
        fast(init_share=0.5), ONE, f"{FAST}.init_share: needs `init`", ["(found 0.5)"],
    ),
    "a share of nothing": (
        started(init_share=0), ONE, f"{FAST}.init_share: must be above 0.0 (found 0", [],
    ),
    "a share of more than all": (
        started(init_share=1.5), ONE, f"{FAST}.init_share: must be at most 1.0 (found 1.5)", [],
    ),
    "students that teach each other": (
        both(
            taught(),
            lambda tier, paper: arms(paper)["plain"].update(
                method="kd", parents={"teacher": {"arm": "fast", "seeds": "other"}}
            ),
        ),
        ONE, f"{FAST}.parents: a run cannot descend from itself",
        ["one/main/fast -> one/main/plain -> one/main/fast"],
    ),
    "a student that is its own other teacher": (
        fast(method="kd", parents={"teacher": {"arm": "fast", "seeds": "other"}}),
        ONE, f"{FAST}.parents: a run cannot descend from itself", [],
    ),
    "a range test of a student": (
        both(taught(), ranged()),
        ONE, f"{FAST}.lr: a method that learns from parents has no range test", ["give numbers"],
    ),
    "a range test of a student that none declares": (
        taught(lr="range"), ONE, f"{FAST}.lr: a method that learns from parents has no range", [],
    ),
    "a draw that is no name": (
        fast(draw="a b"), ONE, f"{FAST}.draw: must begin with a letter", ["'a b'"],
    ),
    "agreement with nobody": (
        pair(metric="test_agreement"),
        ONE, f"{PAIR}: 'test_agreement' needs a parent `reference`", ["'fast' has none"],
    ),
    "agreement of a network that only started from another": (
        both(started(), pair(against={"constant": 90}, metric="test_agreement")),
        ONE, f"{PAIR}: 'test_agreement' needs a parent `reference`", ["'fast' has none"],
    ),
}  # fmt: skip
GROUPS = {"key": KEYS, "type": TYPES, "name": NAMES, "number": NUMBERS, "negative": NEGATIVE,
          "claim": CLAIMS, "parent": PARENTS}  # fmt: skip
CASES = {f"{group}: {name}": case for group, all_ in GROUPS.items() for name, case in all_.items()}


@pytest.mark.parametrize("case", CASES)
def test_one_clear_message(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, file, key, wanted = CASES[case]
    tier, paper = copy.deepcopy(TIER), copy.deepcopy(PAPER)
    change(tier, paper)
    write(tmp_path, tier, paper)
    said = refused(tmp_path, capsys)
    assert said.startswith(f"cyclery: {tmp_path}/config/{file}: {key}"), said
    for part in wanted:
        assert part in said
    # One message for one mistake; a mistake in the tier is not told of every arm.
    assert len(said.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config"]


def test_the_configuration_itself_is_good(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, TIER, PAPER)
    assert main(["--root", str(tmp_path), "check"]) == 0
    assert capsys.readouterr().out == "tier smoke: 1 papers, 2 arms, all keys are good\n"


def test_two_mistakes_get_two_messages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tier, paper = copy.deepcopy(TIER), copy.deepcopy(PAPER)
    arms(paper)["fast"].update(epochs=0, lr=-1)
    write(tmp_path, tier, paper)
    (tmp_path / "config/papers/two.yaml").write_text("title: [")
    said = refused(tmp_path, capsys).splitlines()
    keys = [line.partition(f"{FAST}.")[2].partition(":")[0] for line in said]
    assert keys == ["lr.value", "epochs", ""]
    assert "two.yaml, line " in said[2]


FILES: dict[str, tuple[str, str]] = {
    "brackets left open": ("title: [\n", ", line 2, column 1: not valid YAML: "),
    "a tab": ("title: a\n\tyear: 2", ", line 2, column 1: not valid YAML: "),
    "two documents": ("title: a\n---\ntitle: b\n", ", line 2, column 1: not valid YAML: "),
    "a list": ("- a\n- b\n", ": expected keys and values (found ['a', 'b'])"),
    "a key that stands twice": (
        "title: a\nyear: 1\ntitle: b\n", ": 'title' stands twice, on lines 1 and 3; rename or",
    ),
    "an arm that stands twice": (
        "x:\n  arms:\n    a: {}\n    b: {}\n    a: {}\n", ": 'a' stands twice, on lines 3 and 5",
    ),
    "nothing": ("", ": is empty"),
    "a comment only": ("# later\n", ": is empty"),
    "code": ("title: !!python/object/apply:os.system [ls]\n", ", line 1, column 8: not valid YAML"),
    "an alias within itself": ("title: &a [*a]\n", ", line 1, column 12: not valid YAML: "),
    "an alias without an anchor": ("title: *b\n", ", line 1, column 8: not valid YAML: "),
    "a list for a key": ("? [a]\n: b\n", ", line 1, column 3: not valid YAML: "),
    "depth without end": ("title: " + "[" * 3000, "not valid YAML"),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_files_that_are_not_yaml(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, wanted = FILES[case]
    write(tmp_path, TIER, PAPER)
    (tmp_path / "config/papers/one.yaml").write_text(text)
    said = refused(tmp_path, capsys)
    assert said.startswith(f"cyclery: {tmp_path}/config/papers/one.yaml")
    assert wanted in said and len(said.splitlines()) == 1


def test_a_file_that_is_not_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, TIER, PAPER)
    (tmp_path / "config/papers/one.yaml").write_bytes(b"title: \xff\xfe")
    assert "one.yaml: not UTF-8" in refused(tmp_path, capsys)


def test_missing_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(tmp_path, capsys)
    assert "config.yaml: there is no such file" in said and "--root" in said
    write(tmp_path, TIER, PAPER)
    (tmp_path / "config/papers/one.yaml").unlink()
    assert f"{tmp_path}/config/papers: holds no paper; add one" in refused(tmp_path, capsys)
    (tmp_path / "config/tiers/smoke.yaml").unlink()
    assert f"{tmp_path}/config/tiers: holds no tier; add one" in refused(tmp_path, capsys)
    (tmp_path / "config/tiers/smoke.yaml").mkdir()
    assert "smoke.yaml: cannot be read" in refused(tmp_path, capsys)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("my paper.yaml", "the name of a paper must begin with a letter"),
        ("a;b.yaml", "found 'a;b'"),
        ("-x.yaml", "found '-x'"),
        ("a.b.yaml", "found 'a.b'"),
        ("report.yaml", "cannot be called 'report'"),
        ("all.yaml", "cannot be called 'all'"),
        ("two.yml", "rename it to two.yaml"),
    ],
)
def test_names_of_files(
    name: str, wanted: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, TIER, PAPER)
    (tmp_path / "config/papers/one.yaml").rename(tmp_path / "config/papers" / name)
    said = refused(tmp_path, capsys)
    assert said.startswith(f"cyclery: {tmp_path}/config/papers/{name}: ")
    assert wanted in said


def test_what_editors_leave_is_no_paper(tmp_path: Path) -> None:
    write(tmp_path, TIER, PAPER)
    (tmp_path / "config/papers/._one.yaml").write_text("[")
    assert main(["--root", str(tmp_path), "check"]) == 0


OVERRIDES = {
    "tier=smok": "tier: unknown tier 'smok'. Did you mean 'smoke'? Tiers: smoke.",
    "tier=../smoke": "tier: unknown tier '../smoke'.",
    "papers=[two]": "papers: unknown paper 'two'. Papers: one.",
    "papers=one": "papers: must be a list, each element text (found 'one').",
    "papers=[]": "papers: must have at least 1 element",
    "papers=[one, one]": "papers: 'one' stands twice",
    "seeds=0": "seeds: must be at least 1 and at most 1000 (found 0).",
    "seeds=many": "seeds: must be a whole number (found 'many').",
    "sedes=3": "unknown key 'sedes'. Did you mean 'seeds'? Allowed:",
    "device=gpu": "device: must be one of auto, cpu, cuda (found 'gpu').",
    "results=": "results: must be text (found None).",
    "results=a b": "results: must be a path of at most 500 letters, digits",
    "results={x}": "results: must be text",
    "results=$HOME": "results: must be a path of at most 500 letters, digits",
    "resume_seconds=.nan": "resume_seconds: must be a finite number (found nan).",
}


@pytest.mark.parametrize("option", OVERRIDES)
def test_overrides(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, TIER, PAPER)
    said = refused(tmp_path, capsys, "--set", option)
    assert said.startswith(f"cyclery: --set, or snakemake --config: {OVERRIDES[option]}")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("option", ["seeds", "=3", ""])
def test_overrides_that_are_none(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, TIER, PAPER)
    assert f"--set {option}: write KEY=VALUE" in refused(tmp_path, capsys, "--set", option)


def test_a_mistake_in_the_main_file_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for config, wanted in (
        ({"tier": "smok"}, "tier: unknown tier 'smok'"),
        ({"tier": "smoke", "papers": ["two"]}, "papers: unknown paper 'two'"),
        ({"tier": "smoke", "seeds": 0}, "seeds: must be at least 1 and at most 1000 (found 0)"),
    ):
        write(tmp_path, TIER, PAPER, config)
        assert f"{tmp_path}/config/config.yaml: {wanted}" in refused(tmp_path, capsys)


def test_check_looks_at_every_tier(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, TIER, PAPER)
    desk = copy.deepcopy(TIER)
    desk["base"]["batch"] = 500
    paper = copy.deepcopy(PAPER)
    main_experiment(paper)["tiers"]["desk"] = {}
    write(tmp_path, TIER, paper)
    (tmp_path / "config/tiers/desk.yaml").write_text(str(desk).replace("'", '"'))
    assert main(["--root", str(tmp_path), "check"]) == 2
    said = capsys.readouterr()
    assert "config/tiers/desk.yaml: base.batch: must be at most 100" in said.err
    # Jobs of one tier do not wait for another.
    assert main(["--root", str(tmp_path), "check", "--set", "tier=smoke"]) == 0


def test_unknown_shards_and_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, TIER, PAPER)
    root = ["--root", str(tmp_path)]
    out = str(tmp_path / "out.jsonl")
    for command, wanted in (
        (["train", "one/L7-0000", "--output", out], "no shard 'one/L7-0000'; shards of 'one'"),
        (["train", "one", "--output", out], "no shard 'one'; write GROUP/SHARD"),
        (["train", "two/L0-0000", "--output", out], "unknown paper 'two'"),
        (["lr-range", "two", "--output", out], "unknown paper 'two'"),
        (["evidence", "one.C-9", "--output", out], "no experiment or claim 'C-9'"),
        (["plan", "one.C-9"], "no experiment or claim 'C-9' at tier 'smoke'. Did you mean 'C-1'?"),
        (["plan", "../one"], "unknown paper"),
        (["evidence", "one.mian", "--output", out], "Did you mean 'main'?"),
        (["prepare", "digitz"], "Did you mean 'digits'?"),
    ):
        assert main([*root, *command]) == 2
        said = capsys.readouterr().err
        assert wanted in said and "Traceback" not in said
    assert not Path(out).exists()


def test_a_log_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, TIER, PAPER)
    (tmp_path / "file").touch()
    assert main(["--root", str(tmp_path), "check", "--log", f"{tmp_path}/file/log.txt"]) == 2
    assert "cannot write" in capsys.readouterr().err
