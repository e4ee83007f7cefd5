"""What the semi-supervised methods share: thresholds, schedules, no waiting, half precision."""

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
from factories.semi_supervised import (
    DEFAULTS,
    Table,
    all_models,
    assert_same_gradients,
    buffers_equal,
    each_path,
    frozen,
    image_case,
    network,
    row,
    run_table,
    step,
    table_case,
)
from factories.threads import one_thread
from torch import Tensor, nn

from cyclery import methods, schedules
from cyclery.common.errors import UserError
from cyclery.methods import _ssl, fixmatch, mean_teacher, pseudo_label, vat

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

FILES = [
    Path(module.__file__ or "") for module in (_ssl, fixmatch, mean_teacher, pseudo_label, vat)
]


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


def test_no_gradient_reaches_a_teacher_that_could_take_it():
    batch, net, ema = image_case(), network(), network(seed=1)
    step(mean_teacher, {"main": net, "ema": ema}, batch)
    assert all(p.grad is None for p in ema.parameters())
    net, ema = network(), network(seed=1)
    step(fixmatch, {"main": net, "ema": ema}, batch, {"labels_from": "ema_train"})
    assert all(p.grad is None for p in ema.parameters())


def test_settings_that_exclude_each_other_are_refused():
    with pytest.raises(UserError, match=r"^gradient: both needs target: current \(found ema\)"):
        mean_teacher.Settings(gradient="both")
    for module in (mean_teacher, pseudo_label, vat):
        with pytest.raises(UserError, match=r"^statistics: labelled needs forward: separate"):
            module.Settings(forward="joint", statistics="labelled")


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


@pytest.mark.parametrize("module", [fixmatch, mean_teacher, pseudo_label, vat])
def test_the_default_schedules_are_the_papers(module):
    clock, _ = schedules.clock_for(np.full(10, 10), 1000)
    weight = schedules.column(module.Settings().weight, clock)
    last = {fixmatch: 1.0, mean_teacher: 100.0, pseudo_label: 1.0, vat: 0.3}[module]
    first = {fixmatch: 1.0, mean_teacher: 100 * np.exp(-5), pseudo_label: 0.0, vat: 0.0}[module]
    over = {fixmatch: 0.0, mean_teacher: 0.27, pseudo_label: 0.4, vat: 0.4}[module]
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
    other = {"threshold": 0.999, "weight": 1.3, "temperature": 20.0, "epsilon": 1.0,
             "entropy_weight": 0.9, "xi": 0.5}  # fmt: skip
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
