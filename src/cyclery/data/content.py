"""What a dataset is: its labelled pixels, in one order and with one hash whatever their source.

The content hash of a part (training or test) is the SHA-256 over the sorted SHA-256 digests of its
rows, a row being its label (one byte; two, little-endian, beyond 256 classes), then its pixels in
the order C, H, W. So it does not depend on the order of the rows, nor on how files pack them.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import TYPE_CHECKING

from cyclery.data.dataset import Content

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def row_digest(label: int, pixels: bytes, classes: int) -> bytes:
    """Return the SHA-256 digest of a labelled image, its pixels in the order C, H, W."""
    width = 1 if classes <= 1 << 8 else 2 if classes <= 1 << 16 else 4
    return sha256(label.to_bytes(width, "little") + pixels).digest()


def part_hash(digests: Iterable[bytes]) -> str:
    """Return the content hash (hex) of a part from the digests of its rows, in any order."""
    return sha256(b"".join(sorted(digests))).hexdigest()


def measure(
    images: NDArray[np.uint8], labels: NDArray[np.int64], n_train: int, classes: int
) -> Content:
    """Return the content hashes of images [N, C, H, W] and labels [N], training rows first."""
    digests = [
        row_digest(label, image.tobytes(), classes)
        for image, label in zip(images, labels.tolist(), strict=True)
    ]
    train, test = digests[:n_train], digests[n_train:]
    return Content(train=part_hash(train), test=part_hash(test) if test else None)


def canonical_order(
    images: NDArray[np.uint8], labels: NDArray[np.int64], n_train: int
) -> NDArray[np.int64]:
    """Return the rows in canonical order: by part, class and SHA-256 of the pixels.

    Equal images of a class and part keep the order that they have.
    """
    import numpy as np

    pixels = np.array([sha256(image.tobytes()).digest() for image in images], dtype="S32")
    # S32 drops trailing zero bytes, which compare as the smallest: the order is that of the bytes.
    return np.lexsort((pixels, labels, np.arange(len(labels)) >= n_train))
