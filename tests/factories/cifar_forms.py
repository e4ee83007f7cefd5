"""Small CIFARs in every form that they are kept in, and the datasets that match them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cyclery.data.dataset import Content, Dataset
from factories import data

Small = tuple[Dataset, list[tuple[str, bytes]], np.ndarray, np.ndarray]


def pinned(small: Small) -> Dataset:
    """Return the dataset with its content, and without an address to download it from."""
    dataset, _, images, labels = small
    n = dataset.train
    content = Content(
        train=data.content_hash(images[:n], labels[:n]),
        test=data.content_hash(images[n:], labels[n:]),
    )
    raw = dataset.files[0].model_copy(update={"urls": ()})
    return data.replace(dataset, content=content, files=(raw,))


def binary_folder(folder: Path, small: Small) -> None:
    """Unpack the binary archive's members into a folder."""
    for name, content in small[1]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def pickle_folder(folder: Path, small: Small, dumps: Callable[[dict[str, Any]], bytes]) -> Path:
    """Write torchvision's folder of a CIFAR, each dictionary made a pickle by `dumps`."""
    dataset, _, images, labels = small
    if dataset.classes == 10:
        place, key = folder / "cifar-10-batches-py", "labels"
        names = [f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"]
        bounds = list(range(0, len(labels) + 1, 10))
    else:
        place, key, names = folder / "cifar-100-python", "fine_labels", ["train", "test"]
        bounds = [0, dataset.train, len(labels)]
    place.mkdir(parents=True)
    for name, start, end in zip(names, bounds[:-1], bounds[1:], strict=True):
        found = labels[start:end].tolist()
        values = {
            "batch_label": name,
            "coarse_labels": [label // 5 for label in found],
            key: found,
            "data": images[start:end].reshape(end - start, -1),
            "filenames": [f"a_s_{n:06}.png" for n in range(start, end)],
        }
        (place / name).write_bytes(dumps(values))
    return place


def python2_pickle(values: dict[str, Any]) -> bytes:
    """Return a dictionary as Python 2 pickles it (protocol 2), with byte strings and a memo."""
    parts, memo = [b"\x80\x02}q\x01("], iter(range(2, 1 << 30))

    def put() -> bytes:
        place = next(memo)
        return b"q" + bytes([place]) if place < 256 else b"r" + struct.pack("<I", place)

    def text(value: bytes) -> bytes:
        short = len(value) < 256
        head = b"U" + bytes([len(value)]) if short else b"T" + struct.pack("<i", len(value))
        return head + value + put()

    for key, value in values.items():
        parts.append(text(key.encode()))
        if isinstance(value, list):
            items = [text(v.encode()) if isinstance(v, str) else b"K" + bytes([v]) for v in value]
            parts += [b"]" + put() + b"(", *items, b"e"]
        elif isinstance(value, np.ndarray):
            sizes = b"".join(b"M" + struct.pack("<H", side) for side in value.shape)
            parts += [
                b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy\nndarray\n",
                b"K\x00\x85", text(b"b"), b"\x87R(K\x01", sizes, b"\x86cnumpy\ndtype\n",
                text(b"u1"), b"K\x00K\x01\x87R(K\x03", text(b"|"),
                b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89", text(value.tobytes()), b"tb",
            ]  # fmt: skip
        else:
            parts.append(text(value.encode()))
    return b"".join([*parts, b"u."])


def class_folders(folder: Path, small: Small, ending: str = "png") -> None:
    """Write the images into a folder for each class, named by numbers, of each part."""
    dataset, _, images, labels = small
    for row, (image, label) in enumerate(zip(images, labels, strict=True)):
        part = "train" if row < dataset.train else "test"
        place = folder / part / f"{label:03}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.moveaxis(image, 0, -1)).save(place / f"{row}.{ending}")
