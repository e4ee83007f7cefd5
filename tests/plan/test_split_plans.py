"""What planning makes of a split's labels, classes and images: keys, parents, fair comparisons."""

from __future__ import annotations

import copy
import re
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml
from factories.bad_config import (
    FAST,
    ONE,
    PAIR,
    SMOKE,
    TEACHER,
    Case,
    Change,
    both,
    check_case,
    fast,
    split,
    started,
    taught,
)
from factories.checkout import ROOT
from factories.data import CIFAR10, CIFAR100, DIGITS
from factories.data import KNOWN as KNOWN_DATASETS
from factories.plan import keys, planned
from factories.project import arms
from factories.record import Records, claim, comparison, experiment, key

from cyclery.data.sizes import counts
from cyclery.data.split_settings import Split, canonical, parse
from cyclery.evidence.arm_tables import tidy, warnings
from cyclery.evidence.settings_text import class_count, data, describe
from cyclery.evidence.verdicts import judge
from cyclery.plan.snakemake_api import Graph
from cyclery.records.record import SplitChoice

NOISE = {"kind": "symmetric", "rate": 0.4}
HALVES, ODD = [[c // 5 for c in range(10)]], [[c % 2 for c in range(10)]]
KNOWN = {"classes": [0, 1, 2, 3, 4, 5]}
OPEN = {**KNOWN, "pool": 300, "contamination": 0.5}
SIDES = {"stored": 4, "input": 16}

Json = dict[str, Any]


def pseudo(**settings: Any) -> Change:
    """Let the arm `fast` learn from unlabelled samples, too."""
    return fast(method="pseudo_label", **settings)


# Keys


def test_a_split_that_asks_nothing_more_keeps_its_keys(tmp_path: Path) -> None:
    before = keys(planned(tmp_path))
    for nothing in (
        {"noise": None, "hierarchy": None, "coarse": None, "open_set": None, "resolution": None},
        {"noise": {**NOISE, "rate": 0}, "resolution": {"stored": 8, "input": 8}},
        {"hierarchy_order": True},
    ):
        assert keys(planned(tmp_path, split(**nothing))) == before


def test_what_a_split_asks_enters_the_keys(tmp_path: Path) -> None:
    asked: list[Json] = [
        {}, {"noise": NOISE}, {"noise": {**NOISE, "rate": 0.2}},
        {"noise": {**NOISE, "validation": True}}, {"hierarchy": HALVES}, {"hierarchy": ODD},
        {"hierarchy": HALVES, "hierarchy_order": "random"}, {"hierarchy": HALVES, "coarse": [50]},
        {"open_set": KNOWN}, {"resolution": SIDES},
    ]  # fmt: skip
    found = [tuple(keys(planned(tmp_path, split(**each)))["one/main/plain"]) for each in asked]
    assert len(set(found)) == len(asked)


def test_arms_without_unlabelled_samples_share_a_run_whatever_the_pool(tmp_path: Path) -> None:
    sets = [OPEN, {**OPEN, "contamination": 0.2}, {**KNOWN, "contamination": 0.1}]
    found = [
        keys(planned(tmp_path, both(split(unlabelled="rest", open_set=each), pseudo())))
        for each in sets
    ]
    assert len({tuple(each["one/main/plain"]) for each in found}) == 1
    assert len({tuple(each["one/main/fast"]) for each in found}) == 3


def test_a_probe_keeps_the_pool_that_a_method_leaves_alone(tmp_path: Path) -> None:
    """Such as to find unknown classes by the features of a supervised network."""
    probe = fast(probes={"open": {"name": "detection"}})
    plan = planned(tmp_path, both(split(unlabelled="rest", open_set=OPEN), probe))
    arms = {name: plan.arm("one", "main", name).settings for name in ("plain", "fast")}
    assert {name: each["split"]["unlabelled"] for name, each in arms.items()} == {
        "plain": None, "fast": "rest",
    }  # fmt: skip


def test_views_and_networks_suit_what_the_network_sees(tmp_path: Path) -> None:
    cut = [{"op": "cutout", "size": 12}]
    plan = planned(tmp_path, both(split(resolution=SIDES), fast(augment=cut)))
    assert plan.arm("one", "main", "fast").settings["split"]["resolution"] == SIDES


def test_larger_images_take_more_memory(tmp_path: Path) -> None:
    def asked(sides: Json) -> int:
        graph = Graph(planned(tmp_path, split(resolution=sides)), {})
        [shard] = graph.plan.shards("one")
        return graph.shard_megabytes(*shard.id.split("/"), 1)

    plain, large = asked({"stored": 8, "input": 8}), asked({"stored": 8, "input": 512})
    # Six copies of 1,797 images of a byte a pixel.
    assert large - plain == pytest.approx(6 * 1797 * (512**2 - 64) / 1e6, abs=1)


# What is refused


REFUSED: dict[str, Case] = {
    "noise that is no distribution": (
        split(noise={**NOISE, "rate": 2}), SMOKE,
        "base.split.noise.rate: must be at least 0 and at most 1 (found 2", [],
    ),
    "noise of a class that there is not": (
        split(noise={"kind": "asymmetric", "rate": 0.1, "map": {10: 1}}), SMOKE,
        "base.split.noise.map: must name classes from 0 to 9 (found 10)", [],
    ),
    "a hierarchy that the dataset has not": (
        fast(split={"hierarchy": "superclasses"}), ONE,
        f"{FAST}.split.hierarchy: must be one that the dataset digits declares", ["shape"],
    ),
    "a hierarchy that is no tree": (
        split(hierarchy=[[0, 0, 1, 1, 2, 2, 3, 3, 4, 4], [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]]), SMOKE,
        "base.split.hierarchy[1]: is no tree; classes 4 and 5 are both in group 2", [],
    ),
    "outliers of a dataset that there is not": (
        split(open_set={**KNOWN, "outliers": {"dataset": "digit"}}), SMOKE,
        "base.split.open_set.outliers.dataset: unknown dataset 'digit'", ["Did you mean"],
    ),
    "outliers of the split's own dataset": (
        split(open_set={**KNOWN, "outliers": {"dataset": "digits"}}), SMOKE,
        "base.split.open_set.outliers.dataset: must be another one than the split's", ["digits"],
    ),
    "outliers without their dataset": (
        split(open_set={**KNOWN, "outliers": ["digits"]}), SMOKE,
        "base.split.open_set.outliers: must name a dataset", ["{dataset: digits}"],
    ),
    "more outliers than there are": (
        both(
            split(unlabelled="rest", open_set={**KNOWN, "outliers": {"dataset": "cifar10"},
                                               "pool": 70_000, "contamination": 0.999}),
            pseudo(),
        ), SMOKE, "base.split.open_set.contamination: must ask for at most 50000 samples of the "
        "dataset cifar10", ["(arm one/main/fast)"],
    ),
    "one known class": (
        split(open_set={"classes": [3]}), SMOKE,
        "base.split.open_set.classes: must have at least 2 elements", [],
    ),
    "an open set without a pool": (
        split(open_set=OPEN), SMOKE,
        "base.split.open_set.pool: must be null without `unlabelled`", ["(found 300)"],
    ),
    "more samples of other classes than there are": (
        both(pseudo(), split(unlabelled="rest", open_set={**KNOWN, "contamination": 0.8})), SMOKE,
        "base.split.open_set.contamination: must ask for at most 714 samples of other classes", [],
    ),
    "images that have no such detail": (
        split(resolution={"stored": 9, "input": 16}), SMOKE,
        "base.split.resolution.stored: must be at most 8, the side of an image (found 9)", [],
    ),
    "a teacher that knows other classes": (
        taught(split={"open_set": KNOWN}), ONE,
        f"{TEACHER}: one/main/plain has split.open_set.classes null, this arm [0, 1, 2",
        ["both must hold out"],
    ),
    "a teacher with the true labels": (
        taught(split={"noise": NOISE}), ONE,
        f"{TEACHER}: one/main/plain has another split.noise than this arm; the labels", [],
    ),
    "a start from another hierarchy": (
        both(split(hierarchy=HALVES), started(split={"hierarchy_order": "random"})), ONE,
        f"{TEACHER}: one/main/plain has another split.hierarchy than this arm", [],
    ),
    "a start from other images": (
        started(split={"resolution": {"stored": 4, "input": 8}}), ONE,
        f"{TEACHER}: one/main/plain has another split.resolution than this arm; it sees", [],
    ),
    "arms that are tested on other classes": (
        fast(split={"open_set": KNOWN}), ONE,
        f"{PAIR}: the arms are tested on samples of different classes (fast [0, 1, 2, 3, 4, 5], "
        "plain all)", ["open_set.classes"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_mistake_gets_one_message(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_case(REFUSED[name], tmp_path, capsys)


def test_parents_may_know_noisier_labels_and_no_levels(tmp_path: Path) -> None:
    noisy = {"noise": NOISE, "hierarchy": None}
    both_ways = both(
        split(**noisy), taught(split={"noise": None, "hierarchy": HALVES}),
        lambda tier, paper: arms(paper).update(same={"parents": {"teacher": "plain"},
                                                     "method": "kd"}),
    )  # fmt: skip
    assert len(keys(planned(tmp_path, both_ways))) == 3


# What evidence makes of it


def words(tmp_path: Path, change: Change) -> tuple[str, str]:
    arm = planned(tmp_path, change).arm("one", "main", "fast")
    return data(arm, "Digits", 10), describe([arm])["split"]


def test_data_and_split_say_in_words_what_is_asked(tmp_path: Path) -> None:
    plain = words(tmp_path, fast())
    assert plain == ("Digits, 100 labels", "test 200, validation 100, labels 100, choose random")
    asked: dict[str, Change] = {
        "40 % symmetric label noise": fast(split={"noise": NOISE}),
        "40 % symmetric label noise in training and validation": fast(
            split={"noise": {**NOISE, "validation": True}}
        ),
        "25 % asymmetric (3 as 5, 9 as 1) label noise": fast(
            split={"noise": {"kind": "asymmetric", "rate": 0.25, "map": {9: 1, 3: 5}}}
        ),
        "levels of 2 groups (dealt at random)": fast(
            split={"hierarchy": HALVES, "hierarchy_order": "random"}
        ),
        "known classes 0-1-2-3-4-5": both(split(open_set=KNOWN), fast()),
        "known classes 0-1-2-3-4-5, 300 unlabelled, 50 % of these of other classes": both(
            split(unlabelled="rest", open_set=OPEN), pseudo()
        ),
        "of these one part a seed of 5": fast(
            split={"folds": 5, "part": "seed"}, batch=10, epoch_images=100
        ),
        "of these part 1 of 5": fast(split={"folds": 5, "part": 1}, batch=10, epoch_images=100),
        "1,200 unlabelled": both(split(unlabelled="rest", unlabelled_pool=1200), pseudo()),
        "unlabelled long tail 1:10": both(
            split(unlabelled="rest", unlabelled_imbalance={"kind": "long_tail", "ratio": 0.1}),
            pseudo(),
        ),
        "4 pixels shown as 16": both(split(resolution=SIDES), fast()),
    }
    for text, change in asked.items():
        label, said = words(tmp_path, change)
        assert label == f"Digits, 100 labels, {text}" and said.endswith(f", {text}")
    # Two hierarchies with as many groups are not one, and a level may be all that is known.
    found = {
        words(tmp_path, fast(split={"hierarchy": levels, "coarse": [n]}))
        for levels in (HALVES, ODD) for n in (10, 20)
    }  # fmt: skip
    assert len(found) == 4 and all("levels of 2 groups (" in label for label, _ in found)
    label, _ = words(tmp_path, both(split(labels=None, per_class=10, open_set=KNOWN), fast()))
    assert label == "Digits, 60 labels, known classes 0-1-2-3-4-5"


def test_chance_is_that_of_the_known_classes(tmp_path: Path) -> None:
    arm = planned(tmp_path, split(open_set=KNOWN)).arm("one", "main", "plain")
    assert class_count(arm.settings["split"], 10) == 6
    assert class_count(planned(tmp_path).arm("one", "main", "plain").settings["split"], 10) == 10


def test_runs_that_know_other_classes_make_no_pair() -> None:
    records: Records = {}
    exp = experiment("e", {"a": [91.0, 92.0, 91.5], "b": [90.0] * 3}, records)
    records[key("e", "a", 1)]["settings"]["split"]["open_set"] = OPEN
    [found] = judge([claim(comparison())], "smoke", [exp], records)
    [row] = found["comparisons"]
    assert row["seeds"] == [0, 2]
    assert row["left_out"] == ["seed 1: the two runs are tested on samples of other classes"]
    # The same known classes are a pair, whatever the pools.
    records[key("e", "b", 1)]["settings"]["split"]["open_set"] = {**OPEN, "contamination": 0.2}
    [found] = judge([claim(comparison())], "smoke", [exp], records)
    assert found["comparisons"][0]["seeds"] == [0, 1, 2]


def test_only_other_labelled_or_held_out_samples_are_mixed_splits() -> None:
    for own, mixed in (
        ({"unlabelled": "rest", "open_set": OPEN, "hierarchy": HALVES, "coarse": [5]}, False),
        ({"open_set": {**KNOWN, "classes": [1, 2]}}, True),
        ({"open_set": KNOWN, "noise": NOISE}, True),
    ):
        records: Records = {}
        exp = experiment("e", {"a": [91.0], "b": [90.0]}, records)
        one, other = (records[key("e", arm, 0)]["settings"]["split"] for arm in "ab")
        one["open_set"] = copy.deepcopy(KNOWN)
        other |= own
        said = [
            text
            for text in warnings(exp, tidy([exp], records), records)
            if text.startswith("Mixed splits")
        ]
        assert bool(said) == mixed


def test_a_record_may_have_every_setting_of_a_split() -> None:
    """So its schema, which is made of this type, refuses none."""
    assert set(get_type_hints(SplitChoice)) == {field.name for field in fields(Split)}


# The manual


def test_every_split_of_the_manual_can_be_planned() -> None:
    manual = (ROOT / "config/README.md").read_text(encoding="utf-8")
    section = manual.partition("\n## Splits\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
    examples = [text for block in blocks for text in re.split(r"^(?=split:)", block, flags=re.M)]
    found = [yaml.safe_load(text)["split"] for text in examples if text]
    assert len(found) == 11
    for wanted in found:
        dataset = DIGITS if "test" in wanted else CIFAR100 if "hierarchy" in wanted else CIFAR10
        resolved = canonical(parse(wanted), dataset, KNOWN_DATASETS)
        assert counts(dataset, resolved)["train"] > 0
