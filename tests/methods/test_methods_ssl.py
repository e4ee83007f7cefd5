"""Semi-supervised methods: the papers' formulas, what gradients flow where, batch statistics."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from factories.replay import NoWaiting
from torch import Tensor, nn

from cyclery import methods, models, schedules
from cyclery.common.errors import UserError
from cyclery.common.settings import read
from cyclery.engine.stream import Batch, Samples
from cyclery.methods import _ssl, fixmatch, mean_teacher, pseudo_label
from cyclery.models.layers import keep_statistics

B, MU, K = 5, 3, 4
N = MU * B
PARTS = ("x", "x2", "u1", "u2")
FILES = [Path(module.__file__ or "") for module in (_ssl, fixmatch, mean_teacher, pseudo_label)]
DEFAULTS = {
    fixmatch: {"threshold": 0.5, "weight": 0.7, "temperature": 1.0},
    mean_teacher: {"weight": 0.7},
    pseudo_label: {"threshold": 0.5, "weight": 0.7},
}
# Every path through the three steps.
PATHS: list[tuple[Any, dict[str, Any]]] = [
    (fixmatch, {}),
    (fixmatch, {"target": "soft"}),
    (fixmatch, {"alignment": "average"}),
    (fixmatch, {"labels_from": "ema_eval"}),
    (fixmatch, {"labels_from": "ema_train", "alignment": "average"}),
    *[
        (mean_teacher, {"forward": forward, "items": items, "consistency": consistency})
        for forward in ("joint", "separate")
        for items in ("all", "unlabelled")
        for consistency in ("mse", "kl")
    ],
    (mean_teacher, {"forward": "separate", "statistics": "labelled"}),
    (mean_teacher, {"target": "current"}),
    (mean_teacher, {"target": "current", "forward": "separate", "items": "unlabelled"}),
    (mean_teacher, {"target": "current", "gradient": "both"}),
    (mean_teacher, {"logit_distance": 0.1, "denominator": "all"}),
    (mean_teacher, {"logit_distance": 0.1, "target": "current", "forward": "separate"}),
    (pseudo_label, {}),
    (pseudo_label, {"forward": "joint", "statistics": "all"}),
]
IDS = [
    f"{module.__name__.rpartition('.')[2]} {' '.join(map(str, given.values()))}".strip()
    for module, given in PATHS
]
each_path = pytest.mark.parametrize(("module", "given"), PATHS, ids=IDS)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # networks this small only wait for their threads
    yield
    torch.set_num_threads(before)


def row(module: Any, **changes: float) -> dict[str, Tensor]:
    return {name: torch.tensor(v) for name, v in {**DEFAULTS[module], **changes}.items()}


class Table(nn.Module):
    """A network that answers each image, which is a number, with a row of its parameter."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        return self.logits[x.flatten().long()]


def made(views: dict[str, Tensor], y: Tensor, hidden: Tensor) -> Batch:
    unlabelled = Samples((views["u1"], views["u2"]), hidden, torch.arange(len(hidden)))
    return Batch((views["x"], views["x2"]), y, torch.arange(len(y)), unlabelled)


def table_case(seed: int = 0, spread: float = 2.0) -> tuple[Batch, Tensor, dict[str, slice]]:
    """Return a batch whose images are numbers, a logit for each, and where each view's lie."""
    g = torch.Generator().manual_seed(seed)
    ends = dict(zip(PARTS, np.cumsum([B, B, N, N]).tolist(), strict=True))
    rows = {part: slice(end - (B if part[0] == "x" else N), end) for part, end in ends.items()}
    images = torch.arange(float(ends["u2"]))[:, None, None, None]
    y, hidden = torch.randint(K, (B,), generator=g), torch.randint(K, (N,), generator=g)
    batch = made({part: images[place] for part, place in rows.items()}, y, hidden)
    return batch, spread * torch.randn(len(images), K, generator=g), rows


