"""Methods on trial whose streams take other pools and samplers than most."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from factories import component, small_paper
from factories.component import Write
from factories.method import text

from cyclery import methods
from cyclery.authoring.try_methods import try_methods
from cyclery.common.errors import UserError

Json = dict[str, Any]

BASE: Json = {"test": 200, "validation": 100, "per_class": 10}
LEVELS: Json = {"hierarchy": [[0, 0, 0, 0, 0, 1, 1, 1, 1, 1]], "coarse": [100]}
OPEN: Json = {"unlabelled": "all", "open_set": {"classes": [0, 1, 2]}}
STREAMS = """
    from cyclery.methods import Stream

    def streams(settings):
        return {{"labelled": Stream(("weak",)), "other": Stream(("weak",), {more})}}
    """


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Write]:
    with component.written(methods, tmp_path_factory.mktemp("methods")) as writer:
        yield writer


CASES: dict[str, tuple[str, Json]] = {
    "rest": ('"unlabelled"', {"unlabelled": "rest"}),
    "open": ('"unlabelled"', OPEN),
    "coarse": ('"labelled.2"', LEVELS),
    "coarse_hidden": ('"unlabelled.2"', {**LEVELS, "unlabelled": "rest"}),
    "finest": ('"labelled.1"', {}),
    "poisson": ('sampler="poisson"', {}),
    "few_classes": ('sampler="balanced", classes=4', {}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_method_is_tried_on_the_pools_that_its_streams_take(
    name: str, write: Write, tmp_path: Path
) -> None:
    streams, split = CASES[name]
    write(name, text(more=STREAMS.format(more=streams)))
    claim = {"experiment": "main", "arm": "one", "against": {"constant": 1}}
    given = {"one": {"method": name, "split": {**BASE, **split}}, "plain": {"split": BASE}}
    plan = small_paper.planned(tmp_path, given, [claim])
    assert "all are good" in try_methods(plan, name)
    # Without an arm of its own it has its defaults.
    del given["one"]
    plan = small_paper.planned(tmp_path, given, [{**claim, "arm": "plain"}])
    assert "all are good" in try_methods(plan, name)


WRONG: dict[str, tuple[str, str]] = {
    "short": ("def predict(models, x, settings):\n    return models['main'](x)[:, :3]\n",
              "`predict` of 'short' must return logits"),
    "nothing": ("def measures(settings):\n    return ('own_accuracy',)\n\n\n"
                "def evaluate(models, measured, settings):\n    return None\n",
                "`evaluate` of 'nothing' must return a dict"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_method_on_trial_is_evaluated(name: str, write: Write, tmp_path: Path) -> None:
    more, said = WRONG[name]
    write(name, text(more=more))
    claim = {"experiment": "main", "arm": "one", "against": {"constant": 1}}
    plan = small_paper.planned(tmp_path, {"one": {"method": name, "split": BASE}}, [claim])
    with pytest.raises(UserError, match=said) as error:
        try_methods(plan, name)
    assert f"{name}.py:" in str(error.value) and str(error.value).count("\n") == 0
