"""A kind of schedule is a file: what it declares, and what is said where it is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from factories import component
from factories import engine as factory
from factories.schedules import clock

from cyclery import schedules
from cyclery.common.errors import UserError
from cyclery.engine.machine import COMPUTING

SAWTOOTH = '''
"""A sawtooth."""

from dataclasses import dataclass, field

from cyclery.schedules import Clock, Column, Nested, Number, Schedule, amount, key


@dataclass(frozen=True, kw_only=True)
class Settings(Schedule):
    """From high down to the floor in each epoch."""

    high: Number = field(metadata=amount("value at the first update of an epoch"))
    floor: Nested = field(metadata=key("what it falls to"))

    def column(self, clock: Clock, seed: int) -> Column:
        part = clock.t / clock.pace % 1
        return self.high + (self.floor.values(clock, seed) - self.high) * part
'''


@pytest.fixture
def write(tmp_path: Path) -> Iterator[component.Write]:
    with component.written(schedules, tmp_path / "schedules") as written:
        yield written


@pytest.mark.parametrize("name", schedules.names())
def test_every_key_is_documented(name: str) -> None:
    kind = schedules.kinds()[name]
    assert kind.__doc__
    assert all(item.metadata["doc"] for item in fields(kind))


def test_a_kind_is_one_file(write: component.Write) -> None:
    write("sawtooth", SAWTOOTH)
    spec = {"kind": "sawtooth", "high": 4, "floor": {"kind": "linear", "start": 0, "end": 1}}
    assert "sawtooth" in schedules.kinds()
    assert schedules.normalise(spec)["floor"]["kind"] == "linear"
    assert list(schedules.amounts(spec, "lr")) == [("lr.high", 4.0)]
    np.testing.assert_allclose(
        schedules.column(spec, clock(8, 2))[[0, 1, 4, 5]], [4, 3.03125, 4, 3.15625]
    )
    with pytest.raises(UserError, match=r"^lr\.floor\.peak: missing"):
        schedules.check(spec | {"floor": {"kind": "cosine"}}, "lr")
    with pytest.raises(UserError, match=r"^batch\.kind: must be one of constant, cycle, power"):
        schedules.check_batch(spec, "batch")


def test_a_run_follows_a_kind_of_one_file(write: component.Write) -> None:
    write("sawtooth", SAWTOOTH)
    run = factory.run(
        factory.settings(epochs=2, lr={"kind": "sawtooth", "high": 0.1, "floor": 0.05})
    )
    factory.finish(run)
    rates = run.table.columns["lr"].reshape(2, -1)
    steps = rates.shape[1]
    np.testing.assert_allclose(rates[0], 0.1 - 0.05 * np.arange(steps) / steps)
    np.testing.assert_allclose(rates[1], rates[0])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"""A sawtooth."""', "def", r"sawtooth\.py:2: invalid syntax"),
        ("import Clock,", "import Clok,", r"sawtooth\.py:6: .* cannot import name 'Clok'"),
        (
            "class Settings",
            "class Setings",
            r"sawtooth\.py: declares no Settings; every",
        ),
        ("(Schedule)", "", r"sawtooth\.py:10: Settings must derive from Schedule"),
        ("@dataclass", "#", r"sawtooth\.py:10: Settings must be a dataclass"),
        ("def column", "def colum", r"sawtooth\.py:10: Settings must define `column`"),
        ("field(metadata=key(", "(1 or (", r"sawtooth\.py:14: Settings\.floor does not say"),
        ("high: Number", "high: Nmber", r"sawtooth\.py:10: an annotation of Settings .* 'Nmber'"),
    ],
)
def test_a_wrong_file_is_named(write: component.Write, old: str, new: str, message: str) -> None:
    assert old in SAWTOOTH
    write("sawtooth", "from __future__ import annotations" + SAWTOOTH.replace(old, new))
    with pytest.raises(UserError, match=message):
        schedules.check({"kind": "sawtooth", "high": 1, "floor": 0}, "lr")


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("clock.t[:3]", r"sawtooth\.py: column must return float64 .* \(8,\) .* \(3,\)\)"),
        ("clock.epoch", r"sawtooth\.py: column must return float64 .* \(found int64 of the shape"),
        ("1.0", r"sawtooth\.py: column must return float64 .* \(found float of the shape None"),
    ],
)
def test_a_wrong_column_is_named(write: component.Write, returned: str, message: str) -> None:
    write("sawtooth", SAWTOOTH.replace("return self", f"return {returned}  # "))
    with pytest.raises(UserError, match=message):
        schedules.column({"kind": "sawtooth", "high": 1, "floor": 0}, clock(8, 2))


@pytest.mark.parametrize("package_name", ["schedules", "augment"])
def test_every_file_of_a_package_is_code_that_computes(package_name: str) -> None:
    """So a record's hash of the code changes with each of them."""
    package = Path(schedules.__file__).parents[1]
    hashed = {file for pattern in COMPUTING for file in package.glob(pattern)}
    files = set((package / package_name).rglob("*.py"))
    assert files and files <= hashed
