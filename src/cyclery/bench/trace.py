"""Host activity of a captured run between epoch ends, from a profiler trace."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from cyclery.bench.cases import Case, captured
from cyclery.bench.contenders import Engine, synthetic
from cyclery.engine.cohort import drain

Json = dict[str, Any]
STEPS, WARM = 50, 10
REGION = "steady state"
REPLAY = "cudaGraphLaunch"
_VERSION = re.compile(r"_v\d+$")  # of a call of CUDA
WAITS = frozenset({
    "cudaDeviceSynchronize", "cudaStreamSynchronize", "cudaEventSynchronize", "cudaMemcpy",
    "cuCtxSynchronize", "cuStreamSynchronize", "cuEventSynchronize",
})  # fmt: skip


class Call(NamedTuple):
    """One event of a trace, microseconds."""

    name: str
    start: float
    end: float


def steady_state(case: Case, device: torch.device) -> Json:
    """Return the host calls and allocations of ``STEPS`` steps of a captured run."""
    case = replace(case, steps=STEPS + WARM)
    [variant] = captured(1)
    engine = Engine(case, variant, synthetic(case, device), device)
    engine.grow(1)
    [run] = engine.runs
    with engine.places[0]():
        run.begin_epoch()
        for _ in range(WARM):
            drain(run.launch(case.batch))
        torch.cuda.synchronize(device)
        before = _allocations(device)
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
            with record_function(REGION):
                for _ in range(STEPS):
                    drain(run.launch(case.batch))
            after = _allocations(device)
            torch.cuda.synchronize(device)
    found = summary(calls(profiler))
    return {"title": case.title, "steps": STEPS, "allocations": after - before, **found}


def calls(profiler: profile) -> list[Call]:
    """Return the events of the host in a trace."""
    return [
        Call(_VERSION.sub("", event.name), event.time_range.start, event.time_range.end)
        for event in profiler.events() or []
        if event.device_type == DeviceType.CPU
    ]


def summary(calls: Iterable[Call]) -> Json:
    """Count the calls within the region: of CUDA by name, and torch's own operators.

    What the profiler itself does lies outside of the region.
    """
    every = list(calls)
    region = next(call for call in every if call.name == REGION)
    inside = Counter(c.name for c in every if region.start <= c.start and c.end <= region.end)
    cuda = {name: n for name, n in sorted(inside.items()) if name.startswith("cu")}
    return {
        "replays": cuda.get(REPLAY, 0),
        "waits": sum(n for name, n in cuda.items() if name in WAITS),
        "operators": sum(n for name, n in inside.items() if name.startswith("aten::")),
        "calls": cuda,
        "host_microseconds": region.end - region.start,
    }


def _allocations(device: torch.device) -> int:
    """Return how often memory was asked for so far."""
    return int(torch.cuda.memory_stats(device)["allocation.all.allocated"])
