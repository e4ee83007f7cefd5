"""A probe is a file, found by its name; what the room asks of it, and what it gives for it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import component
from factories.features import features, measured

from cyclery import probes
from cyclery.common.errors import UserError
from cyclery.probes._labels import labelled
from cyclery.records import metrics

OWN = '''
"""How large features are."""
from dataclasses import dataclass, field

from cyclery.common.errors import UserError


@dataclass(frozen=True)
class Settings:
    """Their mean length to a power."""

    power: int = field(default=1, metadata={"doc": "of the length", "low": 1})


def needs(settings):
    return ("test",)


def figures(settings):
    return ("test_length", "classes")


def check(settings, rows, classes):
    if rows["test"] < settings.power:
        raise UserError(f"power: must be at most {rows['test']} (found {settings.power}).")


def measure(settings, features):
    lengths = (features.x["test"] ** 2).sum(axis=1) ** (settings.power / 2)
    return {"test_length": lengths.mean(), "classes": features.classes}
'''


@pytest.fixture
def add(tmp_path: Path) -> Iterator[component.Write]:
    """Return what adds the file of a probe until the test is over."""
    with component.written(probes, tmp_path / "probes") as write:
        yield write


def probe(name: str, **settings: Any) -> dict[str, Any]:
    return probes.resolve(name, settings)


def test_one_file_is_a_probe(add: component.Write) -> None:
    add("own", OWN)
    assert "own" in probes.names() and probes.settings_type("own").__name__ == "Settings"
    assert probe("own") == {"name": "own", "settings": {"power": 1}}
    given = features()
    x = given.x["test"].astype(float)
    assert probes.needs(probe("own")) == ("test",)
    assert probes.figures(probe("own")) == ("test_length", "classes")
    found = measured("own", given, power=2)
    assert found == {"test_length": pytest.approx(np.square(x).sum(1).mean()), "classes": 5.0}
    assert {type(value) for value in found.values()} == {float}
    with pytest.raises(UserError, match=r"^probe own\.power: must be at most 120 \(found 121\)\.$"):
        measured("own", given, power=121)
    with pytest.raises(UserError, match=r"^paper\.probes\.o\.power: must be at most 3"):
        probes.check(probe("own", power=4), {"test": 3}, 5, "paper.probes.o")
    # Without a check of its own, any sizes will do.
    add("own", OWN.replace("def check", "def unchecked"))
    probes.check(probe("own", power=4), {"test": 3}, 5)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("def needs", "def need", "declares no needs; every probe's file has Settings"),
        ("def figures", "def figure", "declares no figures; "),
        ("def measure(settings, features)", "def measure(settings)", "takes 2 arguments: settings"),
        ("def check(settings, rows, classes)", "def check(rows)", "check must be a function that"),
        ('"doc": "of the length", ', "", "Settings.power does not say what it is"),
        ("frozen=True", "frozen=False", "with `@dataclass(frozen=True)`"),
    ],
)
def test_a_wrong_file_is_one_message_that_names_it(
    add: component.Write, before: str, after: str, message: str
) -> None:
    assert before in OWN
    path = add("wrong", OWN.replace(before, after))
    with pytest.raises(UserError) as found:
        probes.settings_type("wrong")
    said = str(found.value)
    assert said.startswith(str(path)) and message in said and "\n" not in said


def test_a_figure_that_no_one_named_is_refused(add: component.Write) -> None:
    path = add("own", OWN.replace('"classes")', '"class")'))
    with pytest.raises(UserError) as found:
        measured("own", features())
    assert str(found.value) == f"{path}: measure returned 'classes', which figures does not name."


def test_an_unknown_probe_is_said_with_those_there_are() -> None:
    with pytest.raises(UserError) as found:
        probes.resolve("linaer", {}, "probes.few")
    assert str(found.value) == (
        "probes.few: unknown probe 'linaer'. Did you mean 'linear'? "
        "Probes: detection, linear, nearest, reference_prior, retrieval."
    )


def test_features_that_are_not_finite_are_refused() -> None:
    given = features()
    broken = given.x["validation"].copy()
    broken[3, 1] = np.inf
    with pytest.raises(UserError) as found:
        measured("linear", replace(given, x={**given.x, "validation": broken}))
    assert str(found.value) == (
        "probe linear: the features of the part validation are not finite numbers."
    )


# Names in a record.


def test_the_label_comes_after_the_part() -> None:
    found = probes.recorded(
        {
            "linear": probe("linear"),
            "few": probe("linear", per_class=4),
            "near": probe("nearest"),
            "others": probe("retrieval", k=[1, 4]),
            "open": probe("detection"),
        }
    )
    assert found["test_linear_accuracy"] == ("linear", "test_accuracy")
    assert found["test_few_accuracy"] == ("few", "test_accuracy")
    assert found["val_near_accuracy"] == ("near", "val_accuracy")
    assert found["few_l2"] == ("few", "l2")
    assert found["test_others_recall_at_4"] == ("others", "test_recall_at_4")
    assert found["unlabelled_open_left_out_tpr"] == ("open", "unlabelled_left_out_tpr")
    assert len(found) == 4 + 4 + 2 + 4 + 6


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["Few"], "p: a label must be a small letter, then small letters, digits and _"),
        (["a b"], "(found 'a b')"),
        ([1], "(found 1)"),
        (
            ["balanced"],
            "p.balanced: 'test_balanced_accuracy' is a figure of every run already; choose another",
        ),
    ],
)
def test_a_label_that_cannot_be_is_one_message(labels: list[str], message: str) -> None:
    with pytest.raises(UserError) as found:
        probes.recorded({label: probe("nearest") for label in labels}, "p")
    assert message in str(found.value) and "\n" not in str(found.value)


def test_two_labels_never_make_one_name(add: component.Write) -> None:
    add("own", OWN.replace('("test_length", "classes")', '("test_b_accuracy",)'))
    with pytest.raises(
        UserError, match=r"p\.a_b: 'test_a_b_accuracy' is a figure of the probe 'a'"
    ):
        probes.recorded({"a": probe("own"), "a_b": probe("nearest")}, "p")


# Of all that are there.

MOST = {"linear": {}, "nearest": {"k": 20}, "retrieval": {"k": [1, 4], "nmi": True},
        "reference_prior": {"between": [0, 1]}}  # fmt: skip
SIZES = {"train": 240, "validation": 80, "test": 120, "unlabelled": 100}


@pytest.mark.parametrize("name", probes.names())
def test_a_probe_returns_what_it_names_and_leaves_the_rest_alone(name: str) -> None:
    given = features(SIZES)
    before = {part: x.copy() for part, x in given.x.items()}
    state = np.random.get_state()[1].copy()
    settings = MOST.get(name, {})
    found = measured(name, given, **settings)
    assert set(found) == set(probes.figures(probe(name, **settings)))
    assert all(np.isfinite(value) for value in found.values())
    assert measured(name, given, **settings) == found, "another call gives other figures"
    assert all(np.array_equal(x, before[part]) for part, x in given.x.items())
    assert np.array_equal(np.random.get_state()[1], state)
    for figure in probes.figures(probe(name, **settings)):
        assert metrics.find(figure) is not None, "a figure without a unit"
    # With the parts alone that it needs.
    parts = probes.needs(probe(name, **settings))
    least = {part: SIZES[part] for part in parts}
    assert 0 < len(measured(name, features(least), **settings)) <= len(found)
    for part in parts:
        rows = {other: size for other, size in least.items() if other != part}
        with pytest.raises(UserError, match=rf"^x\.y: the probe {name} needs samples of .* {part}"):
            probes.check(probe(name, **settings), rows, 5, "x.y")


def test_planning_imports_neither_torch_nor_scikit_learn() -> None:
    code = (
        "import sys; from cyclery import probes\n"
        "for n in probes.names(): probes.figures(probes.resolve(n, {}))\n"
        "print([n for n in ('torch', 'sklearn', 'scipy') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# The few labels.


def test_so_many_of_each_class_are_drawn_and_fewer_are_some_of_them() -> None:
    y = np.random.default_rng(0).permutation(np.repeat([0, 1, 4], [30, 40, 50]))
    for seed in range(5):
        drawn = [labelled(y, n, seed) for n in (1, 4, 30)]
        for rows, count in zip(drawn, (1, 4, 30), strict=True):
            assert (np.diff(rows) > 0).all()
            assert np.bincount(y[rows]).tolist() == [count, count, 0, 0, count]
        assert set(drawn[0]) < set(drawn[1]) < set(drawn[2])
    assert labelled(y, None, 0).tolist() == list(range(120))
    assert len({tuple(labelled(y, 1, seed)) for seed in range(50)}) > 45


def test_other_classes_change_no_draw_of_a_class() -> None:
    y = np.arange(60) % 3
    merged = np.where(y == 2, 1, y)
    first = labelled(y, 5, 7)
    assert set(first[y[first] == 0]) == set(labelled(merged, 5, 7)) & set(np.flatnonzero(y == 0))


def test_every_row_of_a_class_is_drawn_as_often_as_another() -> None:
    y = np.arange(20) % 2
    times = sum(np.bincount(labelled(y, 2, seed), minlength=20) for seed in range(2000))
    # Binomial of 2,000 draws at 1 in 5: 400, deviation 18.
    assert abs(times - 400).max() < 5 * 18


def test_a_draw_stays_what_it_was() -> None:
    """Records hold figures of these rows, so neither numpy nor an edit may draw others."""
    assert labelled(np.arange(40) % 4, 2, 11).tolist() == [4, 7, 9, 11, 14, 16, 21, 30]
