"""`cyclery check --method`: real steps of a method, watched, and a line for each mistake."""

from __future__ import annotations

import copy
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import checkout as checkout_factory
from factories import component
from factories import method as method_factory
from factories import project as project_factory
from factories.component import Write

from cyclery import methods, models
from cyclery.authoring import try_methods
from cyclery.cli.main import main

write = pytest.fixture(method_factory.written)


def tried(root: Path, *arms: dict[str, object], name: str | None = None) -> int:
    """Run `cyclery check --method` on a project with these settings of methods."""
    paper = copy.deepcopy(project_factory.PAPER)
    for arm, method in zip(project_factory.arms(paper).values(), arms, strict=False):
        arm["method"] = method
    project_factory.write(root, project_factory.TIER, paper)
    return main(["--root", str(root), "check", "--method", *([name] if name else [])])


EMA = "def uses_ema(settings):\n    return True\n"
# What a method's file has wrong, the code of its line and what is said of it.
MISTAKES: dict[str, tuple[dict[str, str], str, str]] = {
    "a bare loss": ({"returned": "loss"}, "def step", "the step of 'wrong' must return (loss, "),
    "an error": ({"before": "z.nothing"}, "z.nothing", "AttributeError: 'Tensor' object has no"),
    "torch's draw": ({"before": "z = z * torch.rand(1)"}, "", "draws from torch's global gene"),
    "numpy's draw": (
        {"before": "z = z * __import__('numpy').random.rand()"}, "", "draws from numpy's global",
    ),
    "Python's draw": (
        {"before": "z = z * __import__('random').random()"}, "", "draws from Python's global",
    ),
    "a draw in begin": (
        {"more": "def begin(models, samples, settings):\n    torch.rand(1)"},
        "def begin", "draws from torch's global generator in its `begin`",
    ),
    "a draw of the system's": (
        {"before": "z = z * __import__('random').SystemRandom().random()"},
        "def step", "computed something else when they were made again",
    ),
    "float": ({"before": "z = z * float(z.detach().mean())"}, "", "waits for a value on the host"),
    "a quantity that is not there": (
        {"before": "z = z * row['temprature']"}, "", "Did you mean 'temperature'? There are: ",
    ),
    "item": ({"before": "z = z * z.detach().mean().item()"}, "", "waits for a value on the host"),
    "numpy": ({"before": "z.detach().numpy()"}, "", "waits for a value on the host"),
    "tolist": ({"before": "z.detach().tolist()"}, "", "waits for a value on the host"),
    "a choice by value": ({"before": "z = z if z.mean() > 0 else -z"}, "", "waits for a value on"),
    "a quantity": ({"before": "settings.temperature"}, "", "reads `settings.temperature`"),
    "a stream": ({"before": "batch.unlabelled.x"}, "", "the batch has no stream 'unlabelled'"),
    "a view": ({"before": "batch.views[1]"}, "", "reads view 1 of a stream for which `streams`"),
    "a module": ({"before": "models['head']"}, "", "`models[\"head\"]`, which is not there; decl"),
    "an average": ({"before": "models['ema']"}, "", "`models[\"ema\"]`, which is not there; decl"),
    "a pass of the average": (
        {"before": "models['ema'](batch.x)", "more": EMA}, "", "so `trains_ema` must return True",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_with_its_place(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str], mistake: str
) -> None:
    given, code, message = MISTAKES[mistake]
    path = write("wrong", method_factory.text(**given))
    lines = path.read_text().splitlines()
    [number] = [i for i, line in enumerate(lines, 1) if (code or given["before"]) in line]
    # No arm asks for it.
    assert tried(tmp_path, name="wrong") == 2
    said = capsys.readouterr().err.removeprefix("cyclery: ")
    assert said.startswith(f"{path}:{number}: ") and message in said
    assert len(said.splitlines()) == 1


def test_all_mistakes_of_a_step_are_told_at_once(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = "z = z * torch.rand(1)\n    z = z * z.detach().mean().item()\n    settings.temperature"
    write("wrong", method_factory.text(before=before))
    assert tried(tmp_path, name="wrong") == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 3
    for word in ("global generator", "on the host", "`settings.temperature`"):
        assert word in said


def test_without_a_name_the_methods_of_arms_are_tried(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("wrong", method_factory.text(before="settings.temperature"))
    assert tried(tmp_path, {"name": "wrong"}, {"name": "wrong"}) == 2
    said = capsys.readouterr().err
    assert said.rstrip().endswith("(arm one/main/plain)") and len(said.splitlines()) == 1
    assert tried(tmp_path, {"name": "supervised"}) == 0
    # Without the question no torch is asked, and nothing is known of it.
    tried(tmp_path, {"name": "wrong"})
    assert main(["--root", str(tmp_path), "check"]) == 0


def test_the_method_that_the_readme_shows_is_good(write: Write, tmp_path: Path) -> None:
    readme = (checkout_factory.ROOT / "README.md").read_text(encoding="utf-8")
    [shown] = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    write("margin", shown)
    cycle = {"kind": "cycle", "easy": 0, "hard": 0.2}
    assert tried(tmp_path, {"name": "margin"}, {"name": "margin", "margin": cycle}) == 0


def test_schedules_that_count_a_runs_updates_are_tried(tmp_path: Path) -> None:
    # The tries are shorter than the run of ten updates.
    late = {"kind": "once", "value": 0.1, "otherwise": 0.01, "at": 9}
    stages = [{"updates": 4, "schedule": late | {"at": 3}}, {"updates": 6, "schedule": 0.1}]
    paper = copy.deepcopy(project_factory.PAPER)
    project_factory.arms(paper)["plain"]["lr"] = late
    project_factory.arms(paper)["fast"]["lr"] = {"kind": "staged", "stages": stages}
    project_factory.arms(paper)["student"] = {"method": "kd", "parents": {"teacher": "plain"}}
    project_factory.write(tmp_path, project_factory.TIER, paper)
    assert main(["--root", str(tmp_path), "check", "--method"]) == 0


def test_an_average_that_happens_to_be_there_must_be_declared(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("wrong", method_factory.text(before="models['ema']"))
    tier = {**project_factory.TIER, "base": {**project_factory.TIER["base"], "ema_decay": 0.9}}
    project_factory.write(tmp_path, tier, project_factory.PAPER)
    assert main(["--root", str(tmp_path), "check", "--method", "wrong"]) == 2
    assert "does not declare it: `uses_ema` must return True" in capsys.readouterr().err


NETWORK = """
from dataclasses import dataclass
from math import prod

from torch import nn

from cyclery.models import ModelSettings


@dataclass(frozen=True)
class Settings(ModelSettings):
    \"\"\"One layer.\"\"\"


def build(settings, shape, classes):
    return nn.Sequential({layers})
"""


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("nn.Flatten(), nn.Linear(prod(shape), 7)", "must give logits [2, 10] of images [2, 1, 8,"),
        ("nn.Linear(prod(shape), classes)", "RuntimeError: mat1 and mat2 shapes"),
        ("nn.Flatten(), nn.Linear(prod(shap), classes)", "NameError: name 'shap' is not"),
        ("nn.Flatten(), nn.Dropout(), nn.Linear(prod(shape), classes)", "take `cyclery.models.la"),
    ],
)
def test_a_network_that_gives_no_logits_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], layers: str, message: str
) -> None:
    paper = copy.deepcopy(project_factory.PAPER)
    for arm in project_factory.arms(paper).values():
        arm["model"] = "wrong"
    with component.written(models, tmp_path / "models") as write:
        path = write("wrong", NETWORK.format(layers=layers))
        project_factory.write(tmp_path, project_factory.TIER, paper)
        assert main(["--root", str(tmp_path), "check", "--method", "supervised"]) == 2
    said = capsys.readouterr().err.removeprefix("cyclery: ")
    assert said.startswith(f"{path}:") and message in said
    assert len(said.splitlines()) == 1


