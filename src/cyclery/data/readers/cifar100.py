"""Reader of CIFAR-100's binary archive, with its fine labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from cyclery.data.dataset import Dataset
from cyclery.data.readers._cifar import cifar
from cyclery.data.readers._format import Images, Labels

FILES = 1


def read(dataset: Dataset, streams: Sequence[BinaryIO]) -> tuple[Images, Labels]:
    """Read CIFAR-100's binary archive: a coarse label byte, a fine one (taken), the pixels."""
    folder = "cifar-100-binary"
    members = {f"{folder}/train.bin": dataset.train, f"{folder}/test.bin": dataset.test}
    return cifar(dataset, streams[0], members, label_bytes=2)
