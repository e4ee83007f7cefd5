"""Datasets from folders of images: one folder per class, with or without train and test.

Classes are numbered in the order of their names, and images of a class come in the order of theirs.
What such a dataset is follows from the names and contents of its images (`Listing.sha256`).
Planning needs that hash every time and reads no image for it: it compares names, sizes and times of
modification with those in a cache file and, where they are equal, takes the cached hash.
Preparation reads every image and refuses another hash, so prepared data match their hash. An edit
that keeps size and time is missed by planning and found by the next preparation.
"""

from __future__ import annotations

import io
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from cyclery.common.errors import UserError, choices
from cyclery.common.files import parse_json, read_regular, write_atomic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.ImageFile import ImageFile

    from cyclery.data.dataset import Dataset

# Pillow's formats that lose nothing, by the endings of their files.
FORMATS = {".png": "PNG", ".bmp": "BMP"}
# Folders that are no classes, where there are no others next to them.
TRAIN, TEST = "train", "test"
# No image of the largest shape that a dataset may have is larger as a file.
MOST_BYTES = 64_000_000
# Pillow's modes of pixels that become grey (1 channel) or colour (3) without a loss.
MODES = {1: ("L", "1"), 3: ("RGB", "L", "P", "1")}


@dataclass(frozen=True)
class Image:
    """An image file: its name below the folder, its set, class, size in bytes and time in ns."""

    name: str
    test: bool
    label: int
    size: int
    time: int


@dataclass(frozen=True)
class Listing:
    """The content of a folder: classes in order, and images in the order of the prepared rows."""

    place: Path
    classes: tuple[str, ...]
    images: tuple[Image, ...]

    def counts(self, test: bool) -> tuple[int, ...]:
        """Return the images of each class in the test set, or in the training set."""
        found = [0] * len(self.classes)
        for image in self.images:
            found[image.label] += image.test == test
        return tuple(found)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of names, sizes and times of modification."""
        lines = (f"{image.name}\0{image.size}\0{image.time}\n" for image in self.images)
        return sha256("".join(lines).encode()).hexdigest()

    def sha256(self) -> str:
        """Return the hash of names and contents (`content`); it reads every image."""
        return content({each.name: _hash(_read(self.place / each.name)) for each in self.images})


def content(images: Mapping[str, str]) -> str:
    """Return the SHA-256 (hex) of images, given by name with the SHA-256 of the file of each."""
    lines = (f"{found}  {name}\n" for name, found in sorted(images.items()))
    return _hash("".join(lines).encode())


def list_images(place: Path) -> Listing:
    """Return the classes and images in a folder, without reading an image.

    Raises:
        UserError: it is no folder of classes; the message begins with what is wrong.
    """
    try:
        if not place.is_dir():
            raise UserError(f"{place}: there is no such folder.")
        top = dict(_folders(place))
        if set(top) in ({TRAIN}, {TRAIN, TEST}):
            train, test = (dict(_folders(top.get(each))) for each in (TRAIN, TEST))
        else:
            train, test = top, {}
        _check_classes(place, train, test)
        classes = tuple(sorted(train))
        images = [
            image
            for is_test, folders in ((False, train), (True, test))
            for label, name in enumerate(classes)
            if name in folders
            for image in _images(place, folders[name], is_test, label)
        ]
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror}).") from None
    return Listing(place, classes, tuple(images))


def _check_classes(place: Path, train: Mapping[str, Path], test: Mapping[str, Path]) -> None:
    if not train:
        raise UserError(
            f"{place}: holds no folder of a class; put the images into one folder for each class, "
            f"or into {TRAIN}/<class> and {TEST}/<class>."
        )
    if unknown := sorted(test.keys() - train.keys()):
        raise UserError(
            f"{test[unknown[0]]}: no class of the training set, which has {choices(train)}."
        )


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield what lies in a folder, by name, but hidden files; a UserError where it leads out."""
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if not entry.name.isprintable():
            raise UserError(f"{folder}: holds {entry.name!r}, which cannot be printed; rename it.")
        if entry.is_symlink():
            raise UserError(
                f"{entry.path}: is a link, which could lead out of the folder; put the file itself "
                "there."
            )
        yield entry


def _folders(folder: Path | None) -> Iterator[tuple[str, Path]]:
    """Yield the folders in a folder by name; other files are passed over, but for images."""
    for entry in _entries(folder) if folder else ():
        if entry.is_dir():
            yield entry.name, Path(entry.path)
        elif _is_image(entry.name):
            raise UserError(f"{entry.path}: lies in no folder of a class; move or delete it.")


