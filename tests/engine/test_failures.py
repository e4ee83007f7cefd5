"""A run that fails is named, the others of its job go on, and a second start trains it alone."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import engine as factory
from factories import method as method_factory
from factories import project as project_factory
from factories.component import Write

from cyclery.cli.main import main
from cyclery.common.errors import UserError
from cyclery.engine.cohort import FixedWidth
from cyclery.engine.cuda import FreeMemory
from cyclery.engine.failures import NAMED, Failure, RunFailed, naming, summary
from cyclery.engine.train import Trainer
from cyclery.records.record import Job

pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")

# Fails in the second epoch of those runs whose smoothing is 0.5. It reads a number off a tensor, so
# such runs are trained one by one.
FAILING = "models['main'].count = getattr(models['main'], 'count', 0) + (z.sum().item() < 1e9)\n"
FAILING += "    if settings.smoothing == 0.5 and models['main'].count > 4: raise ValueError('boom')"


write = pytest.fixture(method_factory.written)


def job(name: str, seed: int, smoothing: float = 0.0, **changes: Any) -> Job:
    given = factory.settings(name, seed=seed, method_settings={"smoothing": smoothing})
    return factory.job({**given, **changes}, label=f"one/main/{name} s{seed}")


def beside(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a trainer take its jobs side by side, as on a GPU."""
    trainer._admission = FixedWidth(2)
    monkeypatch.setattr(
        Trainer,
        "_train_all",
        lambda self, jobs, wait, device: self._side_by_side(jobs, wait, device),
    )


