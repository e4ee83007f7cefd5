"""The benchmark: fair contenders, honest ratios and goals, and what is stored and shown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from factories.project import run
from factories.replay import Recorder
from torch import Tensor

from cyclery import methods, schedules
from cyclery.bench import cases, contenders, goals, measure, plain, session, turns
from cyclery.bench.cases import CNN_16, EAGER, LOOP, LOOPS, Case, Net, captured
from cyclery.bench.children import Children, read, spec
from cyclery.bench.command import PUBLISHED
from cyclery.bench.contenders import Engine, synthetic

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
TINY = Net("tiny", "bn_mlp", {"hidden": [16]}, (1, 8, 8))
CASE = Case("step/tiny/32", TINY, 32, 4, (LOOP, EAGER))
FIXMATCH = replace(CASE, row="fixmatch/tiny/32", method="fixmatch", mu=cases.MU, steps=2)
FOCAL = replace(CASE, row="focal/tiny/32", method="cyclical_focal")
KD = replace(CASE, row="kd/tiny/32", method="kd", teacher=replace(TINY, settings={"hidden": [24]}))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


# The loops written by hand.


@pytest.mark.parametrize("case", [replace(CASE, steps=60), replace(FIXMATCH, steps=30)])
def test_the_loops_learn(case: Case) -> None:
    train = contenders.by_hand(case, LOOP, synthetic(case, CPU))
    losses = [train() for _ in range(5)]
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("case", [CASE, FOCAL], ids=lambda case: case.method)
def test_a_loop_evaluates_in_evaluation_mode(case: Case) -> None:
    case = replace(case, steps=120)
    data = synthetic(case, CPU)
    ids = torch.arange(1000)
    loop = plain.LOOPS[case.method](data.images, data.labels, case.task(LOOP) | {"train": ids})
    before = loop.evaluate(ids)
    loop.epoch()
    after = loop.evaluate(ids)
    assert after[0] > before[0] + 0.3 and after[1] < before[1]
    assert loop.evaluate(ids) == after and loop.net.training


@pytest.mark.parametrize("case", [CASE, FIXMATCH, FOCAL, KD], ids=lambda case: case.method)
@pytest.mark.parametrize("net", [TINY, CNN_16])
def test_loop_and_engine_do_the_same_work(
    case: Case, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same weights, averages and loss after two epochs of the same samples, not augmented."""
    case = replace(case, net=net, steps=3)
    monkeypatch.setattr(Case, "augment", [])
    monkeypatch.setattr(Case, "strong", [])
    data = synthetic(case, CPU)
    made = Engine(case, EAGER, data, CPU).run(0)
    task = case.task(LOOP) | {name: ids for name, ids in made.ids.items()}
    loop = plain.LOOPS[case.method](data.images, data.labels, task)
    if isinstance(loop, plain.Distilled):
        loop.teacher.load_state_dict(made.models["teacher"].parts["main"].state_dict())
    with torch.no_grad():
        for own, other in zip(loop.weights, made.models["main"].parameters(), strict=True):
            own.copy_(other)
        for own, weight in zip(loop.averaged, loop.weights, strict=True):
            own.copy_(weight)
    orders: list[Tensor] = []
    monkeypatch.setattr(plain, "shuffled", lambda ids, size: orders.pop(0))
    for _ in range(2):
        made.train_epoch()
        orders += [feed._order for feed in made.feeds.values()]
        loss = loop.epoch()
        assert loss == pytest.approx(made.curve["train_loss"][-1], rel=1e-4)
    for name, own in (("main", loop.weights), ("ema", loop.averaged)):
        for tensor, other in zip(own, made.models[name].parameters(), strict=True):
            torch.testing.assert_close(tensor, other, rtol=1e-4, atol=1e-5)


