"""Networks that other packages define: AlexNet and GoogLeNet of torchvision, TResNet-M of timm.

Their dropout is replaced by ours, which can draw from a generator of the run.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from torch import Tensor, nn

from cyclery.common.errors import UserError
from cyclery.models.base import Shape
from cyclery.models.layers import Dropout
from cyclery.models.settings import AlexNet, GoogLeNet, TResNetM


def _imported(package: str, network: str) -> Any:
    """Return the package, or raise a UserError that says how to get it."""
    try:
        return import_module(package)
    except ImportError as error:
        top = package.partition(".")[0]
        raise UserError(
            f"model {network!r} needs the package {top}, which cannot be imported ({error}). "
            f"Install it with: python -m pip install {top}"
        ) from error


class PoolTo(nn.AdaptiveAvgPool2d):
    """Adaptive mean pooling that leaves maps of the right size alone.

    So AlexNet on 224x224 images has no step whose backward pass is not deterministic on CUDA.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the maps [B, C, *output_size]."""
        return input if input.shape[-2:] == self.output_size else super().forward(input)


def _with_own_dropout(model: nn.Module) -> nn.Module:
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Dropout):
                setattr(parent, name, Dropout(child.p))
    return model


def alexnet(settings: AlexNet, shape: Shape, classes: int) -> nn.Module:
    """Return torchvision's AlexNet with random weights."""
    models = _imported("torchvision.models", "alexnet")
    network = models.alexnet(num_classes=classes)
    network.avgpool = PoolTo(network.avgpool.output_size)
    return _with_own_dropout(network)


def googlenet(settings: GoogLeNet, shape: Shape, classes: int) -> nn.Module:
    """Return torchvision's GoogLeNet with random weights and without auxiliary classifiers."""
    models = _imported("torchvision.models", "googlenet")
    # Left out, ``init_weights`` raises a warning about its future default.
    network = models.googlenet(num_classes=classes, aux_logits=False, init_weights=True)
    return _with_own_dropout(network)


def tresnet_m(settings: TResNetM, shape: Shape, classes: int) -> nn.Module:
    """Return timm's TResNet-M with random weights."""
    timm = _imported("timm", "tresnet_m")
    network: nn.Module = timm.create_model(
        "tresnet_m", pretrained=False, num_classes=classes, in_chans=shape[0]
    )
    return _with_own_dropout(network)
