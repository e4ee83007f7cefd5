"""Image files become pixels of a dataset's shape by the stated rules, and others are refused."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import data as factory
from PIL import Image, ImageOps

from cyclery.common.errors import UserError
from cyclery.data.images import decode, size

COLOUR = factory.pixels(6, 5, 3)
GREY = factory.pixels(6, 5)


def saved(path: Path, image: Image.Image, **how: Any) -> Path:
    image.save(path, **how)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.tiff", "a.ppm", "a.PNG"])
def test_formats_that_lose_nothing_give_the_same_pixels(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path / name, Image.fromarray(COLOUR))
    np.testing.assert_array_equal(decode(path, (3, 6, 5)), np.moveaxis(COLOUR, -1, 0))
    assert size(path) == (6, 5, True)


@pytest.mark.parametrize(
    ("name", "how"),
    [("a.webp", {"lossless": True}), ("a.tif", {"compression": "tiff_lzw"}), ("a.pgm", {})],
)
def test_packed_formats_give_the_same_pixels(tmp_path: Path, name: str, how: Any) -> None:
    grey = np.stack([GREY] * 3, axis=-1)
    source = Image.fromarray(GREY if name == "a.pgm" else grey)
    path = saved(tmp_path / name, source, **how)
    np.testing.assert_array_equal(decode(path, (3, 6, 5)), np.moveaxis(grey, -1, 0))
    np.testing.assert_array_equal(decode(path, (1, 6, 5)), GREY[None])


def test_an_ending_may_be_that_of_another_format(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", Image.fromarray(GREY), format="PNG")
    np.testing.assert_array_equal(decode(path, (1, 6, 5)), GREY[None])


def test_jpeg_is_near(tmp_path: Path) -> None:
    smooth = np.add.outer(np.arange(0, 160, 10), np.arange(0, 80, 10)).astype(np.uint8)
    path = saved(tmp_path / "a.jpeg", Image.fromarray(smooth), quality=95)
    found = decode(path, (1, 16, 8))[0].astype(int)
    assert np.abs(found - smooth).max() <= 4


@pytest.mark.parametrize("mode", ["P", "1", "RGBA", "LA"])
def test_palettes_bits_and_opaque_alpha_become_plain(tmp_path: Path, mode: str) -> None:
    values = np.array([[0, 255, 255], [255, 0, 0]], dtype=np.uint8)
    path = saved(tmp_path / "a.png", Image.fromarray(values).convert(mode))
    np.testing.assert_array_equal(decode(path, (1, 2, 3)), values[None])
    np.testing.assert_array_equal(decode(path, (3, 2, 3)), np.stack([values] * 3))


def test_a_still_gif_has_the_colours_of_its_palette(tmp_path: Path) -> None:
    colours = np.array([[[255, 0, 0], [0, 0, 255]]], dtype=np.uint8)
    path = saved(tmp_path / "a.gif", Image.fromarray(colours))
    np.testing.assert_array_equal(decode(path, (3, 1, 2)), np.moveaxis(colours, -1, 0))


def test_colour_becomes_grey_by_luma(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(COLOUR))
    luma = COLOUR @ np.array([0.299, 0.587, 0.114])  # ITU-R 601
    assert np.abs(decode(path, (1, 6, 5))[0] - luma).max() <= 1


def test_photographs_are_turned_as_they_say(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the scene is at the right
    path = saved(tmp_path / "a.png", Image.fromarray(GREY), exif=exif)
    np.testing.assert_array_equal(decode(path, (1, 5, 6))[0], np.rot90(GREY, -1))
    assert size(path) == (5, 6, False)


# Other sizes.


def plain(value: int, height: int, width: int) -> np.ndarray:
    return np.full((height, width), value, np.uint8)


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_an_image_of_the_shape_is_taken_as_it_is(tmp_path: Path, fit: Any) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(COLOUR))
    np.testing.assert_array_equal(decode(path, (3, 6, 5), fit), np.moveaxis(COLOUR, -1, 0))


def test_crop_takes_the_middle_and_stretch_all(tmp_path: Path) -> None:
    wide = np.hstack([plain(0, 8, 4), plain(200, 8, 8), plain(90, 8, 4)])
    path = saved(tmp_path / "a.png", Image.fromarray(wide))
    np.testing.assert_array_equal(decode(path, (1, 8, 8), "crop"), plain(200, 8, 8)[None])
    # Half as wide: Pillow's own antialiased filter on the whole image.
    expected = Image.fromarray(wide).resize((8, 8), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(decode(path, (1, 8, 8), "stretch")[0], np.asarray(expected))
    for shape in ((1, 5, 3), (1, 3, 5)):
        tall = saved(tmp_path / "b.png", Image.fromarray(factory.pixels(31, 17)))
        fitted = ImageOps.fit(Image.open(tall), shape[:0:-1], Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(decode(tall, shape, "crop")[0], np.asarray(fitted))


def test_pad_repeats_the_edges_around_the_whole_image(tmp_path: Path) -> None:
    strip = np.vstack([plain(10, 2, 8), plain(250, 2, 8)])
    path = saved(tmp_path / "a.png", Image.fromarray(np.stack([strip] * 3, axis=-1)))
    expected = np.vstack([plain(10, 4, 8), plain(250, 4, 8)])
    np.testing.assert_array_equal(decode(path, (3, 8, 8), "pad"), np.stack([expected] * 3))
    # One pixel wide stays one pixel wide, and is not lost.
    thin = saved(tmp_path / "b.png", Image.fromarray(plain(7, 90, 1)))
    np.testing.assert_array_equal(decode(thin, (1, 4, 6), "pad"), plain(7, 4, 6)[None])


def test_shrinking_is_antialiased(tmp_path: Path) -> None:
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    path = saved(tmp_path / "a.png", Image.fromarray(stripes))
    found = decode(path, (1, 8, 8), "crop")[0].astype(int)
    assert np.abs(found[:, 1:-1] - 127.5).max() <= 2  # every eighth pixel would be 0 or 255


# What is refused.


def encoded(image: Image.Image, kind: str, **how: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **how)
    return stream.getvalue()


def frames(kind: str) -> bytes:
    first, *others = (Image.new("L", (5, 6), value) for value in (0, 99))
    return encoded(first, kind, save_all=True, append_images=others)


def huge_header() -> bytes:
    content = bytearray(factory.png(GREY))
    content[16:24] = (40_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


def transparent(mode: str) -> bytes:
    image = Image.fromarray(COLOUR).convert("RGBA")
    image.putpixel((2, 2), (1, 2, 3, 254))
    return encoded(image.convert(mode), "PNG")


WIDE = GREY.astype(np.uint16) * 257
REFUSED = {
    "frames of PNG": (frames("PNG"), "has 2 frames or pages"),
    "frames of GIF": (frames("GIF"), "has 2 frames or pages"),
    "frames of TIFF": (frames("TIFF"), "has 2 frames or pages"),
    "frames of WebP": (frames("WEBP"), "has 2 frames or pages"),
    "alpha": (transparent("RGBA"), "has transparent pixels"),
    "grey alpha": (transparent("LA"), "has transparent pixels"),
    "key": (encoded(Image.fromarray(GREY), "PNG", transparency=int(GREY[0, 0])), "transparent"),
    "16 bits": (factory.png(WIDE), "of 8 bits (Pillow calls it I;16)"),
    "16 bits of TIFF": (encoded(Image.fromarray(WIDE), "TIFF"), "of 8 bits"),
    "16 bits of PGM": (b"P5 5 6 65535\n" + WIDE.tobytes(), "of 8 bits"),
    "16 bits of PPM": (b"P6 5 6 65535\n" + np.stack([WIDE] * 3).tobytes(), "of 8 bits"),
    "floats": (encoded(Image.fromarray(GREY.astype(np.float32)), "TIFF"), "Pillow calls it F"),
    "inks": (encoded(Image.fromarray(COLOUR).convert("CMYK"), "JPEG"), "calls it CMYK"),
    "size": (factory.png(GREY.T), "has 5 x 6 pixels where the dataset's shape says 6 x 5; say how"),
    "cut": (factory.png(GREY)[:-30], "cannot be read as an image"),
    "cut JPEG": (encoded(Image.fromarray(COLOUR), "JPEG")[:-200], "cannot be read as an image"),
    "header": (b"GIF89a", "cannot be read as an image (it is none of BMP, GIF, JPEG, PNG, PPM"),
    "another format": (encoded(Image.fromarray(GREY), "TGA"), "it is none of BMP"),
    "empty": (b"", "cannot be read as an image"),
    "bomb": (huge_header(), "cannot be read as an image"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_images_are_refused_by_name(tmp_path: Path, case: str) -> None:
    path, (content, words) = tmp_path / "a.png", REFUSED[case]
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        decode(path, (3, 6, 5))
    assert str(error.value).startswith(f"{path}: ") and words in str(error.value)


def test_a_large_header_is_refused_with_a_fit_too(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(huge_header())
    with pytest.raises(UserError, match=r"cannot be read as an image .*decompression bomb"):
        decode(path, (3, 6, 5), "crop")


@pytest.mark.parametrize("case", ["cut", "cut JPEG", "empty", "header", "another format"])
def test_sizes_of_no_image_are_a_message(tmp_path: Path, case: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(REFUSED[case][0])
    with pytest.raises(UserError, match="cannot be read as an image"):
        size(path)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "GIF", "BMP", "PPM", "JPEG"])
def test_flipped_bytes_give_pixels_or_one_message(tmp_path: Path, kind: str) -> None:
    whole = encoded(Image.fromarray(COLOUR), kind)
    generator = np.random.default_rng(0)
    path = tmp_path / "a.png"
    for _ in range(150):
        content = bytearray(whole)
        for at in generator.integers(0, len(whole), 3):
            content[at] = generator.integers(0, 256)
        path.write_bytes(content[: int(generator.integers(1, len(whole) + 1))])
        for fit in (None, "crop"):
            try:
                assert decode(path, (3, 6, 5), fit).shape == (3, 6, 5)
            except UserError as error:
                assert str(error).startswith(f"{path}: ")
