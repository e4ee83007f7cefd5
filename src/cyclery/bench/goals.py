"""Goals: the speed to reach in each case, and whether measured figures reach it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cyclery.bench.cases import (
    BN_MLP,
    CNN_28,
    CNN_32,
    EAGER,
    EAGER_BF16,
    LOOP,
    RESNET_18,
    WRN_28_2,
    Net,
    Variant,
    captured,
    packs,
    with_compile,
)

Json = dict[str, Any]
FIRST_STEP, STEADY_STATE = "first-step", "steady-state"
NEEDS = {"cpu": "needs a CPU", "cuda": "needs a GPU"}
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Goal:
    """A speed to reach.

    Attributes:
        kind: The kind of device that it is for, ``cpu`` or ``cuda``.
        title: What is measured.
        rows: Where it is measured.
        variants: Who should reach it; the best of them, in any of the rows, counts.
        ratio: The least images a second of all runs together, over those of the loop in fp32.
        steps: The least updates a second of all runs together.
        needs: What a processor lacks where it has the row, and none of the variants in it.
    """

    kind: str
    title: str
    rows: tuple[str, ...]
    variants: tuple[Variant, ...]
    ratio: float
    steps: float = 0.0
    needs: str = ""


def _pack(row: str, title: str, ratio: float) -> Goal:
    return Goal("cpu", f"{title}, pack of 16", (row,), packs(16), ratio)


def _cohort(net: Net, slug: str, batch: int, width: int, ratio: float) -> Goal:
    rows = (f"step/{slug}/{batch}", f"compiled/{slug}/{batch}")
    title = f"{net.title}, batch {batch}, cohort {width}"
    return Goal("cuda", title, rows, (*captured(width), *with_compile(width)), ratio)


_MLP, _CNN = f"{BN_MLP.title}, batch 50", f"{CNN_28.title}, batch 64"
_SMALL_CNN = ("step/small-cnn-16-28/64",)
GOALS = (
    _pack("step/bn-mlp/50", _MLP, 2.0),
    _pack("focal/bn-mlp/50", f"cyclical focal loss, {_MLP}", 2.5),
    _pack("kd/bn-mlp/50", f"KD, {_MLP}", 2.0),
    _pack("fixmatch/bn-mlp/32", f"FixMatch, {BN_MLP.title}, batch 32 + 3 x 32", 1.8),
    Goal("cpu", f"{_CNN}, fp32", _SMALL_CNN, (EAGER,), 1.4),
    Goal("cpu", f"{_CNN}, bf16", _SMALL_CNN, (EAGER_BF16,), 1.9, needs="needs AMX or AVX512-BF16"),
    _cohort(CNN_32, "small-cnn", 64, 8, 12.0),
    _cohort(WRN_28_2, "wrn-28-2", 64, 8, 9.0),
    _cohort(WRN_28_2, "wrn-28-2", 512, 4, 4.5),
    _cohort(RESNET_18, "resnet-18", 512, 4, 3.8),
    Goal(
        "cuda", "FixMatch, WRN-28-2, batch 64 + 7 x 64, cohort 4",
        ("fixmatch/wrn-28-2/64", "compiled/fixmatch/64"),
        (*captured(4), *with_compile(4)), 4.0, 60.0,
    ),
)  # fmt: skip
EAGER_OVERHEAD = 1.15
"""The engine's eager mode takes at most so many times the time of the loop in fp32."""
FIRST_STEP_SECONDS = 12.0


def goals(found: Json) -> list[Json]:
    """Return every goal with what was measured: met, not met, not measured, or what it needs."""
    judged = [_speed(goal, found) for goal in GOALS]
    judged += [_first_step(found), _steady_state(found), _eager(found)]
    # What another kind of device decides comes last.
    return sorted(judged, key=lambda one: one["verdict"] in NEEDS.values())


def _verdict(title: str, wanted: str, measured: str | None, met: bool, lacking: str) -> Json:
    verdict = ("met" if met else "not met") if measured is not None else lacking
    return {"title": title, "goal": wanted, "measured": measured, "verdict": verdict}


def _lacking(kind: str, found: Json) -> str:
    return NOT_MEASURED if found["kind"] == kind else NEEDS[kind]


def _speed(goal: Goal, found: Json) -> Json:
    wanted = f"at least {goal.ratio:g}x the loop in fp32"
    if goal.steps:
        wanted += f", and {goal.steps:g} steps/s in total"
    here = found["kind"] == goal.kind
    rows = [row for row in found["rows"] if here and row["row"] in goal.rows]
    best: tuple[bool, float, str] | None = None
    for row in rows:
        for name in {variant.name for variant in goal.variants} & row["variants"].keys():
            variant = row["variants"][name]
            ratio = variant["ratio_to"][LOOP.name]["median"]
            steps = variant["images_per_second"]["median"] / row["images_per_step"]
            met = ratio >= goal.ratio and steps >= goal.steps
            text = f"{ratio:.2f}x, {steps:.0f} steps/s ({name})"
            best = max(best or (False, 0.0, ""), (met, ratio, text))
    met, _, measured = best or (False, 0.0, None)
    lacking = goal.needs if rows and goal.needs else _lacking(goal.kind, found)
    return _verdict(goal.title, wanted, measured, met, lacking)


def _first_step(found: Json) -> Json:
    title = "process start to first trained step, capture included"
    measured, met = None, False
    if found["kind"] == "cuda" and found[FIRST_STEP]:
        # The engine is what the last variant is.
        seconds = list(found[FIRST_STEP]["variants"].values())[-1]["seconds"]["median"]
        measured, met = f"{seconds:.1f} s", seconds <= FIRST_STEP_SECONDS
    wanted = f"at most {FIRST_STEP_SECONDS:g} s"
    return _verdict(title, wanted, measured, met, _lacking("cuda", found))


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
    return _verdict("steady-state host work", wanted, measured, met, _lacking("cuda", found))


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
    wanted = f"within {EAGER_OVERHEAD:g}x the loop's time"
    return _verdict(title, wanted, measured, met, NOT_MEASURED)
