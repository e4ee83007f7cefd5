"""Decode image files by Pillow to pixels of a dataset's shape, by plain rules or not at all.

Grey becomes colour by three equal channels, and colour becomes grey by ITU-R 601 luma, as `shape`
asks; palettes become their colours; a photograph is turned as its EXIF orientation says. Refused:
transparency, more than 8 bits, CMYK, more than one frame. An image of another size is refused,
too, unless the dataset says how it shall `fit`; it is then resized with Pillow's bicubic filter,
which is antialiased. Colour profiles are passed over.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cyclery.common.errors import UserError
from cyclery.common.files import read_regular

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

Fit = Literal["crop", "pad", "stretch"]
Shape = tuple[int, int, int]

# Pillow's formats by the endings of their files.
FORMATS = {
    ".png": "PNG", ".bmp": "BMP", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".gif": "GIF",
    ".tif": "TIFF", ".tiff": "TIFF", ".ppm": "PPM", ".pgm": "PPM", ".pbm": "PPM",
}  # fmt: skip
# Whatever its ending says: many a file was saved in one format and named for another.
_READ = sorted(set(FORMATS.values()))
# Modes that are, or become without a choice, grey or colour of 8 bits; others are refused.
_PLAIN = ("L", "1", "RGB", "P")
_WITH_ALPHA = ("LA", "RGBA", "PA")


def is_image(name: str) -> bool:
    """Return whether a file's name has the ending of an image."""
    return f".{name.rpartition('.')[2].lower()}" in FORMATS


def read(path: Path) -> bytes:
    """Return the content of a file; a UserError where it cannot be read."""
    try:
        return read_regular(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from None


def decode(path: Path, shape: Shape, fit: Fit | None = None) -> NDArray[np.uint8]:
    """Return the pixels [C, H, W] of an image file; a UserError says why it has none like that."""
    import numpy as np
    from PIL import Image as pillow
    from PIL import ImageOps

    channels, height, width = shape
    data = read(path)
    try:
        with warnings.catch_warnings():
            # Of an image with a very large header, whose size is compared before it is unpacked,
            # and of oddities in metadata.
            warnings.simplefilter("ignore")
            with pillow.open(io.BytesIO(data), formats=_READ) as opened:
                if fit is None and {*opened.size} != {width, height}:
                    raise _of_another_size(path, opened, shape)
                _check_plain(path, opened)
                image = ImageOps.exif_transpose(opened)
                image = _without_alpha(path, image).convert("RGB" if channels == 3 else "L")
    except UserError:
        raise
    except Exception as error:  # a damaged file raises whatever its decoder stumbles over
        raise _unreadable(path, error) from None
    if image.size != (width, height):
        if fit is None:
            raise _of_another_size(path, image, shape)
        image = _fitted(image, width, height, fit)
    pixels = np.asarray(image, dtype=np.uint8)
    if fit == "pad":
        top, left = (height - image.height) // 2, (width - image.width) // 2
        sides = ((top, height - image.height - top), (left, width - image.width - left))
        pixels = np.pad(pixels, (*sides, (0, 0))[: pixels.ndim], mode="edge")
    return np.moveaxis(pixels.reshape(height, width, channels), -1, 0)


def size(path: Path) -> tuple[int, int, bool]:
    """Return the height and width of an image, and whether it has colour, from its header alone."""
    from PIL import Image as pillow

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pillow.open(io.BytesIO(read(path)), formats=_READ) as image:
                turned = image.getexif().get(0x0112, 1) >= 5  # orientations on their side
                width, height = image.size[::-1] if turned else image.size
                return height, width, image.mode not in ("L", "1", "LA")
    except UserError:
        raise
    except Exception as error:  # as in `decode`
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> UserError:
    from PIL import UnidentifiedImageError

    # Pillow's own words for a file of no format name a place in memory.
    none = isinstance(error, UnidentifiedImageError)
    why = f"it is none of {', '.join(_READ)}" if none else str(error) or type(error).__name__
    return UserError(f"{path}: cannot be read as an image ({why}).")


def _of_another_size(path: Path, image: Image, shape: Shape) -> UserError:
    return UserError(
        f"{path}: has {image.height} x {image.width} pixels where the dataset's shape says "
        f"{shape[1]} x {shape[2]}; say how images shall `fit` (crop, pad or stretch), or change "
        "`shape`."
    )


def _check_plain(path: Path, image: Image) -> None:
    """Refuse an image that 8-bit grey or colour would cut: frames, bits, another colour space."""
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # a photograph with its previews
        raise UserError(f"{path}: has {frames} frames or pages; save one of them.")
    if image.mode not in (*_PLAIN, *_WITH_ALPHA) or _is_wide(image):
        raise UserError(
            f"{path}: is no plain grey or colour image of 8 bits (Pillow calls it {image.mode}); "
            "convert it."
        )


def _is_wide(image: Image) -> bool:
    """Return whether Pillow would cut 16 bits of a channel to 8."""
    for tile in getattr(image, "tile", ()):
        raw = tile[3]
        if isinstance(raw, str) or not raw:
            raw = (raw,)
        if "16" in str(raw[0]) or (image.format == "PPM" and raw[-1] not in (raw[0], 255)):
            return True
    return False


def _without_alpha(path: Path, image: Image) -> Image:
    """Return the image without its alpha channel, which must be opaque everywhere."""
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema()[0] != 255:
            raise UserError(
                f"{path}: has transparent pixels, which have no colour; put it on a background."
            )
        image = image.convert("RGB")
    return image


def _fitted(image: Image, width: int, height: int, fit: Fit) -> Image:
    """Return the image resized to a size, or for `pad` to the largest that fits into it."""
    from PIL.Image import Resampling

    box = (0.0, 0.0, float(image.width), float(image.height))
    if fit == "crop":
        scale = min(image.width / width, image.height / height)
        left, top = (image.width - scale * width) / 2, (image.height - scale * height) / 2
        box = (left, top, left + scale * width, top + scale * height)
    elif fit == "pad":
        scale = min(width / image.width, height / image.height)
        width, height = (max(1, round(scale * side)) for side in image.size)
    return image.resize((width, height), Resampling.BICUBIC, box=box)
