"""A method without labels, and a paper whose arm starts from what it pretrained."""

from __future__ import annotations

import copy
from typing import Any

from factories.project import PAPER, arms, comparison

NAME = "pretraining_of_a_test"
METHOD = '''
"""Two views of an unlabelled sample should have one output: no label is read."""
from dataclasses import dataclass

from cyclery import methods

VERSION = 1
TITLE = "Of a test"


@dataclass(frozen=True)
class Settings:
    pass


def streams(settings):
    return {"pairs": methods.Stream(("weak", "plain"), "unlabelled")}


def classifies(settings):
    return False


def forwards(settings, images):
    # A second network has every image, too, and the network itself.
    return 3 * images["pairs"]


def step(models, batch, row, settings, generator):
    first, second = (models["main"](view).float() for view in batch["pairs"].views)
    return (first - second).square().mean() + (first.mean() - 1).square(), {}
'''
# 1,497 samples of digits are neither tested nor validated on: 29 batches of 50, for three epochs.
UPDATES = 3 * 29
IMAGES = UPDATES * 50
VIEWS = 2 * IMAGES
FORWARDS = 3 * VIEWS


def paper(**said: Any) -> dict[str, Any]:
    """Return a paper whose arm `fast` starts from `pretrained` and is compared with `plain`."""
    found = copy.deepcopy(PAPER)
    arms(found)["fast"] = {
        "parents": {"start": "before/pretrained"},
        "init": {"from": "start", "head": "fresh"},
    }
    own = {"method": NAME, "epochs": 3, "split": {"unlabelled": "all"}}
    found["experiments"]["before"] = {
        "title": "before", "tiers": {"smoke": {}}, "arms": {"pretrained": own},
    }  # fmt: skip
    comparison(found).update(said)
    return found
