"""Format figures, and the verdicts on goals, as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from cyclery.bench.cases import LOOP
from cyclery.common.formatting import aligned

Json = dict[str, Any]


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