def _images(place: Path, folder: Path, test: bool, label: int) -> Iterator[Image]:
    """Yield the images of a class; a UserError names what is none, or that there is none."""
    empty, below = True, folder.relative_to(place).as_posix()
    for entry in _entries(folder):
        if not entry.is_file() or not _is_image(entry.name):
            raise UserError(
                f"{entry.path}: a class has nothing but images in formats that lose nothing, "
                f"{choices(FORMATS)}; convert, move or delete it."
            )
        found = entry.stat()
        if found.st_size > MOST_BYTES:
            raise UserError(
                f"{entry.path}: has {found.st_size:,} bytes; an image may have {MOST_BYTES:,}."
            )
        yield Image(f"{below}/{entry.name}", test, label, found.st_size, found.st_mtime_ns)
        empty = False
    if empty and not test:
        raise UserError(f"{folder}: holds no image, so its class has none; add some or delete it.")


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in FORMATS  # noqa: PTH122, a Path is slow by thousands


def memo(root: Path, name: str) -> Path:
    """Return the cache file of a dataset's folder: its hash, and the fingerprint it belongs to."""
    return root / ".cyclery" / f"{name}.folder.json"


def cached_sha256(listing: Listing, file: Path) -> str:
    """Return the hash of a folder, from the cache where its fingerprint is unchanged."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        entry = parse_json(read_regular(file))
        if entry["looks"] == listing.fingerprint and len(entry["sha256"]) == 64:
            return str(entry["sha256"])
    found = listing.sha256()
    # Where the cache cannot be written, every planning reads the images again.
    with suppress(UserError, OSError):
        write_atomic(file, json.dumps({"looks": listing.fingerprint, "sha256": found}) + "\n")
    return found


def read(dataset: Dataset) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the images [N, C, H, W] and labels [N] of a dataset's folder, training images first.

    Raises:
        UserError: an image is damaged or of another shape, or the folder has changed since the
            dataset was looked up.
    """
    import numpy as np

    assert dataset.place is not None and dataset.memo is not None
    listing = list_images(dataset.place)
    images = np.empty((len(listing.images), *dataset.shape), dtype=np.uint8)
    hashes = {}
    for index, each in enumerate(listing.images):
        path = dataset.place / each.name
        data = _read(path)
        hashes[each.name] = _hash(data)
        images[index] = _decoded(data, path, dataset.shape)
    if content(hashes) != dataset.images_sha256:
        # The next planning then reads every image.
        dataset.memo.unlink(missing_ok=True)
        raise UserError(
            f"{dataset.place}: its images have changed since the job was planned; run the same "
            "command again."
        )
    return images, np.array([each.label for each in listing.images], dtype=np.int64)


def _decoded(data: bytes, path: Path, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return the pixels [C, H, W] of an image file; a UserError where it is none of that shape."""
    import numpy as np
    from PIL import Image as PILImage
    from PIL import UnidentifiedImageError

    channels, height, width = shape
    try:
        with warnings.catch_warnings():
            # Of an image with a very large header, whose size is compared before it is unpacked.
            warnings.simplefilter("ignore", PILImage.DecompressionBombWarning)
            opened = PILImage.open(io.BytesIO(data), formats=[*FORMATS.values()])
        with opened as image:
            if image.size != (width, height):
                raise UserError(
                    f"{path}: has {image.height} x {image.width} pixels where the dataset's shape "
                    f"says {height} x {width}; scale it, or change `shape`."
                )
            if image.mode not in MODES[channels] or _loses(image):
                kind = "colour" if channels == 3 else "grey"
                raise UserError(
                    f"{path}: is no plain {kind} image of 8 bits (Pillow calls it {image.mode}"
                    f"{', with transparency' if 'transparency' in image.info else ''}); convert "
                    "it, or change `shape`."
                )
            pixels = np.asarray(image.convert("RGB" if channels == 3 else "L"), dtype=np.uint8)
    except UnidentifiedImageError:
        # Pillow's own words name a place in memory.
        kinds = " or ".join(FORMATS.values())
        raise UserError(f"{path}: cannot be read as an image (it is no {kinds}).") from None
    except (OSError, SyntaxError, ValueError, PILImage.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be read as an image ({error}).") from None
    return np.moveaxis(pixels.reshape(height, width, channels), -1, 0)


def _loses(image: ImageFile) -> bool:
    """Return whether 8-bit pixels would lose something: frames, transparency, or 16 bits."""
    wide = any("16" in str(tile[3]) for tile in image.tile)
    return getattr(image, "n_frames", 1) > 1 or "transparency" in image.info or wide


def _read(path: Path) -> bytes:
    try:
        return read_regular(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from None


def _hash(data: bytes) -> str:
    return sha256(data).hexdigest()
