"""Evaluate the figures against their goals, and format them as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from cyclery.bench.cases import EAGER, EAGER_OVERHEAD, FIRST_STEP_SECONDS, GOALS, LOOP, Goal
from cyclery.common.formatting import aligned

Json = dict[str, Any]
FIRST_STEP, STEADY_STATE = "first-step", "steady-state"
NEEDS_GPU = "needs a GPU"


def goals(found: Json) -> list[Json]:
    """Return every goal with what was measured: met, not met, not measured or needs a GPU."""
    judged = [_speed(goal, found) for goal in GOALS]
    judged += [_first_step(found), _steady_state(found), _eager(found)]
    return judged


def _verdict(title: str, wanted: str, measured: str | None, met: bool, gpu: bool) -> Json:
    verdict = "met" if met else "not met"
    if measured is None:
        verdict = "not measured" if gpu else NEEDS_GPU
    return {"title": title, "goal": wanted, "measured": measured, "verdict": verdict}


def _speed(goal: Goal, found: Json) -> Json:
    wanted = f"at least {goal.ratio:g}x the loop in fp32"
    if goal.steps:
        wanted += f", and {goal.steps:g} steps/s in total"
    best: tuple[bool, float, str] | None = None
    gpu = found["kind"] == "cuda"
    for row in (row for row in found["rows"] if gpu and row["row"] in goal.rows):
        for name, variant in row["variants"].items():
            if variant["width"] != goal.width or LOOP.name not in variant["ratio_to"]:
                continue
            ratio = variant["ratio_to"][LOOP.name]["median"]
            steps = variant["images_per_second"]["median"] / row["images_per_step"]
            met = ratio >= goal.ratio and steps >= goal.steps
            text = f"{ratio:.2f}x, {steps:.0f} steps/s ({name})"
            best = max(best or (False, 0.0, ""), (met, ratio, text))
    met, _, measured = best or (False, 0.0, None)
    return _verdict(goal.title, wanted, measured, met, gpu)


def _first_step(found: Json) -> Json:
    title, gpu = "process start to first trained step, capture included", found["kind"] == "cuda"
    measured, met = None, False
    if gpu and found[FIRST_STEP]:
        # The engine is what the last variant is.
        seconds = list(found[FIRST_STEP]["variants"].values())[-1]["seconds"]["median"]
        measured, met = f"{seconds:.1f} s", seconds <= FIRST_STEP_SECONDS
    return _verdict(title, f"at most {FIRST_STEP_SECONDS:g} s", measured, met, gpu)


def _steady_state(found: Json) -> Json:
    wanted = "one replay a step, no allocation, no wait between epoch ends"
    measured, met = None, False
    if found[STEADY_STATE]:
        worst = {
            key: max(one[key] for one in found[STEADY_STATE])
            for key in ("allocations", "waits", "operators")
        }
        replays = {one["replays"] / one["steps"] for one in found[STEADY_STATE]}
        counts = [" or ".join(f"{count:g}" for count in sorted(replays)) + " replays a step"]
        measured = ", ".join(counts + [f"{count} {name}" for name, count in worst.items()])
        met = replays == {1.0} and not any(worst.values())
    return _verdict("steady-state host work", wanted, measured, met, found["kind"] == "cuda")


def _eager(found: Json) -> Json:
    times = [
        (1 / row["variants"][EAGER.name]["ratio_to"][LOOP.name]["median"], row["title"])
        for row in found["rows"]
        if EAGER.name in row["variants"]
    ]
    measured, met = None, False
    if times:
        most, where = max(times)
        measured, met = f"at most {most:.2f}x ({where})", most <= EAGER_OVERHEAD
    title = "the engine's eager mode"
    return _verdict(title, f"within {EAGER_OVERHEAD:g}x the loop's time", measured, met, True)


def heading(found: Json) -> str:
    """Say what was measured on, with which versions and when."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    quick = ", quick" if found["quick"] else ""
    return f"{found['device']}, {found['cores']} cores; {versions}; {found['made'][:10]}{quick}"


FIRST_STEP_HEAD = ("", "seconds", "memory of the process")
HEAD = ("", "images/s", "steps/s", "x loop fp32", "x loop bf16", "memory")


def cells(row: Json) -> Iterator[tuple[str, ...]]:
    """Yield the texts of a row of the benchmark, a variant each, under ``HEAD``."""
    for name, variant in row["variants"].items():
        rate = variant["images_per_second"]["median"]
        memory = variant["memory_bytes"]
        yield (
            name,
            f"{rate:,.0f}",
            f"{rate / row['images_per_step']:,.1f}",
            _ratio(variant["ratio_to"].get(LOOP.name)),
            _ratio(variant["ratio_to"].get("loop bf16")),
            "" if memory is None else _memory(memory),
        )


def _ratio(found: Json | None) -> str:
    if found is None:
        return ""
    return f"{found['median']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


def _memory(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


def first_step_cells(found: Json) -> Iterator[tuple[str, ...]]:
    """Yield the texts of the time to a first step, a variant each, under ``FIRST_STEP_HEAD``."""
    for name, variant in found["variants"].items():
        seconds = variant["seconds"]
        spread = f"{seconds['median']:.1f} ({seconds['low']:.1f} to {seconds['high']:.1f})"
        yield name, spread, _memory(variant["process_memory_bytes"])


STEADY_HEAD = ("", "steps", "replays", "allocations", "waits", "operators", "host, us/step")


def steady_state_cells(found: list[Json]) -> Iterator[tuple[str, ...]]:
    """Yield the texts of what the host does, a case each, under ``STEADY_HEAD``."""
    for one in found:
        counts = [str(one[key]) for key in STEADY_HEAD[1:-1]]
        yield one["title"], *counts, f"{one['host_microseconds'] / one['steps']:.0f}"


def goal_cells(found: list[Json]) -> Iterator[tuple[str, ...]]:
    """Yield the texts of the goals, one each, under ``GOAL_HEAD``."""
    for goal in found:
        yield goal["title"], goal["goal"], goal["verdict"], goal["measured"] or ""


GOAL_HEAD = ("", "goal", "verdict", "measured")


def table(title: str, rows: Iterable[tuple[str, ...]], left: int = 1) -> list[str]:
    """Return rows as lines under a title, with the first ``left`` columns aligned to the left."""
    every = list(rows)
    right = range(left, len(every[0]))
    return [title, *(f"  {line}" for line in aligned(every, right))]
