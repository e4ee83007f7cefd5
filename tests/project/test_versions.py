"""What is computed changes only together with its version, or finished runs would go stale unseen.

After a change that is meant, raise the version that the failing test names, and record anew:

    PYTHONPATH=tests python tests/project/test_versions.py

After a change of a method's code that leaves its results as they were (another name, a quicker
way; comments, docstrings and layout count for nothing), have that checked and recorded:

    PYTHONPATH=tests python tests/project/test_versions.py same kd
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from factories import engine as factory

from cyclery import engine, methods
from cyclery.engine.teachers import Trained
from cyclery.records import range_bounds

Json = dict[str, Any]

RECORDED = Path(__file__).with_name("versions.json")
RECORDED_TEXT = RECORDED.read_text()
# Other processors round otherwise; a change of the computation is far larger than this.
TOLERANCE = 2e-4
ENGINE: dict[str, Json] = {
    **{f"optimiser {name}": {"optimiser": name, "lr": lr} for name, lr in {
        "sgd": 0.1, "adam": 0.002, "adamw": 0.002, "rmsprop": 0.001, "adagrad": 0.01,
        "adadelta": 1.0,
    }.items()},
    **{f"network {name}": {"model": name, "lr": 0.02} for name in (
        "small_cnn", "wrn", "stochastic_depth",
    )},
    "range of learning rates": {"lr": {"kind": "one_cycle", "peak": 0.1}},
    "first labels": {"split": {"choose": "first"}},
    "imbalance": {"split": {"imbalance": {"kind": "two_level", "ratio": [5, 3]}}},
    "covering": {"augment": ({"op": "cutout", "size": 3}, {"op": "erasing"})},
    "order shuffled": {"weight_decay": factory.cycle(1e-1, 1e-2, order="shuffled")},
}  # fmt: skip
# Of methods that teach: what their defaults, which stand under `losses`, do not compute.
VARIANTS: dict[str, dict[str, Json]] = {
    "kd": {
        "no labels": {"hard": 0.0},
        "cross-entropy as TAKD divides": {"form": "cross_entropy", "reduction": "mean"},
        "without T^2": {"squared": False},
        "permuted": {"targets": "permuted"},
        "unlabelled": {"inputs": "unlabelled"},
        "mixtures of both": {"inputs": "both", "mixup": 0.5, "hard": 0.0},
    },
    "ces_kd": {
        **{assignment: {"assignment": assignment}
           for assignment in ("random", "reversed", "single", "mean", "all")},
        **{unlocking: {"unlocking": unlocking} for unlocking in ("static", "easy_first")},
        **{difficulty: {"difficulty": difficulty}
           for difficulty in ("teacher_loss", "student_loss", "first_correct")},
        "unlocked over the whole run": {"rho": 1.0},
    },
    "fixmatch": {
        "soft": {"target": "soft"},
        "soft, aligned": {"target": "soft", "alignment": "average"},
    },
    "soteacher": {penalty: {"penalty": penalty} for penalty in ("l1", "l1_matched")},
}  # fmt: skip


@cache
def parent(seed: int) -> Trained:
    """Return a network that was trained a little, so its statistics are not a new one's."""
    given = factory.settings(model="small_cnn", seed=seed, epochs=1, lr=0.02)
    return factory.trained(factory.train(given))


# Of chains: the settings that are changed, and the parents.
CHAINS: dict[str, tuple[str, Json, dict[str, list[int]]]] = {
    "start from a parent": ("supervised", {"init": "start", "init_share": 1.0}, {"start": [5]}),
    "start between networks": ("supervised", {"init": "start", "init_share": 0.3}, {"start": [5]}),
    "another draw": ("supervised", {"draw": "other"}, {}),
    "ensemble": ("kd", {}, {"teacher": [5, 6, 7]}),
    "reference": ("kd", {}, {"teacher": [5], "reference": [6]}),
}


def losses(given: Json) -> list[float]:
    """Return the losses of a short run on real data."""
    run = factory.train(given)
    return [*run.curve["train_loss"], run.final()["test_nll"]]


def method_values(name: str) -> list[float]:
    return losses(factory.everything(name, epochs=3, clip_norm=factory.cycle(1.0, 0.2)))


def engine_values(name: str) -> list[float]:
    return losses(factory.settings(epochs=2, **ENGINE[name]))


def variant_values(name: str, variant: str) -> list[float]:
    chosen = VARIANTS[name][variant]
    # An expert is unlocked on the way.
    ramp = {"progress": {"kind": "linear", "start": 0.0, "end": 1.0}} if name == "ces_kd" else {}
    return losses(factory.everything(name, epochs=3, method_settings=chosen, **ramp))


def chain_values(name: str) -> list[float]:
    method, changes, parents = CHAINS[name]
    given = factory.settings(method, model="small_cnn", epochs=2, lr=0.02) | changes
    taken = {key: [parent(seed) for seed in seeds] for key, seeds in parents.items()}
    run = factory.train(given, parents=taken)
    final = run.final()
    figures = [f"{part}_kl" for part in ("test", "val", "train") if f"{part}_kl" in final]
    return [*run.curve["train_loss"], final["test_nll"], *(final[figure] for figure in figures)]


