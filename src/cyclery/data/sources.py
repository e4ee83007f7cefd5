"""The rows of a dataset, from whichever form of it is on this machine, or else from a download.

Forms are the official raw files; a folder that another tool unpacked them to (torchvision's, say);
and class folders, ``<dataset>/train/<class>`` and ``<dataset>/test/<class>``. The first two have
the official order of the images, class folders have none. Forms that no checksum is pinned for are
only taken where the dataset's content is pinned, and verified against that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cyclery.common.errors import UserError
from cyclery.data import folders
from cyclery.data.content import measure
from cyclery.data.dataset import Content, Dataset
from cyclery.data.raw import NotHere, candidates, open_raw
from cyclery.data.readers import READERS

if TYPE_CHECKING:
    from cyclery.data.readers._format import Images, Labels


@dataclass(frozen=True)
class Rows:
    """Labelled images, training rows first.

    Args:
        images: uint8 [N, C, H, W].
        labels: int64 [N].
        content: their content hashes.
        ordered: whether they are in the official order.
        source: where they came from, for the manifest.
    """

    images: Images
    labels: Labels
    content: Content
    ordered: bool
    source: str


def find(dataset: Dataset, kept: Path, search: Sequence[Path] = ()) -> Rows:
    """Return the rows of a dataset, verified.

    Args:
        dataset: the dataset.
        kept: folder of earlier downloads, and of the next.
        search: folders that may hold it.

    Raises:
        UserError: it is nowhere and cannot be downloaded, or is not what its file says.
    """
    if dataset.place is not None:
        return _of_own_folder(dataset, dataset.place)
    try:
        return _of_raw_files(dataset, kept, search, download=False)
    except NotHere:
        if (found := _of_other_forms(dataset, kept, search)) is not None:
            return found
    return _of_raw_files(dataset, kept, search, download=True)


def unverified(dataset: Dataset, kept: Path) -> Path | None:
    """Return the folder on this machine that holds another form of a dataset than the raw files."""
    return next((form.place for form in _other_forms(dataset, kept, ())), None)


def _of_own_folder(dataset: Dataset, place: Path) -> Rows:
    listing = folders.list_images(place)
    images, labels = folders.read(listing, dataset)
    content = measure(images, labels, dataset.train, dataset.classes)
    if content != dataset.content:
        assert dataset.memo is not None
        # The next planning then reads every image.
        dataset.memo.unlink(missing_ok=True)
        raise UserError(
            f"{place}: its images have changed since the job was planned; run the same command "
            "again."
        )
    return Rows(images, labels, content, ordered=False, source="class folders")


def _of_raw_files(dataset: Dataset, kept: Path, search: Sequence[Path], *, download: bool) -> Rows:
    with open_raw(dataset, kept, search, download) as (streams, source):
        images, labels = READERS.load(str(dataset.reader)).read(dataset, streams)
    _check(dataset, images, labels)
    content = measure(images, labels, dataset.train, dataset.classes)
    if dataset.content not in (None, content):
        raise _other_content(f"{dataset.name}: the content of its raw files", dataset, content)
    return Rows(images, labels, content, ordered=True, source=source)


def _of_other_forms(dataset: Dataset, kept: Path, search: Sequence[Path]) -> Rows | None:
    """Return the rows from the first folder with another form of the dataset, if any has one."""
    for form in _other_forms(dataset, kept, search):
        images, labels = form.read()
        _check(dataset, images, labels)
        content = measure(images, labels, dataset.train, dataset.classes)
        if content != dataset.content:
            raise _other_content(f"{form.place}: its content", dataset, content)
        return Rows(images, labels, content, form.ordered, form.source)
    return None


@dataclass(frozen=True)
class _Form:
    """A folder that holds a dataset in another form than the raw files."""

    place: Path
    read: Callable[[], tuple[Images, Labels]]
    ordered: bool
    source: str


def _other_forms(dataset: Dataset, kept: Path, search: Sequence[Path]) -> Iterator[_Form]:
    """Yield the folders that hold another form; none where no content could vouch for it."""
    if dataset.content is None:
        return
    unpacked = getattr(READERS.load(str(dataset.reader)), "unpacked", None)
    for folder, source, own in candidates(dataset, kept, search):
        if source == "download":
            source = "local files"  # put beside earlier downloads by hand
        if unpacked is not None and (read := unpacked(dataset, folder)) is not None:
            yield _Form(folder, read, ordered=True, source=f"{source}, unpacked")
        parts = [folders.TRAIN, folders.TEST] if dataset.test else [folders.TRAIN]
        if own and all((folder / part).is_dir() for part in parts):
            read = partial(_class_folders, dataset, folder)
            yield _Form(folder, read, ordered=False, source=f"{source}, class folders")


def _class_folders(dataset: Dataset, place: Path) -> tuple[Images, Labels]:
    """Return the rows in class folders of a registered dataset, whose numbers are known."""
    listing = folders.list_images(place)
    for what, found, expected in (
        ("classes", len(listing.classes), dataset.classes),
        ("training images", sum(listing.counts(test=False)), dataset.train),
        ("test images", sum(listing.counts(test=True)), dataset.test),
    ):
        if found != expected:
            raise UserError(
                f"{place}: holds {found:,} {what} where {dataset.title} has {expected:,}. {_REMEDY}"
            )
    return folders.read(listing, dataset)


_REMEDY = "Mend that, or move the folder away: the official files are then looked for."


def _other_content(what: str, dataset: Dataset, content: Content) -> UserError:
    """Return the error for labelled pixels that are not those of the dataset."""
    assert dataset.content is not None
    part = "training" if content.train != dataset.content.train else "test"
    found, pinned = content.train, dataset.content.train
    if part == "test":
        found, pinned = str(content.test), str(dataset.content.test)
    return UserError(
        f"{what} is not that of {dataset.title}: the {part} images and labels have the hash "
        f"{found}, expected {pinned}. Were images saved with a loss (JPEG), or are classes in "
        f"another order than that of their names? {_REMEDY}"
    )


def _check(dataset: Dataset, images: Images, labels: Labels) -> None:
    """Refuse arrays that do not match the dataset's declaration."""
    rows = dataset.train + dataset.test
    if images.shape != (rows, *dataset.shape) or labels.shape != (rows,):
        raise UserError(
            f"{dataset.name}: read images {images.shape} and labels {labels.shape} where "
            f"{rows} rows of {dataset.shape} belong."
        )
    if labels.min() < 0 or labels.max() >= dataset.classes or images.max() > dataset.max_value:
        raise UserError(
            f"{dataset.name}: a label is not in 0 to {dataset.classes - 1}, or a pixel is above "
            f"{dataset.max_value}."
        )
