"""Reader of ciFAIR-10's archive: CIFAR-10 with the near-duplicates in its test set replaced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from cyclery.data.dataset import Dataset
from cyclery.data.readers import _cifar
from cyclery.data.readers._format import Images, Labels

FILES = 1


def read(dataset: Dataset, streams: Sequence[BinaryIO]) -> tuple[Images, Labels]:
    """Read ciFAIR-10's zip archive: the pickles of CIFAR-10 for Python, training files first."""
    return _cifar.zipped(dataset, streams[0], _layout(dataset))


def _layout(dataset: Dataset) -> _cifar.Layout:
    batches = {f"ciFAIR-10/data_batch_{batch}": dataset.train // 5 for batch in range(1, 6)}
    files = {**batches, "ciFAIR-10/test_batch": dataset.test}
    return _cifar.Layout(binary={}, label_bytes=1, pickled=files, key="labels")
