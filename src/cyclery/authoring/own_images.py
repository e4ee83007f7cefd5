"""First settings for one's own images: a look at their folder, and a comparison that suits them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from cyclery.common.errors import UserError
from cyclery.data import folders, images
from cyclery.data.dataset import Dataset

# Larger images take minutes an epoch on a laptop, and are scaled to this side.
_SIDE, _LARGEST = 32, 64
# Images that a run sees at most, but for the fewest epochs.
_SEEN, _EPOCHS = 50_000, (5, 40)


@dataclass(frozen=True)
class Look:
    """What a dataset's file says of a folder: a comment, and its keys."""

    found: str
    folder: str
    shape: tuple[int, int, int]
    fit: str | None


@dataclass(frozen=True)
class Comparison:
    """Settings of an experiment on a dataset, as YAML."""

    dataset: str
    split: str
    model: str
    batch: int
    augment: str
    epochs: int


def look(root: Path, folder: Path) -> Look:
    """Return what is in a folder of images: classes, numbers, sizes and whether there is colour.

    Raises:
        UserError: it is no folder of classes, or an image's header cannot be read.
    """
    place = folder.expanduser().absolute()
    listing = folders.list_images(place)
    heights, widths, coloured = zip(
        *(images.size(place / image.name) for image in listing.images), strict=True
    )
    found = f"{len(listing.images):,} images in {len(listing.classes)} classes"
    found += f", {sum(listing.counts(test=True)):,} of them for tests" if listing.tested else ""
    low, high = (f"{side(heights)} x {side(widths)}" for side in (min, max))
    found += f", of {low} pixels" if low == high else f", from {low} to {high} pixels"
    height, width = heights[0], widths[0]
    fit = None
    if low != high or max(height, width) > _LARGEST:
        shorter = median(min(sides) for sides in zip(heights, widths, strict=True))
        height = width = next(s for s in (_SIDE, 24, 16, 8, 4) if s <= max(4, shorter))
        fit = "crop"
    channels = 3 if any(coloured) else 1
    root = root.absolute()
    shown = place.relative_to(root) if place.is_relative_to(root) else place
    return Look(found, json.dumps(str(shown), ensure_ascii=False), (channels, height, width), fit)


def comparison(dataset: Dataset) -> Comparison:
    """Return settings for a first comparison on a dataset that takes minutes on a laptop.

    Raises:
        UserError: it has too few images for training, validation and test.
    """
    test = 0 if dataset.test else dataset.train // 5
    validation = dataset.train // 10
    train = dataset.train - test - validation
    if validation == 0 or train < dataset.classes:
        raise UserError(
            f"{dataset.name}: its {dataset.train} training images in {dataset.classes} classes are "
            "too few to train, validate and test with; add some."
        )
    side = min(dataset.shape[1:])
    # Mirror images are natural for photographs, and are other things for letters and digits.
    flip = ", {op: flip}" if dataset.shape[0] == 3 else ""
    low, high = _EPOCHS
    return Comparison(
        dataset=dataset.name,
        split=f"{{test: {test or 'null'}, validation: {validation}, labels: null}}",
        model="{name: small_cnn, width: 16}" if side >= 4 else "{name: bn_mlp, hidden: [64, 64]}",
        batch=max(2, min(100, train // 10)),
        augment=f"[{{op: shift, size: {max(1, side // 8)}}}{flip}]",
        epochs=max(low, min(high, round(_SEEN / train))),
    )
