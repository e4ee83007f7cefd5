"""Projectors and predictors: the small networks behind a feature vector of contrastive methods.

What the codes build, d being the length of a feature vector (``std``: of the weights at first):

    SimCLR v1     mlp(d, d, 128, output_norm="scale", std=0.01)
    SimCLR v2     mlp(d, d, 128, layers=3, output_norm="scale", std=0.01)
    lightly       SimCLR as v1, but ``output_norm="affine"`` and torch's weights
    solo-learn    mlp(d, 2048, 256, hidden_norm=False)
    BYOL          mlp(d, 4096, 256, hidden_bias=True, output_bias=False), projector and predictor
    OpenCoS       mlp(d, d, d, hidden_norm=False)
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal

from cyclery.common.lazy import torch

OutputNorm = Literal["none", "scale", "affine"]
HiddenNorm = Literal["batch", "group_ws"]


def mlp(
    width: int,
    hidden: int,
    output: int,
    layers: int = 2,
    *,
    hidden_norm: bool = True,
    norm: HiddenNorm = "batch",
    output_norm: OutputNorm = "none",
    hidden_bias: bool | None = None,
    output_bias: bool | None = None,
    std: float | None = None,
) -> torch.nn.Sequential:
    """Return ``layers`` linear layers, from [B, width] to [B, output].

    All but the last have ``hidden`` units, a norm (``hidden_norm``) and ReLU: batch norm, or with
    ``norm`` group_ws group norm behind standardised weights. The last has the batch norm
    ``output_norm``, of which ``scale`` has no offset. None of the layers leaves [B, width]
    as it is. Without a word on them there are biases where no norm follows. ``std`` is the
    deviation of normal initial weights, about biases of zero; without it they are torch's.
    """
    from cyclery.models.layers import norm_1d

    nn = torch.nn
    hidden_bias = not hidden_norm if hidden_bias is None else hidden_bias
    output_bias = output_norm == "none" if output_bias is None else output_bias
    widths = [width, *[hidden] * (layers - 1), output] if layers else []
    parts: list[torch.nn.Module] = []
    for index, (inputs, outputs) in enumerate(pairwise(widths), 1):
        last = index == layers
        bias = output_bias if last else hidden_bias
        parts.append(_linear(inputs, outputs, bias, std, not last and hidden_norm and norm))
        if not last:
            parts += [norm_1d(norm, outputs), nn.ReLU()] if hidden_norm else [nn.ReLU()]
        elif output_norm != "none":
            final = nn.BatchNorm1d(outputs)
            # Frozen at zero: packs stack a batch norm that has weight and bias.
            final.bias.requires_grad_(output_norm == "affine")
            parts.append(final)
    return nn.Sequential(*parts)


def projected(models: Mapping[str, torch.nn.Module], x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return h as ``features``, and ``z`` behind the projector, of images [B, C, H, W]."""
    net: Any = models["main"]
    h = net.features(x)
    return {"features": h, "z": models["projector"](h)}


def _linear(
    inputs: int, outputs: int, bias: bool, std: float | None, norm: HiddenNorm | Literal[False]
) -> torch.nn.Linear:
    from cyclery.models.layers.standardised import StandardisedLinear

    kind = StandardisedLinear if norm == "group_ws" else torch.nn.Linear
    layer = kind(inputs, outputs, bias=bias)
    if std is not None:
        torch.nn.init.normal_(layer.weight, std=std)
        if bias:
            torch.nn.init.zeros_(layer.bias)
    return layer