def range_values() -> list[float]:
    accuracy = [0.1, 0.1, 0.12, 0.2, 0.4, 0.6, 0.7, 0.72, 0.71, 0.5, 0.3, 0.1]
    found = range_bounds.bounds([0.01 * 2**i for i in range(12)], accuracy, 10, 20.48)
    return [found["base"], found["max"]]


def recorded(what: str, version: int) -> dict[str, list[float]]:
    """Return the values that were recorded at this version."""
    found = json.loads(RECORDED.read_text()).get(what, {})
    assert found.get("version") == version, f"{what}: record its values (see the top of this file)"
    values: dict[str, list[float]] = found["values"]
    return values


@pytest.mark.parametrize("name", methods.names())
def test_a_method_computes_what_its_version_did(name: str) -> None:
    before = recorded(name, methods.load(name).version)["losses"]
    assert method_values(name) == pytest.approx(before, rel=TOLERANCE), (
        f"raise VERSION in methods/{name}.py, or ENGINE_VERSION where the engine changed"
    )


@pytest.mark.parametrize("name", methods.names())
def test_code_changes_with_its_version_or_is_found_to_compute_the_same(name: str) -> None:
    found = json.loads(RECORDED.read_text()).get(name, {})
    assert found.get("code") == methods.code(name), (
        f"methods/{name}.py, or what it takes from another method's file, changed: raise VERSION "
        f"and record anew (see the top of this file), or, where it still computes the same, run "
        f"`python tests/project/test_versions.py same {name}`"
    )


def test_other_code_is_not_recorded_as_the_same_where_results_differ(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "versions.json"
    path.write_text(RECORDED.read_text())
    module = sys.modules[__name__]
    monkeypatch.setattr(module, "RECORDED", path)
    monkeypatch.setattr(methods, "code", lambda name: "other")
    before = recorded("supervised", methods.load("supervised").version)
    monkeypatch.setattr(module, "values_of", lambda name: {"losses": [9.0, *before["losses"][1:]]})
    with pytest.raises(SystemExit, match="raise VERSION"):
        same("supervised")
    assert path.read_text() == RECORDED_TEXT
    monkeypatch.setattr(module, "values_of", lambda name: before)
    same("supervised")
    assert json.loads(path.read_text())["supervised"]["code"] == "other"


@pytest.mark.parametrize(("name", "variant"), [(n, v) for n in VARIANTS for v in VARIANTS[n]])
def test_a_variant_computes_what_its_version_did(name: str, variant: str) -> None:
    before = recorded(name, methods.load(name).version)[variant]
    assert variant_values(name, variant) == pytest.approx(before, rel=TOLERANCE), (
        f"raise VERSION in methods/{name}.py, or ENGINE_VERSION where the engine changed"
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_each_variant_computes_something_else(name: str) -> None:
    found = recorded(name, methods.load(name).version)
    assert len(found) == 1 + len(VARIANTS[name])
    assert len({tuple(values[:-1]) for values in found.values()}) == len(found)


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_computes_what_its_version_did(name: str) -> None:
    before = recorded("engine", engine.ENGINE_VERSION)[name]
    assert chain_values(name) == pytest.approx(before, rel=TOLERANCE), "raise ENGINE_VERSION"


@pytest.mark.parametrize("name", ENGINE)
def test_the_engine_computes_what_its_version_did(name: str) -> None:
    before = recorded("engine", engine.ENGINE_VERSION)[name]
    assert engine_values(name) == pytest.approx(before, rel=TOLERANCE), "raise ENGINE_VERSION"


def test_a_range_test_is_read_as_its_version_did() -> None:
    before = recorded("engine", engine.ENGINE_VERSION)["reading of a range test"]
    assert range_values() == pytest.approx(before), "raise ENGINE_VERSION"


def values_of(name: str) -> dict[str, list[float]]:
    """Return all that is recorded of what a method computes."""
    variants = {each: variant_values(name, each) for each in VARIANTS.get(name, {})}
    return {"losses": method_values(name), **variants}


def same(name: str) -> None:
    """Record the code of a method as computing what its version did, unless it does not."""
    before = recorded(name, methods.load(name).version)
    for what, values in values_of(name).items():
        if values != pytest.approx(before[what], rel=TOLERANCE):
            raise SystemExit(f"{name}, {what}: other results; raise VERSION in methods/{name}.py")
    found = json.loads(RECORDED.read_text())
    found[name]["code"] = methods.code(name)
    RECORDED.write_text(json.dumps(found, indent=1) + "\n")


def record() -> None:
    """Write the values of today."""
    found: Json = {
        name: {
            "version": methods.load(name).version,
            "code": methods.code(name),
            "values": values_of(name),
        }
        for name in methods.names()
    }
    values = {name: engine_values(name) for name in ENGINE}
    values |= {name: chain_values(name) for name in CHAINS}
    values["reading of a range test"] = range_values()
    found["engine"] = {"version": engine.ENGINE_VERSION, "values": values}
    RECORDED.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["same"]:
        for each in sys.argv[2:]:
            same(each)
    else:
        record()
