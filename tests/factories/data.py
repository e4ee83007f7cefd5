"""Small archives in the genuine formats and folders of images, and datasets that match them."""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from cyclery.config.load import datasets
from cyclery.data.dataset import Dataset, RawFile
from factories import checkout

# Those of this checkout.
KNOWN = datasets(checkout.ROOT)
DIGITS, FASHION_MNIST = KNOWN["digits"], KNOWN["fashion-mnist"]
CIFAR10, CIFAR100 = KNOWN["cifar10"], KNOWN["cifar100"]


def replace(dataset: Dataset, **changes: Any) -> Dataset:
    """Return a dataset with other values, whether they suit each other or not."""
    before = {key: getattr(dataset, key) for key in Dataset.model_fields}
    return Dataset.model_construct(**before | changes)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def content_hash(images: np.ndarray, labels: np.ndarray) -> str:
    """Return the content hash of a part, images [N, C, H, W], by its definition."""
    rows = [bytes([y]) + x.tobytes() for x, y in zip(images, labels.tolist(), strict=True)]
    return sha256(b"".join(sorted(hashlib.sha256(row).digest() for row in rows)))


def pixels(rows: int, *shape: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (rows, *shape), dtype=np.uint8)


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def small_fashion(train: int = 30, test: int = 10) -> tuple[Dataset, dict[str, bytes]]:
    """Return a dataset and the gzipped files that it describes."""
    arrays = [
        pixels(train, 28, 28, seed=1),
        np.arange(train) % 10,
        pixels(test, 28, 28, seed=2),
        np.arange(test) % 10,
    ]
    files, contents = [], {}
    for raw, array in zip(FASHION_MNIST.files, arrays, strict=True):
        content = idx(array)
        contents[raw.name] = gzip.compress(content, mtime=7)
        files.append(
            RawFile(
                name=raw.name,
                sha256=sha256(content),
                md5=md5(contents[raw.name]),
                bytes=len(contents[raw.name]),
                gzipped=True,
            )
        )
    dataset = replace(
        FASHION_MNIST,
        train=train,
        test=test,
        files=tuple(files),
        class_counts=None,
        content=None,
        shared=None,
    )
    return dataset, contents


def tar_gz(members: list[tuple[str, bytes | tarfile.TarInfo]]) -> bytes:
    """Return an archive; a member is (name, content) or (name, a ready header without content)."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in members:
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
                continue
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return stream.getvalue()


def cifar_records(images: np.ndarray, *labels: np.ndarray) -> bytes:
    """Return records as CIFAR's binary files hold them: label bytes, then the pixels."""
    columns = [np.asarray(column, dtype=np.uint8)[:, None] for column in labels]
    return np.hstack([*columns, images.reshape(len(images), -1)]).tobytes()


def small_cifar10() -> tuple[Dataset, list[tuple[str, bytes]], np.ndarray, np.ndarray]:
    """Return a dataset, the archive's members, and the images and labels to expect."""
    images, labels = pixels(60, 3, 32, 32), np.arange(60) % 10
    parts = [(images[at : at + 10], labels[at : at + 10]) for at in range(0, 60, 10)]
    names = [f"data_batch_{batch}.bin" for batch in range(1, 6)] + ["test_batch.bin"]
    members = [
        (f"cifar-10-batches-bin/{name}", cifar_records(image, label))
        for name, (image, label) in zip(names, parts, strict=True)
    ]
    members.insert(0, ("cifar-10-batches-bin/batches.meta.txt", b"airplane\n"))
    dataset = replace(CIFAR10, train=50, test=10, shared=None, content=None)
    return dataset, members, images, labels


def small_cifar100() -> tuple[Dataset, list[tuple[str, bytes]], np.ndarray, np.ndarray]:
    """Like `small_cifar10`; the labels to expect are the fine ones."""
    images, fine = pixels(30, 3, 32, 32), (np.arange(30) * 7) % 100
    coarse = fine // 5
    members = [
        ("cifar-100-binary/train.bin", cifar_records(images[:20], coarse[:20], fine[:20])),
        ("cifar-100-binary/test.bin", cifar_records(images[20:], coarse[20:], fine[20:])),
    ]
    dataset = replace(CIFAR100, train=20, test=10, shared=None, content=None)
    return dataset, members, images, fine


def with_archive(dataset: Dataset, archive: bytes, *urls: str) -> Dataset:
    """Return the entry with its one raw file pinned to this archive."""
    pinned = {"sha256": sha256(archive), "md5": md5(archive), "bytes": len(archive), "urls": urls}
    raw = dataset.files[0].model_copy(update=pinned)
    return replace(dataset, files=(raw,))


def png(pixels_: np.ndarray, mode: str | None = None) -> bytes:
    """Return a PNG of pixels [H, W] or [H, W, 3], turned into another of Pillow's modes."""
    from PIL import Image

    image, stream = Image.fromarray(pixels_), io.BytesIO()
    (image.convert(mode) if mode else image).save(stream, "PNG")
    return stream.getvalue()


def class_folders(
    folder: Path, shape: tuple[int, ...], counts: dict[str, int], *, seed: int = 0
) -> dict[str, np.ndarray]:
    """Write PNGs of random pixels into a folder for each class; return the pixels by file name.

    Of two classes and more the brightness tells them apart, so that a network can learn them.
    """
    written = {}
    for label, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        drawn = pixels(count, *shape, seed=seed + label) // 4 + np.uint8(label * 60 % 192)
        for index, image in enumerate(drawn):
            (folder / name / f"{index:03}.png").write_bytes(png(image))
            written[f"{name}/{index:03}.png"] = image
    return written
