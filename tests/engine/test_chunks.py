"""Jobs are shared out among processes: each once, alike ones together, nobody idle."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyclery.engine.chunks import SHARED, WIDEST, chunks

Json = dict[str, Any]


def jobs(*programs: tuple[str | None, int, int]) -> list[Any]:
    """Return jobs: of each program so many, of so many images."""
    return [{"key": f"{name} {i}", "program": name, "images": images}
            for name, count, images in programs for i in range(count)]  # fmt: skip


def shared(found: list[Any], workers: int = 1, width: int = WIDEST) -> list[list[Any]]:
    return chunks(found, lambda job: job["program"], workers, width)


PROGRAMS = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", None]), st.integers(0, 40), st.integers(1, 9)),
    max_size=5,
    unique_by=lambda each: each[0],
)


@given(PROGRAMS, st.integers(1, 8), st.integers(1, 20))
def test_every_job_once_and_alike_ones_together(
    programs: list[Any], workers: int, width: int
) -> None:
    wanted = jobs(*programs)
    found = shared(wanted, workers, width)
    assert sorted(job["key"] for chunk in found for job in chunk) == sorted(
        job["key"] for job in wanted
    )
    for chunk in found:
        assert 1 <= len(chunk) <= width
        assert len({job["program"] for job in chunk}) == 1
        assert len(chunk) == 1 or chunk[0]["program"] is not None
    costs = [max(job["images"] for job in chunk) * (SHARED + len(chunk)) for chunk in found]
    assert costs == sorted(costs, reverse=True)


@given(PROGRAMS, st.integers(1, 8), st.integers(1, 20))
def test_the_order_is_the_same_every_time(programs: list[Any], workers: int, width: int) -> None:
    assert shared(jobs(*programs), workers, width) == shared(jobs(*programs), workers, width)


@pytest.mark.parametrize(
    ("count", "workers", "width", "lengths"),
    [
        (16, 1, 16, [16]),
        (17, 1, 16, [9, 8]),
        (20, 2, 16, [10, 10]),
        (10, 2, 16, [5, 5]),
        (3, 4, 16, [1, 1, 1]),
        (5, 1, 1, [1] * 5),
    ],
)
def test_packs_are_even_and_no_process_idle(
    count: int, workers: int, width: int, lengths: list[int]
) -> None:
    assert [len(chunk) for chunk in shared(jobs(("a", count, 100)), workers, width)] == lengths


def test_packs_are_cut_no_further_than_processes_need() -> None:
    found = shared(jobs(("a", 16, 100), ("b", 16, 100)), 2)
    assert [len(chunk) for chunk in found] == [16, 16]


def test_the_longest_come_first_and_what_cannot_be_stacked_is_alone() -> None:
    found = shared(jobs((None, 3, 500), ("a", 2, 100)), 1)
    assert [len(chunk) for chunk in found] == [1, 1, 1, 2]
    assert shared([]) == []
