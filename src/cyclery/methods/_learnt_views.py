"""Views that CTAugment makes inside a step, at strengths that the run learns.

The code of google-research/fixmatch and remixmatch: weak views are changed by
`cyclery.augment._ctaugment`. Its probes are weak views of labelled samples; what moves its weights
is what the averaged network, in evaluation mode, says of these,

    proximity = 1 - 1/2 sum_c |p_c - 1[c = y]|
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cyclery.common.errors import UserError
from cyclery.common.lazy import torch
from cyclery.methods._ssl import averaged


def module(made: Any) -> torch.nn.Module:
    """Return CTAugment for a run; a UserError where it knows no such images."""
    from cyclery.augment import Images
    from cyclery.augment._ctaugment import CTAugment

    if made.shape[0] not in (1, 3):
        raise UserError(
            "method.prediction_view: ctaugment needs images of 1 or 3 channels (found "
            f"{made.shape[0]})."
        )
    return CTAugment(Images(made.shape, made.mean, 255), made.std)


def changed(
    learnt: Any,
    probes: torch.Tensor,
    images: torch.Tensor,
    generator: torch.Generator,
    cutout: bool = True,
) -> tuple[torch.Tensor, torch.Tensor, Any]:
    """Return changed images [N, ...] and probes [B, ...], and the policy of all.

    The largest cutout comes last, as FixMatch has it, unless ``cutout`` is off.
    """
    from cyclery.augment._ctaugment import COLUMNS

    x, sizes = torch.cat([probes, images]), [len(probes), len(images)]
    u = torch.rand(len(x), COLUMNS, generator=generator, device=x.device)
    policy = learnt.policy(u, sizes[0])
    if not cutout:
        policy = replace(policy, last=torch.zeros_like(policy.last))
    probes, images = learnt(x, policy).split(sizes)
    return images, probes, policy


def learn(
    learnt: Any, average: torch.nn.Module, probes: torch.Tensor, policy: Any, y: torch.Tensor
) -> torch.Tensor:
    """Move CTAugment's weights by what the averaged network says of probes; return the mean."""
    p = averaged(average, probes, evaluation=True).softmax(1)
    right = (y[:, None] == torch.arange(p.shape[1], device=y.device)).to(p.dtype)
    proximity = 1 - (p - right).abs().sum(1) / 2
    learnt.learn(policy, proximity)
    return proximity.mean()
