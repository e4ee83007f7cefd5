"""What an author of a method gets wrong is said in one message, before or at the first step."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import component
from factories import engine as factory
from factories import method as method_factory
from factories import project as project_factory
from factories.component import Write

from cyclery import methods
from cyclery.cli.main import main
from cyclery.common.errors import UserError
from cyclery.common.source_hash import source_digest
from cyclery.methods import _file


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Write]:
    """Return what writes a method's file, which is gone after the test."""
    with component.written(methods, tmp_path / "methods") as writer:
        yield writer


def first_epoch(name: str, epochs: int = 1) -> None:
    """Train a run of the method for so many epochs."""
    run = factory.run(factory.settings(name, epochs=epochs))
    for _ in range(epochs):
        run.train_epoch()


# Quantities.


def test_a_quantity_read_off_the_settings_is_refused(write: Write) -> None:
    write("eager", method_factory.text(before="z = z / settings.temperature"))
    with pytest.raises(UserError, match=r"'eager' reads `settings.temperature`.*row\[\"temp"):
        first_epoch("eager")


def test_a_default_does_not_hide_it(write: Write) -> None:
    write("hidden", method_factory.text(before='getattr(settings, "temperature", 1.0)'))
    with pytest.raises(UserError, match=r"'hidden' reads `settings.temperature`"):
        first_epoch("hidden")


def test_hooks_read_other_settings_and_no_quantity(write: Write) -> None:
    hook = """
        def streams(settings):
            assert settings.smoothing == 0.1
            return {"labelled": ("weak",) if settings.%s else ("strong",)}
    """
    write("good", method_factory.text(more=hook % "smoothing"))
    method = methods.load("good")
    assert method.streams(method.chosen({"smoothing": 0.1}))["labelled"].views == ("weak",)
    write("bad", method_factory.text(more=hook % "temperature"))
    method = methods.load("bad")
    with pytest.raises(UserError, match=r"'bad' reads `settings.temperature`"):
        method.streams(method.chosen({"smoothing": 0.1}))


@pytest.mark.parametrize("name", methods.names())
def test_chosen_settings_are_the_methods_own_but_for_quantities(name: str) -> None:
    method = methods.load(name)
    chosen, plain = method.chosen({}), method.settings_type()
    assert isinstance(chosen, method.settings_type)
    assert chosen == method.chosen({}) and hash(chosen) == hash(method.chosen({}))
    for field in method.settings_type.__dataclass_fields__:  # type: ignore[attr-defined]
        if field in method.quantities:
            with pytest.raises(UserError, match=f"'{name}' reads `settings.{field}`"):
                getattr(chosen, field)
        else:
            assert getattr(chosen, field) == getattr(plain, field)
            assert f"{field}=" in repr(chosen)


# Global generators.

DRAWS = {
    "torch's": "torch.rand(1)",
    "numpy's": "__import__('numpy').random.rand()",
    "Python's": "__import__('random').random()",
}


@pytest.mark.parametrize("whose", DRAWS)
def test_a_step_that_draws_from_a_global_generator_is_refused(write: Write, whose: str) -> None:
    write("noisy", method_factory.text(before=f"z = z + 0 * {DRAWS[whose]}"))
    with pytest.raises(UserError, match=f"'noisy' draws from {whose} global.*generator=generator"):
        first_epoch("noisy")


def test_a_rare_draw_is_found_at_the_end_of_its_epoch(write: Write) -> None:
    rare = "models['main'].count = getattr(models['main'], 'count', 0) + 1\n"
    rare += "    if models['main'].count == 7: torch.rand(1)"
    write("rare", method_factory.text(before=rare))
    run = factory.run(factory.settings("rare", epochs=3))
    run.train_epoch()
    with pytest.raises(UserError, match="'rare' draws from torch's global generator"):
        run.train_epoch()


@pytest.mark.parametrize(
    ("hook", "where"),
    [
        ("def begin(models, samples, settings):\n    torch.rand(1)", "begin"),
        (
            "def modules(settings, made):\n    __import__('numpy').random.rand()\n    return {}",
            "modules",
        ),
    ],
)
def test_a_hook_that_draws_from_a_global_generator_is_refused(
    write: Write, hook: str, where: str
) -> None:
    write("noisy", method_factory.text(more=hook))
    with pytest.raises(UserError, match=f"global generator in its `{where}`"):
        factory.run(factory.settings("noisy"))


def test_modules_may_draw_their_weights_with_torch(write: Write) -> None:
    hook = "def modules(settings, made):\n    return {'x': torch.nn.Linear(2, 2)}"
    write("heads", method_factory.text(more=hook))
    made = [factory.run(factory.settings("heads")).models["x"].weight for _ in range(2)]
    assert torch.equal(*made)


def test_a_run_leaves_global_generators_alone() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].tobytes(), random.getstate()
    first_epoch("fixmatch")
    after = torch.get_rng_state(), np.random.get_state()[1].tobytes(), random.getstate()
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]


# What a step returns.

