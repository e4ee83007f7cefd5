"""Unknown and missing keys, values of another type, and names that nothing has."""

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
    pair,
    split,
    tuned,
)
from factories.project import arms

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
        lambda tier, paper: tier.update(images_per_second={"bn_mpl": 10}),
        SMOKE, "images_per_second: unknown model 'bn_mpl'", ["bn_mlp"],
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
CASES = KEYS | TYPES | NAMES


@pytest.mark.parametrize("case", CASES)
def test_one_clear_message(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_case(CASES[case], tmp_path, capsys)
