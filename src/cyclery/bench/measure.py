"""Measure one row: throughput and memory of every variant, and time to the first step."""

from __future__ import annotations

import gc
import time
from dataclasses import replace
from typing import Any

import torch

from cyclery.bench import turns
from cyclery.bench.cases import Case, Variant
from cyclery.bench.children import Children, spec
from cyclery.bench.contenders import Contender, contenders

Json = dict[str, Any]


def row(case: Case, device: torch.device, seconds: float) -> Json:
    """Return the figures of every variant of a case; the turns take about ``seconds``."""
    variants: dict[str, Variant] = {}
    trains: dict[str, Contender] = {}
    memory: dict[str, int | None] = {}
    bases: dict[Variant, int] = {}
    with contenders(case, device) as each:
        while True:
            base = _begin_peak(device)
            found = next(each, None)
            if found is None:
                break
            variant, train = found
            name = variant.name
            variants[name], trains[name] = variant, _finished(train, device)
            # The first turn warms up: libraries choose algorithms, graphs are captured.
            trains[name]()
            # Those that differ in their width alone share runs, so they are counted from one base.
            base = bases.setdefault(replace(variant, width=1), base)
            memory[name] = _peak(device, base)
        taken = turns.take(trains, seconds)
    work = case.images * case.steps * max(case.whole, 1)
    return {
        "row": case.row,
        "title": case.title,
        "images_per_step": case.images,
        "batch": case.batch,
        "steps": case.steps * max(case.whole, 1),
        "variants": {
            name: {
                "width": variants[name].width,
                "images_per_second": turns.spread([work * variants[name].width / s for s in own]),
                "memory_bytes": memory[name],
                **_against(name, variants, taken),
                "seconds": [round(s, 6) for s in own],
            }
            for name, own in taken.items()
        },
    }


def _against(name: str, variants: dict[str, Variant], taken: dict[str, list[float]]) -> Json:
    """Return how many times as fast a variant was as each loop, turn by turn."""
    found: Json = {}
    first = next(iter(variants))
    for base in variants:
        if variants[base].kind != "loop" or base == name:
            continue
        before = turns.around(taken[base]) if base == first else taken[base]
        own = turns.around(taken[name]) if name == first else taken[name]
        found[base] = turns.spread(turns.ratios(before, own, variants[name].width))
    return {"ratio_to": found}


def first_step(
    case: Case, variants: tuple[Variant, ...], device: torch.device, repeats: int
) -> Json:
    """Return how long a process takes from its start to its first trained step, and its memory."""
    one = replace(case, steps=1)
    seconds: dict[str, list[float]] = {variant.name: [] for variant in variants}
    memory: dict[str, int] = {}
    for _ in range(repeats):
        for variant in variants:
            began = time.monotonic()
            child = Children([spec(one, variant, device)])
            [answer] = child.answers()
            child.close()
            seconds[variant.name].append(answer["at"] - began)
            memory[variant.name] = max(memory.get(variant.name, 0), answer["memory"])
    return {
        "title": case.title,
        "variants": {
            name: {"seconds": turns.spread(found), "process_memory_bytes": memory[name]}
            for name, found in seconds.items()
        },
    }


def tidy(device: torch.device) -> None:
    """Give back the memory that a row has left."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _finished(train: Contender, device: torch.device) -> Contender:
    """Return a function that also waits for the device."""
    if device.type == "cpu":
        return train

    def finished() -> None:
        train()
        torch.cuda.synchronize(device)

    return finished


def _begin_peak(device: torch.device) -> int:
    """Count the peak of memory from now on; return what is taken already."""
    if device.type == "cpu":
        return 0
    # What captured steps need is reserved, not allocated: it is counted with all that is reserved.
    tidy(device)
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_reserved(device)


def _peak(device: torch.device, base: int) -> int | None:
    """Return the most memory that was taken over ``base``; of a CPU it is asked of processes."""
    return torch.cuda.max_memory_reserved(device) - base if device.type == "cuda" else None
