"""Share runs out among the processes of a job: alike ones together, all processes busy.

Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from cyclery.records.record import Job

# More runs share the cost of dispatch no better, and their weights leave the cache.
WIDEST = 16
# A step of a pack costs so much however many runs it has, in steps of one more run (measured).
SHARED = 2.0
# How much longer than an even share the busiest process may take.
UNEVEN = 1.1


def chunks(
    jobs: Sequence[Job], alike: Callable[[Job], str | None], workers: int, width: int
) -> list[list[Job]]:
    """Return the jobs in chunks for ``workers`` processes, the longest first.

    A chunk has at most ``width`` runs which are ``alike``; a run that is None there is alone.
    Chunks are cut where a process would else have nothing to do.
    """
    groups: dict[str, list[Job]] = {}
    found: list[list[Job]] = []
    for job in jobs:
        name = alike(job)
        if name is None:
            found.append([job])
        else:
            groups.setdefault(name, []).append(job)
    for group in groups.values():
        found += _cut(group, -(-len(group) // width))
    while True:
        found.sort(key=_cost, reverse=True)
        busiest = _busiest(found, workers)
        longest = max(busiest, key=len, default=[])
        even = sum(map(_cost, found)) / workers
        if len(longest) < 2 or sum(map(_cost, busiest)) <= UNEVEN * even:
            return found
        cut = [chunk for chunk in found if chunk is not longest] + _cut(longest, 2)
        cut.sort(key=_cost, reverse=True)
        if sum(map(_cost, _busiest(cut, workers))) >= sum(map(_cost, busiest)):
            return found
        found = cut


def _cut(jobs: list[Job], parts: int) -> list[list[Job]]:
    """Return so many parts of nearly the same length."""
    ends = [round(len(jobs) * part / parts) for part in range(parts + 1)]
    return [jobs[start:stop] for start, stop in pairwise(ends)]


def _cost(chunk: list[Job]) -> float:
    """Return about how long a chunk takes, in images of a pack of many runs."""
    return max(job["images"] for job in chunk) * (SHARED + len(chunk))


def _busiest(found: list[list[Job]], workers: int) -> list[list[Job]]:
    """Return what the busiest process gets, where each takes the next chunk when it is done."""
    loads: list[list[list[Job]]] = [[] for _ in range(workers)]
    for chunk in found:
        min(loads, key=lambda load: sum(map(_cost, load))).append(chunk)
    return max(loads, key=lambda load: sum(map(_cost, load)))
