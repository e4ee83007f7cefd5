"""Numbers outside their limits, alone or by what other keys say."""

from __future__ import annotations

from pathlib import Path

import pytest
from factories.bad_config import (
    FAST,
    MAIN,
    ONE,
    PAIR,
    SMOKE,
    Case,
    base,
    both,
    check_case,
    experiment,
    fast,
    kd,
    pair,
    ranged,
    split,
    taught,
    tuned,
)

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
    "the tier's split for another dataset": (
        both(split(test=5000), experiment(base={"dataset": "digits"})),
        SMOKE, "base.split.test: must be at most 1797",
        ["set `split` in ", "/config/papers/one.yaml, experiments.main.base.split, beside"],
    ),
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
    "one value for an update that no run has": (
        fast(magnitude={"kind": "once", "value": 9, "at": 10}),
        ONE, f"{FAST}.magnitude.at: must be below 10", ["(found 10)", "`fraction`"],
    ),
    "stages that are shorter than the run": (
        fast(lr={"kind": "staged", "stages": [{"updates": 4, "schedule": 0.1},
                                              {"updates": 5, "schedule": 0.2}]}),
        ONE, f"{FAST}.lr.stages: must have 10 updates in all", ["(found 9)"],
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
        ONE, f"{FAST}.lr.peak: must be a finite number", ["inf"],
    ),
    "not a number for a limit": (
        ranged(high=float("inf")), ONE, f"{MAIN}.range.high: must be a finite number", ["inf"],
    ),
    "not a number for a setting": (
        fast(optimiser={"name": "adam", "eps": float("nan")}),
        ONE, f"{FAST}.optimiser.eps: must be a finite number (found nan)", [],
    ),
}  # fmt: skip
LIMITS: dict[str, Case] = {
    "a batch without end": (
        base(batch=1e10), SMOKE, "base.batch.value: must be a number of samples",
        ["at most 1,000,000,000"],
    ),
    "a schedule of batches without end": (
        base(batch={"kind": "cycle", "easy": 1e9, "hard": 1, "cooldown": 3, "clamp": False}),
        SMOKE, "base.batch: reaches ", ["a batch has at most"],
    ),
    "an epoch without end": (
        base(epoch_images=1_000_000_000),
        SMOKE, "base.epoch_images: a run makes at most 5,000,000 updates",
        ["every schedule is written out", "found 100,000,000"],
    ),
    "updates without end": (
        base(epochs=100_000, batch=1), SMOKE, "base.epochs: a run makes at most 5,000,000 updates",
        [],
    ),
    "a sweep without end": (
        both(base(batch=1), ranged(epochs=100_000)),
        ONE, f"{MAIN}.range.epochs: 100000 do not suit", ["at most 5,000,000 updates"],
    ),
    "unlabelled samples without end": (
        base(mu=10**9), SMOKE, "base.mu: must be at most 1000", [],
    ),
    "a schedule of many parts": (
        fast(lr={"kind": "product", "of": [0.1] * 200}),
        ONE, f"{FAST}.lr: must have at most 100 parts, since", [],
    ),
    "trials without end": (
        tuned(lr=[1 + n / 20 for n in range(20)], weight_decay=[1 + n / 20 for n in range(20)]),
        ONE, f"{MAIN}.tune: has 400 combinations", ["at most 256"],
    ),
    "an ensemble without end": (
        taught({"members": 10**9}), ONE, f"{FAST}.parents.teacher.seeds.members: must be at most",
        [],
    ),
    "10^12 units": (
        base(model={"name": "bn_mlp", "hidden": [10**12]}),
        SMOKE, "base.model.hidden[0]: must be at least 1 and at most 100000", [],
    ),
    "layers of many units": (
        base(model={"name": "bn_mlp", "hidden": [100_000, 100_000]}),
        SMOKE, "base.model bn_mlp.hidden: makes a network of about 1.0e+10 weights", ["1e+09"],
    ),
    "a network too wide": (
        base(model={"name": "wrn", "width": 100}),
        SMOKE, "base.model wrn.width: makes a network of about 3.9e+09 weights", [],
    ),
    "a network too deep": (
        base(model={"name": "resnet", "depth": 6 * 10**11 + 2}),
        SMOKE, "base.model resnet.depth: must be 6n + 2", ["at most 2000"],
    ),
    "a bound of the range test in a quantity": (
        kd(temperature="range.max"),
        ONE, f"{FAST}.method.temperature: range.base and range.max are learning rates", [],
    ),
    "a bound of the range test within a quantity": (
        both(ranged(), kd(soft={"kind": "linear", "start": 0, "end": "range.max"})),
        ONE, f"{FAST}.method.soft: range.base and range.max are learning rates", [],
    ),
}  # fmt: skip
CASES = NUMBERS | NEGATIVE | LIMITS


@pytest.mark.parametrize("case", CASES)
def test_one_clear_message(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_case(CASES[case], tmp_path, capsys)
