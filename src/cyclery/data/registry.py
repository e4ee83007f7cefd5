"""Registry of a project's datasets, found by file name in ``config/datasets``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from cyclery.common.errors import UserError, choices, nearest
from cyclery.data import folders
from cyclery.data.dataset import Dataset, DatasetFile
from cyclery.data.hierarchies import check_hierarchy
from cyclery.data.readers import READERS

# Below a project's root.
FOLDER = Path("config/datasets")


class Datasets(Mapping[str, Dataset]):
    """The datasets of a project by name; a file is read, and a folder listed, at first use.

    Args:
        root: the project's root.
        files: the file of each dataset, by its name.
        read: reads and validates one file.
    """

    def __init__(
        self, root: Path, files: Mapping[str, Path], read: Callable[[Path], DatasetFile]
    ) -> None:
        self._root, self._files, self._read = root, dict(files), read
        self._declared: dict[str, DatasetFile] = {}
        self._found: dict[str, Dataset] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def __getitem__(self, name: str) -> Dataset:
        """Return a dataset with all its numbers.

        Raises:
            UserError: no file has this name, or it is wrong, or the folder that it names is.
        """
        if name not in self._found:
            declared = self.declared(name)
            if declared.folder is None:
                self._found[name] = Dataset(name=name, **dict(declared))
            else:
                self._found[name] = self._counted(name, declared)
        return self._found[name]

    def declared(self, name: str) -> DatasetFile:
        """Return the declaration in a dataset's file, without reading its folder."""
        if name not in self._files:
            raise UserError(unknown_dataset(name, self))
        if name not in self._declared:
            declared = self._read(self._files[name])
            _check_reader(declared, self._files[name])
            self._declared[name] = declared
        return self._declared[name]

    def _counted(self, name: str, declared: DatasetFile) -> Dataset:
        """Return a dataset whose images lie in a folder, with the content of that."""
        given = Path(str(declared.folder)).expanduser()
        place = given if given.is_absolute() else self._root / given
        memo = folders.memo(self._root, name)
        try:
            listing = folders.list_images(place)
            content = folders.cached_content(listing, declared, memo)
        except UserError as error:
            raise UserError(f"{self._files[name]}: folder: {error}") from None
        for key, levels in declared.hierarchies.items():
            try:
                check_hierarchy(levels, len(listing.classes), f"hierarchies.{key}")
            except ValueError as error:
                raise UserError(f"{self._files[name]}: {error}") from None
        counted = {
            "classes": len(listing.classes),
            "train": sum(listing.counts(test=False)),
            "test": sum(listing.counts(test=True)),
            "class_counts": listing.counts(test=False),
            "place": place,
            "content": content,
            "memo": memo,
        }
        return Dataset(name=name, **{**dict(declared), **counted})


def _check_reader(declared: DatasetFile, file: Path) -> None:
    """Raise a UserError unless the raw files are as many as their reader takes."""
    if declared.reader is not None:
        READERS.require(declared.reader, f"{file}: reader")
        needed = READERS.load(declared.reader).FILES
        if len(declared.files) != needed:
            raise UserError(
                f"{file}: files: the reader {declared.reader!r} takes {needed} "
                f"(found {len(declared.files)})."
            )


def unknown_dataset(name: object, known: Iterable[str]) -> str:
    """Return what to say of a name that no dataset has."""
    names = list(known)
    there = f"There are: {choices(names)}." if names else f"{FOLDER} holds none."
    return (
        f"unknown dataset {name!r:.80}.{nearest(name, names)} {there} "
        f"Add one as {FOLDER}/<name>.yaml."
    )
