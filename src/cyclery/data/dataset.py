"""Types of a dataset's declaration, one YAML file each in ``config/datasets``.

A dataset comes from raw files that are pinned by checksums, or from a folder of images with one
folder for each class. Its ``identity`` enters the run keys, so it follows from its labelled pixels
(`cyclery.data.content`), which its file pins: it is known before any download, and the same from
whatever source.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from cyclery.common.errors import HERE
from cyclery.common.strict import Strict, Text
from cyclery.data.hierarchies import check_hierarchy

PREPARE_VERSION = 2
"""Raise it when preparation would write other numbers from the same content."""

Count = Annotated[int, Field(ge=0, le=1_000_000_000)]
Side = Annotated[int, Field(ge=1, le=4096)]


@dataclass(frozen=True)
class _Matching:
    """Refuses texts that a pattern does not match; a message gives the pattern in words."""

    pattern: str
    words: str

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return AfterValidator(self._checked).__get_pydantic_core_schema__(source, handler)

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> Any:
        return {**handler(core), "pattern": f"^{self.pattern}$"}

    def _checked(self, text: str) -> str:
        if not re.fullmatch(self.pattern, text):
            raise ValueError(f"{HERE}: must be {self.words} (found {text!r:.80}).")
        return text


Sha256 = Annotated[str, _Matching("[0-9a-f]{64}", "64 hexadecimal digits in small letters")]
Md5 = Annotated[str, _Matching("[0-9a-f]{32}", "32 hexadecimal digits in small letters")]
# A name that leads nowhere else: it is looked for in several folders.
FileName = Annotated[
    str, _Matching("[A-Za-z0-9_+-][A-Za-z0-9_.+-]{0,199}", "a plain name, without a folder")
]
RelativePath = Annotated[
    str,
    _Matching("[A-Za-z0-9_-]{1,99}(/[A-Za-z0-9_-]{1,99}){0,9}", "a path below a folder, as in a/b"),
]
Url = Annotated[str, _Matching(r"https?://\S{1,999}", "an address that begins with https://")]
Key = Annotated[str, _Matching("[a-z][a-z0-9_-]{0,63}", "small letters, digits, - and _")]
Module = Annotated[str, _Matching("[A-Za-z_][A-Za-z0-9_]*", "the name of a module, without dots")]


Levels = Annotated[
    tuple[Annotated[tuple[Count, ...], Field(strict=False)], ...],
    Field(strict=False, max_length=20),
]


class RawFile(Strict):
    """One file as its authors publish it."""

    name: FileName = Field(description="its name, by which it is looked for on this machine")
    sha256: Sha256 | None = Field(
        None,
        description="checksum of the content: of what a `gzipped` file unpacks to (packagers pack "
        "it again, with other headers), of the file itself otherwise; null where the authors "
        "publish `md5` alone, which is then the checksum of the file wherever it lies",
    )
    md5: Md5 | None = Field(None, description="the authors' checksum of the file as downloaded")
    bytes: Count | None = Field(None, description="size of the file as downloaded")
    urls: Annotated[tuple[Url, ...], Field(strict=False, max_length=20)] = Field(
        (), description="where to download it from, tried in this order"
    )
    gzipped: bool = Field(False, description="whether `sha256` is that of what the file unpacks to")

    @model_validator(mode="after")
    def _has_a_checksum(self) -> RawFile:
        if self.sha256 is None and self.md5 is None:
            raise ValueError("sha256: missing; a raw file has it, or `md5` at least.")
        if self.sha256 is None and self.gzipped:
            raise ValueError(
                "sha256: missing; a `gzipped` file is known by what it unpacks to, which `md5` is "
                "not of."
            )
        return self

    @property
    def checksum(self) -> str:
        """Return what the content is known by."""
        return self.sha256 or f"md5 {self.md5}"


class Package(Strict):
    """A Python package that carries the raw files."""

    install: Text = Field(description="its name for pip")
    module: Module = Field(description="its name in Python")
    folder: Text = Field(description="where in it the files lie")


class Content(Strict):
    """Hashes of labelled pixels, see `cyclery.data.content`."""

    train: Sha256 = Field(description="content hash of the training images")
    test: Sha256 | None = Field(
        None, description="content hash of the test images; null where there are none"
    )


# Keys of a dataset that comes from raw files: those that it needs, and all that a folder has not.
_NEEDED = ("reader", "files", "classes", "train", "test")
_OF_FILES = (*_NEEDED, "class_counts", "content", "package", "shared", "torchvision")


class DatasetFile(Strict):
    """A labelled set of images of one size: raw files with checksums, or a folder of images.

    Of a `folder` nothing else is needed but `title` and `shape`: its classes and numbers of images
    are counted. It holds a folder for each class, or `train` and `test` with such folders in both.
    """

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": ["folder"]}, {"required": list(_NEEDED)}]}
    )

    title: Text = Field(description="the name in reports")
    shape: Annotated[tuple[Annotated[int, Field(ge=1, le=16)], Side, Side], Field(strict=False)] = (
        Field(description="channels, height and width of an image, as in [3, 32, 32]")
    )
    folder: Text | None = Field(
        None, description="folder of images; a relative path begins at the project's root"
    )
    fit: Literal["crop", "pad", "stretch"] | None = Field(
        None, description="how images of a `folder` get the shape: `crop` cuts the middle out in "
        "the shape's aspect, `pad` repeats the edges around the whole image, `stretch` changes the "
        "aspect; resized with Pillow's bicubic filter, antialiased. null refuses other sizes",
    )  # fmt: skip
    reader: str | None = Field(
        None, description="format of the raw files: a file of `src/cyclery/data/readers`"
    )
    files: Annotated[tuple[RawFile, ...], Field(strict=False, max_length=1000)] = Field(
        (), description="the raw files, in the order in which the reader takes them"
    )
    classes: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        None, description="number of classes"
    )
    train: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = Field(
        None, description="images of the official training set"
    )
    test: Count | None = Field(
        None, description="images of the official test set; 0 where there is none, and a split "
        "draws one",
    )  # fmt: skip
    class_counts: Annotated[tuple[Count, ...], Field(strict=False)] | None = Field(
        None, description="training images of each class; null where all have as many"
    )
    max_value: Annotated[int, Field(ge=1, le=255)] = Field(
        255, description="the value of a raw pixel that means 1.0"
    )
    content: Content | None = Field(
        None, description="hashes of the labelled pixels, by which other sources than the raw "
        "files are known to hold the same; null where they have not been measured",
    )  # fmt: skip
    package: Package | None = Field(None, description="a Python package that carries the raw files")
    shared: FileName | None = Field(
        None,
        description="folder below `<prefix>/share/datasets` where a system package installs the "
        "raw files",
    )
    hierarchies: dict[Key, Levels] = Field(
        {}, description="coarser labels by name, such as superclasses: levels, finest first, each "
        "a list with the group of every class, numbered from 0; a level merges whole groups of the "
        "finer one",
    )  # fmt: skip
    torchvision: RelativePath | None = Field(
        None, description="folder below torchvision's `root` where that keeps the raw files, "
        "unpacked or not",
    )  # fmt: skip
    licence: Text = Field("not stated", description="terms of use")
    citation: str = Field("", description="what to cite")

    @model_validator(mode="after")
    def _one_source(self) -> DatasetFile:
        given = {key for key in _OF_FILES if getattr(self, key) not in (None, ())}
        if self.folder is not None:
            if given:
                raise ValueError(
                    f"{min(given)}: is not said of a `folder`, whose images are counted; leave it "
                    "out."
                )
            if self.shape[0] not in (1, 3):
                raise ValueError(
                    "shape: images of a folder have 1 channel (grey) or 3 (colour) "
                    f"(found {self.shape[0]})."
                )
            if self.max_value != 255:
                raise ValueError("max_value: is 255 for images of a folder; leave it out.")
        elif self.fit is not None:
            raise ValueError(
                f"fit: is said of a `folder` of images alone (found {self.fit!r}); leave it out."
            )
        elif missing := [key for key in _NEEDED if key not in given]:
            raise ValueError(
                f"{missing[0]}: missing; a dataset has `folder`, or {', '.join(_NEEDED)}."
            )
        return self

    @model_validator(mode="after")
    def _trees(self) -> DatasetFile:
        if self.classes is not None:  # those of a folder are counted first
            for name, levels in self.hierarchies.items():
                check_hierarchy(levels, self.classes, f"hierarchies.{name}")
        return self

    @model_validator(mode="after")
    def _counts(self) -> DatasetFile:
        if self.classes is None or self.train is None:
            return self
        counts = self.class_counts
        if counts is None:
            if self.train % self.classes:
                raise ValueError(
                    f"class_counts: missing; {self.train} training images are not as many for each "
                    f"of {self.classes} classes."
                )
        elif (len(counts), sum(counts)) != (self.classes, self.train):
            raise ValueError(
                f"class_counts: must be {self.classes} numbers, one for each class, whose sum is "
                f"`train`, {self.train} (found {len(counts)} with the sum {sum(counts)})."
            )
        return self


class Dataset(DatasetFile):
    """A dataset as the program uses it: what its file says, its name, and all numbers.

    Of a folder, ``place`` is its path, ``content`` was measured, and ``memo`` is the file that
    remembers that.
    """

    name: str
    classes: int
    train: int
    test: int
    place: Path | None = None
    memo: Path | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Dataset:
        """Take the numbers of a folder, which have been counted."""
        return self

    @property
    def ordered(self) -> bool:
        """Whether the dataset has an official order, of which one may take the first images."""
        return self.place is None

    @property
    def train_class_counts(self) -> tuple[int, ...]:
        """Training images of each class, for planning without the data."""
        return self.class_counts or (self.train // self.classes,) * self.classes

    @cached_property
    def identity(self) -> str:
        """SHA-256 (hex) over content, shape, largest value and the version of the preparation.

        Where the content is not pinned, over name and raw checksums in its place.
        """
        what: list[Any]
        if self.content is None:
            what = ["files", self.name, [[file.name, file.checksum] for file in self.files]]
        else:
            what = ["content", self.content.train, self.content.test]
        whole = [what, self.shape, self.max_value, PREPARE_VERSION]
        text = json.dumps(whole, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()
