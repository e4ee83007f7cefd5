"""What stands behind a run: its budget holds the run that it starts from, not its teachers."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from factories import component, pretraining
from factories.page import unpacked
from factories.project import PAPER, TIER, arms, evidence, refused, run, trained, write
from factories.record import settings

from cyclery import methods
from cyclery.config.load import load
from cyclery.evidence.stats import contrasts
from cyclery.evidence.stats.lineage import ancestors_spent, budget
from cyclery.evidence.stats.pairing import Pairs
from cyclery.plan.graph import Plan
from cyclery.plan.project_checks import check
from cyclery.records.budgets import Measure
from cyclery.records.evidence import Evidence
from cyclery.records.metrics import value
from cyclery.report import contents, leaders
from cyclery.report.model import amount
from cyclery.report.tables import Table

Json = dict[str, Any]


def paper(**changes: Json) -> Json:
    """Return a paper whose arm `fast` is compared with `plain`, with these arms besides."""
    found = copy.deepcopy(PAPER)
    arms(found).update(changes)
    return found


STARTED: Json = {"parents": {"start": "first"}, "init": "start"}


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_a_fine_tuned_arm_has_its_starts_samples_in_its_budget(
    share: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    declared = paper(first={"epochs": 7}, fast={**STARTED, "init_share": share})
    write(tmp_path, TIER, declared)
    said = refused(tmp_path, capsys)
    assert "samples (fast 1,200, of which 700 by the runs that it starts from, plain 500);" in said
    declared["claims"]["C-1"]["comparisons"][0]["unequal_budget"] = "it is about fine-tuning"
    write(tmp_path, TIER, declared)
    check(load(tmp_path, {}))


def test_starts_count_down_the_chain_and_may_be_made_equal(tmp_path: Path) -> None:
    second = {"parents": {"start": "second"}, "init": "start", "epochs": 1}
    chain = paper(first={"epochs": 7}, second={**STARTED, "epochs": 2}, fast=second,
                  plain={"epochs": 10})  # fmt: skip
    write(tmp_path, TIER, chain)
    plan = check(load(tmp_path, {}))
    assert plan.arm("one", "main", "fast").spent("images") == 1000
    assert plan.arm("one", "main", "fast").cost["images"] == 100


def test_a_teacher_is_no_part_of_the_budget(tmp_path: Path) -> None:
    taught = {"parents": {"teacher": "first"}, "method": "kd"}
    write(tmp_path, TIER, paper(first={"epochs": 7}, fast=taught))
    assert check(load(tmp_path, {})).arm("one", "main", "fast").spent("images") == 500


def record(images: float, init: str | None = None, **more: Any) -> Json:
    """Return a record with these ``images``, and parents (lists) and other counts of ``more``."""
    parents = {name: keys for name, keys in more.items() if isinstance(keys, list)}
    counts = {name: count for name, count in more.items() if name not in parents}
    given = {**settings(0), "init": init, "parents": parents}
    return {"status": "done", "images": images, **counts, "settings": given}


RECORDS = {
    "a": record(700),
    "b": record(200, "start", start=["a"], teacher=["t1", "t2"]),
    "c": record(100, "start", start=["b"], teacher=["t1"]),
    "t1": record(50),
    "t2": record(60),
    "other": record(300),
    "lost": record(10, "start", start=["nowhere"]),
}


def test_budgets_of_records() -> None:
    assert [budget(key, RECORDS) for key in ("a", "b", "c", "other")] == [700, 900, 1000, 300]
    assert budget("lost", RECORDS) is None and budget("nowhere", RECORDS) is None


def test_ancestors_of_records_count_once() -> None:
    found = [ancestors_spent(key, RECORDS, "images") for key in ("a", "b", "c", "other", "lost")]
    assert found == [0, 810, 1010, 0, None]


@pytest.mark.parametrize(
    ("other", "said"), [("a", "'fast' saw 1000 samples and its comparator 700"), ("lost", None)]
)
def test_a_report_names_a_start_that_is_not_declared(other: str, said: str | None) -> None:
    found = Pairs(keys=[["c", other]], columns=[("main", arm, "m") for arm in ("fast", "plain")])
    text = contrasts.unequal_budgets({}, found, RECORDS)
    assert (said is None and text is None) or (said is not None and said in str(text))
    assert contrasts.unequal_budgets({"unequal_budget": "why"}, found, RECORDS) is None


def test_the_evidence_has_what_ancestors_saw() -> None:
    shown = {arm["id"]: arm for arm in evidence(trained())["experiments"][0]["arms"]}
    assert shown["plain"]["ancestors_images"] == 0
    assert shown["student"]["ancestors_images"] == shown["plain"]["images"] > 0


MEASURED = {
    "first": record(700, views=1400, forwards=4200, updates=14),
    # Older than the count of forward passes.
    "old": record(700, views=1400, updates=14),
    "child": record(300, "start", start=["first"], teacher=["old"], views=300, forwards=300,
                    updates=6),
    "plain": record(1000, views=1000, forwards=1000, updates=20),
}  # fmt: skip


@pytest.mark.parametrize(
    ("measure", "started", "everything"),
    [("images", 1000, 1700), ("updates", 20, 34), ("views", 1700, 3100), ("forwards", 4500, 5900)],
)
def test_records_are_counted_in_every_measure(
    measure: Measure, started: int, everything: int
) -> None:
    own = value(MEASURED["child"], measure)
    assert budget("child", MEASURED, measure) == started
    assert budget("child", MEASURED, measure, "all") == everything
    assert budget("child", MEASURED, measure, "none") == own
    assert ancestors_spent("child", MEASURED, measure) == everything - (own or 0)


@pytest.mark.parametrize(
    ("equal", "said"),
    [
        ({}, None),
        ({"equal": "updates"}, None),
        ({"equal": "views"}, "'fast' saw 1700 images of all views and its comparator 1000 in the"),
        ({"equal": "forwards"}, "'fast' made 4500 forward passes and its comparator 1000 in the"),
        ({"equal": "updates", "ancestors": "none"}, "made 6 updates and its comparator 20 in"),
        ({"ancestors": "all"}, "samples and its comparator 1000 in the same seed, all its ancesto"),
        ({"equal": "views", "unequal_budget": "why"}, None),
    ],
)
def test_the_recorded_check_uses_the_measure_of_the_comparison(
    equal: Json, said: str | None
) -> None:
    found = Pairs(keys=[["child", "plain"]], columns=[("main", x, "m") for x in ("fast", "plain")])
    text = contrasts.unequal_budgets({"experiment": "main", **equal}, found, MEASURED)
    assert (text is None) if said is None else said in str(text)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a project whose arm starts from a run without labels, up to its report."""
    root = tmp_path_factory.mktemp("pretrained")
    with component.written(methods, root / "methods") as writer:
        writer(pretraining.NAME, pretraining.METHOD)
        declared = pretraining.paper(equal="forwards", unequal_budget="it is about pretraining")
        write(root, {**TIER, "seeds": 3}, declared, {"tier": "smoke", "device": "cpu"})
        out = root / "results/smoke"
        shards = [shard.id for shard in Plan(load(root, {})).part_shards("one")]
        assert len(shards) == 2
        for command in (
            ["prepare", "digits"],
            *(["train", each, "--output", f"{out}/records/{each}.jsonl"] for each in shards),
            ["evidence", "one", "--output", f"{out}/evidence/one.json",
             "--table", f"{out}/one.csv"],
            ["report", f"{out}/evidence/one.json", "--output", f"{out}/report/index.html"],
        ):  # fmt: skip
            run(root, *command, "--log", f"{root}/log.txt")
        yield root


