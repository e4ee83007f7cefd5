"""Runs that are trained beside others as packs, and run by run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from cyclery.engine.cohort import Cohort, Task
from cyclery.engine.failures import Diverged
from cyclery.engine.packs import Pack
from cyclery.engine.run import Run
from cyclery.engine.stack import Stack
from factories import engine as factory

Json = dict[str, Any]
WIDTHS = (1, 2, 7, 16)
Make = Callable[[Json, Stack | None], Run]


def made(given: Json, stack: Stack | None) -> Run:
    """Return a new run on digits."""
    return factory.run(given, stack=stack)


class Widths(Stack):
    """A stack that notes how many runs its packs have had."""

    def __init__(self, width: int | None = None) -> None:
        super().__init__(width)
        self.seen: list[int] = []

    def _serve(self, group: Any) -> None:
        self.seen.append(len(group))
        super()._serve(group)


def task(run: Run) -> Task[Run]:
    """Train what is left of a run, evaluations on the way and at the end included."""
    try:
        while not run.finished:
            yield from run.epoch_steps()
            yield from run.evaluation_steps()
        run.figures = yield from run.final_steps()  # type: ignore[attr-defined]
    except Diverged as diverged:
        run.figures = {"diverged": diverged.update}  # type: ignore[attr-defined]
    return run


def beside(
    given: Sequence[Json], stack: Stack, make: Make = made, runs: Sequence[Run] = ()
) -> list[Run]:
    """Return finished runs of these settings, trained beside one another; ``runs`` go on."""
    known = dict(enumerate(runs))

    def begin(place: int) -> Task[Run]:
        if place not in known:
            known[place] = make(given[place], stack)
        return (yield from task(known[place]))

    cohort: Cohort[int, Run] = Cohort(begin, lambda _: "one", stack, idle=stack.advance)
    found = dict(cohort.results(range(len(given))))
    return [found[place] for place in sorted(found)]


def alone(given: Json, make: Make = made) -> Run:
    """Return a finished run that no stack has seen."""
    run = make(given, None)
    for _ in task(run):
        pass
    return run


def bits(run: Run) -> Json:
    """Return all that a run leaves, to be compared bit for bit."""
    return {**run.state(), "curve": run.curve, "figures": run.figures}  # type: ignore[attr-defined]


def differing(one: Json, other: Json) -> list[str]:
    """Return the names of what is not the same, bit for bit."""
    assert one.keys() == other.keys()
    found = []
    for name, value in one.items():
        same = value.equal(other[name]) if isinstance(value, Tensor) else value == other[name]
        # A number that is none equals nothing.
        if isinstance(value, Tensor) and not same and value.is_floating_point():
            same = value.isnan().equal(other[name].isnan()) and (
                value.nan_to_num().equal(other[name].nan_to_num())
            )
        if not same:
            found.append(name)
    return found


def refusal(given: Json, make: Make = made) -> str:
    """Return why a run of these settings is not stacked; empty where it is."""
    stack = Stack()
    run = make(given, stack)
    if run.program is None:
        return "not asked"
    run.begin_epoch()
    try:
        Pack([run]).try_()
    except Exception as error:
        return str(error)
    return ""
