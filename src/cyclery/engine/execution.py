"""Execution settings that do not change results: device, processes, runs side by side, ...

None of them changes what a run computes, so none is part of a run key.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Execution:
    """Where and how runs are trained."""

    device: Literal["auto", "cpu", "cuda"] = field(
        default="auto", metadata={"doc": "where runs are trained"}
    )
    gpus: tuple[int, ...] | None = field(
        default=None,
        metadata={
            "doc": "numbers of the GPUs that jobs may take; null takes all there are",
            "low": 0,
            "high": 1023,
            "least": 1,
        },
    )
    jobs_per_gpu: int = field(
        default=1, metadata={"doc": "jobs that share a GPU", "low": 1, "high": 100}
    )
    # Streams of a device are few: runs that shared one could disturb each other.
    cohort: int | None = field(
        default=None,
        metadata={
            "doc": "runs that a job trains side by side on a GPU; null fits its memory",
            "low": 1,
            "high": 32,
        },
    )
    pack: int | None = field(
        default=None,
        metadata={
            "doc": "runs that a CPU trains as one stacked program; null takes as many as fit",
            "low": 1,
            "high": 16,
        },
    )
    capture: bool = field(
        default=True, metadata={"doc": "replay steps as CUDA graphs; false runs them eager"}
    )
    resume_seconds: float = field(
        default=30.0,
        metadata={"doc": "seconds between resume points, taken at the end of an epoch", "low": 0},
    )