def test_pretraining_is_counted_in_records_and_evidence(pretrained: Path) -> None:
    took = [pretraining.IMAGES, pretraining.VIEWS, pretraining.FORWARDS]
    [path] = pretrained.glob("results/smoke/records/one/L0*.jsonl")
    records = [json.loads(line) for line in path.read_text().splitlines()]
    own = [each for each in records if each["settings"]["method"]["name"] == pretraining.NAME]
    assert len(own) == 3
    for each in own:
        assert [each[name] for name in ("images", "views", "forwards")] == took
        assert each["updates"] == pretraining.UPDATES
    found = evidence(pretrained)
    shown = {arm["id"]: arm for each in found["experiments"] for arm in each["arms"]}
    costs = ("images", "views", "forwards")
    assert [shown["pretrained"][name] for name in costs] == took
    assert [shown["fast"][name] for name in costs] == [500, 500, 500]
    assert [shown["fast"][f"ancestors_{name}"] for name in costs] == took
    assert [shown["plain"][f"ancestors_{name}"] for name in costs] == [0, 0, 0]
    [row] = found["claims"][0]["comparisons"]
    assert (row["equal"], row["ancestors"]) == ("forwards", "started")


def cells(table: Table, heads: list[str]) -> dict[str, list[Any]]:
    """Return some cells of every row by its arm."""
    known = [column.header for column in table.columns]
    places = [known.index(head) for head in heads]
    return {str(row[1]): [row[place] for place in places] for row in table.rows}


def test_pretraining_is_shown_with_the_arm_that_starts_from_it(pretrained: Path) -> None:
    raw = cast(Evidence, evidence(pretrained))
    took = [amount(n) for n in (pretraining.IMAGES, pretraining.VIEWS, pretraining.FORWARDS)]
    main, before = sorted(raw["experiments"], key=lambda each: len(each["arms"]), reverse=True)
    heads = ["Ancestors", "Anc. views", "Anc. forward"]
    expected = {"fast": took, "plain": [None, None, None]}
    table = contents.arms("x", main, [], [])
    assert cells(table, heads) == expected
    # Passes are images in both arms, so a column would say nothing.
    assert "Forward" not in [column.header for column in table.columns]
    [group], _ = leaders.groups([("One", [raw])])
    assert cells(leaders.table("x", group, [], "make"), heads) == expected
    notes = contents.arms("x", before, [], []).notes
    said = f"Every arm saw {took[1]} images a run. Every arm made {took[2]} forward passes a run."
    assert any(said in note for note in [" ".join(notes), *notes])
    both = {**main, "arms": [*main["arms"], *before["arms"]]}
    assert cells(contents.arms("x", both, [], []), ["Images", "Forward"]) == {
        "fast": ["500", "500"], "plain": ["500", "500"], "pretrained": took[1:],
    }  # fmt: skip
    page = unpacked((pretrained / "results/smoke/report/index.html").read_text("utf-8"))
    assert "Unequal budgets (forward passes): it is about pretraining." in page
