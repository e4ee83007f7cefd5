"""Layers of settings, what may stand in them, and what is the same however it is written."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from factories.data import KNOWN
from factories.project import PAPER, TIER, arms, comparison, write
from hypothesis import given
from hypothesis import strategies as st

from cyclery.common.errors import UserError
from cyclery.common.settings import read, read_layer
from cyclery.config.load import load, read_value, read_yaml
from cyclery.config.resolve import DEFAULTS, merge, resolve
from cyclery.config.settings import Settings
from cyclery.optim.adam import Settings as Adam
from cyclery.optim.sgd import Settings as Sgd
from cyclery.plan.project_checks import check

Json = dict[str, Any]
FULL: Json = {"dataset": "digits", "split": {"test": 200}, "model": "bn_mlp", "lr": 0.1,
              "batch": 50, "epochs": 5}  # fmt: skip


def resolved(*layers: Json) -> Json:
    return resolve(merge(Settings.model_validate(layer) for layer in (FULL, *layers)), KNOWN)


def test_later_layers_hold() -> None:
    found = resolved({"epochs": 6, "lr": 0.2}, {"lr": 0.3})
    assert (found["epochs"], found["schedules"]["lr"]["value"]) == (6, 0.3)


def test_what_no_layer_sets_has_its_default() -> None:
    found = resolved()
    for key in ("precision", "deterministic", "threads", "evaluations"):
        assert found[key] == DEFAULTS[key]
    assert found["schedules"]["momentum"] == {"kind": "constant", "value": DEFAULTS["momentum"]}
    assert "clip_norm" not in found["schedules"]
    assert found["method"]["name"] == "supervised" and found["split"]["choose"] == "random"


def test_a_split_merges_key_by_key() -> None:
    found = resolved({"split": {"labels": 100}}, {"split": {"labels": None, "per_class": 5}})
    assert [found["split"][key] for key in ("test", "labels", "per_class")] == [200, None, 5]


def test_the_same_component_merges_and_another_replaces() -> None:
    wide = {"model": {"name": "bn_mlp", "hidden": [8], "activation": "sigmoid"}}
    narrow = resolved(wide, {"model": {"hidden": [4]}})["model"]["settings"]
    assert (narrow["hidden"], narrow["activation"]) == ([4], "sigmoid")
    assert resolved(wide, {"model": "bn_mlp"}) == resolved(wide)
    assert resolved(wide, {"model": "small_cnn"}) == resolved({"model": "small_cnn"})
    assert resolved(wide, {"model": None}, {"model": "bn_mlp"}) == resolved()
    sharp = resolved({"method": {"temperature": 0.5}})
    assert sharp["schedules"]["temperature"]["value"] == 0.5
    twice = resolved({"method": {"temperature": 0.5}}, {"method": "supervised"})
    assert twice == sharp
    focal = {"method": {"name": "cyclical_focal", "gamma_hc": 1}}
    assert resolved(focal, {"method": "supervised"}) == resolved()


def test_what_nothing_reads_is_no_part_of_a_run() -> None:
    """So an experiment may set for all its arms what some of them ignore."""
    shared = {"name": "ces_kd", "rho": 0.3, "progress": 1, "difficulty": "teacher_loss"}
    for own, lost in (
        ({}, set()),
        ({"unlocking": "static"}, {"rho", "progress"}),
        ({"assignment": "mean"}, {"rho", "progress", "difficulty"}),
    ):
        found = resolved({"method": shared}, {"method": own})
        kept = {key: value for key, value in shared.items() if key not in lost}
        assert found == resolved({"method": {**kept, **own}})
        assert (found == resolved({"method": {"name": "ces_kd", **own}})) == (len(lost) == 3)


OWN: Json = {"ema_buffers": "own", "ema_decay": 0.9, "split": {"unlabelled": "all"},
             "strong": [{"op": "cutout", "size": 3}]}  # fmt: skip


@pytest.mark.parametrize(
    "method",
    [
        "supervised",
        "pseudo_label",
        "cyclical_focal",
        "fixmatch",
        {"name": "fixmatch", "labels_from": "ema_eval"},
        {"name": "mean_teacher", "target": "current"},
    ],
    ids=str,
)
def test_own_statistics_of_an_average_that_never_trains_are_refused(method: str | Json) -> None:
    """They would stay at 0 and 1, and every evaluation at chance."""
    name = method if isinstance(method, str) else method["name"]
    with pytest.raises(UserError) as caught:
        resolved(OWN, {"method": method})
    assert str(caught.value) == (
        f"ema_buffers: own needs a method that runs the averaged network in training mode, which "
        f"'{name}' as set here does not, so its batch norm would never measure anything; choose "
        "shared or average."
    )
    for network in ({"name": "small_cnn", "norm": "group"}, {"name": "vgg", "norm": "none"}):
        found = resolved(OWN, {"method": method, "model": {**network}, "dataset": "fashion-mnist"})
        assert found["ema_buffers"] == "own"
    assert resolved(OWN, {"method": method, "ema_buffers": "average"})["ema_buffers"] == "average"


@pytest.mark.parametrize(
    "method", ["mean_teacher", {"name": "fixmatch", "labels_from": "ema_train"}], ids=str
)
def test_own_statistics_are_measured_where_the_average_trains(method: str | Json) -> None:
    assert resolved(OWN, {"method": method})["ema_buffers"] == "own"


def test_where_nothing_is_averaged_its_statistics_say_nothing() -> None:
    assert resolved({"ema_buffers": "own"}) == resolved()


def test_null_takes_back() -> None:
    set_, back = {"clip_norm": 1.0, "momentum": 0.5}, {"clip_norm": None, "momentum": None}
    assert resolved(set_, back) == resolved()
    with pytest.raises(UserError, match=r"^lr: missing"):
        resolved({"lr": None})


def test_range_is_three_triangular_cycles() -> None:
    assert resolved({"lr": "range"})["schedules"]["lr"] == {
        "kind": "triangular", "low": "range.base", "high": "range.max", "cycles": 3.0,
        "window": "triangle", "mode": "triangular",
    }  # fmt: skip


def test_numbers_are_read_as_in_json(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("a: [1e-3, -2E+4, 5.e1, .5e0]\n")
    assert read_yaml(path) == {"a": [1e-3, -2e4, 50.0, 0.5]}
    path.write_text('a: [1e, e3, 1e-3x, "1e-3", "1_000", v1e3]\n')
    assert read_yaml(path) == {"a": ["1e", "e3", "1e-3x", "1e-3", "1_000", "v1e3"]}


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_is_read_back(number: float) -> None:
    for text in (repr(number), f"{number:.17e}", f"{number:.17g}"):
        assert read_value(text) == number


def test_a_value_that_is_no_yaml_is_text() -> None:
    assert read_value("[") == "[" and read_value("2020-13-45") == "2020-13-45"
    assert read_value("{a: 1, a: 2}") == "{a: 1, a: 2}"
    assert read_value("[clr, gct]") == ["clr", "gct"]


def test_aliases_and_merge_keys(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: [*a, *a]\n")
    one = {"x": 1, "y": 2}
    assert read_yaml(path) == {"a": one, "b": {"x": 1, "y": 3}, "c": [one, one]}


def test_overrides_that_change_nothing_are_none(tmp_path: Path) -> None:
    write(tmp_path, TIER, PAPER, {"tier": "smoke", "seeds": 4})
    assert load(tmp_path, {"tier": "smoke", "seeds": 4, "device": "auto"}).overrides == {}
    project = load(tmp_path, {"seeds": 3, "papers": ["one"]})
    assert project.overrides == {"seeds": 3, "papers": ["one"]}
    assert (project.seeds, project.selected()) == (3, ["one"])
    assert load(tmp_path, {"seeds": None}).seeds == TIER["seeds"]


FAIR: dict[str, Callable[[Json, Json], object]] = {
    "a reason for unequal budgets": lambda tier, paper: (
        arms(paper)["fast"].update(epochs=9),
        comparison(paper).update(unequal_budget="it is about time"),
    ),
    "unequal budgets that no claim compares": lambda tier, paper: arms(paper).update(
        long={"epochs": 9}
    ),
    "unequal budgets of a claim that is not run": lambda tier, paper: (
        arms(paper)["fast"].update(epochs=9),
        paper["claims"]["C-1"].update(not_run={"all": "a reason"}),
    ),
    "a curve": lambda tier, paper: comparison(paper).update(
        metric="val_nll@0.5", lower_is_better=True
    ),
    "the logarithm of the time": lambda tier, paper: comparison(paper).update(
        metric="log:seconds", lower_is_better=True
    ),
    "an arm against its own past": lambda tier, paper: comparison(paper).update(
        against="fast", metric="test_accuracy@1", against_metric="test_accuracy@0.5"
    ),
    "an arm that a tier leaves out": lambda tier, paper: paper["experiments"]["main"].update(
        tiers={"smoke": {"arms": ["plain"], "not_run": {"fast": "takes long"}}}
    ),
    "a dataset that this machine has not": lambda tier, paper: arms(paper).update(
        cifar={"dataset": "cifar10", "split": {"test": None}}
    ),
}


@pytest.mark.parametrize("case", FAIR)
def test_what_is_allowed(case: str, tmp_path: Path) -> None:
    tier, paper = copy.deepcopy(TIER), copy.deepcopy(PAPER)
    FAIR[case](tier, paper)
    write(tmp_path, tier, paper)
    check(load(tmp_path))


def test_given_fields_are_checked_without_the_others() -> None:
    assert read_layer(Adam, {"eps": 1}, "adam") == {"eps": 1.0}
    assert read_layer(Adam, {"eps": "x"}, "adam", skip=("eps",)) == {"eps": "x"}
    for wrong, wanted in (
        ({"ep": 1}, r"adam: unknown key 'ep'. Did you mean 'eps'\? Allowed: beta2, eps."),
        ({"eps": 0}, r"adam.eps: must be above 0.0 \(found 0\)."),
        ({"beta2": 1}, r"adam.beta2: must be at least 0.0 and below 1.0 \(found 1\)."),
        ({"eps": True}, r"adam.eps: must be a number \(found True\)."),
        ({"eps": {"kind": "ramp"}}, r"adam.eps: must be a number .* This setting follows no sched"),
    ):
        with pytest.raises(UserError, match=wanted):
            read_layer(Adam, wrong, "adam")
    with pytest.raises(UserError, match=r"^here\.dampening: 0.5 is not allowed with nesterov"):
        read(Sgd, {"dampening": 0.5}, "here")
