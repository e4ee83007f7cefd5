"""Raw formats to arrays, with numpy alone: nothing is unpickled and nothing unpacked to disk.

A reader takes the dataset and its verified raw files in the registry's order, and returns images
uint8 [N, C, H, W] and labels int64 [N], official training rows first, each set in file order.
"""

from __future__ import annotations

import io
import math
import struct
import tarfile
from collections.abc import Callable, Sequence
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from cyclery.common.errors import UserError
from cyclery.data.registry import Dataset

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Reader = Callable[[Dataset, Sequence[BinaryIO]], tuple[Images, Labels]]

_IDX_UINT8 = 0x08


def read_digits(dataset: Dataset, streams: Sequence[BinaryIO]) -> tuple[Images, Labels]:
    """Read rows of comma-separated pixels (0 to 16) that end in the label."""
    try:
        table = np.loadtxt(io.BytesIO(streams[0].read()), delimiter=",", dtype=np.int64, ndmin=2)
    except ValueError as error:
        raise _bad(dataset, 0, str(error)) from error
    pixels = math.prod(dataset.shape)
    if table.shape[1] != pixels + 1:
        raise _bad(dataset, 0, f"{table.shape[1]} columns where {pixels + 1} belong")
    images, labels = table[:, :-1], table[:, -1]
    if images.min() < 0 or images.max() > dataset.max_value:
        raise _bad(dataset, 0, f"pixels outside 0 to {dataset.max_value}")
    return images.astype(np.uint8).reshape(-1, *dataset.shape), labels.copy()


def read_idx(dataset: Dataset, streams: Sequence[BinaryIO]) -> tuple[Images, Labels]:
    """Read the four IDX files of the MNIST family: training images, labels, then the test's."""
    arrays = [_idx(dataset, index, stream.read()) for index, stream in enumerate(streams)]
    for at, rows in ((0, dataset.train), (2, dataset.test)):
        for index, shape in ((at, (rows, *dataset.shape[1:])), (at + 1, (rows,))):
            if arrays[index].shape != shape:
                raise _bad(dataset, index, f"shape {arrays[index].shape} where {shape} belongs")
    images = np.concatenate([arrays[0], arrays[2]]).reshape(-1, *dataset.shape)
    return images, np.concatenate([arrays[1], arrays[3]]).astype(np.int64)


def _idx(dataset: Dataset, index: int, content: bytes) -> Images:
    """Return the array of an IDX file: 00 00 type ndim, big-endian sizes, then the values."""
    if len(content) < 4 or content[:3] != bytes((0, 0, _IDX_UINT8)):
        raise _bad(dataset, index, "not an IDX file of bytes")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise _bad(dataset, index, "its header is cut short")
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    values = np.frombuffer(content, dtype=np.uint8, offset=start)
    if values.size != math.prod(shape):
        raise _bad(dataset, index, f"{values.size} values where its header says {shape}")
    return values.reshape(shape)


def read_cifar10(dataset: Dataset, streams: Sequence[BinaryIO]) -> tuple[Images, Labels]:
    """Read CIFAR-10's binary archive: records of one label byte and the pixels, C x H x W."""
    folder = "cifar-10-batches-bin"
    batches = {f"{folder}/data_batch_{batch}.bin": dataset.train // 5 for batch in range(1, 6)}
    members = {**batches, f"{folder}/test_batch.bin": dataset.test}
    return _cifar(dataset, streams[0], members, label_bytes=1)


def read_cifar100(dataset: Dataset, streams: Sequence[BinaryIO]) -> tuple[Images, Labels]:
    """Read CIFAR-100's binary archive: a coarse label byte, a fine one (taken), the pixels."""
    folder = "cifar-100-binary"
    members = {f"{folder}/train.bin": dataset.train, f"{folder}/test.bin": dataset.test}
    return _cifar(dataset, streams[0], members, label_bytes=2)


def _cifar(
    dataset: Dataset, stream: BinaryIO, members: dict[str, int], label_bytes: int
) -> tuple[Images, Labels]:
    """Read the named members (each with its number of records) out of a tar.gz stream."""
    width = label_bytes + math.prod(dataset.shape)
    sizes = {name: rows * width for name, rows in members.items()}
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=stream, mode="r|gz") as archive:
            for member in archive:
                # Only a plain file of an expected name is ever read, and none is unpacked: a path
                # that climbs out of the folder, a link or a device cannot do anything here.
                if member.name not in sizes or member.name in found or not member.isreg():
                    continue
                if member.size != sizes[member.name]:
                    raise _bad(
                        dataset,
                        0,
                        f"{member.name} has {member.size} bytes where {sizes[member.name]} belong",
                    )
                content = archive.extractfile(member)
                found[member.name] = b"" if content is None else content.read()
                if len(found) == len(sizes):
                    break
    except (tarfile.TarError, EOFError, OSError) as error:
        raise _bad(dataset, 0, f"the archive cannot be read ({error})") from error
    for name in sizes:
        if len(found.get(name, b"")) != sizes[name]:
            raise _bad(dataset, 0, f"it holds no whole file {name}")
    records = np.frombuffer(b"".join(found[name] for name in sizes), np.uint8).reshape(-1, width)
    images = np.ascontiguousarray(records[:, label_bytes:]).reshape(-1, *dataset.shape)
    return images, records[:, label_bytes - 1].astype(np.int64)


def _bad(dataset: Dataset, index: int, what: str) -> UserError:
    """Return the error for a raw file that does not follow its format."""
    return UserError(f"{dataset.files[index].name} of {dataset.name} is not as expected: {what}.")


READERS: dict[str, Reader] = {
    "digits": read_digits,
    "idx": read_idx,
    "cifar10": read_cifar10,
    "cifar100": read_cifar100,
}
