"""ReMixMatch: each term against a computation of its own, its switches, and easy digits."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from factories import batches
from factories.replay import NoWaiting
from factories.semi_supervised import (
    assert_same_gradients,
    buffers_equal,
    frozen,
    network,
    numbers,
    seen,
    softmax,
)
from factories.threads import one_thread
from torch import Tensor, nn

from cyclery import schedules
from cyclery.augment._ctaugment import COLUMNS
from cyclery.common.errors import UserError
from cyclery.common.settings import read
from cyclery.engine.stream import Batch, Samples
from cyclery.methods import _alignment, _remixmatch, remixmatch

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

B, K, CLASSES = 8, 2, 4
ROW = {"weight": 3.0, "unmixed_weight": 0.7, "rotation_weight": 0.4, "alpha": 0.75,
       "temperature": 0.5}  # fmt: skip
OPENCOS = {"alignment": "history", "share": "batch", "statistics": "all", "labelled_view": "weak",
           "views": 1, "unmixed": False, "rotation": False}  # fmt: skip


def case(views: int = K, seed: int = 0) -> Batch:
    """Return a batch of random images in 0..1, as many unlabelled as labelled."""
    g = torch.Generator().manual_seed(seed)
    x, *u = torch.rand(2 + views, B, 1, 8, 8, generator=g)
    y, hidden = torch.randint(CLASSES, (2, B), generator=g)
    return batches.batch([x], y, unlabelled=Samples(tuple(u), hidden, torch.arange(B)))


def nets(net: nn.Module | None = None, seed: int = 0, **chosen: Any) -> dict[str, Any]:
    """Return the modules of a step."""
    main = net or network()
    torch.manual_seed(seed)
    own = remixmatch.modules(remixmatch.Settings(**chosen), batches.made(main, CLASSES))
    return {"main": main, **own}


def step(
    models: dict[str, Any], batch: Batch, row: dict[str, float] | None = None, **chosen: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    """Make a step backward, with the draws of a new generator, and return its loss and logs."""
    rows = {name: torch.tensor(value) for name, value in {**ROW, **(row or {})}.items()}
    settings = remixmatch.Settings(**{"views": K, **chosen})
    loss, logs = remixmatch.step(models, batch, rows, settings, torch.Generator().manual_seed(5))
    loss.backward()
    return loss.detach(), {name: value.detach() for name, value in logs.items()}


def parts(n: int, count: int, interleave: bool) -> list[list[tuple[int, int]]]:
    """Return (batch, row) of every row of each pass; groups change places as in Google's code."""
    rows = [[(batch, row) for row in range(n)] for batch in range(count)]
    for batch in range(1, count) if interleave else ():
        for row in range(n * batch // count, n * (batch + 1) // count):
            rows[0][row], rows[batch][row] = rows[batch][row], rows[0][row]
    return rows


@pytest.mark.parametrize("interleave", [True, False])
@pytest.mark.parametrize("share", ["sample", "batch"])
def test_the_loss_is_that_of_the_papers_terms(share, interleave):
    batch, models = case(), nets()
    before = copy.deepcopy(models)
    loss, logs = step(models, batch, share=share, interleave=interleave)
    weak, *strong = batch.unlabelled.views
    p = softmax(numbers(copy.deepcopy(before["main"])(weak)))
    q = torch.tensor(p**2 / (p**2).sum(1, keepdims=True)).float()  # p_data is uniform at first
    g, total = torch.Generator().manual_seed(5), B * (2 + K)
    x = torch.cat([batch.x, weak, *strong])
    y = torch.cat([F.one_hot(batch.y, CLASSES).float(), q, q, q])
    drawn = torch._standard_gamma(torch.full((2, total if share == "sample" else 1), 0.75), g)
    keeps = (drawn.amax(0) / drawn.sum(0)).expand(total)
    other = torch.rand(total, generator=g).argsort()
    x = torch.einsum("i,i...->i...", keeps, x) + torch.einsum("i,i...->i...", 1 - keeps, x[other])
    y = keeps[:, None] * y + (1 - keeps[:, None]) * y[other]
    z = torch.empty(total, CLASSES)
    for rows in parts(B, 2 + K, interleave):
        places = [b * B + row for b, row in rows]
        z[places] = copy.deepcopy(before["main"])(x[places]).detach()
    entropies = -(y * z.log_softmax(1)).sum(1)
    torch.testing.assert_close(logs["loss_labelled"], entropies[:B].mean())
    torch.testing.assert_close(logs["loss_unlabelled"], entropies[B:].mean())
    first = copy.deepcopy(before["main"])(strong[0]).log_softmax(1)
    torch.testing.assert_close(logs["loss_unmixed"], -(q * first).sum(1).mean().detach())
    turned = [np.rot90(numbers(strong[0][i, 0]), 4 * i // B) for i in range(B)]
    features = copy.deepcopy(before["main"]).features(
        torch.tensor(np.stack(turned))[:, None].float()
    )
    turns = softmax(numbers(before["turns"](features)))
    expected = -np.log(turns[np.arange(B), np.arange(B) // 2]).mean()
    assert logs["loss_rotation"].item() == pytest.approx(expected, rel=1e-5)
    whole = (entropies[:B].mean() + 3 * entropies[B:].mean() + 0.7 * logs["loss_unmixed"]
             + 0.4 * logs["loss_rotation"])  # fmt: skip
    torch.testing.assert_close(loss, whole)
    guessed = q.argmax(1) == batch.unlabelled.y
    assert logs["target_correct"].item() == pytest.approx(guessed.float().mean().item())


@pytest.fixture
def unmixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave all of each sample in its mixture."""
    monkeypatch.setattr(_remixmatch, "shares", lambda alpha, n, *_: torch.ones(n))


def test_the_gradient_takes_targets_for_constants(unmixed):
    """With GroupNorm, so that it does not matter what passes together."""
    batch = case(views=1)
    models = nets(network("group"))
    plain, turns = copy.deepcopy(models["main"]), copy.deepcopy(models["turns"])
    weak, strong = batch.unlabelled.views
    chosen = {"views": 1, "alignment": False}
    step(models, batch, **chosen)
    q = (2 * plain(weak).detach().log_softmax(1)).softmax(1)
    loss = F.cross_entropy(plain(batch.x), batch.y)
    loss = loss + 3 * (F.cross_entropy(plain(weak), q) + F.cross_entropy(plain(strong), q)) / 2
    loss = loss + 0.7 * F.cross_entropy(plain(strong), q)
    turned, labels = _remixmatch.quarters(strong)
    loss = loss + 0.4 * F.cross_entropy(turns(plain.features(turned)), labels)
    loss.backward()
    assert_same_gradients(models["main"], plain, tolerance=1e-5)
    assert_same_gradients(models["turns"], turns, tolerance=1e-5)


def test_hidden_labels_are_in_no_loss():
    batch, models = case(), nets()
    other = copy.deepcopy(models)
    batch.unlabelled.y.fill_(0)
    loss, _ = step(models, batch)
    batch.unlabelled.y.fill_(3)
    assert torch.equal(step(other, batch)[0], loss)


@pytest.mark.parametrize("kind", ["average", "history"])
def test_targets_are_aligned_as_a_loop_does_it(monkeypatch, kind):
    monkeypatch.setattr(_alignment, "UPDATES", 3)
    memory = _alignment.memory(CLASSES, kind)
    places = {name: buffer.data_ptr() for name, buffer in memory.named_buffers()}
    g, uniform = torch.Generator().manual_seed(3), np.full(CLASSES, 1 / CLASSES)
    guesses, labels, p_data, changed = [], [], uniform, 0
    for _ in range(6):
        z, y = 2 * torch.randn(B, CLASSES, generator=g), torch.randint(CLASSES, (B,), generator=g)
        found = numbers(_remixmatch.targets(z, y, torch.tensor(0.5), memory, kind))
        p, drawn = softmax(numbers(z)), np.bincount(y.numpy(), minlength=CLASSES) / B
        if kind == "average":
            window = [uniform] * 3 + guesses
            ratio = (1e-6 + p_data) / (1e-6 + np.mean(window[-3:], axis=0))
            p_data = 0.999 * p_data + 0.001 * drawn
        guesses, labels = [*guesses, p.mean(0)], [*labels, drawn]
        if kind == "history":
            mean = [np.mean(each[-3:], axis=0) for each in (labels, guesses)]
            ratio = (1e-6 + mean[0]) / (1e-6 + mean[1])
        aligned = p * ratio / (p * ratio).sum(1, keepdims=True)
        expected = aligned**2 / (aligned**2).sum(1, keepdims=True)
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-7)
        changed += (expected.argmax(1) != p.argmax(1)).sum()
    assert changed
    assert {name: buffer.data_ptr() for name, buffer in memory.named_buffers()} == places
    assert _alignment.UPDATES == 3 and not list(memory.parameters())


def test_both_histories_are_of_128_updates():
    assert _alignment.UPDATES == 128
    for name in ("means", "labels"):
        assert _alignment.memory(CLASSES, "history").get_buffer(name).shape == (128, CLASSES)


@pytest.mark.parametrize("n", [1, 3, 4, 7, 8])
def test_a_quarter_of_the_images_is_turned_each_way(n):
    x = torch.rand(n, 3, 5, 5, generator=torch.Generator().manual_seed(n))
    turned, turns = _remixmatch.quarters(x)
    assert turns.tolist() == [4 * i // n for i in range(n)]
    for image, found, turn in zip(x, turned, turns.tolist(), strict=True):
        assert np.array_equal(found.numpy(), np.rot90(image.numpy(), turn, (1, 2)))


def test_running_statistics_come_from_the_last_pass_of_the_mixture_alone():
    batch, models = case(), nets()
    before, seen_x = copy.deepcopy(models["main"]), []
    models["main"].register_forward_pre_hook(lambda _, given: seen_x.append(given[0].detach()))
    step(models, batch)
    guess, *passes, unmixed = seen_x  # the features of turned images are no pass of the whole
    assert torch.equal(guess, batch.unlabelled.views[0])
    assert torch.equal(unmixed, batch.unlabelled.views[1])
    assert len(passes) == 2 + K
    # They are made from the last batch to the first.
    assert buffers_equal(models["main"], seen(before, passes[0]))
    assert not buffers_equal(models["main"], seen(before, passes[-1]))


def test_running_statistics_of_every_pass_where_all_count():
    batch, models = case(1), nets(**OPENCOS)
    before, seen_x = copy.deepcopy(models["main"]), []
    models["main"].register_forward_pre_hook(lambda _, given: seen_x.append(given[0].detach()))
    step(models, batch, **OPENCOS)
    assert len(seen_x) == 4
    assert buffers_equal(models["main"], seen(before, *seen_x))


SWITCHES = {
    "alignment": "history", "share": "batch", "interleave": False, "unmixed": False,
    "rotation": False, "views": 1,
}  # fmt: skip


@pytest.mark.parametrize("key", SWITCHES)
def test_each_switch_computes_something_else(key):
    def losses(**chosen: Any) -> list[float]:
        models = nets(**chosen)
        views = chosen.get("views", K)
        return [step(models, case(views, seed), **chosen)[0].item() for seed in range(2)]

    plain, other = losses(), losses(**{key: SWITCHES[key]})
    assert plain[-1] != pytest.approx(other[-1], rel=1e-6)
    assert losses() == plain


def test_of_the_step_of_opencos_only_two_terms_are_left():
    batch, models = case(1), nets(**OPENCOS)
    assert set(models) == {"main", "alignment"}
    loss, logs = step(models, batch, **OPENCOS)
    assert set(logs) == {"loss_labelled", "loss_unlabelled", "target_correct"}
    torch.testing.assert_close(loss, logs["loss_labelled"] + 3 * logs["loss_unlabelled"])
    assert remixmatch.ignored(remixmatch.Settings(**OPENCOS)) == {
        "unmixed_weight": "unmixed: false", "rotation_weight": "rotation: false",
    }  # fmt: skip
    assert remixmatch.ignored(remixmatch.Settings()) == {}


@pytest.mark.parametrize("labelled_view", ["prediction", "weak"])
def test_views_that_ctaugment_makes(unmixed, labelled_view):
    batch = case()
    chosen = {"prediction_view": "ctaugment", "labelled_view": labelled_view, "views": K}
    models = nets(**chosen)
    models["ema"] = frozen(network(seed=1)).train()
    learnt, ema = copy.deepcopy(models["ctaugment"]), copy.deepcopy(models["ema"]).eval()
    weak, *others = batch.unlabelled.views
    images = [batch.x, *others] if labelled_view == "prediction" else others
    g = torch.Generator().manual_seed(5)
    x = torch.cat([batch.x, *images])
    policy = learnt.policy(torch.rand(len(x), COLUMNS, generator=g), B)
    policy.last.fill_(False)  # no cutout at the end
    probes, *made = learnt(x, policy).split(B)
    seen_x: list[Tensor] = []
    models["main"].register_forward_pre_hook(lambda _, given: seen_x.append(given[0].detach()))
    _, logs = step(models, batch, interleave=False, **chosen)
    expected = [*made, weak] if labelled_view == "prediction" else [batch.x, *made, weak]
    for view in expected:
        assert any(torch.allclose(view, each, atol=1e-5) for each in seen_x)
    right = F.one_hot(batch.y, CLASSES)
    proximity = 1 - (ema(probes).softmax(1) - right).abs().sum(1) / 2
    torch.testing.assert_close(logs["proximity"], proximity.mean().detach())
    learnt.learn(policy, proximity.detach())
    assert torch.allclose(models["ctaugment"].weights, learnt.weights, rtol=1e-5)


@pytest.mark.parametrize(
    ("chosen", "labelled", "others"),
    [
        ({}, "strong", "strong"),
        ({"labelled_view": "weak"}, "weak", "strong"),
        ({"prediction_view": "weak"}, "weak", "weak"),
        ({"prediction_view": "ctaugment"}, "weak", "weak"),
    ],
)
def test_streams_have_the_view_of_guesses_first(chosen, labelled, others):
    settings = remixmatch.Settings(views=3, **chosen)
    found = remixmatch.streams(settings)
    assert found["labelled"] == (labelled,)
    assert found["unlabelled"].views == ("weak", *[others] * 3)
    assert found["unlabelled"].times == 1
    assert remixmatch.uses_ema(settings) == (chosen.get("prediction_view") == "ctaugment")


@pytest.mark.parametrize(
    ("chosen", "forwards"),
    [({}, 8 * (1 + 3 + 3)), (OPENCOS, 8 * (1 + 2 + 1)),
     ({"prediction_view": "ctaugment"}, 8 * (1 + 3 + 3 + 1))],
)  # fmt: skip
def test_every_image_that_passes_is_counted(chosen, forwards):
    settings = remixmatch.Settings(**{"views": K, **chosen})
    images = {"labelled": B, "unlabelled": B * (1 + settings.views)}
    assert remixmatch.forwards(settings, images) == forwards
    models = nets(**chosen, **({} if "views" in chosen else {"views": K}))
    models["ema"] = frozen(network(seed=1)).train()
    counted: list[int] = []
    for name in ("main", "ema"):
        models[name].body.register_forward_pre_hook(lambda _, x: counted.append(len(x[0])))
    step(models, case(settings.views), **{"views": K, **chosen})
    assert sum(counted) == forwards


def test_weights_rise_over_the_first_64th_as_in_the_code():
    clock, _ = schedules.clock_for(np.full(64, 20), 400)
    for key, end in {"weight": 1.5, "unmixed_weight": 0.5}.items():
        column = schedules.column(getattr(remixmatch.Settings(), key), clock)
        np.testing.assert_allclose(column[:20], end * np.arange(20) / 20, rtol=1e-6)
        assert column[20:].tolist() == [end] * (64 * 20 - 20)


def test_images_that_are_not_square_cannot_be_turned():
    made: Any = SimpleNamespace(shape=(1, 8, 10), classes=CLASSES, width=4)
    message = r"method\.rotation: only square images can be turned \(found 8 x 10 pixels\); set it"
    with pytest.raises(UserError, match=message):
        remixmatch.modules(remixmatch.Settings(), made)
    assert set(remixmatch.modules(remixmatch.Settings(rotation=False), made)) == {"alignment"}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("alignment", True, r"alignment: must be one of average, false, history \(found True"),
        ("views", 0, "views: must be at least 1"),
        ("views", 17, "views: must be at least 1 and at most 16"),
        ("statistics", "first", "statistics: must be one of all, last"),
    ],
)
def test_settings_that_are_not_allowed(key, value, message):
    with pytest.raises(UserError, match=message):
        read(remixmatch.Settings, {key: value}, "method")


def test_a_step_waits_for_no_device():
    batch, models = case(), nets()
    with NoWaiting():
        rows = {name: torch.tensor(value) for name, value in ROW.items()}
        settings = remixmatch.Settings(views=K)
        remixmatch.step(models, batch, rows, settings, torch.Generator().manual_seed(5))
