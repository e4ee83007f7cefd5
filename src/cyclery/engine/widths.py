"""Kernels whose last bits depend on how many runs are computed at once, which no pack may use.

Most kernels compute the last elements of memory, which fill no vector register, otherwise than the
rest: by other formulas, or by adding in another order. What fills the registers for one run fills
them for any number.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

# Columns that a sum over rows adds at once: four registers. Torch's batch norm lays the channels of
# all runs side by side, and sums them.
COLUMNS = 32
# Not to the last bit the same in a register and beside it (measured, torch 2.14).
_INEXACT = frozenset((
    "atan2", "atanh", "binary_cross_entropy", "elu", "exp2", "gelu", "logaddexp", "logit", "mish",
    "pow", "sigmoid", "silu", "softplus",
))  # fmt: skip
# Powers that multiplications and roots make.
_EXACT = (-2, -1, -0.5, 0, 0.5, 1, 2, 3)


def depends(name: str, args: Any) -> str | None:
    """Return what of a kernel's call for one run depends on others beside it; None where nothing.

    ``args`` are those of a pack of one run, [1, ...].
    """
    short = name.removeprefix("aten::").removesuffix("_").removesuffix("_backward")
    tensors = [x for x in args if isinstance(x, Tensor)]
    if short == "convolution":
        return "a convolution"
    if name == "aten::native_batch_norm_backward" and tensors[0].shape[1] % COLUMNS:
        return f"batch norm of {tensors[0].shape[1]} channels, no multiple of {COLUMNS}"
    if short in ("bmm", "baddbmm") and tensors[-1].shape[0] == tensors[-1].shape[2] == 1:
        return "a product of matrices whose result has one column"
    if short not in _INEXACT:
        return None
    if short == "pow" and not isinstance(args[1], Tensor) and args[1] in _EXACT:
        return None
    # Each run by itself where a number of its own is one of the arguments; and numbers alone, one
    # for each run, fill no register.
    return None if any(x.numel() == 1 for x in tensors) else f"`{short}`"
