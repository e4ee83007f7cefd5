"""Kernels that a pack may use: an element comes out the same wherever in memory it lies."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from factories.threads import one_thread
from torch import Tensor
from torch.nn import functional as F

from cyclery.engine.tape import NotTaped, Tape
from cyclery.engine.widths import depends

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

# Of numbers a of any sign, probabilities p and q, and shares s.
EXACT: dict[str, Callable[..., Tensor]] = {
    "maximum": lambda a, p, q, s: torch.maximum(a, p),
    "share": lambda a, p, q, s: p / (p + q),
    "lerp": lambda a, p, q, s: a.lerp(p, s),
    "exp": lambda a, p, q, s: a.exp(),
    "log": lambda a, p, q, s: p.log(),
    "square root": lambda a, p, q, s: p.sqrt(),
    "entropy": lambda a, p, q, s: torch.special.entr(p),
    "xlogy": lambda a, p, q, s: torch.xlogy(p, q),
    "divergence": lambda a, p, q, s: F.kl_div(a, p, reduction="none"),
    "squared error": lambda a, p, q, s: F.mse_loss(a, p, reduction="none"),
}
# In registers by other formulas than beside them, on one processor or another.
INEXACT: dict[str, Callable[..., Tensor]] = {
    "sigmoid": lambda a, p, q, s: a.sigmoid(),
    "power": lambda a, p, q, s: p.pow(1.7),
    "softplus": lambda a, p, q, s: F.softplus(a),
}


@pytest.fixture(scope="module")
def numbers() -> list[Tensor]:
    drawn = torch.Generator().manual_seed(0)
    a, s = torch.randn(4000, generator=drawn), torch.rand(4000, generator=drawn)
    p, q = (torch.randn(400, 10, generator=drawn).mul(4).softmax(1).flatten() for _ in range(2))
    p[::7] = 0
    return [a, p, q, s]


def why(function: Callable[..., Tensor], given: list[Tensor]) -> str:
    """Return why a function of runs' tensors is refused in a pack of one; empty where it is not."""
    try:
        Tape(function, [x[None] for x in given], depends)
    except NotTaped as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("size", [1, 3, 7, 11])
def test_what_may_be_used_is_exact(name: str, size: int, numbers: list[Tensor]) -> None:
    function = EXACT[name]
    assert why(function, numbers) == ""
    parts = zip(*(x.split(size) for x in numbers), strict=True)
    # Moved, so that each part begins where memory is aligned.
    found = torch.cat([function(*(part.clone() for part in each)) for each in parts])
    assert function(*numbers).equal(found)


@pytest.mark.parametrize("name", INEXACT)
def test_what_is_not_exact_is_refused(name: str, numbers: list[Tensor]) -> None:
    assert why(INEXACT[name], numbers)
