"""Reader of CIFAR-10's binary archive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from cyclery.data.dataset import Dataset
from cyclery.data.readers._cifar import cifar
from cyclery.data.readers._format import Images, Labels

FILES = 1


def read(dataset: Dataset, streams: Sequence[BinaryIO]) -> tuple[Images, Labels]:
    """Read CIFAR-10's binary archive: records of one label byte and the pixels, C x H x W."""
    folder = "cifar-10-batches-bin"
    batches = {f"{folder}/data_batch_{batch}.bin": dataset.train // 5 for batch in range(1, 6)}
    members = {**batches, f"{folder}/test_batch.bin": dataset.test}
    return cifar(dataset, streams[0], members, label_bytes=1)
