"""Networks: one file each, found by its name.

A file declares ``Settings``, a frozen dataclass that extends ``ModelSettings`` (its fields each
have a default, and in their metadata a ``doc`` and perhaps limits), and
``build(settings, shape, classes)``, which returns the network for images of ``shape`` (channels,
height, width) with weights drawn from torch's global generator. Files are found by their names, so
adding one edits no list.

Planning reads the settings and knows no torch, so the files here import it inside ``build``, and
modules that need a class have it in ``layers`` or in a file whose name begins with ``_``. A file
that imports torch at its top works as well; planning what uses it then takes seconds longer.

``build`` best returns a ``_classifier.Classifier``: ``net(x)`` gives logits [B, classes],
``net.features(x)`` the vectors [B, D] before ``net.head``, which methods may ask for. Dropout and
other noise come from ``layers``, for a run draws from a generator of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from cyclery.common.components import Components
from cyclery.common.settings import read
from cyclery.models import heads
from cyclery.models._settings import ModelSettings, Shape

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ModelSettings", "Shape", "build", "check", "names", "settings_type"]

_FILES = Components(
    __name__, "model", (("Settings", "a frozen dataclass"), ("build", "a function"))
)


@cache
def names() -> tuple[str, ...]:
    """Return the names of all networks, sorted."""
    return _FILES.names()


@cache
def settings_type(name: str) -> type[ModelSettings]:
    """Return the settings of a network, without importing torch.

    A UserError names the networks there are, or what is wrong with the file of this one.
    """
    return _FILES.settings(name, {"build": ("settings", "shape", "classes")}, base=ModelSettings)


def check(
    name: str, settings: Mapping[str, Any], shape: Shape | None = None, where: str = "model"
) -> ModelSettings:
    """Return the settings of network ``name``, defaults filled in, without importing torch.

    ``shape`` (channels, height, width), if given, must suit the network; ``where`` begins every
    message. Raises a UserError for an unknown network or key, a value of the wrong type or out of
    range, values that do not fit together, and images that the network cannot take.
    """
    if name not in names():
        _FILES.require(name, where)
    where = f"{where} {name}"
    checked = read(settings_type(name), settings, where)
    checked.check(where)
    if shape is not None:
        checked.check_shape(shape, where)
    return checked


def build(
    name: str,
    settings: Mapping[str, Any],
    shape: Shape,
    classes: int,
    head: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Return a new network for images of ``shape`` (channels, height, width).

    Weights come from torch's global generator: seed it, and build on the CPU, for the same
    weights on every device. ``head`` (``name`` and ``settings``) is drawn last, in the place of
    the network's own, which is linear. Raises what ``check`` raises, and a UserError where the
    network needs a package that is not installed, or cannot have another head.
    """
    checked = check(name, settings, shape)
    network: nn.Module = _FILES.load(name).build(checked, shape, classes)
    if getattr(checked, "norm", None) == "group_ws":
        from cyclery.models.layers.standardised import standardise

        standardise(network)
    convolution = getattr(checked, "convolution", "plain")
    if convolution == "harmonic":
        from cyclery.models.layers.harmonic import harmonise

        harmonise(network)
    elif convolution == "full":
        from cyclery.models.layers.full import fill

        fill(network)
    from cyclery.models.layers.subsampled import subsample

    subsample(network)
    if head is not None:
        from cyclery.models._classifier import put_head

        put_head(network, lambda width: heads.build(head, width, classes), classes, f"head: {name}")
    return network