def test_plain_fixmatch_has_the_loss_of_the_method() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10), torch.nn.BatchNorm1d(10))
    x, weak, strong = torch.randn(8, 1, 8, 8), torch.randn(56, 1, 8, 8), torch.randn(56, 1, 8, 8)
    y, hidden = torch.randint(10, (8,)), torch.randint(10, (56,))
    method = methods.load("fixmatch")
    unlabelled = SimpleNamespace(views=(weak, strong), y=hidden)
    batch = SimpleNamespace(x=x, y=y, unlabelled=unlabelled)
    row = {"threshold": torch.tensor(0.4), "weight": torch.ones(()), "temperature": torch.ones(())}
    loss, logs = method.step({"main": net}, batch, row, method.settings_type(), torch.Generator())
    assert 0 < logs["mask_rate"] < 1
    torch.testing.assert_close(plain.fixmatch_loss(net, x, y, weak, strong, 0.4), loss)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_plain_focal_loss_is_that_of_the_method(eta: float) -> None:
    torch.manual_seed(0)
    logits, y = torch.randn(8, 10), torch.randint(10, (8,))
    method = methods.load("cyclical_focal")
    row = {"eta": eta, "gamma_hc": 3.0, "gamma_pos": 2.0, "gamma_neg": 2.0}
    batch = SimpleNamespace(x=logits, y=y)
    loss, _ = method.step(
        {"main": torch.nn.Identity()}, batch, {k: torch.tensor(v) for k, v in row.items()},
        method.settings_type(label_smoothing=0.1), torch.Generator(),
    )  # fmt: skip
    hot = torch.eye(10)[y]
    torch.testing.assert_close(plain.focal_loss(logits, hot, 0.9 * hot + 0.01, eta, 3.0), loss)


def test_the_plain_cycle_is_that_of_the_engine() -> None:
    case = replace(FOCAL, steps=2)
    data = synthetic(case, CPU)
    loop = plain.CyclicalFocal(data.images, data.labels, case.task(LOOP))
    found = []
    for loop.update in range(2 * cases.EPOCHS):
        found.append(loop.eta())
    clock, _ = schedules.clock_for(np.full(cases.EPOCHS, 32), 64)
    spec = case.settings(EAGER, 0)["schedules"]["eta"]
    assert found == pytest.approx(schedules.column(spec, clock, 0, None).tolist(), abs=1e-12)


def test_plain_distillation_has_the_loss_of_the_method() -> None:
    torch.manual_seed(0)
    x, teacher, y = torch.randn(8, 10), torch.nn.Linear(10, 10), torch.randint(10, (8,))
    method, row = methods.load("kd"), {"temperature": torch.tensor(4.0), "soft": torch.tensor(0.9)}
    models = {"main": torch.nn.Identity(), "teacher": teacher.requires_grad_(False)}
    batch = SimpleNamespace(x=x, y=y)
    loss, logs = method.step(models, batch, row, method.settings_type(), torch.Generator())
    assert logs["loss_soft"] > 0
    torch.testing.assert_close(plain.kd_loss(x, teacher(x), y, 4.0, 0.9), loss)


def test_every_run_has_a_teacher_of_its_own() -> None:
    engine = Engine(KD, EAGER, synthetic(KD, CPU), CPU)
    one, again, other = (
        engine.run(seed).models["teacher"].parts["main"].state_dict() for seed in (0, 0, 1)
    )
    weights = [name for name, value in one.items() if value.ndim == 2]
    assert {tuple(one[name].shape) for name in weights} == {(24, 64), (10, 24)}
    for name in weights:
        assert torch.equal(one[name], again[name]) and not torch.equal(one[name], other[name])


@pytest.mark.parametrize("variant", [cases.LOOPS[1], cases.EAGER_BF16])
def test_bf16_on_a_cpu_trains(variant: cases.Variant) -> None:
    case = replace(CASE, net=CNN_16, variants=(LOOP, variant))
    found = measure.row(case, CPU, 0)["variants"][variant.name]
    assert variant.name.endswith("bf16") and found["ratio_to"].keys() == {LOOP.name}


# Turns and ratios.


