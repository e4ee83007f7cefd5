"""Stages of a network: the maps at which its groups of layers end, before their last activation."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cyclery.common.errors import UserError
from cyclery.models._classifier import Classifier
from cyclery.models.layers import uncompiled


def stage_norms(net: nn.Module) -> list[_BatchNorm]:
    """Return the batch norm of each stage, the first one first.

    A UserError where the network does not say where its stages end, or they have another norm.
    """
    if not isinstance(net, Classifier) or not net.stages:
        raise UserError(
            "model: does not say where its stages end (`Classifier.stages`); choose another "
            "network, such as wrn, small_cnn or bn_mlp, without scattering or other blocks."
        )
    found = []
    for name in net.stages.values():
        norm = net.get_submodule(name)
        if not isinstance(norm, _BatchNorm):
            raise UserError(
                f"model: its stages must end in batch norm, which says how maps are spread (found "
                f"{type(norm).__name__}); set norm to batch."
            )
        found.append(norm)
    return found


def features_and_maps(net: Any, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the features [B, D] of images, and the maps of each stage: [B, C, H, W] or [B, C].

    They come of one pass, and are those before the activation.
    """
    found: list[Tensor] = []
    hooks = [
        net.get_submodule(name).register_forward_hook(
            lambda module, given, made: found.append(made)
        )
        for name in net.stages
    ]
    try:
        with uncompiled(net):
            return net.features(x), found
    finally:
        for hook in hooks:
            hook.remove()
