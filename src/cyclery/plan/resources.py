"""Estimate the time and memory that a training job requests from the scheduler.

A scheduler ends a job that takes more than it asked for, and makes one wait that asks for much. So
these are estimates from the size of the runs with a margin, which a second attempt doubles;
training goes on from where it was, so an attempt that ran out of time is not lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import ceil, prod
from typing import Any

from cyclery.data.dataset import Dataset
from cyclery.plan.cost import declared_speed
from cyclery.plan.graph import Plan

# Start, data, evaluations and a parent that may have to be trained again.
LEAST_MINUTES = 20
# Times as long as the tier's declared speed says: another processor, or a shared disk.
SLACK = 3
# Python with torch and the two Snakemakes around it; CUDA's own libraries lie in the host's memory.
BASE_MB, CUDA_MB = 2000, 4000
# What each process on a CPU adds: weights, activations, a batch of views.
WORKER_MB = 500
# How often a dataset of bytes may be there at once: as read, as tensors, as one block of floats.
DATA_COPIES = 6


def seconds(plan: Plan, settings: Mapping[str, Any], views: int) -> float:
    """Return how long ``views`` images take at the speed that the tier declares."""
    return views / declared_speed(plan, settings)


def minutes(seconds: Iterable[float], workers: int) -> int:
    """Return the minutes to request for runs of so many seconds on so many processes."""
    each = list(seconds)
    # No run is divided among processes.
    longest = max(sum(each) / workers, max(each, default=0))
    return LEAST_MINUTES + ceil(SLACK * longest / 60)


def megabytes(datasets: Iterable[Dataset], workers: int, gpu: bool) -> int:
    """Return the MB of main memory to request for runs on these datasets."""
    size = sum(_bytes(dataset) for dataset in datasets)
    own = CUDA_MB if gpu else WORKER_MB * workers
    return BASE_MB + own + ceil(DATA_COPIES * size / 1e6)


def _bytes(dataset: Dataset) -> int:
    """Return the size of a dataset's images, a byte for each value."""
    return (dataset.train + dataset.test) * prod(dataset.shape)