def image_case(seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    views = {p: torch.randn(B if p[0] == "x" else N, 1, 8, 8, generator=g) for p in PARTS}
    y, hidden = torch.randint(K, (B,), generator=g), torch.randint(K, (N,), generator=g)
    return made(views, y, hidden)


def network(norm: str = "batch", seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return models.build("small_cnn", {"width": 4, "norm": norm}, (1, 8, 8), K)


def frozen(net: nn.Module) -> nn.Module:
    return copy.deepcopy(net).requires_grad_(False)


def all_models(module: Any, settings: Any, net: nn.Module, ema: nn.Module) -> dict[str, nn.Module]:
    own = methods.load(module.__name__.rpartition(".")[2]).modules(settings, net, K, 0)
    return {"main": net, "ema": ema, **own}


def step(
    module: Any,
    networks: dict[str, nn.Module],
    batch: Batch,
    given: dict[str, Any] | None = None,
    **changes: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Make one step backward and return its loss and logs."""
    settings = module.Settings(**(given or {}))
    loss, logs = module.step(networks, batch, row(module, **changes), settings, torch.Generator())
    loss.backward()
    return loss.detach(), {name: value.detach() for name, value in logs.items()}


def run_table(
    module: Any, given: dict[str, Any] | None = None, seed: int = 0, **changes: float
) -> tuple[Tensor, dict[str, Tensor], nn.Parameter, Any]:
    """Step on a table and return loss, logs, the table with its gradient, and batch and rows."""
    batch, logits, rows = table_case(seed)
    net, ema = Table(logits), Table(logits.flip(0)).requires_grad_(False)
    settings = module.Settings(**(given or {}))
    networks = all_models(module, settings, net, ema)
    loss, logs = step(module, networks, batch, given, **changes)
    return loss, logs, net.logits, (batch, rows)


def gradients(net: nn.Module) -> dict[str, Tensor | None]:
    return {name: p.grad for name, p in net.named_parameters()}


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def numbers(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


# FixMatch.


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("target", ["hard", "soft"])
@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.8])
def test_fixmatch_is_the_papers_loss(target, temperature, threshold):
    loss, logs, table, (batch, rows) = run_table(
        fixmatch, {"target": target}, threshold=threshold, temperature=temperature, weight=0.3
    )
    z = {part: numbers(table[place]) for part, place in rows.items()}
    y, hidden = numbers(batch.y).astype(int), numbers(batch.unlabelled.y).astype(int)
    sharp, flat = softmax(z["u1"] / temperature), softmax(z["u1"])
    mask = (sharp if target == "hard" else flat).max(1) >= threshold
    chosen = np.eye(K)[sharp.argmax(1)] if target == "hard" else sharp
    loss_x = -np.log(softmax(z["x"]))[np.arange(B), y].mean()
    loss_u = -(mask[:, None] * chosen * np.log(softmax(z["u2"]))).sum() / N
    assert mask.any()
    assert loss.item() == pytest.approx(loss_x + 0.3 * loss_u, rel=1e-5)
    assert logs["loss_labelled"].item() == pytest.approx(loss_x, rel=1e-5)
    assert logs["loss_unlabelled"].item() == pytest.approx(loss_u, rel=1e-5)
    assert logs["mask_rate"].item() == pytest.approx(mask.mean())
    correct = mask & (flat.argmax(1) == hidden)
    assert logs["pseudo_correct"].item() == pytest.approx(correct.mean())
    share = np.bincount(flat.argmax(1)[mask], minlength=K) / mask.sum()
    classes = np.exp(-sum(s * np.log(s) for s in share if s))
    assert logs["pseudo_classes"].item() == pytest.approx(classes, rel=1e-5)


def test_fixmatch_is_the_cards_check_and_divides_by_all_unlabelled():
    _, logs, table, (_, rows) = run_table(fixmatch, threshold=0.8)
    z_w, z_s = table[rows["u1"]].detach(), table[rows["u2"]].detach()
    q = z_w.softmax(1)
    mask = q.max(1).values >= 0.8
    assert 0 < mask.sum() < N
    losses = F.cross_entropy(z_s, q.argmax(1), reduction="none")
    assert logs["loss_unlabelled"] == pytest.approx((losses * mask).mean().item(), rel=1e-6)
    assert logs["loss_unlabelled"] == pytest.approx(losses[mask].sum().item() / N, rel=1e-6)


@pytest.mark.parametrize("target", ["hard", "soft"])
def test_fixmatch_sends_no_gradient_through_the_label_view(target):
    _, _, table, (batch, rows) = run_table(fixmatch, {"target": target}, weight=0.3, threshold=0.0)
    direct = table.detach().clone().requires_grad_()
    q = direct[rows["u1"]].detach().softmax(1)
    chosen = q.argmax(1) if target == "hard" else q
    loss = F.cross_entropy(direct[rows["x"]], batch.y)
    (loss + 0.3 * F.cross_entropy(direct[rows["u2"]], chosen)).backward()
    assert torch.allclose(table.grad, direct.grad, rtol=1e-5, atol=1e-7)
    assert not table.grad[rows["u1"]].any()
    assert table.grad[rows["u2"]].any()


def halves(module: Any, threshold: float) -> dict[str, Tensor]:
    """Return the logs where each pseudo-label has a probability of exactly one half."""
    batch, logits, rows = table_case()
    logits[rows["u1"]] = torch.tensor([0.0, 0.0, -200.0, -200.0])
    net = Table(logits)
    return step(module, {"main": net}, batch, threshold=threshold)[1]


def test_the_threshold_itself_is_enough_for_fixmatch_and_not_for_pseudo_label():
    assert [halves(fixmatch, t)["mask_rate"].item() for t in (0.5, 0.501)] == [1.0, 0.0]
    assert [halves(pseudo_label, t)["mask_rate"].item() for t in (0.499, 0.5)] == [1.0, 0.0]


@pytest.mark.parametrize("module", [fixmatch, pseudo_label])
def test_where_nothing_passes_there_is_no_loss_and_no_gradient(module):
    loss, logs, table, (_, rows) = run_table(module, threshold=1.0)
    for name in ("loss_unlabelled", "mask_rate", "pseudo_correct", "pseudo_classes"):
        assert logs[name].item() == 0, name
    assert loss == logs["loss_labelled"]
    assert not table.grad[rows["u1"]].any()
    assert not table.grad[rows["u2"]].any()
    assert table.grad[rows["x"]].any()


@pytest.mark.parametrize(
    ("mask", "labels", "classes"),
    [([1, 1, 1, 1], [0, 1, 2, 3], 4.0), ([1, 1, 1, 1], [2, 2, 2, 2], 1.0),
     ([1, 1, 0, 1], [0, 0, 3, 1], np.exp(-(2 / 3 * np.log(2 / 3) + np.log(1 / 3) / 3))),
     ([0, 0, 0, 0], [0, 1, 2, 3], 0.0)],
)  # fmt: skip
def test_the_effective_number_of_classes_counts_what_is_used(mask, labels, classes):
    y = torch.tensor([0, 0, 3, 3])
    found = _ssl.pseudo_figures(torch.tensor(mask).float(), torch.tensor(labels), y, 5)
    assert found["pseudo_classes"].item() == pytest.approx(classes, rel=1e-6)
    right = np.mean(np.array(mask) * (np.array(labels) == y.numpy()))
    assert found["pseudo_correct"].item() == pytest.approx(right)


@pytest.mark.parametrize("label_view", ["weak", "strong"])
@pytest.mark.parametrize("prediction_view", ["weak", "strong"])
def test_fixmatch_asks_for_two_views_label_first(label_view, prediction_view):
    settings = fixmatch.Settings(label_view=label_view, prediction_view=prediction_view)
    found = fixmatch.streams(settings)
    assert found == {"labelled": ("weak",), "unlabelled": (label_view, prediction_view)}


def test_alignment_is_the_hand_computation_over_several_updates(monkeypatch):
    monkeypatch.setattr(fixmatch, "ALIGNMENT_UPDATES", 3)
    settings = fixmatch.Settings(alignment="average")
    memory = fixmatch.modules(settings, nn.Identity(), K, 0)["alignment"]
    places = {name: buffer.data_ptr() for name, buffer in memory.named_buffers()}
    assert not list(memory.parameters())
    window, p_data = [np.full(K, 1 / K)] * 3, np.full(K, 1 / K)
    for update in range(5):
        batch, logits, rows = table_case(update)
        networks = {"main": Table(logits), "alignment": memory}
        _, logs = step(fixmatch, networks, batch, {"alignment": "average"}, threshold=0.6)
        z_w, z_s = numbers(logits[rows["u1"]]), numbers(logits[rows["u2"]])
        q = softmax(z_w)
        ratio = (1e-6 + p_data) / (1e-6 + np.mean(window, axis=0))
        window = [*window[1:], q.mean(0)]
        p_data = 0.999 * p_data + 0.001 * np.bincount(batch.y.numpy(), minlength=K) / B
        aligned = q * ratio / (q * ratio).sum(1, keepdims=True)
        mask = aligned.max(1) >= 0.6
        losses = -np.log(softmax(z_s))[np.arange(N), aligned.argmax(1)]
        assert logs["mask_rate"].item() == pytest.approx(mask.mean())
        assert logs["loss_unlabelled"].item() == pytest.approx((losses * mask).mean(), rel=1e-5)
    assert (aligned.argmax(1) != q.argmax(1)).any()
    assert {name: buffer.data_ptr() for name, buffer in memory.named_buffers()} == places
    assert numbers(memory.get_buffer("means")).mean(0) == pytest.approx(np.mean(window, axis=0))
    assert numbers(memory.get_buffer("p_data")) == pytest.approx(p_data)


def aligning(classes: int) -> nn.Module:
    settings = fixmatch.Settings(alignment="average")
    return fixmatch.modules(settings, nn.Identity(), classes, 0)["alignment"]


def test_alignment_remembers_128_updates_and_starts_uniform():
    memory = aligning(K)
    uniform = torch.full((N, K), 1 / K)
    assert torch.equal(memory.get_buffer("means"), torch.full((128, K), 1 / K))
    y = torch.arange(K)
    assert fixmatch.alignment(memory, uniform, y).tolist() == pytest.approx([0.0] * K, abs=1e-5)
    assert fixmatch.modules(fixmatch.Settings(), nn.Identity(), K, 0) == {}


def test_alignment_spares_the_classes_that_the_first_batches_lack():
    """At most 64 of CIFAR-100's classes are in a batch; no other one may be shut out for that."""
    memory, uniform = aligning(100), torch.full((448, 100), 0.01)
    for update in range(20):
        y = torch.randint(100, (64,), generator=torch.Generator().manual_seed(update))
        ratio = fixmatch.alignment(memory, uniform, y).exp()
        assert ratio.min() >= 0.98 and ratio.max() <= 1.1, update
    # After many updates it is the distribution of the labels.
    for _ in range(4000):
        fixmatch.alignment(memory, uniform[:1], torch.tensor([3, 3, 3, 8]))
    p_data = memory.get_buffer("p_data")
    assert p_data[[3, 8]].tolist() == pytest.approx([0.75, 0.25], abs=0.02)


def test_alignment_off_is_written_as_ever_so_its_runs_keep_their_keys():
    assert methods.load("fixmatch").version == 1
    assert fixmatch.Settings().alignment is False
    for given in (0, "averages", True, None):
        with pytest.raises(UserError, match=r"alignment: must be one of average, false \(found"):
            read(fixmatch.Settings, {"alignment": given}, "method")
    assert read(fixmatch.Settings, {"alignment": False}, "method").alignment is False


@pytest.mark.parametrize("labels_from", ["ema_eval", "ema_train"])
def test_fixmatch_takes_labels_from_the_averaged_network_in_the_mode_that_is_asked(labels_from):
    batch, net = image_case(), network()
    ema = frozen(network(seed=1)).train()
    reference = copy.deepcopy(ema).train(labels_from == "ema_train")
    _, logs = step(fixmatch, {"main": net, "ema": ema}, batch, {"labels_from": labels_from})
    with torch.no_grad():
        labels = reference(batch.unlabelled.views[0]).argmax(1)
    assert logs["pseudo_correct"] <= logs["mask_rate"]
    assert fixmatch.uses_ema(fixmatch.Settings(labels_from=labels_from))
    assert not fixmatch.uses_ema(fixmatch.Settings())
    # With every label used, the loss says which labels they were and what the network saw.
    other = network()
    _, logs = step(
        fixmatch, {"main": other, "ema": ema}, batch, {"labels_from": labels_from}, threshold=0.0
    )
    twin = network()
    z = twin(torch.cat([batch.x, batch.unlabelled.views[1]]))
    expected = F.cross_entropy(z[B:], labels).item()
    assert logs["loss_unlabelled"].item() == pytest.approx(expected, rel=1e-5)
    assert buffers_equal(other, twin)
    assert all(module.training for module in ema.modules())
    assert all(p.grad is None for p in ema.parameters())


def buffers_equal(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.named_buffers(), other.named_buffers(), strict=True)
    return all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) for (_, a), (_, b) in pairs)


def test_fixmatch_makes_one_pass_in_training_mode_over_all_three_views():
    batch, net, twin = image_case(), network(), network()
    loss, _ = step(fixmatch, {"main": net}, batch, threshold=0.0, weight=0.3)
    z = twin(torch.cat([batch.x, *batch.unlabelled.views]))
    z_x, z_w, z_s = z.split([B, N, N])
    expected = F.cross_entropy(z_x, batch.y) + 0.3 * F.cross_entropy(z_s, z_w.argmax(1))
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert_same_gradients(net, twin)
    assert buffers_equal(net, twin)
    tracked = [b.item() for name, b in net.named_buffers() if name.endswith("tracked")]
    assert set(tracked) == {1}
    assert not buffers_equal(net, network())


def assert_same_gradients(one: nn.Module, other: nn.Module, tolerance: float = 1e-6) -> None:
    found, expected = gradients(one), gradients(other)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert gradient is not None, name
        assert gradient.any(), name
        assert torch.allclose(found[name], gradient, rtol=1e-4, atol=tolerance), name


# Mean Teacher.


@pytest.mark.parametrize("consistency", ["mse", "kl"])
@pytest.mark.parametrize("items", ["all", "unlabelled"])
@pytest.mark.parametrize("denominator", ["labelled", "all"])
@pytest.mark.parametrize("forward", ["joint", "separate"])
def test_mean_teacher_is_the_papers_loss(consistency, items, denominator, forward):
    given = dict(consistency=consistency, items=items, denominator=denominator, forward=forward)
    loss, logs, table, (batch, rows) = run_table(mean_teacher, given, weight=3.0)
    f, g = table.detach(), table.detach().flip(0)
    student, teacher = f[rows["u1"]], g[rows["u2"]]
    if items == "all":
        student = torch.cat([f[rows["x"]], student])
        teacher = torch.cat([g[rows["x2"]], teacher])
    p, q = softmax(numbers(student)), softmax(numbers(teacher))
    costs = ((p - q) ** 2).mean(1) if consistency == "mse" else (q * np.log(q / p)).sum(1)
    class_costs = -np.log(softmax(numbers(f[rows["x"]])))[np.arange(B), batch.y.numpy()]
    over = (B, len(costs)) if denominator == "labelled" else (B + N, B + N)
    loss_x, loss_u = class_costs.sum() / over[0], costs.sum() / over[1]
    assert logs["loss_labelled"].item() == pytest.approx(loss_x, rel=1e-5)
    assert logs["loss_consistency"].item() == pytest.approx(loss_u, rel=1e-4)
    assert loss.item() == pytest.approx(loss_x + 3 * loss_u, rel=1e-4)
    right = (g[rows["u2"]].argmax(1) == batch.unlabelled.y).double().mean().item()
    assert logs["target_correct"].item() == pytest.approx(right)


def test_consistency_costs_are_those_of_torch():
    z, target = torch.randn(N, K), torch.randn(N, K)
    mse = F.mse_loss(z.softmax(1), target.softmax(1))
    kl = F.kl_div(z.log_softmax(1), target.softmax(1), reduction="batchmean")
    costs = {kind: mean_teacher.consistency_costs(z, target, kind) for kind in ("mse", "kl")}
    assert costs["mse"].mean().item() == pytest.approx(mse.item(), rel=1e-5)
    assert costs["kl"].mean().item() == pytest.approx(kl.item(), rel=1e-5)


@pytest.mark.parametrize("consistency", ["mse", "kl"])
@pytest.mark.parametrize("target", ["ema", "current"])
def test_the_student_learns_from_the_consistency_cost_and_the_teacher_never(target, consistency):
    given = {"target": target, "consistency": consistency}
    batch, net = image_case(), network("group")
    ema = frozen(network("group", seed=1))
    step(mean_teacher, {"main": net, "ema": ema}, batch, given, weight=5.0)
    plain = network("group")
    F.cross_entropy(plain(batch.x), batch.y).backward()
    teacher = ema if target == "ema" else copy.deepcopy(plain)
    twin = network("group")
    z = twin(torch.cat([batch.x, batch.unlabelled.x]))
    with torch.no_grad():
        t = teacher(torch.cat([batch.views[1], batch.unlabelled.views[1]]))
    cost = F.mse_loss(z.softmax(1), t.softmax(1))
    if consistency == "kl":
        cost = F.kl_div(z.log_softmax(1), t.softmax(1), reduction="batchmean")
    (F.cross_entropy(z[:B], batch.y) + 5 * cost).backward()
    assert_same_gradients(net, twin, 1e-5)
    for name, gradient in gradients(plain).items():
        assert not torch.allclose(gradient, gradients(net)[name], rtol=1e-2), name
    assert all(p.grad is None for p in ema.parameters())


def test_no_gradient_reaches_a_teacher_that_could_take_it():
    batch, net, ema = image_case(), network(), network(seed=1)
    step(mean_teacher, {"main": net, "ema": ema}, batch)
    assert all(p.grad is None for p in ema.parameters())
    net, ema = network(), network(seed=1)
    step(fixmatch, {"main": net, "ema": ema}, batch, {"labels_from": "ema_train"})
    assert all(p.grad is None for p in ema.parameters())


@pytest.mark.parametrize("consistency", ["mse", "kl"])
@pytest.mark.parametrize("gradient", ["one", "both"])
def test_the_pi_models_gradient_is_that_of_the_formula(gradient, consistency):
    given = {"target": "current", "gradient": gradient, "consistency": consistency}
    _, _, table, (batch, rows) = run_table(mean_teacher, given, weight=2.0)
    z = table.detach().clone().requires_grad_()
    s, t = torch.cat([z[rows["x"]], z[rows["u1"]]]), torch.cat([z[rows["x2"]], z[rows["u2"]]])
    t = t if gradient == "both" else t.detach()
    p, q = s.softmax(1), t.softmax(1)
    cost = ((p - q) ** 2).mean() if consistency == "mse" else (q * (q / p).log()).sum(1).mean()
    (F.cross_entropy(z[rows["x"]], batch.y) + 2 * cost).backward()
    assert torch.allclose(table.grad, z.grad, rtol=1e-4, atol=1e-7)
    second = table.grad[rows["u2"]].any() and table.grad[rows["x2"]].any()
    assert second == (gradient == "both")


def test_settings_that_exclude_each_other_are_refused():
    with pytest.raises(UserError, match=r"^gradient: both needs target: current \(found ema\)"):
        mean_teacher.Settings(gradient="both")
    for module in (mean_teacher, pseudo_label):
        with pytest.raises(UserError, match=r"^statistics: labelled needs forward: separate"):
            module.Settings(forward="joint", statistics="labelled")


@pytest.mark.parametrize("forward", ["joint", "separate"])
@pytest.mark.parametrize("items", ["all", "unlabelled"])
def test_mean_teacher_asks_for_a_view_per_network(forward, items):
    found = mean_teacher.streams(mean_teacher.Settings(forward=forward, items=items))
    alone = forward == "separate" and items == "unlabelled"
    assert found["labelled"] == (("weak",) if alone else ("weak", "weak"))
    assert found["unlabelled"] == ("weak", "weak")
    assert mean_teacher.uses_ema(mean_teacher.Settings())
    assert not mean_teacher.uses_ema(mean_teacher.Settings(target="current"))


@each_path
def test_a_method_says_whether_its_step_runs_the_average_in_training_mode(module, given):
    """Only then can the average have running statistics of its own."""
    declared, settings = methods.load(module.__name__.rpartition(".")[2]), module.Settings(**given)
    ema = frozen(network(seed=1)).train()
    before = copy.deepcopy(ema)
    step(module, all_models(module, settings, network(), ema), image_case(), given)
    assert declared.trains_ema(settings) == (not buffers_equal(ema, before))


@pytest.mark.parametrize("name", methods.names())
def test_a_method_that_does_not_read_the_average_does_not_run_it(name):
    declared = methods.load(name)
    settings = declared.chosen({})
    assert declared.uses_ema(settings) or not declared.trains_ema(settings)


def seen(net: nn.Module, *passes: Tensor) -> nn.Module:
    """Return a copy of a network that has made these passes in training mode."""
    twin = copy.deepcopy(net)
    with torch.no_grad():
        for x in passes:
            twin(x)
    return twin


@pytest.mark.parametrize("target", ["ema", "current"])
@pytest.mark.parametrize("consistency_items", ["all", "unlabelled"])
@pytest.mark.parametrize(
    ("forward", "statistics"), [("joint", "all"), ("separate", "all"), ("separate", "labelled")]
)
def test_only_the_students_passes_move_its_statistics(
    target, consistency_items, forward, statistics
):
    batch, net = image_case(), network()
    x, u = batch.x, batch.unlabelled.x
    expected = seen(net, *{"joint": [torch.cat([x, u])], "separate": [x, u]}[forward])
    if statistics == "labelled":
        expected = seen(net, x)
    given = dict(target=target, items=consistency_items, forward=forward, statistics=statistics)
    step(mean_teacher, {"main": net, "ema": frozen(network(seed=1))}, batch, given)
    assert buffers_equal(net, expected)
    assert not buffers_equal(net, network())


@pytest.mark.parametrize("forward", ["joint", "separate"])
@pytest.mark.parametrize("items", ["all", "unlabelled"])
def test_the_teacher_is_in_training_mode_and_the_engine_rules_its_statistics(forward, items):
    batch = image_case()
    x, u = batch.views[1], batch.unlabelled.views[1]
    own, kept = frozen(network(seed=1)), frozen(network(seed=1))
    keep_statistics(kept)
    passes = {"joint": [torch.cat([x, u])], "separate": [x, u]}[forward]
    if forward == "separate" and items == "unlabelled":
        passes = [u]
    expected = seen(own, *passes)
    given = {"forward": forward, "items": items}
    losses = [
        step(mean_teacher, {"main": network(), "ema": ema}, batch, given)[0] for ema in (own, kept)
    ]
    assert buffers_equal(own, expected)
    assert buffers_equal(kept, frozen(network(seed=1)))
    assert losses[0] == losses[1]


@pytest.mark.parametrize("denominator", ["labelled", "all"])
def test_the_second_head_takes_the_consistency_cost(denominator):
    given = {"logit_distance": 0.2, "denominator": denominator}
    batch, net = image_case(), network("group")
    ema = frozen(network("group", seed=1))
    settings = mean_teacher.Settings(**given)
    networks = all_models(mean_teacher, settings, net, ema)
    second = networks["consistency_head"]
    twin, twin_second = copy.deepcopy(net), copy.deepcopy(second)
    loss, logs = step(mean_teacher, networks, batch, given, weight=4.0)
    features = twin.features(torch.cat([batch.x, batch.unlabelled.x]))
    one, two = twin.head(features), twin_second(features)
    t = ema(torch.cat([batch.views[1], batch.unlabelled.views[1]]))
    over = B if denominator == "labelled" else B + N
    expected = F.cross_entropy(one[:B], batch.y, reduction="sum") / over
    expected = expected + 4 * F.mse_loss(two.softmax(1), t.softmax(1))
    expected = expected + 0.2 * F.mse_loss(one, two)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert logs["logit_distance"].item() == pytest.approx(F.mse_loss(one, two).item(), rel=1e-5)
    assert_same_gradients(net, twin, 1e-5)
    assert_same_gradients(second, twin_second, 1e-5)


def test_a_second_head_needs_features():
    settings = mean_teacher.Settings(logit_distance=0.01)
    with pytest.raises(UserError, match="logit_distance"):
        mean_teacher.modules(settings, Table(torch.zeros(2, K)), K, 0)
    assert mean_teacher.modules(mean_teacher.Settings(), Table(torch.zeros(2, K)), K, 0) == {}


# Pseudo-Label.


@pytest.mark.parametrize("forward", ["joint", "separate"])
def test_pseudo_label_is_the_codes_loss(forward):
    given = {"forward": forward, "statistics": "all"}
    loss, logs, table, (batch, rows) = run_table(pseudo_label, given, weight=0.3)
    z = table.detach().clone().requires_grad_()
    z_u = z[rows["u1"]]
    mask = z_u.softmax(1).max(1).values > 0.5
    assert 0 < mask.sum() < N
    loss_u = (F.cross_entropy(z_u, z_u.argmax(1), reduction="none") * mask).mean()
    expected = F.cross_entropy(z[rows["x"]], batch.y) + 0.3 * loss_u
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert logs["loss_unlabelled"].item() == pytest.approx(loss_u.item(), rel=1e-5)
    assert logs["mask_rate"].item() == pytest.approx(mask.double().mean().item())
    assert torch.allclose(table.grad, z.grad, rtol=1e-5, atol=1e-7)
    assert table.grad[rows["u1"]].any()


@pytest.mark.parametrize(
    ("forward", "statistics"), [("joint", "all"), ("separate", "all"), ("separate", "labelled")]
)
def test_pseudo_label_keeps_statistics_as_it_is_set(forward, statistics):
    batch, net = image_case(), network()
    x, u = batch.x, batch.unlabelled.x
    expected = seen(net, *{"joint": [torch.cat([x, u])], "separate": [x, u]}[forward])
    if statistics == "labelled":
        expected = seen(net, x)
    step(pseudo_label, {"main": net}, batch, {"forward": forward, "statistics": statistics})
    assert buffers_equal(net, expected)
    assert pseudo_label.Settings() == pseudo_label.Settings(
        forward="separate", statistics="labelled"
    )


# All three alike.


@pytest.mark.parametrize("module", [fixmatch, mean_teacher, pseudo_label])
def test_the_default_schedules_are_the_papers(module):
    clock, _ = schedules.clock_for(np.full(10, 10), 1000)
    weight = schedules.column(module.Settings().weight, clock)
    last = {fixmatch: 1.0, mean_teacher: 100.0, pseudo_label: 1.0}[module]
    first = {fixmatch: 1.0, mean_teacher: 100 * np.exp(-5), pseudo_label: 0.0}[module]
    over = {fixmatch: 0.0, mean_teacher: 0.27, pseudo_label: 0.4}[module]
    assert weight[0] == pytest.approx(first)
    assert weight[int(1000 * over)] == weight[-1] == pytest.approx(last)
    if over:
        assert weight[int(1000 * over) - 2] < last


@pytest.mark.parametrize("module", [fixmatch, mean_teacher, pseudo_label])
@pytest.mark.parametrize("forward", ["joint", "separate"])
def test_without_weight_the_gradient_is_that_of_supervised_training(module, forward):
    given = {} if module is fixmatch else {"forward": forward, "statistics": "all"}
    batch, net, plain = image_case(), network("group"), network("group")
    ema = frozen(network("group", seed=1))
    step(module, {"main": net, "ema": ema}, batch, given, weight=0.0)
    F.cross_entropy(plain(batch.x), batch.y).backward()
    assert_same_gradients(net, plain, 1e-6)


def run_images(
    module: Any, given: dict[str, Any], networks: dict[str, nn.Module], **changes: float
) -> list[float]:
    """Return the loss and the gradients of a step that leaves the networks as they were."""
    networks = copy.deepcopy(networks)
    loss, _ = step(module, networks, image_case(), given, **changes)
    return [loss.item(), *torch.cat([p.grad.flatten() for p in networks["main"].parameters()])]


@each_path
def test_quantities_come_from_the_row_alone(module, given):
    quantities = methods.load(module.__name__.rpartition(".")[2]).quantities
    assert set(quantities) == DEFAULTS[module].keys()
    net, ema = network(), frozen(network(seed=1))
    for confident in (net, ema):
        confident.head.weight.data.mul_(20)
    networks = all_models(module, module.Settings(**given), net, ema)
    first = run_images(module, given, networks)
    assert run_images(module, {**given, **dict.fromkeys(quantities, 0.123)}, networks) == first
    other = {"threshold": 0.999, "weight": 1.3, "temperature": 20.0}
    for name in quantities:
        assert run_images(module, given, networks, **{name: other[name]})[0] != first[0], name


@each_path
def test_a_step_never_waits_and_keeps_every_log_a_scalar(module, given):
    batch, net = image_case(), network()
    networks = all_models(module, module.Settings(**given), net, frozen(network(seed=1)))
    settings, values = module.Settings(**given), row(module)
    with NoWaiting():
        loss, logs = module.step(networks, batch, values, settings, torch.Generator())
        loss.backward()
    assert all(value.shape == () and value.isfinite() for value in (loss, *logs.values()))


@contextmanager
def recording(net: nn.Module) -> Iterator[list[bool]]:
    """Record whether each pass through a network is made with a graph."""
    modes: list[bool] = []
    hook = net.body.register_forward_pre_hook(lambda *_: modes.append(torch.is_grad_enabled()))
    yield modes
    hook.remove()


@each_path
def test_half_precision_gives_the_gradients_of_full_precision(module, given):
    # Under autocast the weights are cast once; where torch keeps a cast that was made without a
    # graph, later passes have no gradient. So the first pass must have one.
    batch, found = image_case(), []
    ema = frozen(network(seed=1))
    for half in (False, True):
        torch.manual_seed(3)
        net = network()
        networks = all_models(module, module.Settings(**given), net, copy.deepcopy(ema))
        values, settings = row(module, threshold=0.0, weight=2.0), module.Settings(**given)
        with recording(net) as modes, torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss, _ = module.step(networks, batch, values, settings, torch.Generator())
        assert loss.dtype == torch.float32
        assert modes[0]
        loss.backward()
        trained = [p for name, m in networks.items() if name != "ema" for p in m.parameters()]
        assert all(p.grad is not None for p in trained)
        found.append(torch.cat([p.grad.flatten() for p in trained]))
    assert F.cosine_similarity(*found, dim=0) > 0.98
    assert found[1].norm() == pytest.approx(found[0].norm().item(), rel=0.1)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_method_file_knows_no_device(path):
    text = path.read_text()
    for word in ("cuda", "stream(", "Stream(", "CUDAGraph", ".item(", ".cpu(", ".numpy("):
        assert word not in text, word


def test_planning_needs_no_torch():
    code = (
        "import sys\nfrom cyclery import methods\n"
        "for name in methods.names():\n"
        "    method = methods.load(name)\n"
        "    chosen = method.chosen({})\n"
        "    method.streams(chosen), method.uses_ema(chosen), method.trains_ema(chosen)\n"
        "assert 'torch' not in sys.modules\n"
    )
    source = FILES[0].parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(source)})
