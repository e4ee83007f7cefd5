"""What is computed changes only together with its version, or finished runs would go stale unseen.

After a change that is meant, raise the version that the failing test names, and record anew:

    python tests/test_versions.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import engine_factory as factory
import pytest

from cyclery import engine, lrrange, methods

Json = dict[str, Any]

RECORDED = Path(__file__).with_name("versions.json")
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


def losses(given: Json) -> list[float]:
    """Return the losses of a short run on real data."""
    run = factory.train(given)
    return [*run.curve["train_loss"], run.final()["test_nll"]]


def method_values(name: str) -> list[float]:
    return losses(factory.everything(name, epochs=3, clip_norm=factory.cycle(1.0, 0.2)))


def engine_values(name: str) -> list[float]:
    return losses(factory.settings(epochs=2, **ENGINE[name]))


def range_values() -> list[float]:
    accuracy = [0.1, 0.1, 0.12, 0.2, 0.4, 0.6, 0.7, 0.72, 0.71, 0.5, 0.3, 0.1]
    found = lrrange.bounds([0.01 * 2**i for i in range(12)], accuracy, 10, 20.48)
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


@pytest.mark.parametrize("name", ENGINE)
def test_the_engine_computes_what_its_version_did(name: str) -> None:
    before = recorded("engine", engine.ENGINE_VERSION)[name]
    assert engine_values(name) == pytest.approx(before, rel=TOLERANCE), "raise ENGINE_VERSION"


def test_a_range_test_is_read_as_its_version_did() -> None:
    before = recorded("engine", engine.ENGINE_VERSION)["reading of a range test"]
    assert range_values() == pytest.approx(before), "raise ENGINE_VERSION"


def record() -> None:
    """Write the values of today."""
    found: Json = {
        name: {"version": methods.load(name).version, "values": {"losses": method_values(name)}}
        for name in methods.names()
    }
    values = {name: engine_values(name) for name in ENGINE}
    values["reading of a range test"] = range_values()
    found["engine"] = {"version": engine.ENGINE_VERSION, "values": values}
    RECORDED.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    record()
