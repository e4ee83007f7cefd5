"""Reader of the binary archives of CIFAR.

Not the Python ones: those are pickles, and unpickling a download runs whatever it contains. The
pixels and their order are the same.
"""

from __future__ import annotations

import math
import tarfile
from typing import BinaryIO

import numpy as np

from cyclery.data.dataset import Dataset
from cyclery.data.readers._format import Images, Labels, bad


def cifar(
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
                    raise bad(
                        dataset,
                        0,
                        f"{member.name} has {member.size} bytes where {sizes[member.name]} belong",
                    )
                content = archive.extractfile(member)
                found[member.name] = b"" if content is None else content.read()
                if len(found) == len(sizes):
                    break
    except (tarfile.TarError, EOFError, OSError) as error:
        raise bad(dataset, 0, f"the archive cannot be read ({error})") from error
    for name in sizes:
        if len(found.get(name, b"")) != sizes[name]:
            raise bad(dataset, 0, f"it holds no whole file {name}")
    records = np.frombuffer(b"".join(found[name] for name in sizes), np.uint8).reshape(-1, width)
    images = np.ascontiguousarray(records[:, label_bytes:]).reshape(-1, *dataset.shape)
    return images, records[:, label_bytes - 1].astype(np.int64)
