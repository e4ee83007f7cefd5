"""The datasets that cyclery knows, and the checksums that pin them.

Planning reads this module for every cell, so it imports neither numpy nor torch. A dataset's
``identity`` follows from the checksums of its raw files alone: it is known before any download and
enters the run keys.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property

from cyclery.common.errors import UserError, choices, nearest

PREPARE_VERSION = 1
"""Raise it when preparation would write other numbers from the same raw files."""


@dataclass(frozen=True)
class RawFile:
    """One file as its authors publish it.

    Attributes:
        name: File name, also the name that is looked for on this machine.
        sha256: Checksum of the content: of what a ``gzipped`` file unpacks to (packagers pack it
            again, with other headers), of the file itself otherwise.
        md5: The authors' checksum of the file as downloaded, if they give one.
        bytes: Size of the file as downloaded, if known.
        urls: Where to download it from, tried in this order.
        gzipped: Whether ``sha256`` is that of the unpacked content.
    """

    name: str
    sha256: str
    md5: str | None = None
    bytes: int | None = None
    urls: tuple[str, ...] = ()
    gzipped: bool = False


@dataclass(frozen=True)
class Dataset:
    """A labelled set of small images.

    Attributes:
        name: The key in config files.
        title: The name in reports.
        classes: Number of classes.
        shape: (channels, height, width) of an image.
        train: Rows of the official training set.
        test: Rows of the official test set; 0 where there is none and a split draws one.
        max_value: The value of a raw pixel that means 1.0.
        licence: Terms of use.
        citation: What to cite.
        files: The raw files, in the order in which the reader of ``layout`` takes them.
        layout: Name of the file format, a key of ``cyclery.data.readers.READERS``.
        train_class_counts: Official training rows of each class, for planning without the data.
        content_sha256: Checksum of the prepared arrays, where it has been measured.
        package: (name to install, name to import, folder in it) of a Python package that carries
            the raw files.
        shared: Folder below ``<prefix>/share/datasets`` where a system package installs them.
    """

    name: str
    title: str
    classes: int
    shape: tuple[int, int, int]
    train: int
    test: int
    max_value: int
    licence: str
    citation: str
    files: tuple[RawFile, ...]
    layout: str
    train_class_counts: tuple[int, ...] = field(repr=False)
    content_sha256: str | None = None
    package: tuple[str, str, str] | None = None
    shared: str | None = None

    @cached_property
    def identity(self) -> str:
        """SHA-256 (hex) over name, raw checksums and the version of the preparation."""
        raw = [[file.name, file.sha256] for file in self.files]
        text = json.dumps([self.name, raw, PREPARE_VERSION], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


DIGITS = Dataset(
    name="digits",
    title="Digits (8x8)",
    classes=10,
    shape=(1, 8, 8),
    train=1797,
    test=0,
    max_value=16,
    licence="CC BY 4.0",
    citation="E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998",
    files=(
        RawFile(
            name="digits.csv.gz",
            sha256="6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8",
            gzipped=True,
        ),
    ),
    layout="digits",
    content_sha256="1ddebb1b58fd4e77f2f551731725f04d50e0dbd14ecee871e556a673e8943a19",
    train_class_counts=(178, 182, 177, 183, 181, 182, 181, 179, 174, 180),
    package=("scikit-learn", "sklearn", "datasets/data"),
)

_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"

FASHION_MNIST = Dataset(
    name="fashion-mnist",
    title="Fashion-MNIST",
    classes=10,
    shape=(1, 28, 28),
    train=60_000,
    test=10_000,
    max_value=255,
    licence="MIT",
    citation="H. Xiao, K. Rasul and R. Vollgraf, Fashion-MNIST, arXiv:1708.07747, 2017",
    # md5 and size are those of the authors' downloads. Debian packs the same contents again
    # without the name and time in the gzip header, which is why sha256 is taken after unpacking.
    files=(
        RawFile(
            name="train-images-idx3-ubyte.gz",
            sha256="c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            md5="8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            bytes=26_421_880,
            urls=(f"{_FASHION}train-images-idx3-ubyte.gz",),
            gzipped=True,
        ),
        RawFile(
            name="train-labels-idx1-ubyte.gz",
            sha256="bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            md5="25c81989df183df01b3e8a0aad5dffbe",
            bytes=29_515,
            urls=(f"{_FASHION}train-labels-idx1-ubyte.gz",),
            gzipped=True,
        ),
        RawFile(
            name="t10k-images-idx3-ubyte.gz",
            sha256="5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            md5="bef4ecab320f06d8554ea6380940ec79",
            bytes=4_422_102,
            urls=(f"{_FASHION}t10k-images-idx3-ubyte.gz",),
            gzipped=True,
        ),
        RawFile(
            name="t10k-labels-idx1-ubyte.gz",
            sha256="0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            md5="bb300cfdad3c16e7a12a480ee83cd310",
            bytes=5_148,
            urls=(f"{_FASHION}t10k-labels-idx1-ubyte.gz",),
            gzipped=True,
        ),
    ),
    layout="idx",
    content_sha256="168b4d94487b9c7d26651bfe2ba6a1fa9c9d61e03f6dddf21e9896ac6a38c427",
    train_class_counts=(6_000,) * 10,
    shared="fashion-mnist",
)

_CIFAR = "https://www.cs.toronto.edu/~kriz/"
_CIFAR_CITATION = "A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009"

# The binary archives, not the Python ones: those are pickles, and unpickling a download runs
# whatever it contains. The pixels and their order are the same.
CIFAR10 = Dataset(
    name="cifar10",
    title="CIFAR-10",
    classes=10,
    shape=(3, 32, 32),
    train=50_000,
    test=10_000,
    max_value=255,
    licence="none stated; the authors ask to be cited",
    citation=_CIFAR_CITATION,
    files=(
        RawFile(
            name="cifar-10-binary.tar.gz",
            sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            md5="c32a1d4ab5d03f1284b67883e8d87530",
            bytes=170_052_171,
            urls=(f"{_CIFAR}cifar-10-binary.tar.gz",),
        ),
    ),
    layout="cifar10",
    train_class_counts=(5_000,) * 10,
    shared="cifar10",
)

CIFAR100 = Dataset(
    name="cifar100",
    title="CIFAR-100",
    classes=100,
    shape=(3, 32, 32),
    train=50_000,
    test=10_000,
    max_value=255,
    licence="none stated; the authors ask to be cited",
    citation=_CIFAR_CITATION,
    files=(
        RawFile(
            name="cifar-100-binary.tar.gz",
            sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            md5="03b5dce01913d631647c71ecec9e9cb8",
            bytes=168_513_733,
            urls=(f"{_CIFAR}cifar-100-binary.tar.gz",),
        ),
    ),
    layout="cifar100",
    train_class_counts=(500,) * 100,
    shared="cifar100",
)

DATASETS: dict[str, Dataset] = {
    dataset.name: dataset for dataset in (DIGITS, FASHION_MNIST, CIFAR10, CIFAR100)
}


def get(name: str) -> Dataset:
    """Return the dataset of this name; a UserError names the known ones and the nearest."""
    try:
        return DATASETS[name]
    except KeyError:
        raise UserError(
            f"unknown dataset {name!r}; known: {choices(DATASETS)}.{nearest(name, DATASETS)}"
        ) from None
