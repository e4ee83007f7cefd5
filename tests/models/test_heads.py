"""Heads: what makes logits of features, in every network, and in the settings of a run."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import component
from factories import engine as factory
from factories import project as project_factory
from factories.data import KNOWN
from factories.network import shape_of, small
from torch import nn

from cyclery import models
from cyclery.common.errors import UserError
from cyclery.config.load import load
from cyclery.config.resolve import merge, resolve
from cyclery.config.settings import Settings
from cyclery.evidence.settings_text import describe
from cyclery.models import heads
from cyclery.models._classifier import Classifier
from cyclery.plan.graph import Plan
from cyclery.plan.project_checks import check

Json = dict[str, Any]
# Its logits are cosines times a scale: no linear layer would give them.
COSINE = '''
"""A head of a test."""
from dataclasses import dataclass, field

import torch
from torch import nn


@dataclass(frozen=True)
class Settings:
    """Cosines."""

    scale: float = field(default=16.0, metadata={"doc": "factor on the cosines", "above": 0})


class Cosine(nn.Module):
    def __init__(self, width, classes, scale):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, width))
        self.scale = scale

    def forward(self, x):
        x, w = (nn.functional.normalize(t, dim=1) for t in (x, self.weight))
        return self.scale * x @ w.T


def build(settings, width, classes):
    return Cosine(width, classes, settings.scale)
'''
HEAD = {"name": "cosine_of_a_test", "settings": {"scale": 8.0}}


@pytest.fixture
def cosine(tmp_path: Path) -> Iterator[str]:
    """The name of a head that is there for the time of the test."""
    with component.written(heads, tmp_path / "heads") as write:
        write(HEAD["name"], COSINE)
        yield HEAD["name"]


@pytest.mark.parametrize("name", heads.names())
def test_a_head_makes_logits_of_features(name: str) -> None:
    settings = {"name": name, "settings": {}}
    torch.manual_seed(0)
    head = heads.build(settings, 12, 5)
    torch.manual_seed(0)
    again = heads.build(settings, 12, 5)
    x = torch.randn(3, 12)
    assert head(x).shape == (3, 5) and torch.equal(head(x), again(x))
    head(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in head.parameters())
    with torch.device("meta"):  # where any read of a value fails
        heads.build(settings, 12, 5)(torch.empty(2, 12)).sum().backward()


@pytest.mark.usefixtures("cosine")
@pytest.mark.parametrize("name", models.names())
def test_every_network_takes_another_head_and_is_otherwise_the_same(name: str) -> None:
    before, net = small(name).state_dict(), small(name, head=HEAD)
    answer = net.eval()(torch.rand(4, *shape_of(name)))
    assert answer.shape == (4, 10) and answer.abs().max() <= 8.0 + 1e-4
    # The last layer alone is another one, which has no bias.
    after = net.state_dict()
    [bias] = before.keys() - after.keys()
    last = bias.removesuffix(".bias")
    assert before.keys() == {*after, bias}
    differ = {key for key in after if not torch.equal(after[key], before[key])}
    assert differ == {f"{last}.weight"}
    answer.sum().backward()
    assert net.get_submodule(last).weight.grad.any()


def test_a_network_that_does_not_end_in_a_linear_layer_is_refused(
    cosine: str, tmp_path: Path
) -> None:
    text = '''
        from dataclasses import dataclass

        from torch import nn

        from cyclery.models import ModelSettings


        @dataclass(frozen=True)
        class Settings(ModelSettings):
            """Maps."""


        def build(settings, shape, classes):
            return nn.Sequential(nn.Conv2d(shape[0], 10, 8), nn.Flatten(), {more})
    '''
    with component.written(models, tmp_path / "models") as write:
        write("maps", text.format(more="nn.ReLU()"))
        assert models.build("maps", {}, (1, 8, 8), 10)(torch.rand(2, 1, 8, 8)).shape == (2, 10)
        with pytest.raises(UserError, match=r"^head: maps: this network does not end in a linear"):
            models.build("maps", {}, (1, 8, 8), 10, HEAD)
        write("maps", text.format(more="nn.Linear(10, 3)"))
        with pytest.raises(UserError, match=r"linear layer of 10 outputs"):
            models.build("maps", {}, (1, 8, 8), 10, HEAD)
        assert models.build("maps", {}, (1, 8, 8), 3, HEAD)(torch.rand(2, 1, 8, 8)).shape == (2, 3)


def test_a_classifier_runs_its_parts_in_order_and_overrides_nothing() -> None:
    net = Classifier(4, 3)
    net.first, net.second = nn.Flatten(), nn.Linear(6, 4)
    x = torch.rand(2, 1, 2, 3)
    assert torch.equal(net.features(x), net.second(x.flatten(1)))
    assert torch.equal(net(x), net.head(net.features(x))) and net.width == 4


# Settings.


def resolved(*layers: Json) -> Json:
    base = Settings(**project_factory.TIER["base"])
    return resolve(merge([base, *(Settings(**layer) for layer in layers)]), KNOWN)


def test_the_linear_head_is_not_mentioned(cosine: str) -> None:
    usual = resolved()
    assert "head" not in usual
    for layers in (
        [{"head": "linear"}],
        [{"head": {"name": "linear"}}],
        [{"head": cosine}, {"head": "linear"}],
        [{"head": cosine}, {"head": None}],
    ):
        assert resolved(*layers) == usual


def test_a_head_is_layered_as_a_network_is(cosine: str) -> None:
    sharp = {"head": {"name": cosine, "scale": 4}}
    assert resolved({"head": cosine})["head"] == {"name": cosine, "settings": {"scale": 16.0}}
    assert resolved(sharp)["head"]["settings"] == {"scale": 4.0}
    assert resolved(sharp, {"head": cosine}) == resolved(sharp)
    assert resolved({"head": cosine}, {"head": {"scale": 4}}) == resolved(sharp)
    # Whatever the network.
    other = resolved(sharp, {"model": "small_cnn"})
    assert other["head"] == resolved(sharp)["head"] and other["model"]["name"] == "small_cnn"
    with pytest.raises(ValueError, match=r"scale: must be above 0 \(found -1"):
        Settings(head={"name": cosine, "scale": -1})
    with pytest.raises(ValueError, match=r"unknown key 'scala'\. Did you mean 'scale'"):
        Settings(head={"name": cosine, "scala": 1})
    with pytest.raises(UserError, match=r"unknown key 'scale'"):
        resolved({"head": {"scale": 2}})


# Runs and parents.


def planned(root: Path, teacher: Json, child: Json) -> Plan:
    paper = copy.deepcopy(project_factory.PAPER)
    paper["experiments"]["main"]["arms"] = {"plain": teacher, "fast": child}
    project_factory.comparison(paper)["unequal_budget"] = "one starts from the other"
    project_factory.write(root, project_factory.TIER, paper)
    return check(load(root))


def test_a_start_from_another_head_is_refused(cosine: str, tmp_path: Path) -> None:
    child = {"parents": {"start": "plain"}, "init": "start"}
    with pytest.raises(UserError) as found:
        planned(tmp_path, {"head": cosine}, child)
    assert "init: one/main/plain has the head cosine_of_a_test (scale 16.0), this arm linear" in (
        str(found.value)
    )
    with pytest.raises(UserError, match=r"has the head linear, this arm cosine_of_a_test"):
        planned(tmp_path, {}, {**child, "head": cosine})
    with pytest.raises(UserError, match=r"\(scale 16\.0\), this arm cosine_.* \(scale 4\.0\)"):
        planned(tmp_path, {"head": cosine}, {**child, "head": {"name": cosine, "scale": 4}})
    planned(tmp_path, {"head": cosine}, {**child, "head": cosine})


def test_a_teacher_may_have_another_head(cosine: str, tmp_path: Path) -> None:
    taught = {"parents": {"teacher": "plain"}, "method": "kd"}
    plan = planned(tmp_path, {"head": cosine}, taught)
    assert plan.arm("one", "main", "plain").settings["head"]["name"] == cosine
    words = describe([plan.arm("one", "main", "plain")])["network"]
    assert words.endswith(", head cosine_of_a_test (scale 16.0)")
    assert "head" not in describe([plan.arm("one", "main", "fast")])["network"]
    teacher = factory.train({**factory.settings(epochs=1), "head": HEAD})
    assert teacher.models["main"].head.scale == 8.0
    run = factory.train(
        factory.settings("kd", epochs=1), parents={"teacher": [factory.trained(teacher)]}
    )
    x = factory.data().images[:4].float()
    expected = teacher.models["main"].eval()(x).log_softmax(1)
    assert torch.equal(run.networks.teachers["teacher"](x), expected)
    # A run with a head of its own starts from all weights of its parent.
    start = factory.run(
        {**factory.settings(), "head": HEAD, "init": "start", "init_share": 1.0},
        parents={"start": [factory.trained(teacher)]},
    )
    assert torch.equal(start.models["main"].head.weight, teacher.models["main"].head.weight)
    with pytest.raises(UserError, match=r"need the same network, head, input shape"):
        factory.run(
            {**factory.settings(), "init": "start", "init_share": 1.0},
            parents={"start": [factory.trained(teacher)]},
        )


def test_a_method_that_needs_a_linear_head_says_so(cosine: str) -> None:
    settings = factory.settings("mean_teacher", method_settings={"logit_distance": 0.01})
    with pytest.raises(UserError, match=r"needs a network with features and a linear head"):
        factory.run({**settings, "head": {"name": cosine, "settings": {}}})
