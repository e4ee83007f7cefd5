"""Parents that are drawn anew share the samples with their like, and no other draw."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from factories import engine as factory
from factories.jobs import part_jobs
from factories.parents import RULES, TEACHER, arm, note_trained, of, planned, student
from factories.threads import one_thread

from cyclery.plan.model import ArmPlan

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)
trained = pytest.fixture(note_trained)


def test_another_draw_has_the_same_samples_and_all_else_its_own() -> None:
    given = factory.settings(model="wrn", augment=({"op": "shift", "size": 1},))
    runs = [factory.run({**given, "draw": draw}) for draw in (None, "other", "other")]
    for part, ids in runs[0].ids.items():
        assert torch.equal(ids, runs[1].ids[part]), part
    assert not torch.equal(runs[0].flat.data, runs[1].flat.data)
    assert torch.equal(runs[1].flat.data, runs[2].flat.data)
    batches = []
    for each in runs:
        each.begin_epoch()
        batches.append(each.feeds["labelled"].take(50))
    assert batches[0][0].tolist() != batches[1][0].tolist()
    assert not torch.equal(batches[0][1], batches[1][1])
    assert torch.equal(batches[1][0], batches[2][0])
    for name, generator in runs[0].generators.items():
        assert generator.initial_seed() != runs[1].generators[name].initial_seed(), name
    # Not the draw of another seed.
    assert not torch.equal(factory.run({**given, "seed": 1}).flat.data, runs[1].flat.data)


def test_a_plans_other_teacher_is_that_draw(tmp_path: Path) -> None:
    plan = planned(tmp_path, {"other": RULES["other"], "named": {
        **student(TEACHER, "other"), "draw": "mine"}})  # fmt: skip
    first, second = (arm(plan, name).parents["teacher"].arm for name in ("other", "named"))
    assert first.digest == second.digest and first.settings["draw"] == "other"
    own = planned(tmp_path, {"a": {"draw": "mine"}, "b": student("a", "other")})
    assert arm(own, "b").parents["teacher"].arm.settings["draw"] == "mineother"


def test_an_independent_teacher_shares_no_ancestor(tmp_path: Path) -> None:
    """Drawn anew it has a teacher of its own, by the same rules, and so has that one."""
    arms = {
        "second": student("teachers/pool", {"members": 3}, draw="second"),
        "third": {**student("second"), "init": "start",
                  "parents": {"teacher": "second", "start": TEACHER, "reference": TEACHER}},
        "small": student("third"),
        "other": student("third", "other"),
        # Of an independent teacher an independent student, and another one of that.
        "again": student("other", "other"),
    }  # fmt: skip
    plan = planned(tmp_path, arms, seeds=2)

    def line(child: str, depth: int) -> dict[str, ArmPlan]:
        """Return the ancestors of an arm's teacher that are trained, by their depth and name."""
        found: dict[str, ArmPlan] = {}

        def visit(each: ArmPlan, at: str) -> None:
            found[at] = each
            for name, parent in each.parents.items():
                visit(parent.arm, f"{at}.{name}")

        visit(arm(plan, child).parents["teacher"].arm, "teacher")
        assert len(found) == depth
        return found

    own, other = line("small", 5), line("other", 5)
    assert own.keys() == other.keys()
    for at, each in own.items():
        anew = other[at]
        draw = f"{each.settings['draw'] or ''}other"
        assert anew.settings == {**each.settings, "draw": draw}, at
        assert anew.id == f"{each.id}~other" and anew.level == each.level
        rules = [{name: (p.kind, p.count) for name, p in a.parents.items()} for a in (each, anew)]
        assert rules[0] == rules[1]
    assert not {each.digest for each in own.values()} & {each.digest for each in other.values()}
    # What two parents of a run share they go on sharing.
    assert other["teacher.start"].digest == other["teacher.reference"].digest
    twice = line("again", 6)
    assert twice["teacher.teacher"].id == "one/students/third~other~other"
    assert twice["teacher.teacher"].settings["draw"] == "otherother"
    kept = plan.kept()
    names = {each.id for _, each, _ in kept.values()}
    assert {"one/teachers/pool~other", "one/teachers/pool~other~other"} <= names
    # A name of files for each run.
    assert len(kept) == len({(each.digest, seed) for _, each, seed in kept.values()})


def test_a_student_of_an_independent_teacher_learns_from_that_line(
    tmp_path: Path, trained: list[str]
) -> None:
    arms = {"assistant": student(TEACHER), "small": student("assistant", "other")}
    jobs = part_jobs(planned(tmp_path, arms, seeds=1), "one.students")
    [small] = of(jobs, "students/small s0")
    [record] = factory.trainer(tmp_path / "store").train([small], [j for j in jobs if j != small])
    assert record["status"] == "done"
    assert trained == [
        "teachers/teacher~other s0", "students/assistant~other s0", "students/small s0",
    ]  # fmt: skip