def test_trying_leaves_global_generators_alone(write: Write, tmp_path: Path) -> None:
    write("wrong", method_factory.text(before="z = z * torch.rand(1)"))
    before = torch.get_rng_state(), np.random.get_state()[1].tobytes(), random.getstate()
    assert tried(tmp_path, name="wrong") == 2
    after = torch.get_rng_state(), np.random.get_state()[1].tobytes(), random.getstate()
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]


def test_a_folder_named_torch_hides_no_line_of_a_method(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "torch").mkdir()
    with component.written(methods, tmp_path / "torch/methods") as write:
        path = write("wrong", method_factory.text(before="z = z * float(z.detach().mean())"))
        assert tried(tmp_path, {"name": "wrong"}) == 2
    assert f"{path}:" in capsys.readouterr().err


def test_a_method_that_is_not_captured_may_wait(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(
        "slow",
        method_factory.text(before="z = z * float(z.detach().mean())", more="CAPTURE = False"),
    )
    assert tried(tmp_path, {"name": "slow"}, {"name": "cyclical_focal"}) == 0
    assert "settings of methods (2): all are good" in capsys.readouterr().out


@pytest.mark.parametrize("name", methods.names())
def test_every_method_is_good_by_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert tried(tmp_path, name=name) == 0
    said = capsys.readouterr().out
    assert f"settings of the method {name} (1): all are good; a CPU stacks the runs of 1" in said


def test_what_a_cpu_does_not_stack_is_said(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two choices the second draws into memory that stacked runs would share."""
    draw = "z = z + torch.zeros(1).normal_(generator=generator) if settings.smoothing else z"
    write("shared", method_factory.text(before=draw))
    arms = ({"name": "shared"}, {"name": "shared", "smoothing": 0.1})
    assert tried(tmp_path, *arms, name="shared") == 0
    said = capsys.readouterr().out
    assert "(2): all are good; a CPU stacks the runs of 1 of them, others train one by" in said
    assert "one by one: a step draws random numbers into a tensor that its runs share" in said


@pytest.mark.parametrize(
    ("name", "precisions", "said"),
    [
        ("", ["fp32", "fp32", "fp32 fp32", "fp32"], "methods (4, 3 of them in fp32, since this"),
        ("supervised", ["bf16", "fp32", "fp32"], "supervised (3, 1 of them in fp32, since this"),
        ("kd", ["bf16 bf16"], "of the method kd (1): all are good"),
    ],
)
def test_a_processor_without_bf16_tries_one_choice_of_a_named_method_in_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    precisions: list[str],
    said: str,
) -> None:
    taken: list[str] = []

    def try_(choice: try_methods.Choice) -> list[str]:
        given = [choice.settings, *choice.parents.values()]
        taken.append(" ".join(str(each["precision"]) for each in given))
        return []

    monkeypatch.setattr(try_methods, "computes_bf16", lambda: False)
    monkeypatch.setattr(try_methods, "tried", try_)
    paper = copy.deepcopy(project_factory.PAPER)
    arms = project_factory.arms(paper)
    arms["fast"]["method"] = {"name": "supervised", "label_smoothing": 0.1}
    arms["student"] = {"method": {"name": "kd"}, "parents": {"teacher": "plain"}}
    arms["exact"] = {"method": {"name": "supervised", "label_smoothing": 0.2}, "precision": "fp32"}
    for arm in arms.values():
        arm.setdefault("precision", "bf16")
    project_factory.write(tmp_path, project_factory.TIER, paper)
    assert main(["--root", str(tmp_path), "check", "--method", *([name] if name else [])]) == 0
    assert taken == precisions
    assert said in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(1800)  # networks of full size, beside other tests
@pytest.mark.parametrize("tier", ["smoke", "desk"])
def test_all_methods_of_the_papers_are_good(tier: str) -> None:
    root = Path(__file__).resolve().parents[2]
    assert main(["--root", str(root), "--set", f"tier={tier}", "check", "--method"]) == 0
