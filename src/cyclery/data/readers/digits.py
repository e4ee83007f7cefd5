"""Reader of scikit-learn's digits: rows of comma-separated pixels that end in the label."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np

from cyclery.data.dataset import Dataset
from cyclery.data.readers._format import Images, Labels, bad

FILES = 1


def read(dataset: Dataset, streams: Sequence[BinaryIO]) -> tuple[Images, Labels]:
    """Read rows of comma-separated pixels (0 to 16) that end in the label."""
    try:
        table = np.loadtxt(io.BytesIO(streams[0].read()), delimiter=",", dtype=np.int64, ndmin=2)
    except ValueError as error:
        raise bad(dataset, 0, str(error)) from error
    pixels = math.prod(dataset.shape)
    if table.shape[1] != pixels + 1:
        raise bad(dataset, 0, f"{table.shape[1]} columns where {pixels + 1} belong")
    images, labels = table[:, :-1], table[:, -1]
    if images.min() < 0 or images.max() > dataset.max_value:
        raise bad(dataset, 0, f"pixels outside 0 to {dataset.max_value}")
    return images.astype(np.uint8).reshape(-1, *dataset.shape), labels.copy()
