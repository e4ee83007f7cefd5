"""Networks by name.

``SETTINGS`` maps a name to the dataclass of its settings. Nothing here imports torch; ``build``
imports the one file that holds the network. Every network of ours is a ``layers.Classifier``:
``net(x)`` gives logits [B, classes], ``net.features(x)`` the vectors [B, D] before ``net.head``.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from cyclery.common.errors import UserError, choices, nearest
from cyclery.common.settings import read
from cyclery.models import settings as _settings
from cyclery.models.base import ModelSettings, Shape

if TYPE_CHECKING:
    from torch import nn

__all__ = ["SETTINGS", "build", "check"]

SETTINGS: dict[str, type[ModelSettings]] = {
    "bn_mlp": _settings.BnMlp,
    "small_cnn": _settings.SmallCnn,
    "plain_cnn": _settings.PlainCnn,
    "vgg": _settings.Vgg,
    "resnet": _settings.ResNet,
    "resnet_b": _settings.ResNetB,
    "resnet18": _settings.ResNet18,
    "preresnet": _settings.PreResNet,
    "wrn": _settings.WideResNet,
    "stochastic_depth": _settings.StochasticDepth,
    "densenet": _settings.DenseNet,
    "alexnet": _settings.AlexNet,
    "googlenet": _settings.GoogLeNet,
    "tresnet_m": _settings.TResNetM,
}


def check(
    name: str, settings: Mapping[str, Any], shape: Shape | None = None, where: str = "model"
) -> ModelSettings:
    """Return the settings of network ``name``, defaults filled in, without importing torch.

    ``shape`` (channels, height, width), if given, must suit the network; ``where`` begins every
    message. Raises a UserError for an unknown network or key, a value of the wrong type or out of
    range, values that do not fit together, and images that the network cannot take.
    """
    if name not in SETTINGS:
        raise UserError(
            f"{where}: unknown model {name!r}.{nearest(name, SETTINGS)} "
            f"Models: {choices(SETTINGS)}."
        )
    where = f"{where} {name}"
    checked = read(SETTINGS[name], settings, where)
    checked.check(where)
    if shape is not None:
        checked.check_shape(shape, where)
    return checked


def build(name: str, settings: Mapping[str, Any], shape: Shape, classes: int) -> nn.Module:
    """Return a new network for images of ``shape`` (channels, height, width).

    Weights come from torch's global generator: seed it, and build on the CPU, for the same
    weights on every device. Raises what ``check`` raises, and a UserError where the network needs
    a package that is not installed.
    """
    checked = check(name, settings, shape)
    family = import_module(f"{__name__}.{checked.FILE}")
    network: nn.Module = getattr(family, name)(checked, shape, classes)
    return network