@pytest.mark.parametrize("way", ["serial", "processes", "cohort"])
def test_the_others_go_on_and_a_second_start_trains_what_failed(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    path = write("shaky", method_factory.text(before=FAILING))
    jobs = [job("shaky", 0), job("shaky", 1, 0.5), job("shaky", 2), job("shaky", 3)]
    trainer = factory.trainer(tmp_path / "store", workers=2 if way == "processes" else 1)
    if way == "cohort":
        beside(trainer, monkeypatch)
    with pytest.raises(UserError) as found:
        trainer.train(jobs)
    said = str(found.value)
    assert said.startswith("1 of 4 runs failed, the others are kept:\none/main/shaky s1: ")
    assert f"ValueError: boom ({path}:" in said and "s0" not in said and "Traceback" not in said
    kept = [trainer.store.read(each["key"]) for each in jobs]
    assert [record is not None for record in kept] == [True, False, True, True]
    write("shaky", method_factory.text())
    again = factory.trainer(tmp_path / "store")
    assert len(again.train(jobs)) == 4
    assert list(again.trained) == [jobs[1]["key"]]


def test_an_error_at_the_beginning_is_a_runs_own(write: Write, tmp_path: Path) -> None:
    hook = """
        def begin(models, samples, settings):
            if settings.smoothing:
                raise KeyError("nothing there")
    """
    write("shaky", method_factory.text(more=hook))
    trainer = factory.trainer(tmp_path / "store")
    with pytest.raises(UserError, match="one/main/shaky s0: KeyError: 'nothing there'"):
        trainer.train([job("shaky", 0, 0.5), job("shaky", 1)])
    assert [record["settings"]["seed"] for record in trainer.trained.values()] == [1]


def test_runs_that_need_one_which_failed_fail_with_it(write: Write, tmp_path: Path) -> None:
    write("shaky", method_factory.text(before=FAILING))
    parent, other = {**job("shaky", 0, 0.5), "keep": True}, job("shaky", 1)
    start = {"init": "start", "init_share": 1.0, "parents": {"start": [parent["key"]]}}
    child = job("shaky", 2, **start)
    trainer = factory.trainer(tmp_path / "store")
    with pytest.raises(UserError) as found:
        trainer.train([parent, child, other])
    assert "2 of 3 runs failed" in str(found.value)
    assert "one/main/shaky s2: not trained, for it needs one/main/shaky s0" in str(found.value)
    assert list(trainer.trained) == [other["key"]]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("damage", ["altered", "gone"])
def test_a_parent_that_was_damaged_fails_its_children_alone(
    tmp_path: Path, workers: int, damage: str
) -> None:
    parent = factory.job(factory.settings(seed=0), keep=True, label="one/main/parent s0")
    start = {"init": "start", "init_share": 1.0, "parents": {"start": [parent["key"]]}}
    child = factory.job({**factory.settings(seed=1), **start}, label="one/main/child s1")
    others = [factory.job(factory.settings(seed=seed)) for seed in (2, 3)]
    trainer = factory.trainer(tmp_path, workers=workers)
    trainer.train([parent])
    if damage == "altered":
        path = trainer.store.checkpoint(parent["key"])
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        message = f"one/main/child s1: {path}: the checkpoint is not the one"
    else:
        (trainer.store.folder(parent["key"]) / "record.json").unlink()
        message = "one/main/child s1: its parent 'start'"
    with pytest.raises(UserError) as found:
        trainer.train([child, *others])
    head, said, *_ = str(found.value).splitlines()
    assert head == "1 of 3 runs failed, the others are kept:" and said.startswith(message)
    assert said.count("one/main/child") == 1
    assert trainer.trained.keys() == {job["key"] for job in others}


def test_a_message_of_a_run_alone_is_one_line(write: Write, tmp_path: Path) -> None:
    write("wrong", method_factory.text(returned="loss"))
    with pytest.raises(UserError) as found:
        factory.trainer(tmp_path).train([job("wrong", 0)])
    assert str(found.value).startswith("one/main/wrong s0: method: the step of 'wrong' must return")
    assert "\n" not in str(found.value)


def test_many_failures_are_few_lines() -> None:
    alike = [Failure(f"{i}", f"one/main/arm s{i}", "boom", "") for i in range(100)]
    assert len(summary(alike, 100).splitlines()) == 3
    assert f"s{NAMED - 1} and 95 more: boom" in summary(alike, 100)
    others = [Failure(f"{i}", f"one/main/arm s{i}", "x" * 300 + f"{i}", "") for i in range(100)]
    assert len(summary(others, 100)) < 2000 and "and 95 other errors" in summary(others, 100)


def test_memory_that_ran_out_beside_others_is_still_known() -> None:
    card = FreeMemory(torch.device("cpu"))
    with pytest.raises(RunFailed) as found, naming({"key": "k", "label": "l", "settings": {}}):
        raise torch.OutOfMemoryError("out of memory")
    assert card.overflows(found.value, 2)


def test_the_command_names_what_failed_and_its_log_has_the_traceback(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("shaky", method_factory.text(before=FAILING))
    paper = copy.deepcopy(project_factory.PAPER)
    arms = project_factory.arms(paper)
    arms["fast"]["method"] = {"name": "shaky", "smoothing": 0.5}
    config = {"tier": "smoke", "device": "cpu"}
    project_factory.write(tmp_path, project_factory.TIER, paper, config)
    root, log = ["--root", str(tmp_path)], tmp_path / "job.log"
    assert main([*root, "prepare", "digits"]) == 0
    output = tmp_path / "records.jsonl"
    command = [*root, "train", "one/L0-0000", "--output", str(output), "--log", str(log)]
    capsys.readouterr()
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "cyclery: 2 of 4 runs failed, the others are kept:" in said
    assert "one/main/fast s0, one/main/fast s1: ValueError: boom" in said
    assert "Traceback" not in said and not output.exists()
    written = log.read_text()
    assert "Traceback" in written and "raise ValueError('boom')" in written
    state = json.loads((tmp_path / "results/smoke/progress/records/one/L0-0000.json").read_text())
    assert state["state"] == "failed" and "ValueError: boom" in state["error"]
    assert (state["done"], state["running"]) == (2, [])
    write("shaky", method_factory.text())
    assert main(command) == 0
    assert len(output.read_text().splitlines()) == 4


def test_a_batch_of_one_sample_under_batch_norm_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"batch norm was given a single sample.*raise `batch`"):
        factory.trainer(tmp_path).train([factory.job(factory.settings(batch=1))])