def test_what_drifts_slowly_cancels_out() -> None:
    """A machine that gets ever slower: who needs half the time is twice as fast all the same."""
    now = [0.0]
    order: list[str] = []

    def work(name: str, seconds: float) -> None:
        order.append(name)
        now[0] += seconds * (1 + 0.02 * len(order))

    taken = turns.take(
        {"a": lambda: work("a", 1.0), "b": lambda: work("b", 0.5)}, 30, lambda: now[0]
    )
    assert order[:5] == ["a", "b", "a", "b", "a"] and order[-1] == "a"
    assert len(taken["a"]) == len(taken["b"]) + 1 > turns.LEAST
    assert now[0] <= 30 + 2 * 2
    ratios = turns.ratios(turns.around(taken["a"]), taken["b"])
    assert ratios == pytest.approx([2.0] * len(ratios))
    assert turns.ratios([1.0], [2.0], 8) == [4.0]


def test_turns_are_few_where_time_is_short_and_never_too_many() -> None:
    ticks = iter(range(100_000))
    few = turns.take({"a": lambda: None, "b": lambda: None}, 0, lambda: float(next(ticks)))
    many = turns.take({"a": lambda: None, "b": lambda: None}, 1e9, lambda: float(next(ticks)))
    assert (len(few["b"]), len(many["b"])) == (turns.LEAST, turns.MOST)


