"""T-vMF head: known values, special cases, and what a gradient reaches."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclery.common.errors import UserError
from cyclery.models import heads


def head(kappa: float, width: int = 6, classes: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return heads.build({"name": "tvmf", "settings": {"kappa": kappa}}, width, classes).double()


def drawn(count: int = 9, width: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, width, generator=generator, dtype=torch.float64)


START = 1 + math.log(2)


def test_without_concentration_it_is_the_cosine_times_the_scale() -> None:
    made, x = head(0.0), drawn()
    cosines = F.cosine_similarity(x[:, None], made.weight[None], dim=2)
    torch.testing.assert_close(made(x), START * cosines)


@pytest.mark.parametrize("kappa", [0.0, 1.0, 16.0])
@pytest.mark.parametrize("cosine", [-1.0, -0.5, 0.0, 0.5, 0.9, 1.0])
def test_a_similarity_is_the_formulas(kappa: float, cosine: float) -> None:
    made = head(kappa, width=2, classes=1)
    with torch.no_grad():
        made.weight.copy_(torch.tensor([[3.0, 0.0]]))
    x = 5 * torch.tensor([[cosine, math.sqrt(1 - cosine**2)]], dtype=torch.float64)
    expected = START * ((1 + cosine) / (1 + kappa * (1 - cosine)) - 1)
    assert made(x).item() == pytest.approx(expected, abs=1e-12)


def test_a_larger_kappa_falls_off_faster_between_the_same_ends() -> None:
    made = [head(kappa, width=2, classes=1) for kappa in (0.0, 4.0, 16.0)]
    ways = [torch.tensor([[a.cos(), a.sin()]]).double() for a in torch.linspace(0, math.pi, 9)]
    with torch.no_grad():
        for each in made:
            each.weight.copy_(torch.tensor([[1.0, 0.0]]))
        found = torch.tensor([[each(x).item() for x in ways] for each in made])
    torch.testing.assert_close(found[:, [0, -1]], torch.tensor([[START, -START]] * 3))
    assert (found.diff(dim=1) < 0).all()
    assert (found[:, 1:-1].diff(dim=0) < 0).all()


def test_lengths_do_not_count_and_the_scale_is_learnt() -> None:
    made, x = head(16.0), drawn()
    torch.testing.assert_close(made(x), made(100 * x))
    loss = F.cross_entropy(made(x), torch.arange(9) % 4)
    loss.backward()
    assert made.scale.grad.item() != 0
    # A weight moves around the origin, never along itself.
    assert (made.weight.grad * made.weight).sum(1).abs().max() < 1e-12
    with torch.no_grad():
        made.scale.fill_(3.0)
    ratio = made(x) / head(16.0)(x)
    torch.testing.assert_close(ratio, torch.full_like(ratio, (1 + math.log1p(math.e**3)) / START))


def test_weights_start_as_a_linear_layers() -> None:
    torch.manual_seed(0)
    expected = nn.Linear(6, 4, bias=False).weight
    made = head(16.0)
    torch.testing.assert_close(made.weight, expected.double())
    assert {name for name, _ in made.named_parameters()} == {"weight", "scale"}


def test_a_negative_concentration_is_refused() -> None:
    with pytest.raises(UserError, match=r"^head\.kappa: must be at least 0\.0 and .* \(found -1\)"):
        heads.resolve("tvmf", {"kappa": -1})


def test_under_autocast_cosines_near_one_are_told_apart() -> None:
    torch.manual_seed(0)
    made = heads.build({"name": "tvmf", "settings": {}}, 64, 10)
    x = made.weight.detach() + 1e-3 * torch.randn(10, 64)
    with torch.autocast("cpu", torch.bfloat16):
        found = made(x)
    torch.testing.assert_close(found, made(x), rtol=0, atol=0)
    assert len(found.diag().unique()) == 10


def test_at_the_largest_kappa_no_logit_is_beyond_the_scale() -> None:
    torch.manual_seed(0)
    made = heads.build({"name": "tvmf", "settings": {"kappa": 1e4}}, 64, 4)
    logits = made(made.weight.detach().repeat(50, 1) * torch.linspace(0.1, 9, 200)[:, None])
    assert logits.abs().max() < START * 1.01
    with pytest.raises(UserError, match=r"kappa: must be at least 0.0 and at most 10000.0"):
        heads.build({"name": "tvmf", "settings": {"kappa": 1e5}}, 64, 4)
