"""Reader of IDX files, the format of MNIST and its relatives."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np

from cyclery.data.dataset import Dataset
from cyclery.data.readers._format import Images, Labels, bad

FILES = 4
_IDX_UINT8 = 0x08


def read(dataset: Dataset, streams: Sequence[BinaryIO]) -> tuple[Images, Labels]:
    """Read the four IDX files of the MNIST family: training images, labels, then the test's."""
    arrays = [_idx(dataset, index, stream.read()) for index, stream in enumerate(streams)]
    for at, rows in ((0, dataset.train), (2, dataset.test)):
        for index, shape in ((at, (rows, *dataset.shape[1:])), (at + 1, (rows,))):
            if arrays[index].shape != shape:
                raise bad(dataset, index, f"shape {arrays[index].shape} where {shape} belongs")
    images = np.concatenate([arrays[0], arrays[2]]).reshape(-1, *dataset.shape)
    return images, np.concatenate([arrays[1], arrays[3]]).astype(np.int64)


def _idx(dataset: Dataset, index: int, content: bytes) -> Images:
    """Return the array of an IDX file: 00 00 type ndim, big-endian sizes, then the values."""
    if len(content) < 4 or content[:3] != bytes((0, 0, _IDX_UINT8)):
        raise bad(dataset, index, "not an IDX file of bytes")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise bad(dataset, index, "its header is cut short")
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    values = np.frombuffer(content, dtype=np.uint8, offset=start)
    if values.size != math.prod(shape):
        raise bad(dataset, index, f"{values.size} values where its header says {shape}")
    return values.reshape(shape)
