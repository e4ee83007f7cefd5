"""Reader of CIFAR-100's binary archive, with its fine labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from cyclery.data.dataset import Dataset
from cyclery.data.readers import _cifar
from cyclery.data.readers._format import Images, Labels

FILES = 1


def read(dataset: Dataset, streams: Sequence[BinaryIO]) -> tuple[Images, Labels]:
    """Read CIFAR-100's binary archive: a coarse label byte, a fine one (taken), the pixels."""
    return _cifar.archive(dataset, streams[0], _layout(dataset))


def unpacked(dataset: Dataset, folder: Path) -> Callable[[], tuple[Images, Labels]] | None:
    """Return what reads the binary archive's folder or torchvision's, if a folder has either."""
    return _cifar.unpacked(dataset, folder, _layout(dataset))


def _layout(dataset: Dataset) -> _cifar.Layout:
    files = {"train": dataset.train, "test": dataset.test}
    return _cifar.Layout(
        binary={f"cifar-100-binary/{name}.bin": rows for name, rows in files.items()},
        label_bytes=2,
        pickled={f"cifar-100-python/{name}": rows for name, rows in files.items()},
        key="fine_labels",
    )
