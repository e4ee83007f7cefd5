"""Outliers of an open set that come from another dataset, such as digits among clothes.

The images are the training images of that dataset, made as large as the split's own, with as many
channels and the same largest value. In a run they are rows of their own, after all rows of its
dataset, so that these keep their ids; their label is -1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cyclery.common.errors import UserError
from cyclery.common.lazy import torch
from cyclery.data.dataset import Dataset
from cyclery.data.registry import unknown_dataset
from cyclery.data.resolution import resized_to

if TYPE_CHECKING:
    from torch import Tensor

WHERE = "split.open_set.outliers"
# Of red, green and blue in the brightness of a pixel, of 1000 (ITU-R BT.601).
LUMA = (299, 587, 114)


def chosen(split: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a resolved split says of the other dataset: its name, identity and images."""
    found: dict[str, Any] | None = (split.get("open_set") or {}).get("outliers")
    return found


def names(settings: Mapping[str, Any]) -> list[str]:
    """Return the names of the datasets that a run with these settings is made of."""
    other = chosen(settings["split"])
    return [settings["dataset"]["name"], *([other["dataset"]] if other else [])]


def resolve(open_set: dict[str, Any], dataset: Dataset, datasets: Mapping[str, Dataset]) -> None:
    """Put into an open set what resolved settings say of the other dataset, if it names one.

    That is ``outliers`` with ``dataset``, ``identity`` and ``images``.

    Raises:
        UserError: no dataset has this name, or it is the split's own, or its images cannot be made
            like those.
    """
    given = open_set.pop("outliers")
    if given is None:
        return
    if set(given) != {"dataset"}:
        extra = ", ".join(sorted(set(given) - {"dataset"}))
        raise UserError(f"{WHERE}: takes `dataset` alone (found {extra} besides).")
    name = given["dataset"]
    if name not in datasets:
        raise UserError(f"{WHERE}.dataset: {unknown_dataset(name, datasets)}")
    other = datasets[name]
    if other.identity == dataset.identity or name == dataset.name:
        raise UserError(
            f"{WHERE}.dataset: must be another one than the split's, whose own classes are met "
            f"where `outliers` is left out (found {name!r})."
        )
    _check_shapes(dataset, other)
    open_set["outliers"] = {"dataset": name, "identity": other.identity, "images": other.train}


def _check_shapes(dataset: Dataset, other: Dataset) -> None:
    (channels, *sides), (others, *other_sides) = dataset.shape, other.shape
    what = f"(found images of {_sized(other.shape)} among those of {_sized(dataset.shape)})"
    if sides != other_sides and (sides[0] != sides[1] or other_sides[0] != other_sides[1]):
        raise UserError(
            f"{WHERE}.dataset: images can be resized only where both are square {what}; choose "
            "another dataset."
        )
    if channels != others and {channels, others} != {1, 3}:
        raise UserError(
            f"{WHERE}.dataset: images need as many channels, or 1 and 3, for grey and colour "
            f"{what}; choose another dataset."
        )


def _sized(shape: tuple[int, int, int]) -> str:
    return " x ".join(map(str, shape))


def fitted(images: Tensor, max_value: int, like: Mapping[str, Any]) -> Tensor:
    """Return images uint8 [N, C, H, W] in the form of a dataset: its channels, sides and values.

    ``max_value`` is the largest value of these, ``like`` the manifest of that dataset. All is done
    in whole numbers, rounded to the nearest, halves upwards.
    """
    channels, height, width = like["shape"]
    found = images
    if (top := like["max_value"]) != max_value:
        levels = torch.arange(256, device=images.device)
        table = ((2 * levels * top + max_value) // (2 * max_value)).clamp(max=255)
        found = table.to(images.dtype)[found.long()]
    if channels == 1 and found.shape[1] == 3:
        weights = torch.tensor(LUMA, device=images.device)[:, None, None]
        grey = (found.int() * weights).sum(1, keepdim=True)
        found = (grey + 500).div(1000, rounding_mode="floor").to(images.dtype)
    if (height, width) != tuple(found.shape[2:]):
        found = resized_to(found, height)
    return found.expand(-1, channels, -1, -1).contiguous()
