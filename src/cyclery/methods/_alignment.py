"""Distribution alignment: guessed labels get the distribution that labels have.

D. Berthelot et al., ReMixMatch (arXiv 1911.09785, section 3.1). Guesses q [N, K] are multiplied by

    (1e-6 + p_data) / (1e-6 + p_model)

and normalised. Both distributions are averages over updates, in one of two ways:

- ``average``, as in google-research/remixmatch: p_model is the average of the batch means of q at
  the last 128 updates; p_data is the running average, with a decay of 0.999, of the shares that
  the classes have among the labels of a batch. Both start uniform and do not hold the present
  update. That code can be told another p_data, on its command line, which is not rebuilt.
- ``history``, as in alinlab/OpenCoS: both are averages over the batches of the last 128 updates,
  the present one among them; before the 128th over as many as there were.

What is remembered are buffers of a module, which are changed in place.
"""

from __future__ import annotations

from typing import Literal

from cyclery.common.lazy import torch

UPDATES = 128
LABELS_DECAY = 0.999
Kind = Literal["average", "history"]


def memory(classes: int, kind: Kind = "average") -> torch.nn.Module:
    """Return what distribution alignment remembers of the last updates."""
    module = torch.nn.Module()
    uniform, nothing = torch.full((UPDATES, classes), 1 / classes), torch.zeros(UPDATES, classes)
    module.register_buffer("means", uniform if kind == "average" else nothing)
    module.register_buffer("slot", torch.zeros(1, dtype=torch.int64))
    if kind == "average":
        module.register_buffer("p_data", torch.full((classes,), 1 / classes))
    else:
        module.register_buffer("labels", nothing.clone())
        module.register_buffer("seen", torch.zeros(1))
    return module


def alignment(
    remembered: torch.nn.Module, q: torch.Tensor, y: torch.Tensor, kind: Kind = "average"
) -> torch.Tensor:
    """Return log (1e-6 + p_data) / (1e-6 + p_model) [K], and remember q [N, K] and y [B]."""
    if kind == "history":
        return _of_history(remembered, q, y)
    means, slot, p_data = (remembered.get_buffer(name) for name in ("means", "slot", "p_data"))
    ratio = (1e-6 + p_data / p_data.sum()) / (1e-6 + means.mean(0))
    means.index_copy_(0, slot, q.mean(0, keepdim=True))
    slot.add_(1).remainder_(len(means))
    p_data.lerp_(_shares(y, p_data).mean(0), 1 - LABELS_DECAY)
    return ratio.log()


def _of_history(remembered: torch.nn.Module, q: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    names = ("means", "labels", "slot", "seen")
    means, labels, slot, seen = (remembered.get_buffer(name) for name in names)
    means.index_copy_(0, slot, q.mean(0, keepdim=True))
    labels.index_copy_(0, slot, _shares(y, means[0]).mean(0, keepdim=True))
    slot.add_(1).remainder_(len(means))
    seen.add_(1).clamp_(max=len(means))
    # Rows that nothing was written to hold zeros.
    return ((1e-6 + labels.sum(0) / seen) / (1e-6 + means.sum(0) / seen)).log()


def _shares(y: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return labels y [B] as rows of 0 and 1 [B, K], of the kind of ``like`` [K]."""
    return (y[:, None] == torch.arange(len(like), device=y.device)).to(like.dtype)