def test_a_row_of_replayed_runs_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, with a stand-in for graphs: runs are shared by the widths and end together."""
    monkeypatch.setattr(contenders, "Graphs", Recorder)
    case = replace(CASE, variants=(*LOOPS, EAGER, *captured(1, 2)))
    found = measure.row(case, CPU, 0)
    assert list(found["variants"]) == [
        "loop fp32", "loop bf16", "engine eager fp32", "captured bf16", "captured bf16 x 2",
    ]  # fmt: skip
    both = found["variants"]["captured bf16 x 2"]
    assert both["width"] == 2 and both["ratio_to"].keys() == {"loop fp32", "loop bf16"}
    rates = sorted(2 * 32 * 4 / s for s in both["seconds"])
    assert both["images_per_second"]["median"] == pytest.approx(rates[1], rel=0.01)
    assert json.loads(json.dumps(found)) == found


def test_widths_share_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contenders, "Graphs", Recorder)
    engine = Engine(CASE, captured(1)[0], synthetic(CASE, CPU), CPU)
    engine.grow(1)
    engine.train(1)
    engine.grow(2)
    engine.train(2)
    assert [run.epoch for run in engine.runs] == [2, 1]
    assert not torch.equal(engine.runs[0].flat.data, engine.runs[1].flat.data)


def test_an_engine_that_could_not_be_captured_is_not_measured(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Refuses(Recorder):
        def __call__(self, function: Any, generators: Any) -> Any:
            raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(contenders, "Graphs", Refuses)
    case = replace(CASE, variants=(LOOP, *captured(1)))
    with pytest.raises(RuntimeError, match="not captured"):
        measure.row(case, CPU, 0)


def test_whole_runs_are_trained_and_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    case = replace(CASE, whole=2)
    engine = Engine(case, EAGER, synthetic(case, CPU), CPU)
    made = []
    made_by = engine.run
    monkeypatch.setattr(engine, "run", lambda seed: made.append(made_by(seed)) or made[-1])
    engine.grow(2)
    engine.train(2)
    assert [one.finished for one in made] == [True, True]
    assert [len(one.curve["eval_epoch"]) for one in made] == [2, 2]
    seen = []
    monkeypatch.setattr(plain.Supervised, "evaluate", lambda self, ids: seen.append(len(ids)))
    contenders.by_hand(case, LOOP, synthetic(case, CPU))()
    assert seen == 2 * [cases.VALIDATION, cases.TEST]


def test_a_child_is_timed_from_its_start_and_trains_when_told() -> None:
    one = replace(CASE, steps=1)
    given = spec(one, EAGER, CPU)
    assert read(json.loads(json.dumps(given))) == (replace(one, variants=(EAGER,)), EAGER)
    children = Children([given])
    [first] = children.answers()
    children.train()
    children.close()
    assert first["memory"] > 50 * 2**20
    assert read(json.loads(json.dumps(spec(KD, EAGER, CPU))))[0].teacher == KD.teacher
    failing = Children([given | {"device": "nowhere"}])
    with pytest.raises(RuntimeError, match="ended with code 1"):
        failing.answers()
    failing.close()


def test_rows_have_names_and_the_time_to_the_first_step() -> None:
    for device in ("cpu", "cuda"):
        every = cases.rows(device, 4, True)
        assert len({case.row for case in every}) == len(every)
        assert all(case.variants[0] == LOOP for case in every)
    assert [v.name for v in cases.rows("cpu", 3, True)[-1].variants[1:]] == [
        "engine, 1 process", "engine, 2 processes",
    ]  # fmt: skip
    by_name = {case.row: case for kind in ("cpu", "cuda") for case in cases.rows(kind, 16, True)}
    for goal in goals.GOALS:
        for row in goal.rows:
            assert set(goal.variants) & set(by_name[row].variants), row
    assert len({row for goal in goals.GOALS for row in goal.rows}) == 10 + 5


def test_what_the_processor_cannot_compute_is_not_asked_of_the_engine() -> None:
    with_it, without = (
        {name: case for case in cases.rows("cpu", 2, bf16) for name in [case.row]}
        for bf16 in (True, False)
    )
    bf16 = {row for row, case in with_it.items() if cases.EAGER_BF16 in case.variants}
    assert bf16 == {"step/small-cnn-16-28/64"} and with_it.keys() == without.keys()
    assert not any(cases.EAGER_BF16 in case.variants for case in without.values())


# The session and the command.


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(device: str, cores: int, bf16: bool) -> list[Case]:
        broken = replace(CASE, row="step/broken/1", net=replace(TINY, name="no_such_net"))
        return [CASE, broken, replace(FIXMATCH, variants=cases.with_compile(1))]

    monkeypatch.setattr(cases, "rows", rows)
    monkeypatch.setattr(measure, "row", lambda case, *a, real=measure.row: real(case, a[0], 0))


@pytest.mark.usefixtures("short")
def test_a_row_that_fails_or_does_not_fit_leaves_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "bench.json"
    command = ["bench", "--device", "cpu", "--rows", "step/*", "--json", str(target)]
    run(tmp_path, *command, "--rows", "fixmatch/*", "--minutes", "0.5", expect=1)
    said = capsys.readouterr().out
    found = json.loads(target.read_text())
    assert [row["row"] for row in found["rows"]] == ["step/tiny/32"]
    assert "no_such_net" in found["failed"]["step/broken/1"]
    assert found["left_out"] == {"fixmatch/tiny/32": "does not fit into 0.5 minutes"}
    assert "tiny, batch 32" in said and "engine eager fp32" in said and "needs a GPU" in said
    assert found["goals"] == goals.goals(found) and found["kind"] == "cpu"


@pytest.mark.usefixtures("short")
def test_a_part_is_stored_only_where_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, "bench", "--device", "cpu", "--rows", "step/tiny/*")
    assert "stored" not in capsys.readouterr().out and not list(tmp_path.iterdir())
    run(tmp_path, "bench", "--device", "cpu", "--rows", "step/none", expect=2)
    said = capsys.readouterr().err
    assert "no such row. Rows: step/tiny/32, " in said and "first-step" in said


def test_whole_runs_are_published_under_the_name_of_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "device_name", lambda device: "A CPU (R)")
    monkeypatch.setattr(session.Session, "measure", lambda self, names: iter([["a row"]]))
    run(tmp_path, "bench", "--device", "cpu")
    assert [path.name for path in (tmp_path / PUBLISHED).iterdir()] == ["a-cpu.json"]
