"""Parents that are not there, or that a run cannot learn from."""

from __future__ import annotations

from pathlib import Path

import pytest
from factories.bad_config import (
    FAST,
    ONE,
    PAIR,
    TEACHER,
    Case,
    both,
    check_case,
    fast,
    kd,
    pair,
    ranged,
    split,
    started,
    taught,
)
from factories.project import arms

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


@pytest.mark.parametrize("case", PARENTS)
def test_one_clear_message(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_case(PARENTS[case], tmp_path, capsys)
