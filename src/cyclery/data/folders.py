"""Datasets from folders of images: one folder per class, with or without train and test.

Classes are numbered in the order of their names (of numbers, in that of these). What such a dataset
is follows from its decoded images (`cyclery.data.content`), whatever their files are called and how
they are packed. Planning needs that every time, and decodes no image for it: it compares names,
sizes and times of modification with those in a cache file and, where they are equal, takes the
cached content. Preparation decodes every image and refuses another content, so prepared data match
it. An edit that keeps size and time is missed by planning and found by the next preparation.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from cyclery.common.errors import UserError, choices, nearest
from cyclery.common.files import parse_json, read_regular, write_atomic
from cyclery.data import images
from cyclery.data.content import part_hash, row_digest
from cyclery.data.dataset import Content, Dataset, DatasetFile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Folders that are no classes, where there are no others next to them.
TRAIN, TEST = "train", "test"
# No image of the largest shape that a dataset may have is larger as a file.
MOST_BYTES = 64_000_000
# Images that cannot be taken before the others are not tried any more.
_MOST_REFUSED = 20
# Images whose decoding is announced, for it takes a second or more.
_MANY = 1000


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

    @property
    def tested(self) -> bool:
        """Whether there is a test set."""
        return any(image.test for image in self.images)

    def fingerprint(self, declared: DatasetFile) -> str:
        """SHA-256 (hex) of names, sizes and times, and of what shapes the decoded images."""
        total = sha256(json.dumps([declared.shape, declared.fit]).encode())
        for image in self.images:
            total.update(f"\n{image.name}\0{image.size}\0{image.time}".encode())
        return total.hexdigest()


def list_images(place: Path) -> Listing:
    """Return the classes and images in a folder, without reading an image.

    Raises:
        UserError: it is no folder of classes; the message begins with what is wrong.
    """
    try:
        if not place.is_dir():
            raise UserError(f"{place}: there is no such folder.")
        top = dict(_folders(place))
        parts = set(top) in ({TRAIN}, {TRAIN, TEST})
        if parts:
            train, test = (dict(_folders(top.get(each))) for each in (TRAIN, TEST))
        else:
            train, test = top, {}
        _check_classes(place, train, test)
        classes = _in_order(train)
        found = [
            image
            for is_test, folders in ((False, train), (True, test))
            for label, name in enumerate(classes)
            if name in folders
            for image in _images(place, folders[name], is_test, label)
        ]
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror}).") from None
    if parts and TEST in top and not any(image.test for image in found):
        raise UserError(f"{top[TEST]}: holds no image; add some or delete the folder.")
    return Listing(place, classes, tuple(found))


def _in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of classes in order: by number where all are numbers, else by name."""
    numbers = all(name.isascii() and name.isdecimal() for name in names)
    return tuple(sorted(names, key=(lambda name: (int(name), name)) if numbers else None))


def _check_classes(place: Path, train: Mapping[str, Path], test: Mapping[str, Path]) -> None:
    if not train:
        raise UserError(
            f"{place}: holds no folder of a class; put the images into one folder for each class, "
            f"or into {TRAIN}/<class> and {TEST}/<class>."
        )
    seen: dict[str, str] = {}
    for name in sorted(train):
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise UserError(
                f"{place}: its classes {other!r} and {name!r} differ in small and capital letters "
                "alone; put their images together, or rename one."
            )
    if unknown := sorted(test.keys() - train.keys()):
        raise UserError(
            f"{test[unknown[0]]}: no class of the training set.{nearest(unknown[0], train)} That "
            f"has {choices(train)}."
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
        elif images.is_image(entry.name):
            raise UserError(f"{entry.path}: lies in no folder of a class; move or delete it.")


def _images(place: Path, folder: Path, test: bool, label: int) -> Iterator[Image]:
    """Yield the images of a class; a UserError names what is none, or that there is none."""
    empty, below = True, folder.relative_to(place).as_posix()
    for entry in _entries(folder):
        if folder.name == TRAIN and entry.is_dir():
            raise UserError(
                f"{folder}: holds folders, as a training set does, but lies beside others than "
                f"{TEST}; there are {TRAIN} and {TEST} alone, or classes alone."
            )
        if not entry.is_file() or not images.is_image(entry.name):
            raise UserError(
                f"{entry.path}: a class has nothing but images ({choices(images.FORMATS)}); "
                "convert, move or delete it."
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


def memo(root: Path, name: str) -> Path:
    """Return the cache file of a folder's content, and of the fingerprint it belongs to."""
    return root / ".cyclery" / f"{name}.folder.json"


def cached_content(listing: Listing, declared: DatasetFile, file: Path) -> Content:
    """Return the content of a folder, from the cache where its fingerprint is unchanged.

    Raises:
        UserError: an image cannot be taken.
    """
    fingerprint = listing.fingerprint(declared)
    with suppress(OSError, ValueError, KeyError, TypeError):
        entry = parse_json(read_regular(file))
        if entry["looks"] == fingerprint:
            return Content.model_validate(entry["content"])
    if len(listing.images) >= _MANY:
        print(
            f"cyclery: {listing.place}: reads {len(listing.images):,} images, once until one is "
            "changed",
            file=sys.stderr,
        )
    digests: dict[bool, list[bytes]] = {False: [], True: []}
    for image, pixels in _decoded(listing, declared):
        row = row_digest(image.label, pixels.tobytes(), len(listing.classes))
        digests[image.test].append(row)
    test = part_hash(digests[True]) if digests[True] else None
    found = Content(train=part_hash(digests[False]), test=test)
    # Where the cache cannot be written, every planning reads the images again.
    with suppress(UserError, OSError):
        entry = {"looks": fingerprint, "content": found.model_dump()}
        write_atomic(file, json.dumps(entry) + "\n")
    return found


def read(listing: Listing, dataset: Dataset) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the images [N, C, H, W] and labels [N] in a dataset's folder, training images first.

    Raises:
        UserError: an image is damaged or of another shape.
    """
    import numpy as np

    found = np.empty((len(listing.images), *dataset.shape), dtype=np.uint8)
    for row, (_, pixels) in enumerate(_decoded(listing, dataset)):
        found[row] = pixels
    return found, np.array([each.label for each in listing.images], dtype=np.int64)


def _decoded(listing: Listing, declared: DatasetFile) -> Iterator[tuple[Image, NDArray[np.uint8]]]:
    """Yield every image with its pixels [C, H, W]; at the end a UserError for those refused."""
    refused: list[str] = []
    for image in listing.images:
        try:
            pixels = images.decode(listing.place / image.name, declared.shape, declared.fit)
        except UserError as error:
            refused.append(image.name if refused else str(error))
            if len(refused) == _MOST_REFUSED:
                break
        else:
            yield image, pixels
    if refused:
        first, *others = refused
        more = f" {len(others)} more are refused, as {others[0]} is." if others else ""
        raise UserError(f"{first}{more}")
