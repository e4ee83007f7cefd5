"""The prepared datasets of a job's runs, on its device; torch is imported when one is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclery.data import outliers
from cyclery.records.record import RunSettings

if TYPE_CHECKING:
    import torch

    from cyclery.data.dataset import Dataset
    from cyclery.engine.run import Data


class Datasets:
    """Reads each dataset once; a prepared file that is lost is made again.

    ``manifests`` are those of prepared datasets by their names. ``find`` finds a dataset whose
    file must be made again; without it that is an error.
    """

    def __init__(
        self, manifests: Mapping[str, Path], find: Callable[[str], Dataset] | None
    ) -> None:
        self._manifests, self._find = manifests, find
        self._read: dict[tuple[str, ...], Data] = {}

    def of(self, settings: RunSettings, device: torch.device) -> Data:
        """Return the dataset of a run on a device."""
        from cyclery.data.prepare import load_or_remake
        from cyclery.engine.run import Data

        name, sides = settings["dataset"]["name"], settings["split"].get("resolution")
        others = outliers.chosen(settings["split"])
        key = (name, str(device), str(sides), str(others))
        if key not in self._read:
            import torch

            manifest, arrays = load_or_remake(self._manifests[name], self._find)
            images, labels = (torch.as_tensor(arrays[key]) for key in ("images", "labels"))
            official = manifest["order"] == "official"
            order = arrays["index"][: manifest["n_train"]] if official else None
            labels = labels.long()
            if others is not None:
                more = self._outliers(others, manifest)
                images = torch.cat([images, more])
                labels = torch.cat([labels, labels.new_full((len(more),), -1)])
            self._read[key] = Data(images, labels, manifest, order).to(device).at(sides)
        return self._read[key]

    def _outliers(self, chosen: Mapping[str, Any], like: Mapping[str, Any]) -> torch.Tensor:
        """Return the images of another dataset in the form of one with the manifest ``like``."""
        import torch

        from cyclery.data.prepare import load_or_remake

        manifest, arrays = load_or_remake(self._manifests[chosen["dataset"]], self._find)
        images = torch.as_tensor(arrays["images"][: manifest["n_train"]])
        return outliers.fitted(images, manifest["max_value"], like)
