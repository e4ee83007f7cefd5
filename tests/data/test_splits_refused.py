"""What a split refuses to ask of labels, classes and pools, alike when planned and when drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from factories.data import DIGITS, replace

from cyclery.common.errors import UserError
from cyclery.data.split_settings import canonical, parse, without_unlabelled
from cyclery.data.splits import counts, split

CLASSES = 6
LABELS = np.tile(np.arange(CLASSES), 100)
PLANNED = replace(DIGITS, train=600, classes=CLASSES, class_counts=None)
LEVELS = [[0, 0, 1, 1, 2, 2], [0, 0, 0, 0, 1, 1]]
POOL = {"test": 60, "labels": 60, "unlabelled": "rest"}


def noise(**settings: Any) -> dict[str, Any]:
    return {"test": 9, "noise": {"kind": "symmetric", "rate": 0.4, **settings}}


def asymmetric(**classes: Any) -> dict[str, Any]:
    return noise(kind="asymmetric", map=classes.get("map", {1: 2}))


def tree(*levels: Any, **more: Any) -> dict[str, Any]:
    return {"test": 9, "hierarchy": list(levels), **more}


def opened(**settings: Any) -> dict[str, Any]:
    return {**POOL, "open_set": {"classes": [0, 1, 2, 3], **settings}}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        # Label noise that is no distribution.
        (noise(rate=1.5), r"split\.noise\.rate: must be at least 0 and at most 1 \(found 1\.5\)"),
        (noise(rate=-0.1), r"split\.noise\.rate: must be at least 0 and at most 1 \(found -0\.1"),
        (noise(rate=float("nan")), r"split\.noise\.rate: must be a finite number \(found nan"),
        ({"test": 9, "noise": {"kind": "symmetric"}}, r"split\.noise\.rate: missing"),
        (noise(kind="flat"), r"split\.noise: must be keys .* `kind`: asymmetric or symmetric"),
        (asymmetric(map={"9" * 5000: 2}), r"split\.noise\.map: must give classes for classes"),
        (noise(map={1: 2}), r"split\.noise: unknown key 'map'"),
        ({"test": 9, "noise": 0.4}, r"split\.noise: must be keys and values with `kind`"),
        (
            asymmetric(map={3: 3}),
            r"split\.noise\.map: must give another class for class 3, for a wrong label is not",
        ),
        (asymmetric(map={3: 6}), r"split\.noise\.map: must name classes from 0 to 5 \(found 6\)"),
        (asymmetric(map={7: 1}), r"split\.noise\.map: must name classes from 0 to 5 \(found 7\)"),
        *[
            (asymmetric(map=wrong), r"split\.noise\.map: must give classes for classes by their")
            for wrong in ({}, [1, 2], {1: "2"}, {"a": 2}, {1: -2}, {-1: 2}, {1: 2.0}, {True: 2},
                          {1: True}, {1: 2, "1": 3}, 3)
        ],
        (
            {**asymmetric(map={5: 1}), **opened()},
            r"split\.noise\.map: must name classes of the open set's, 0, 1, 2, 3 \(found 5\)",
        ),
        # A hierarchy that is no tree.
        (
            tree([0, 0, 1, 1, 2, 2], [0, 0, 0, 1, 1, 1]),
            r"split\.hierarchy\[1\]: is no tree; classes 2 and 3 are both in group 1 of the finer "
            r"level, but here in 0 and 1\.",
        ),
        (tree([0, 0, 1, 1, 2]), r"split\.hierarchy\[0\]: must have .* of 6 classes \(found 5\)"),
        (tree([0, 0, 1, 1, 3, 3]), r"split\.hierarchy\[0\]: must number its groups from 0 without"),
        (tree(LEVELS[0], LEVELS[0]), r"split\.hierarchy\[1\]: must have fewer .* 3 .* \(found 3\)"),
        (tree([0] * 6), r"split\.hierarchy\[0\]: must have at least 2 groups, .* \(found 1\)"),
        *[
            ({"test": 9, "hierarchy": wrong}, r"split\.hierarchy: must be a name, or for each")
            for wrong in (3, [], [[]], [0, 0, 1], [[0, 0, 1, 1, 2, -2]], [[0, 0, True, 1, 2, 2]])
        ],
        (
            {**opened(classes=[0, 1, 2]), "hierarchy": LEVELS},
            r"split\.hierarchy\[1\]: must have at least 2 groups, for one tells nothing",
        ),
        (
            {**opened(classes=[0, 2, 4]), "hierarchy": LEVELS},
            r"split\.hierarchy above the known classes\[0\]: must have fewer groups than the 3",
        ),
        (
            {"test": 9, "hierarchy_order": "random"},
            r"split\.hierarchy_order: must be true without `hierarchy`, .* \(found 'random'\)",
        ),
        (tree(LEVELS[0], hierarchy_order=1), r"hierarchy_order: must be one of random, true"),
        ({"test": 9, "coarse": [3]}, r"split\.coarse: must be null without .* \(found \[3\]\)"),
        (
            tree(*LEVELS, coarse=[3], labels=9),
            r"split\.coarse: must have a number for each of 2 coarser levels .* \(found 1\)",
        ),
        (tree(*LEVELS, coarse=[3, -1]), r"split\.coarse\[1\]: must be at least 0 \(found -1\)"),
        (
            tree(*LEVELS, coarse=[300, 232], labels=60),
            r"split\.coarse: must be at most 531 rows in all, which test, validation and `labels` "
            r"leave \(found 532\)",
        ),
        (tree(*LEVELS, coarse=[1, 0]), r"split\.coarse: must be at most 0 rows in all"),
        # Open sets.
        (
            opened(classes=[2]),
            r"split\.open_set\.classes: must have at least 2 elements \(found \[2\]\)",
        ),
        (opened(classes=[1, 2, 1]), r"open_set\.classes: must name each class once \(found 1"),
        (opened(classes=[1, 6]), r"open_set\.classes: must be numbers .*, 0 to 5 \(found 6"),
        (opened(classes=[1, -6]), r"open_set\.classes\[1\]: must be at least 0 \(found -6\)"),
        (
            opened(classes=[5, 4, 3, 2, 1, 0], contamination=0.5),
            r"open_set\.classes: must leave out at least one of",
        ),
        (opened(pool=30), r"split\.open_set\.contamination: must be a share where `pool` is"),
        (opened(contamination=1.0), r"split\.open_set\.pool: must be given with contamination 1"),
        (opened(contamination=1.1), r"open_set\.contamination: must be at least 0 and at most 1"),
        (
            {**opened(pool=30, contamination=0.5), "unlabelled": None},
            r"split\.open_set\.pool: must be null without `unlabelled`, .* \(found 30\)",
        ),
        (
            {**opened(contamination=0.5), "unlabelled": None},
            r"split\.open_set\.contamination: must be null without `unlabelled`, .*found 0\.5",
        ),
        (
            opened(pool=501, contamination=0.4),
            r"split\.open_set\.pool: must hold 0 to 280 samples of known classes, those there "
            r"are, but holds 301 \(found 501 with contamination 0\.4\)",
        ),
        (
            {**opened(pool=100, contamination=0.5), "unlabelled": "all"},
            r"split\.open_set\.pool: must hold 60 to 340 samples .* but holds 50 \(found 100",
        ),
        (
            opened(pool=300, contamination=0.7),
            r"split\.open_set\.contamination: must ask for at most 200 samples of other classes, "
            r"all there are, but asks for 210 \(found 0\.7\)",
        ),
        (
            {"test": 60, "labels": 60, "unlabelled_pool": 90},
            r"split\.unlabelled_pool: must be null without `unlabelled`, .* \(found 90\)",
        ),
        (
            {**opened(), "unlabelled_pool": 90},
            r"split\.unlabelled_pool: must be null beside `open_set`, .* \(found 90\)",
        ),
        (
            {**POOL, "unlabelled_pool": 481},
            r"split\.unlabelled_pool: must hold 0 to 480 samples .* but holds 481 \(found 481\)",
        ),
        (
            {**POOL, "unlabelled": "all", "unlabelled_pool": 59},
            r"split\.unlabelled_pool: must hold 60 to 540 samples .* but holds 59 \(found 59\)",
        ),
        (opened(contamination=0.6), r"contamination: must ask for at most 200 .* asks for 420 \("),
        (
            {**opened(contamination=0.5), "labels": None},
            r"split\.unlabelled: must be all, or fewer rows labelled, .* \(found 'rest'\)",
        ),
        ({**opened(), "test": 401}, r"split\.test: must be at most 400, the training rows"),
        # Imbalance of the unlabelled samples.
        (
            {"test": 9, "unlabelled_imbalance": {"kind": "long_tail", "ratio": 0.1}},
            r"split\.unlabelled_imbalance: must be null without `unlabelled`, .*long_tail 0\.1",
        ),
        (
            {**opened(pool=280, contamination=0.0),
             "unlabelled_imbalance": {"kind": "two_level", "ratio": [9, 1]}},
            r"split\.unlabelled_imbalance: must take at most 70 rows of one class, which the other "
            r"parts leave for sure, but takes 126 \(found two_level 9:1\)",
        ),
        (
            {"test": 595, "labels": 3, "unlabelled": "rest",
             "unlabelled_imbalance": {"kind": "two_level", "ratio": [9, 1]}},
            r"split\.unlabelled_imbalance: must take at most 0 rows of one class",
        ),
        # Resolution.
        (
            {"test": 9, "resolution": {"stored": 0, "input": 8}},
            r"split\.resolution\.stored: must be at least 1 \(found 0\)",
        ),
        ({"test": 9, "resolution": {"stored": 4}}, r"split\.resolution\.input: missing"),
    ],
)  # fmt: skip
def test_what_is_refused_alike_when_planned_and_when_drawn(
    wanted: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as drawn:
        split(LABELS, 600, CLASSES, wanted, 0)
    with pytest.raises(UserError) as planned:
        counts(PLANNED, wanted)
    assert str(planned.value) == str(drawn.value) and str(drawn.value).count("\n") == 0


def test_noise_needs_another_class() -> None:
    with pytest.raises(UserError, match=r"split\.noise: must be null, for there is no other class"):
        split(np.zeros(20, dtype=int), 20, 1, noise(), 0)


@pytest.mark.parametrize(
    ("shape", "wanted", "message"),
    [
        ((1, 8, 8), {"stored": 9, "input": 9}, r"stored: must be at most 8, .* \(found 9\)"),
        ((1, 8, 8), {"stored": 4, "input": 3}, r"input: must be at least `stored`, 4 \(found 3\)"),
        ((1, 8, 6), {"stored": 4, "input": 8}, r"resolution: must be null for .* \(found 8 x 6"),
    ],
)
def test_a_resolution_fits_the_images(
    shape: tuple[int, int, int], wanted: dict[str, int], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        counts(replace(DIGITS, shape=shape), {"test": 9, "resolution": wanted})


@pytest.mark.parametrize("wanted", [{"labels": 20}, {"per_class": 2}])
def test_the_first_rows_need_an_official_order(wanted: dict[str, int]) -> None:
    asked = {"test": 30, "choose": "first", **wanted}
    with pytest.raises(UserError, match=r"split\.choose: must be random, .* has no official order"):
        split(LABELS, 600, CLASSES, asked, 0)
    # Rows that stand in another order than the official one.
    order = np.random.default_rng(0).permutation(600)
    found = split(LABELS, 600, CLASSES, asked, 0, order)["train"]
    if "labels" in wanted:
        assert sorted(order[found]) == list(range(20))
    else:
        for each in range(CLASSES):
            rows = np.flatnonzero(each == LABELS)
            best = rows[np.argsort(order[rows])][:2]
            assert set(found[LABELS[found] == each]) == set(best)
    known = {**asked, "open_set": {"classes": [1, 3]}}
    taken = split(LABELS, 600, CLASSES, known, 0, order)["train"]
    rows = np.flatnonzero(np.isin(LABELS, [1, 3]))
    if "labels" in wanted:
        assert set(taken) == set(rows[np.argsort(order[rows])][:20])


# What enters run keys


def resolved(wanted: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return canonical(parse(wanted), replace(DIGITS, **changes))


def test_what_says_nothing_is_left_out_of_the_resolved_split() -> None:
    plain = resolved({"test": 9})
    assert sorted(plain) == [
        "choose", "fold", "folds", "imbalance", "labels", "per_class", "share", "test",
        "unlabelled", "validation",
    ]  # fmt: skip
    for nothing in (
        {"noise": {"kind": "symmetric", "rate": 0}},
        {"noise": {"kind": "asymmetric", "rate": 0, "map": {1: 2}}},
        {"resolution": {"stored": 8, "input": 8}},
        {"hierarchy": None, "hierarchy_order": True, "coarse": None},
    ):
        assert resolved({"test": 9, **nothing}) == plain


def test_two_ways_of_writing_a_split_are_one() -> None:
    halves = tuple(c // 5 for c in range(10))
    named = resolved({"test": 9, "hierarchy": "halves"}, hierarchies={"halves": (halves,)})
    assert named == resolved({"test": 9, "hierarchy": [list(halves)]})
    assert named["hierarchy"] == [list(halves)] and "hierarchy_order" not in named
    one, other = (
        resolved({"test": 9, "noise": {"kind": "asymmetric", "rate": 0.5, "map": classes}})
        for classes in ({3: 5, "1": 2}, {1: 2, 3: 5})
    )
    assert one == other and one["noise"]["map"] == {"1": 2, "3": 5}
    assert parse(one) == parse(other)
    opened = resolved({"test": 9, "open_set": {"classes": [4, 1, 3]}})
    assert opened["open_set"]["classes"] == [1, 3, 4]


def test_a_hierarchy_is_one_that_the_dataset_declares() -> None:
    with pytest.raises(UserError, match=r"split\.hierarchy: must be one .* of which there is none"):
        resolved({"test": 9, "hierarchy": "coarse"}, hierarchies={})
    known = {"hierarchies": {"coarse": ((0,) * 5 + (1,) * 5,)}}
    with pytest.raises(UserError, match=r"declares, coarse, or lists \(found 'corse'\)"):
        resolved({"test": 9, "hierarchy": "corse"}, **known)
    with pytest.raises(UserError, match=r"split\.coarse: must have a number for each of 1 coarser"):
        resolved({"test": 9, "labels": 9, "hierarchy": "coarse", "coarse": [1, 2]}, **known)


def test_a_method_without_unlabelled_samples_keeps_nothing_of_their_pool() -> None:
    wanted = {
        **POOL,
        "open_set": {"classes": [0, 1], "pool": 30, "contamination": 0.5},
        "unlabelled_imbalance": {"kind": "two_level", "ratio": [2, 1]},
    }
    found = resolved(wanted)
    without_unlabelled(found)
    plain = {**POOL, "unlabelled": None, "open_set": {"classes": [1, 0]}}
    assert found == resolved(plain)
    sized = resolved({**POOL, "unlabelled_pool": 99})
    without_unlabelled(sized)
    assert sized == resolved({**POOL, "unlabelled": None})
    # The samples that are labelled and held out are the same.
    digits = np.repeat(np.arange(10), DIGITS.train_class_counts)
    one, other = (split(digits, 1797, 10, each, 3) for each in (wanted, found))
    for part in ("train", "validation", "test"):
        np.testing.assert_array_equal(one[part], other[part])
