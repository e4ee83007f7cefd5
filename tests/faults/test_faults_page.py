"""The runner of the fault suite: what it counts, how it shows failures, and its page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cyclery.common.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import faults

    return faults


def case(name: str, inside: str = "", **noted: object) -> str:
    properties = "".join(f'<property name="{k}" value="{v}"/>' for k, v in noted.items())
    return (
        f'<testcase classname="tests.test_x" name="{name}">'
        f"<properties>{properties}</properties>{inside}</testcase>"
    )


def report(*cases: str) -> str:
    return f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>"


KILL = {"fault": "kill -9", "injected": 20, "lost": 0, "outcome": "it goes on"}
DISK = {"fault": "full disk", "injected": 1, "lost": 1, "outcome": "one | line"}


def found(faults: Any, *reports: str) -> dict[str, Any]:
    rounds = [
        {"seed": 7 + i, "seconds": 60, **faults.read_round(text)} for i, text in enumerate(reports)
    ]
    return {"made": "2026-01-01T00:00", "device": "CPU x", "cores": 2, "versions": {"torch": "2"},
            "rounds": rounds, "faults": faults.added(rounds)}  # fmt: skip


def test_what_tests_note_is_added_up_by_fault(faults: Any) -> None:
    more = {**KILL, "outcome": "it waits"}
    one = report(case("a", **KILL), case("b", **more), case("c", **DISK), case("plain"))
    made = found(faults, one, one)
    assert made["faults"] == [
        {"fault": "full disk", "injected": 2, "lost": 2, "outcomes": ["one | line"], "in": [1, 2]},
        {"fault": "kill -9", "injected": 80, "lost": 0, "outcomes": ["it goes on", "it waits"],
         "in": [1, 2]},
    ]  # fmt: skip
    text = faults.section(made)
    assert "**2 of 2 rounds passed: 82 faults, of which 80 are kills; 2 finished" in text
    assert "| 1 | 7 | 4 | 0 | 60 | passed |" in text
    assert "| kill -9 | 80 | 0 | it goes on; it waits |" in text
    assert "| full disk | 2 | 2 | one \\| line |" in text


def test_a_failed_round_is_shown_and_its_failures_count_for_nothing(faults: Any) -> None:
    fails = report(
        case("a", **KILL),
        case("b", "<failure message='no'/>", **DISK),
        case("c", "<error message='no'/>", **DISK),
        case("d", "<skipped message='no root'/>"),
    )
    made = found(faults, report(case("a", **KILL), case("b", **DISK)), fails)
    text = faults.section(made)
    assert "**1 of 2 rounds passed: 41 faults" in text
    assert "| 2 | 8 | 4 | 1 | 60 | **failed**; test_x::b; test_x::c |" in text
    assert "| full disk | 1 | 1 | one \\| line (shown in round 1 alone) |" in text
    assert "- test_x::d: no root" in text


def test_a_round_that_ends_without_a_report_failed(
    faults: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults.subprocess, "run", lambda *_, **__: Ended(5))
    assert faults.inject(3)["failed"] == ["pytest ended with code 5"]


class Ended:
    def __init__(self, code: int) -> None:
        self.returncode = code


def test_every_round_has_a_seed_of_its_own(faults: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []

    def inject(seed: int) -> dict[str, Any]:
        seeds.append(seed)
        return {"seed": seed, "seconds": 1, **faults.read_round(report(case("a", **KILL)))}

    monkeypatch.setattr(faults, "inject", inject)
    made = faults.measure(3, 5)
    assert seeds == [5, 6, 7] and made["faults"][0]["injected"] == 60
    assert "notes" not in made["rounds"][0] and made["versions"]["snakemake"]


def test_the_page_of_this_project_is_current(faults: Any) -> None:
    stored = faults.read(ROOT / faults.STORED)
    text = (ROOT / faults.PAGE).read_text(encoding="utf-8")
    assert faults.filled(text, stored) == text, "run `python benchmarks/faults.py --docs`"


def test_no_figures_and_no_marks_are_said(faults: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no faults are stored"):
        faults.read(tmp_path / "no.json")
    with pytest.raises(UserError, match="marks"):
        faults.filled("no marks", found(faults))
