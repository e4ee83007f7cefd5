"""Reader of CIFAR-10's binary archive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from cyclery.data.dataset import Dataset
from cyclery.data.readers import _cifar
from cyclery.data.readers._format import Images, Labels

FILES = 1


def read(dataset: Dataset, streams: Sequence[BinaryIO]) -> tuple[Images, Labels]:
    """Read CIFAR-10's binary archive: records of one label byte and the pixels, C x H x W."""
    return _cifar.archive(dataset, streams[0], _layout(dataset))


def unpacked(dataset: Dataset, folder: Path) -> Callable[[], tuple[Images, Labels]] | None:
    """Return what reads the binary archive's folder or torchvision's, if a folder has either."""
    return _cifar.unpacked(dataset, folder, _layout(dataset))


def _layout(dataset: Dataset) -> _cifar.Layout:
    binary, pickled = "cifar-10-batches-bin", "cifar-10-batches-py"
    batches = {f"data_batch_{batch}": dataset.train // 5 for batch in range(1, 6)}
    files = {**batches, "test_batch": dataset.test}
    return _cifar.Layout(
        binary={f"{binary}/{name}.bin": rows for name, rows in files.items()},
        label_bytes=1,
        pickled={f"{pickled}/{name}": rows for name, rows in files.items()},
        key="labels",
    )
