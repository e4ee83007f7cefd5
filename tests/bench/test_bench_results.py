"""What the benchmark stores, which goals it says are met, and its page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from factories.project import run

from cyclery.bench import cases, goals, page, results, trace
from cyclery.bench.cases import EAGER, LOOP, Case, Net
from cyclery.bench.command import PUBLISHED, slug
from cyclery.common.errors import UserError

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
TINY = Net("tiny", "bn_mlp", {"hidden": [16]}, (1, 8, 8))
CASE = Case("step/tiny/32", TINY, 32, 4, (LOOP, EAGER))


# What is stored and said.


def spread(value: float) -> Json:
    return {"median": value, "low": 0.9 * value, "high": 1.1 * value}


def figures(
    kind: str = "cuda", ratio: float = 13.0, eager: float = 1.1, bf16: bool = True, **changes: Any
) -> Json:
    """Return made-up figures of every row: graphs and packs are ``ratio`` as fast as the loop."""
    rows = []
    for case in cases.rows(kind, 2, bf16):
        variants = {}
        for variant in case.variants:
            fast = variant.capture or variant.pack
            times = {"loop": 1.0}.get(variant.kind, ratio if fast else 1 / eager)
            variants[variant.name] = {
                "width": variant.width, "images_per_second": spread(100_000 * times),
                "memory_bytes": 2**30 if kind == "cuda" else None,
                "ratio_to": {} if variant == LOOP else {LOOP.name: spread(times)},
                "seconds": [1.0, 2.0, 3.0],
            }  # fmt: skip
        rows.append({"row": case.row, "title": case.title, "images_per_step": case.images,
                     "batch": case.batch, "steps": case.steps, "variants": variants})  # fmt: skip
    steady = {"title": "a net", "steps": 50, "allocations": 0, "replays": 50, "waits": 0,
              "operators": 0, "calls": {"cudaGraphLaunch": 50}, "host_microseconds": 900.0,
              }  # fmt: skip
    first = {"title": "a net", "variants": {
        "loop fp32": {"seconds": spread(5.0), "process_memory_bytes": 2**30},
        "captured bf16": {"seconds": spread(7.0), "process_memory_bytes": 2**30},
    }}  # fmt: skip
    return {
        "schema": 1, "device": f"a {kind}", "kind": kind, "cores": 2, "versions": {"torch": "2"},
        "made": "2026-01-02T03:04:05+00:00", "quick": False, "rows": rows, "first-step": first,
        "steady-state": [steady] if kind == "cuda" else [], "left_out": {}, "failed": {},
    } | changes  # fmt: skip


def verdicts(found: Json) -> list[str]:
    return [goal["verdict"] for goal in goals.goals(found)]


ELSEWHERE = {"cuda": ["needs a CPU"] * 6, "cpu": ["needs a GPU"] * 7}


def test_goals_for_a_gpu_are_met_or_not() -> None:
    assert verdicts(figures()) == ["met"] * 8 + ELSEWHERE["cuda"]
    assert verdicts(figures(ratio=4.2)) == ["not met"] * 3 + ["met"] * 5 + ELSEWHERE["cuda"]
    slow = goals.goals(figures(eager=1.2))[7]
    assert slow["verdict"] == "not met" and slow["measured"].startswith("at most 1.20x")
    # FixMatch must be fast enough in steps too.
    slow = figures()
    for row in slow["rows"]:
        row["images_per_step"] *= 100
    assert verdicts(slow)[4] == "not met" and verdicts(slow)[:4] == ["met"] * 4


def test_the_best_of_captured_and_compiled_counts() -> None:
    found = figures(ratio=5.0)
    for row in found["rows"]:
        if row["row"] == "compiled/wrn-28-2/64":
            row["variants"]["compiled bf16 x 8"]["ratio_to"][LOOP.name] = spread(9.5)
    goal = goals.goals(found)[1]
    assert goal["verdict"] == "met" and goal["measured"].startswith("9.50x")
    assert "compiled bf16 x 8" in goal["measured"]


@pytest.mark.parametrize(
    ("name", "value"), [("allocations", 1), ("waits", 2), ("operators", 3), ("replays", 51)]
)
def test_any_host_work_fails_the_steady_state(name: str, value: int) -> None:
    found = figures()
    found["steady-state"][0][name] = value
    goal = goals.goals(found)[6]
    assert goal["verdict"] == "not met"
    assert ("1.02 replays" if name == "replays" else f"{value} {name}") in goal["measured"]


def test_goals_for_a_cpu_are_met_or_not() -> None:
    """Packs of 16 in four cases and a convolutional net in two precisions, by their own ratios."""
    found = figures("cpu", ratio=2.2, eager=1 / 1.5)
    for row in found["rows"]:
        # However fast others are, they do not count.
        for name in ("pack of 1", "pack of 4"):
            if name in row["variants"]:
                row["variants"][name]["ratio_to"][LOOP.name] = spread(9.0)
    packs = ["met", "not met", "met", "met"]
    assert verdicts(found) == [*packs, "met", "not met", "met", *ELSEWHERE["cpu"]]
    wanted = [goal["goal"].split()[2] for goal in goals.goals(found)[:6]]
    assert wanted == ["2x", "2.5x", "2x", "1.8x", "1.4x", "1.9x"]
    fastest = verdicts(figures("cpu", ratio=2.5, eager=1 / 1.9))
    assert fastest == ["met"] * 7 + ELSEWHERE["cpu"]


def test_a_processor_without_bf16_is_told_what_its_goal_needs() -> None:
    found = figures("cpu", bf16=False)
    assert verdicts(found)[5] == "needs AMX or AVX512-BF16"
    found["rows"] = []
    assert verdicts(found)[:7] == ["not measured"] * 7


def test_a_device_cannot_decide_the_goals_for_another() -> None:
    nothing: Json = {"rows": [], "first-step": None, "steady-state": []}
    assert verdicts(figures("cuda", **nothing)) == ["not measured"] * 8 + ELSEWHERE["cuda"]
    assert verdicts(figures("cpu", **nothing)) == ["not measured"] * 7 + ELSEWHERE["cpu"]
    slow = figures()
    slow["first-step"]["variants"]["captured bf16"]["seconds"] = spread(12.5)
    assert verdicts(slow)[5] == "not met"


def test_the_trace_counts_what_lies_between_epoch_ends() -> None:
    def call(name: str, at: float) -> trace.Call:
        return trace.Call(name, at, at + 1)

    replays = [call(trace.REPLAY, 10.0 * i) for i in range(1, 6)]
    others = [call("cudaEventRecord", 15), call("cudaStreamSynchronize", 25), call("aten::add", 35)]
    outside = [call("cudaDeviceSynchronize", 120), call(trace.REPLAY, 2), call("aten::add", 130)]
    region = trace.Call(trace.REGION, 5, 100)
    assert trace.summary([*outside, *others, region, *replays]) == {
        "replays": 5, "waits": 1, "operators": 1, "host_microseconds": 95,
        "calls": {"cudaEventRecord": 1, "cudaGraphLaunch": 5, "cudaStreamSynchronize": 1},
    }  # fmt: skip


def test_the_trace_is_read_from_a_profiler() -> None:
    one = torch.ones(3)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        one.neg()
        with torch.profiler.record_function(trace.REGION):
            one.neg()
            one.neg()
        one.neg()
    found = trace.summary(trace.calls(profiler))
    assert (found["operators"], found["replays"], found["calls"]) == (2, 0, {})
    assert found["host_microseconds"] > 0


def test_a_table_is_aligned() -> None:
    found = results.table("title", [("", "a"), ("longer", "1"), ("b", "1,000")])
    assert found == ["title", "              a", "  longer      1", "  b       1,000"]


def test_devices_become_file_names() -> None:
    assert slug("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"
    assert slug("CPU Intel(R) Xeon(R) @ 2.1GHz") == "cpu-intel-xeon-2-1ghz"


# The page.


def test_the_page_shows_what_is_stored(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    text = (ROOT / page.PAGE).read_text()
    (tmp_path / page.PAGE).write_text(text)
    with pytest.raises(UserError, match="no figures are stored"):
        page.write(tmp_path, tmp_path / PUBLISHED)
    (tmp_path / PUBLISHED).mkdir(parents=True)
    (tmp_path / PUBLISHED / "a.json").write_text(json.dumps(figures("cpu")))
    run(tmp_path, "bench", "--docs")
    shown = (tmp_path / page.PAGE).read_text()
    assert page.AWAITED in shown and "| BN-MLP 64-128-128-10, batch 50 | loop fp32 |" in shown
    assert "|  | pack of 16 | " in shown
    left_out = {"compiled/wrn-28-2/64": "does not fit into 8 minutes"}
    (tmp_path / PUBLISHED / "b.json").write_text(json.dumps(figures(left_out=left_out)))
    run(tmp_path, "bench", "--docs")
    shown = (tmp_path / page.PAGE).read_text()
    assert page.AWAITED not in shown and shown.index("### a cuda") < shown.index("### a cpu")
    assert "`compiled/wrn-28-2/64` left out: does not fit into 8 minutes." in shown
    assert "captured bf16 x 8" in shown and "13.00x" in shown
    # What people wrote around it stays.
    assert shown.partition(page.BEGIN)[0] == text.partition(page.BEGIN)[0]
    assert shown.partition(page.END)[2] == text.partition(page.END)[2]
    (tmp_path / page.PAGE).write_text("no marks")
    with pytest.raises(UserError, match="marks"):
        page.write(tmp_path, tmp_path / PUBLISHED)


def test_the_plot_is_the_same_each_time_and_names_every_row() -> None:
    found = [figures(), figures("cpu", eager=1.0)]
    drawn = page.plot(found)
    assert drawn == page.plot(found)
    text = drawn.decode()
    for one in found:
        assert f">{one['device']}<" in text
        for row in one["rows"]:
            assert f">{row['title']}<" in text
    assert "2026-" not in text
    for name in ("pack of 1", "pack of 4", "pack of 16", "engine eager bf16", "captured bf16 x 8"):
        assert f">{name}<" in text


def test_variants_do_not_look_alike_in_the_plot() -> None:
    cpu, gpu = (
        {v.name for case in cases.rows(kind, 8, True) for v in case.variants} - {LOOP.name}
        for kind in ("cpu", "cuda")
    )
    for names in (cpu, gpu):
        looks = {page._marker(name) for name in names}
        assert len(looks) == len(names)


def test_the_page_of_this_project_is_current() -> None:
    text = (ROOT / page.PAGE).read_text(encoding="utf-8")
    assert page.filled(text, page.stored(ROOT / PUBLISHED)) == text, "run `cyclery bench --docs`"
