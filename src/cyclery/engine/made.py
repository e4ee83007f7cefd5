"""Make the networks of a run."""

from __future__ import annotations

from torch import nn

from cyclery import models
from cyclery.common.errors import UserError
from cyclery.data import splits
from cyclery.models import Shape
from cyclery.records.record import RunSettings


class Made:
    """What a method's ``modules`` may use: the network of a run, and what it was made for.

    ``net``; ``shape`` [C, H, W] of images; the number of ``classes``; ``samples``, above all ids;
    ``levels``: the group of every class [K] at each coarser level of a hierarchy, finer ones first.
    """

    def __init__(
        self, settings: RunSettings, shape: Shape, classes: int, net: nn.Module, samples: int = 0
    ) -> None:
        self._settings = settings
        self.shape, self.classes, self.net, self.samples = shape, classes, net, samples
        self.levels = splits.levels(settings["split"], settings["seed"])

    @property
    def width(self) -> int:
        """The length of a feature vector; a UserError where the network has none."""
        if not isinstance(width := getattr(self.net, "width", None), int):
            name = self._settings["model"]["name"]
            raise UserError(f"model: {name} has no features before a head; choose another network.")
        return width

    def fresh(self, classes: int | None = None) -> nn.Module:
        """Return another network of the run's kind, with initial weights of its own."""
        return built(self._settings, self.shape, classes or self.classes)


def built(settings: RunSettings, shape: Shape, classes: int) -> nn.Module:
    """Return a new network of a run's kind, whose weights torch's global generator draws."""
    kind = settings["model"]
    return models.build(kind["name"], kind["settings"], shape, classes, settings.get("head"))
