"""Readers of CIFAR: of the binary archives, and of the folders that these and torchvision unpack.

The Python archives hold the same pixels in the same order, in pickles: those are never unpickled
(`cyclery.data.readers._pickled`). ciFAIR has no other archive than such a one, a zip.
"""

from __future__ import annotations

import math
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cyclery.common.errors import UserError
from cyclery.common.files import read_regular
from cyclery.data.dataset import Dataset
from cyclery.data.readers._format import Images, Labels, bad
from cyclery.data.readers._pickled import pixels_and_labels


@dataclass(frozen=True)
class Layout:
    """The files of a member of the CIFAR family, training files first, each with its records.

    Args:
        binary: binary files below the folder that holds the archive's.
        label_bytes: bytes before the pixels of a record; the last is the label.
        pickled: pickles below the folder that holds torchvision's.
        key: the labels' name in a pickle.
    """

    binary: Mapping[str, int]
    label_bytes: int
    pickled: Mapping[str, int]
    key: str


def archive(dataset: Dataset, stream: BinaryIO, layout: Layout) -> tuple[Images, Labels]:
    """Read the binary files out of a tar.gz stream."""
    width = layout.label_bytes + math.prod(dataset.shape)
    sizes = {name: rows * width for name, rows in layout.binary.items()}
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=stream, mode="r|gz") as opened:
            for member in opened:
                # Only a plain file of an expected name is ever read, and none is unpacked: a path
                # that climbs out of the folder, a link or a device cannot do anything here.
                if member.name not in sizes or member.name in found or not member.isreg():
                    continue
                if member.size != sizes[member.name]:
                    raise bad(
                        dataset,
                        0,
                        f"{member.name} has {member.size} bytes where {sizes[member.name]} belong",
                    )
                content = opened.extractfile(member)
                found[member.name] = b"" if content is None else content.read()
                if len(found) == len(sizes):
                    break
    except (tarfile.TarError, EOFError, OSError) as error:
        raise bad(dataset, 0, f"the archive cannot be read ({error})") from error
    for name in sizes:
        if len(found.get(name, b"")) != sizes[name]:
            raise bad(dataset, 0, f"it holds no whole file {name}")
    return _records(dataset, b"".join(found[name] for name in sizes), layout)


def zipped(dataset: Dataset, stream: BinaryIO, layout: Layout) -> tuple[Images, Labels]:
    """Read the pickles out of a zip archive."""
    found: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(stream) as opened:
            for name, rows in layout.pickled.items():
                # A pickle has more than the pixels, but never as much again.
                most = 2 * rows * math.prod(dataset.shape) + 1_000_000
                if opened.getinfo(name).file_size > most:
                    size = opened.getinfo(name).file_size
                    raise bad(dataset, 0, f"{name} has {size} bytes, more than {most}")
                found[name] = opened.read(name)
    except KeyError:
        raise bad(dataset, 0, f"it holds no file {name}") from None
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, zlib.error) as error:
        raise bad(dataset, 0, f"the archive cannot be read ({error})") from error
    return _pickled(dataset, layout, found.__getitem__, dataset.files[0].name)


def unpacked(
    dataset: Dataset, folder: Path, layout: Layout
) -> Callable[[], tuple[Images, Labels]] | None:
    """Return what reads the binary files, or torchvision's pickles, below a folder, if any are."""
    for read, files in ((_binaries, layout.binary), (_pickles, layout.pickled)):
        if files and all((folder / name).is_file() for name in files):
            return partial(read, dataset, folder, layout)
    return None


def _binaries(dataset: Dataset, folder: Path, layout: Layout) -> tuple[Images, Labels]:
    width = layout.label_bytes + math.prod(dataset.shape)
    parts = [_read(folder / name, rows * width) for name, rows in layout.binary.items()]
    return _records(dataset, b"".join(parts), layout)


def _records(dataset: Dataset, content: bytes, layout: Layout) -> tuple[Images, Labels]:
    """Return the images and labels of records: label bytes, then the pixels, C x H x W."""
    records = np.frombuffer(content, np.uint8)
    records = records.reshape(-1, layout.label_bytes + math.prod(dataset.shape))
    images = np.ascontiguousarray(records[:, layout.label_bytes :]).reshape(-1, *dataset.shape)
    return images, records[:, layout.label_bytes - 1].astype(np.int64)


def _pickles(dataset: Dataset, folder: Path, layout: Layout) -> tuple[Images, Labels]:
    return _pickled(dataset, layout, lambda name: _read(folder / name), str(folder))


def _pickled(
    dataset: Dataset, layout: Layout, content: Callable[[str], bytes], where: str
) -> tuple[Images, Labels]:
    """Return the images and labels of pickles, whose ``content`` has a name ``where``."""
    pixels, labels = [], []
    for name, rows in layout.pickled.items():
        size, place = rows * math.prod(dataset.shape), f"{where}/{name}"
        part, found = pixels_and_labels(content(name), layout.key, size, place)
        if len(found) != rows:
            raise UserError(f"{place}: holds {len(found)} labels where {rows} belong.")
        pixels.append(part)
        labels += found
    images = np.frombuffer(b"".join(pixels), np.uint8).reshape(-1, *dataset.shape)
    return images, np.array(labels, dtype=np.int64)


def _read(path: Path, size: int | None = None) -> bytes:
    """Return the content of a file, which has this size where one is given."""
    try:
        found = path.stat().st_size
        if size is not None and found != size:
            raise UserError(f"{path}: has {found:,} bytes where {size:,} belong.")
        return read_regular(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from None
