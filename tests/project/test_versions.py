"""What is computed changes only together with its version, or finished runs would go stale unseen.

`make record` adds what a new method computes, takes down what a raised version does, and accepts
other code of a method where it finds that it computes the same.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from factories import versions
from factories.versions import CHAINS, ENGINE, RECORDED, TOLERANCE, VARIANTS

from cyclery import engine, methods

RAISE = "raise VERSION in methods/{0}.py, or ENGINE_VERSION where the engine changed; `make record`"


def recorded(what: str, version: int) -> dict[str, list[float]]:
    """Return the values that were recorded at this version."""
    found = json.loads(RECORDED.read_text()).get(what)
    if found is None:
        pytest.skip(f"{what} is new: `make record` lets later changes of it be seen")
    assert found["version"] == version, f"{what}: has another version; `make record`"
    values: dict[str, list[float]] = found["values"]
    return values


@pytest.mark.parametrize("name", methods.names())
def test_a_method_computes_what_its_version_did(name: str) -> None:
    before = recorded(name, methods.load(name).version)["losses"]
    found = versions.method_values(name)
    assert found == pytest.approx(before, rel=TOLERANCE), RAISE.format(name)


@pytest.mark.parametrize("name", methods.names())
def test_code_changes_with_its_version_or_is_found_to_compute_the_same(name: str) -> None:
    recorded(name, methods.load(name).version)
    assert json.loads(RECORDED.read_text())[name]["code"] == methods.code(name), (
        f"methods/{name}.py, or what it takes from another method's file, changed: raise VERSION "
        "if it computes something else now; then `make record`"
    )


@pytest.mark.parametrize(("name", "variant"), [(n, v) for n in VARIANTS for v in VARIANTS[n]])
def test_a_variant_computes_what_its_version_did(name: str, variant: str) -> None:
    before = recorded(name, methods.load(name).version)[variant]
    found = versions.variant_values(name, variant)
    assert found == pytest.approx(before, rel=TOLERANCE), RAISE.format(name)


@pytest.mark.parametrize("name", VARIANTS)
def test_each_variant_computes_something_else(name: str) -> None:
    found = recorded(name, methods.load(name).version)
    assert len(found) == 1 + len(VARIANTS[name])
    assert len({tuple(values[:-1]) for values in found.values()}) == len(found)


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_computes_what_its_version_did(name: str) -> None:
    before = recorded("engine", engine.ENGINE_VERSION)[name]
    found = versions.chain_values(name)
    assert found == pytest.approx(before, rel=TOLERANCE), "raise ENGINE_VERSION"


@pytest.mark.parametrize("name", ENGINE)
def test_the_engine_computes_what_its_version_did(name: str) -> None:
    before = recorded("engine", engine.ENGINE_VERSION)[name]
    found = versions.engine_values(name)
    assert found == pytest.approx(before, rel=TOLERANCE), "raise ENGINE_VERSION"


def test_a_range_test_is_read_as_its_version_did() -> None:
    before = recorded("engine", engine.ENGINE_VERSION)[versions.RANGE]
    assert versions.range_values() == pytest.approx(before), "raise ENGINE_VERSION"


# The record.

NAMES = ("kd", "supervised")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a record of two methods, whose values and code the test chooses."""
    monkeypatch.setattr(methods, "names", lambda: NAMES)
    monkeypatch.setattr(methods, "code", lambda name: "code")
    monkeypatch.setattr(versions, "VARIANTS", {})
    monkeypatch.setattr(versions, "values_of", lambda name: {"losses": [1.0]})
    found = {
        name: {"version": methods.load(name).version, "code": "code", "values": {"losses": [1.0]}}
        for name in NAMES
    }
    file = tmp_path / "versions.json"
    own = {key: [2.0] for key in (*ENGINE, *CHAINS, versions.RANGE)}
    found["engine"] = {"version": engine.ENGINE_VERSION, "values": own}
    file.write_text(json.dumps(found))
    return file


def test_a_record_that_is_current_stays(path: Path) -> None:
    before = path.read_bytes()
    assert versions.update(path) == [] and path.read_bytes() == before


def test_other_code_is_accepted_where_it_computes_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods, "code", lambda name: "other")
    monkeypatch.setattr(versions, "values_of", lambda name: {"losses": [1.0001]})
    assert versions.update(path, ("kd",)) == ["kd: other code that computes the same"]
    found = json.loads(path.read_text())
    assert found["kd"]["code"] == "other" and found["supervised"]["code"] == "code"
    assert found["kd"]["values"] == {"losses": [1.0]}


def test_other_code_is_refused_where_it_computes_something_else(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()
    monkeypatch.setattr(methods, "code", lambda name: "other")
    monkeypatch.setattr(versions, "values_of", lambda name: {"losses": [1.01]})
    with pytest.raises(SystemExit, match="kd, losses: other results; raise VERSION"):
        versions.update(path)
    assert path.read_bytes() == before


def test_new_methods_and_versions_are_recorded_and_old_ones_go(path: Path) -> None:
    found = json.loads(path.read_text())
    found["gone"] = found.pop("kd")
    found["supervised"]["version"] = 0
    path.write_text(json.dumps(found))
    assert versions.update(path) == ["kd: recorded", "supervised: recorded", "gone: is gone"]
    assert list(json.loads(path.read_text())) == [*NAMES, "engine"]


def test_another_engine_takes_everything_down_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "ENGINE_VERSION", engine.ENGINE_VERSION + 1)
    monkeypatch.setattr(versions, "values_of", lambda name: {"losses": [9.0]})
    monkeypatch.setattr(versions, "engine_record", lambda: {versions.RANGE: [9.0]})
    assert versions.update(path, ["kd"]) == [
        "kd: recorded", "supervised: recorded", "engine: recorded",
    ]  # fmt: skip
    found = json.loads(path.read_text())
    assert found["engine"]["values"] == {versions.RANGE: [9.0]}
    assert found["kd"]["values"] == {"losses": [9.0]}
