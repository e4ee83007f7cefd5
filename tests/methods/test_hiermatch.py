"""HIERMATCH: its heads, and its losses against independent computations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from factories import batches, hiermatch
from factories import engine as factory
from factories.hiermatch import THREE, TWO
from factories.threads import one_thread
from torch import Tensor, nn

from cyclery import methods
from cyclery.common.errors import UserError
from cyclery.methods import hiermatch as method

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)


class Wide(nn.Module):
    """A network whose features are the images."""

    width = 512

    def features(self, x: Tensor) -> Tensor:
        return x


def heads(levels: list[list[int]], classes: int, **chosen: Any) -> tuple[Any, Any]:
    """Return models with the heads of these levels, and the settings."""
    given = method.Settings(levels=1 + len(levels), **chosen)
    made = batches.made(Wide(), classes)
    made._settings["split"]["hierarchy"] = levels
    return {"main": Wide(), **method.modules(given, made)}, given


LEVELS = [[0, 0, 1, 1, 2, 2, 3, 3], [0, 0, 0, 0, 1, 1, 1, 1]]


def test_features_are_cut_as_in_the_official_code() -> None:
    """512 features: 170 and 170 for the coarser levels, and 172 for the finest, at the end."""
    models, settings = heads(LEVELS, 8)
    widths = [(head.in_features, head.out_features) for head in models["heads"]]
    assert widths == [(172, 8), (342, 4), (512, 2)]
    v = torch.randn(5, 512)
    third, second, first = v[:, :170], v[:, 170:340], v[:, 340:]
    seen = [first, torch.cat([second, first], 1), torch.cat([third, second, first], 1)]
    found = method.logits(models, v, settings)
    for z, head, x in zip(found, models["heads"], seen, strict=True):
        torch.testing.assert_close(z, x @ head.weight.T + head.bias)
    torch.testing.assert_close(method.predict(models, v, settings), found[0])


@pytest.mark.parametrize(
    ("chosen", "reached"),
    [
        ({}, [(340, 512), (170, 340), (0, 170)]),
        ({"stop_gradient": False}, [(340, 512), (170, 512), (0, 512)]),
        ({"split_features": False}, [(0, 512)] * 3),
        ({"split_features": False, "stop_gradient": False}, [(0, 512)] * 3),
    ],
)
def test_what_the_loss_of_a_level_changes(
    chosen: dict[str, Any], reached: list[tuple[int, int]]
) -> None:
    """With the defaults a coarse one reaches no finer part, and a fine one no coarser part."""
    models, settings = heads(LEVELS, 8, **chosen)
    for level, (start, end) in enumerate(reached):
        v = torch.randn(5, 512, requires_grad=True)
        method.logits(models, v, settings)[level].square().sum().backward()
        assert v.grad is not None
        touched = v.grad.ne(0).any(0).nonzero().flatten()
        assert touched.tolist() == list(range(start, end))


def test_every_head_reaches_the_backbone_and_the_networks_own_gets_nothing() -> None:
    run = factory.run(hiermatch.settings(hierarchy=THREE))
    net: Any = run.models["main"]
    first = net.body[1].weight
    for h in range(3):
        net.zero_grad()
        z = method.logits(run.models, torch.randn(7, 1, 8, 8), run.method_settings)[h]
        z.square().sum().backward()
        assert first.grad is not None and first.grad.abs().max() > 0
        assert net.head.weight.grad is None or not net.head.weight.grad.any()


def expected_logits(models: dict[str, nn.Module], x: Tensor, levels: int) -> list[Tensor]:
    """Return the logits of all levels as the card has them, for parts of equal size."""
    v = models["main"].features(x)  # type: ignore[operator]
    part = v.shape[1] // levels
    found = []
    for h, head in enumerate(models["heads"].children()):
        start = (levels - 1 - h) * part
        end = v.shape[1] if h == 0 else start + part
        found.append(head(torch.cat([v[:, start:end], v[:, end:].detach()], 1)))
    return found


def labels(y: Tensor, levels: list[list[int]]) -> list[Tensor]:
    return [y, *(torch.tensor(groups)[y] for groups in levels)]


@pytest.mark.parametrize("hierarchy", [TWO, THREE])
def test_the_full_variant_with_fixmatch_sums_its_losses(hierarchy: list[list[int]]) -> None:
    run, twin = hiermatch.twins(
        hiermatch.settings("fixmatch", hierarchy=hierarchy, threshold=0.3, weight=0.7)
    )
    batch, loss, logs, _ = hiermatch.one_step(run)
    views = torch.cat([batch.x, *batch.unlabelled.views])
    expected = torch.zeros(())
    found = expected_logits(twin.models, views, 1 + len(hierarchy))
    for h, (z, y) in enumerate(zip(found, labels(batch.y, hierarchy), strict=True)):
        z_x, z_w, z_s = z[:20], z[20:60].detach(), z[60:]
        q = z_w.softmax(1)
        mask = q.amax(1) >= 0.3
        loss_u = (F.cross_entropy(z_s, q.argmax(1), reduction="none") * mask).mean()
        expected = expected + F.cross_entropy(z_x, y) + 0.7 * loss_u
        name = "mask_rate" if h == 0 else f"mask_rate_{h + 1}"
        assert logs[name].item() == pytest.approx(mask.float().mean().item())
        hidden = labels(batch.unlabelled.y, hierarchy)[h]
        right = (mask & (q.argmax(1) == hidden)).float().mean().item()
        assert logs[name.replace("mask_rate", "pseudo_correct")].item() == pytest.approx(right)
    torch.testing.assert_close(loss, expected.detach())
    expected.backward()
    for (name, p), q in zip(
        run.models["main"].named_parameters(), twin.models["main"].parameters(), strict=True
    ):
        assert (p.grad is None) == (q.grad is None), name
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, msg=name)


def test_the_partial_variant_with_fixmatch_passes_each_level_by_itself() -> None:
    run, twin = hiermatch.twins(
        hiermatch.settings("fixmatch", "levels", THREE, threshold=0.3, weight=0.7)
    )
    batch, loss, _, _ = hiermatch.one_step(run)
    expected = torch.zeros(())
    for h, end in enumerate(("", "_2", "_3")):
        x, u = batch[f"labelled{end}"], batch[f"unlabelled{end}"]
        z = expected_logits(twin.models, torch.cat([x.x, *u.views]), 3)[h]
        q = z[20:60].detach().softmax(1)
        costs = F.cross_entropy(z[60:], q.argmax(1), reduction="none") * (q.amax(1) >= 0.3)
        expected = expected + F.cross_entropy(z[:20], x.y) + 0.7 * costs.mean()
    torch.testing.assert_close(loss, expected)
    assert len({int(batch[name].y.max()) for name in ("labelled", "labelled_2", "labelled_3")}) == 3


def mixed_loss(
    models: dict[str, nn.Module],
    z_of: Any,
    x: Any,
    u: Any,
    ys: list[Tensor],
    drawn: torch.Generator,
    per_sample: bool = False,
) -> tuple[list[Tensor], list[Tensor]]:
    """Return both losses of each level by the steps of the card; ``z_of`` gives their logits."""
    size, n = len(x.y), len(x.y) + sum(map(len, u.views))
    with torch.no_grad():
        views = [z_of(view) for view in u.views]
    images = torch.cat([x.x, *u.views])
    a, b = torch._standard_gamma(torch.full((2, n if per_sample else 1), 0.75), generator=drawn)
    share = torch.max(a / (a + b), b / (a + b))
    other = torch.rand(n, generator=drawn).argsort()
    images = share.view(-1, 1, 1, 1) * images + (1 - share.view(-1, 1, 1, 1)) * images[other]
    # Pass 0 gives its i-th group for that of pass i, as Google's code swaps parts.
    count = n // size
    ends = np.cumsum([size // count + (i >= count - size % count) for i in range(count)])[:-1]

    def swapped(parts: list[list[Tensor]]) -> list[Tensor]:
        for i in range(1, count):
            parts[0][i], parts[i][i] = parts[i][i], parts[0][i]
        return [torch.cat(part) for part in parts]

    passes = swapped([list(part.tensor_split(ends.tolist())) for part in images.split(size)])
    outputs = [z_of(each) for each in passes]
    losses_x, losses_u = [], []
    for h, y in enumerate(ys):
        q = F.softmax((sum(F.softmax(view[h], 1) for view in views) / len(views)).log() / 0.5, 1)
        target = torch.cat([F.one_hot(y, q.shape[1]).float(), *[q] * len(views)])
        target = share[:, None] * target + (1 - share[:, None]) * target[other]
        z = torch.cat(swapped([list(z[h].tensor_split(ends.tolist())) for z in outputs]))
        losses_x.append(F.cross_entropy(z[:size], target[:size]))
        losses_u.append(F.mse_loss(z[size:].softmax(1), target[size:]))
    return losses_x, losses_u


@pytest.mark.parametrize("share", ["batch", "sample"])
def test_the_full_variant_with_mixmatch_has_one_mixture_for_all(share: str) -> None:
    run, twin = hiermatch.twins(
        hiermatch.settings("mixmatch", hierarchy=THREE, weight=30.0, chosen={"share": share})
    )
    batch, loss, logs, drawn = hiermatch.one_step(run)
    losses_x, losses_u = mixed_loss(
        twin.models, lambda x: expected_logits(twin.models, x, 3), batch.labelled,
        batch.unlabelled, labels(batch.y, THREE), drawn, share == "sample",
    )  # fmt: skip
    torch.testing.assert_close(loss, (sum(losses_x) + 30 * sum(losses_u)).detach())  # type: ignore[union-attr]
    torch.testing.assert_close(logs["loss_unlabelled_3"], losses_u[2])
    # Every pass has moved the running statistics.
    for one, other in zip(run.models["main"].buffers(), twin.models["main"].buffers(), strict=True):
        torch.testing.assert_close(one, other)


def test_the_partial_variant_with_mixmatch_mixes_each_level_by_itself() -> None:
    run, twin = hiermatch.twins(hiermatch.settings("mixmatch", "levels", weight=30.0))
    batch, loss, _, drawn = hiermatch.one_step(run)
    expected = torch.zeros(())
    for h, end in enumerate(("", "_2")):
        x, u = batch[f"labelled{end}"], batch[f"unlabelled{end}"]
        [loss_x], [loss_u] = mixed_loss(
            twin.models, lambda images, h=h: [expected_logits(twin.models, images, 2)[h]],
            x, u, [x.y], drawn,
        )  # fmt: skip
        expected = expected + loss_x + 30 * loss_u
    torch.testing.assert_close(loss, expected.detach())


def test_statistics_of_the_first_pass_alone() -> None:
    moved = {}
    for statistics in ("all", "first"):
        given = hiermatch.settings("mixmatch", chosen={"statistics": statistics})
        run = factory.run(given)
        hiermatch.one_step(run)
        moved[statistics] = dict(run.models["main"].named_buffers())
    [counter] = [name for name in moved["all"] if name.endswith("num_batches_tracked")][:1]
    # Two passes guess, three of a mixture are trained.
    assert int(moved["all"][counter]) == 5 and int(moved["first"][counter]) == 1


def test_a_level_that_the_split_has_not_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"method\.levels: must be at most 2, .*`split\.hierarchy` \(found 3\)"
    ):
        factory.run(hiermatch.settings(chosen={"levels": 3}))


def test_levels_without_features_of_their_own_are_refused() -> None:
    narrow: dict[str, Any] = {"hierarchy": THREE, "model_settings": {"hidden": [2]}}
    with pytest.raises(
        UserError, match=r"^method\.levels: must be at most 2, the features .*3\)\.$"
    ):
        factory.run(hiermatch.settings(**narrow))
    factory.run(hiermatch.settings(chosen={"split_features": False}, **narrow))


def test_the_first_of_more_levels_may_be_trained_alone() -> None:
    run = factory.run(hiermatch.settings(hierarchy=THREE, chosen={"levels": 2}))
    assert [head.out_features for head in run.models["heads"].children()] == [10, 3]


def test_settings_that_say_nothing() -> None:
    def ignored(**chosen: Any) -> set[str]:
        return set(method.ignored(method.Settings(**chosen)))

    heads = {"pools", "split_features", "stop_gradient"}
    mixing = {"temperature", "alpha", "share", "statistics"}
    assert ignored() == {"threshold", *heads}
    assert ignored(core="fixmatch") == mixing | heads
    assert ignored(levels=2) == {"threshold"}
    assert ignored(levels=2, split_features=False) == {"threshold", "stop_gradient"}


def test_what_an_update_passes() -> None:
    def spent(**chosen: Any) -> tuple[int, int]:
        return methods.load("hiermatch").spent(method.Settings(**chosen), 20, 2)

    # 20 labelled samples, two views of 40 others, or of 20 that pass once more to be guessed.
    assert spent(core="fixmatch", levels=2) == (100, 100)
    assert spent(core="mixmatch", levels=2) == (60, 100)
    assert spent(core="mixmatch", levels=3, pools="levels") == (180, 300)