RETURNED = {
    "loss": "a dict of what is logged.*found a tensor of shape",
    "(loss, {}, 1)": "found a tuple of 3",
    "F.cross_entropy(z, batch.y, reduction='none'), {}": r"one number.*shape \[50\]",
    "loss.item(), {}": "one number as a tensor.*found float",
    "loss.detach(), {}": "has no gradient",
    "loss, [loss]": "logs must be a dict",
    "loss, {1: loss}": "names of logs must be text",
    "loss, {'z': z}": r"the log 'z' must be one number.*shape \[50, 10\]",
    "loss, {'z': 1.0}": "the log 'z' must be one number",
}


@pytest.mark.parametrize("returned", RETURNED)
def test_a_wrong_return_is_one_message_at_the_first_step(write: Write, returned: str) -> None:
    write("wrong", method_factory.text(returned=returned))
    with pytest.raises(UserError, match=f"the step of 'wrong' must return.*{RETURNED[returned]}"):
        first_epoch("wrong")


# The file.

FILES = {
    "VERSION = 1\n": ("", "declares no VERSION;"),
    'TITLE = "Of a test"\n': ("", "declares no TITLE;"),
    "class Settings": ("class Other", "declares no Settings;"),
    "def step": ("def stop", "declares no step;"),
    "VERSION = 1": ('VERSION = "1"', "VERSION must be a whole number"),
    "@dataclass(frozen=True)": ("@dataclass", "must be a dataclass with `@dataclass(frozen=True)`"),
    "default=1.0, ": ("", "Settings.temperature has no default"),
    ", settings, generator)": (")", "step must take 5 arguments: models, batch, row, settings"),
    "smoothing: float": ("smoothing: flaot", "NameError: name 'flaot' is not defined"),
}


@pytest.mark.parametrize("mistake", FILES)
def test_a_wrong_file_is_one_line_that_names_it(write: Write, mistake: str) -> None:
    content = method_factory.text()
    assert mistake in content
    right, message = FILES[mistake]
    path = write("wrong", content.replace(mistake, right, 1))
    with pytest.raises(UserError) as found:
        methods.load("wrong")
    assert str(found.value).startswith(f"{path}:") and message in str(found.value)
    assert "\n" not in str(found.value)


def test_a_syntax_error_is_one_line_with_file_and_line(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write("broken", "VERSION = 1\nTITLE = (\n")
    write("nothing", "")
    project_factory.write(tmp_path, project_factory.TIER, project_factory.PAPER)
    # Though no arm asks for them.
    said = project_factory.refused(tmp_path, capsys).splitlines()
    assert said[0].startswith(f"cyclery: {path}:2: ") and "never closed" in said[0]
    assert "nothing.py: declares no VERSION, TITLE, Settings, step;" in said[1]
    assert len(said) == 2


def test_a_wrong_file_that_arms_ask_for_is_still_one_line(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write("broken", "VERSION = 1\nTITLE = (\n")
    paper = copy.deepcopy(project_factory.PAPER)
    for arm in project_factory.arms(paper).values():
        arm["method"] = "broken"
    project_factory.write(tmp_path, project_factory.TIER, paper)
    said = project_factory.refused(tmp_path, capsys).splitlines()
    assert len(said) == 1 and said[0].startswith(f"cyclery: {path}:2: ")
    # As the graph does, which does not check files that nothing uses.
    assert main(["--root", str(tmp_path), "plan"]) == 2
    assert "Traceback" not in capsys.readouterr().err


# What its code says.


def test_comments_and_layout_do_not_change_what_code_says(tmp_path: Path) -> None:
    file = tmp_path / "x.py"

    def digest(text: str) -> str:
        file.write_text(text)
        return source_digest([file])

    first = digest('"""A."""\ndef f(x):\n    """B."""\n    return x + 1\n')
    assert digest('"""C."""\n\n# D\ndef f( x ):\n    return (x +\n            1)\n') == first
    assert digest("def f(x):\n    return x + 2\n") != first
    assert digest("def f(x):\n    return x - 1\n") != first
    assert digest("def g(x):\n    return x + 1\n") != first
    assert digest("def f(x=None):\n    return x + 1\n") != first


def test_what_a_method_takes_from_another_is_its_code_too(write: Write) -> None:
    write("taken", method_factory.text())
    write("taking", "from cyclery.methods.taken import VERSION, TITLE, Settings, step\n")
    first = _file.digest("taking")
    write("taken", method_factory.text(before="z = 2 * z"))
    assert _file.digest("taking") != first


@pytest.mark.parametrize("hook", ["streams", "parents", "classifies", "measures"])
def test_what_fails_in_planning_is_one_message(write: Write, hook: str) -> None:
    more = f"""
        def {hook}(settings):
            return 1 / 0

        def evaluate(models, measured, settings):
            return {{}}
        """
    if hook != "measures":
        more = more.partition("def evaluate")[0]
    file = write("failing", method_factory.text(more=more))
    found = methods.load("failing")
    with pytest.raises(UserError) as error:
        getattr(found, hook)(found.settings_type())
    line = next(n for n, text in enumerate(file.read_text().splitlines(), 1) if "1 / 0" in text)
    assert str(error.value).startswith(f"method: {file}:{line}: {hook} failed: ZeroDivisionError")
