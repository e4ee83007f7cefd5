"""Parts of networks that are not there, or that a run cannot take, freeze or rate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from factories.bad_config import FAST, ONE, TEACHER, Case, both, check_case, fast, ranged, started
from factories.component import written
from factories.method import text
from factories.project import arms

from cyclery import methods

MODULES = """
    def modules(settings, made):
        from torch import nn
        return {"projector": nn.Linear(made.width, 4), "unkept": nn.Linear(made.width, 4)}


    def keeps(settings):
        return ("projector",)
"""


@pytest.fixture(scope="module", autouse=True)
def keeping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Add a method with two modules, of which one is handed on, and one that trains no head."""
    with written(methods, tmp_path_factory.mktemp("methods")) as write:
        write("keeping", text(more=MODULES))
        write("headless", text(more="def classifies(settings):\n        return False\n"))
        yield


def plain(**settings: Any) -> Any:
    """Change the settings of the parent."""
    return lambda tier, paper: arms(paper)["plain"].update(settings)


def begun(init: Any = None, **settings: Any) -> Any:
    """Let the arm `fast` start from `plain` in this way."""
    return started(init={"from": "teacher", **(init or {})}, **settings)


def few(init: Any = "teacher", **settings: Any) -> Any:
    """Let it start so on fewer labels than its parent."""
    return started(init=init, split={"labels": 50}, **settings)


FRESH = "`init: {from: teacher, head: fresh}`, or say `head: keep` if it is meant"
PARTS: dict[str, Case] = {
    "a head that all labels taught": (
        few(), ONE, f"{FAST}.init: one/main/plain learnt from other labels (split.labels 100, this "
        "arm 50), and its head comes along with the network", [FRESH],
    ),
    "a head that all labels taught, by the long form": (
        few({"from": "teacher"}), ONE, f"{FAST}.init: one/main/plain learnt from other labels", [],
    ),
    "a head of a fold": (
        both(plain(split={"folds": 2, "fold": 0}), started()),
        ONE, f"{FAST}.init: one/main/plain learnt from other labels (split.folds 2, this arm null)",
        [FRESH],
    ),
    "a head of noisy labels": (
        both(plain(split={"noise": {"kind": "symmetric", "rate": 0.4}}), started()),
        ONE, f"{FAST}.init: one/main/plain learnt from other labels (split.noise ",
        ["this arm null)", FRESH],
    ),
    "a head that nothing trained": (
        both(plain(method="headless"), started()),
        ONE, f"{FAST}.init: one/main/plain trains no head (its method is 'headless')", [FRESH],
    ),
    "a start of a number": (
        started(init=3), ONE, f"{FAST}.init: must be the name of a parent, or keys and values",
        ["(found 3)"],
    ),
    "a start from nobody": (
        started(init={"head": "keep"}),
        ONE, f"{FAST}.init.from: must be the name of a parent (found None)", [],
    ),
    "a start from somebody else": (
        started(init={"from": "teecher"}),
        ONE, f"{FAST}.init: 'teecher' is not a parent", ["Did you mean 'teacher'?"],
    ),
    "an unknown key of a start": (
        begun({"part": ["features"]}),
        ONE, f"{FAST}.init: unknown key 'part'", ["Did you mean 'parts'? Allowed: from, head,"],
    ),
    "an unknown word for a head": (
        begun({"head": "new"}),
        ONE, f"{FAST}.init.head: must be one of fresh, keep (found 'new')", [],
    ),
    "no parts": (
        begun({"parts": []}),
        ONE, f"{FAST}.init.parts: must be a list of parts, as [features] (found [])", [],
    ),
    "a part that is no name": (
        begun({"parts": ["body..0"]}), ONE, f"{FAST}.init.parts: a part is features, head, or",
        ["(found 'body..0')"],
    ),
    "the whole network as a part": (
        begun({"parts": ["main.main"]}), ONE, f"{FAST}.init.parts: a part is features, head, or",
        ["(found 'main.main')"],
    ),
    "a part twice": (
        begun({"parts": ["body.0", "main.body.0"]}),
        ONE, f"{FAST}.init.parts: names 'body.0' twice", [],
    ),
    "a new head that is the parent's": (
        begun({"parts": ["head"], "head": "fresh"}),
        ONE, f"{FAST}.init.head: fresh is not the parent's, which `parts` takes", [],
    ),
    "a part that no network has": (
        begun({"parts": ["stem"]}),
        ONE, f"{FAST}.init.parts: nothing here is 'stem' or in it", ["Parts: body, body.1, "],
    ),
    "a module that no method adds": (
        begun({"parts": ["features", "projector"]}),
        ONE, f"{FAST}.init.parts: nothing here is 'projector' or in it", [],
    ),
    "a module that the parent has not": (
        begun({"parts": ["features", "projector"]}, method="keeping"),
        ONE, f"{FAST}.init.parts: 'projector' is no part that one/main/plain hands on",
        ["its method 'supervised' keeps no modules; name it in `keeps`"],
    ),
    "a module that the parent does not keep": (
        both(plain(method="keeping"), begun({"parts": ["unkept"]}, method="keeping")),
        ONE, f"{FAST}.init.parts: 'unkept' is no part that one/main/plain hands on",
        ["keeps projector;"],
    ),
    "a module of another size": (
        both(plain(method="keeping"),
             begun({"parts": ["projector"]}, method="keeping", model={"hidden": [24]})),
        ONE, f"{FAST}.init.parts: 'projector' of one/main/plain is not the same as this arm's",
        ["(first: projector.weight)"],
    ),
    "features of another size": (
        begun({"head": "fresh"}, model={"hidden": [24]}),
        ONE, f"{FAST}.init: one/main/plain has model.hidden [", ["this arm [24]"],
    ),
    "a part of another network": (
        begun({"parts": ["body.0"]}, model={"name": "small_cnn"}),
        ONE, f"{FAST}.init: one/main/plain is a bn_mlp, this arm a small_cnn", [],
    ),
    "features of images of another shape": (
        begun({"head": "fresh"}, dataset="fashion-mnist", split={"test": None}),
        ONE, f"{FAST}.init: one/main/plain is trained on images of 1 x 8 x 8 (digits), this arm on "
        "those of 1 x 28 x 28 (fashion-mnist)", ["a parent needs the same shape of images"],
    ),
    "the head of another dataset": (
        begun({"head": "keep"}, dataset="fashion-mnist", split={"test": None}),
        ONE, f"{TEACHER}: one/main/plain is trained on digits, this arm on fashion-mnist", [],
    ),
    "a weight of the head of another dataset": (
        begun({"parts": ["features", "head.bias"]}, dataset="fashion-mnist", split={"test": None}),
        ONE, f"{TEACHER}: one/main/plain is trained on digits, this arm on fashion-mnist", [],
    ),
    "features that were trained on test samples": (
        begun({"head": "fresh"}, split={"test": 150}),
        ONE, f"{TEACHER}: one/main/plain has split.test 200, this arm 150", [],
    ),
    "a teacher of another dataset that is started from as well": (
        begun({"head": "fresh"}, method="kd", dataset="fashion-mnist", split={"test": None}),
        ONE, f"{TEACHER}: one/main/plain is trained on digits, this arm on fashion-mnist", [],
    ),
    "a share of parts": (
        begun({"head": "fresh"}, init_share=0.5),
        ONE, f"{FAST}.init_share: is of a whole network, and `init` takes parts of one (features)",
        ["(found 0.5)"],
    ),
    "a share of what is frozen": (
        started(init_share=0.5, frozen=["features"]),
        ONE, f"{FAST}.frozen: batch norm is measured anew at the start with `init_share` below 1",
        ["(found 0.5)"],
    ),
    "nothing left to train": (
        fast(frozen=["head", "features"]), ONE, f"{FAST}.frozen: nothing is left to train", [],
    ),
    "nothing left to train of parts of parts": (
        fast(frozen=["head", "body"]), ONE, f"{FAST}.frozen: nothing is left to train", [],
    ),
    "a frozen part that is not there": (
        fast(frozen=["boddy"]), ONE, f"{FAST}.frozen: nothing here is 'boddy' or in it",
        ["Did you mean 'body'?"],
    ),
    "a frozen part that is a word": (
        fast(frozen="features"), ONE, f"{FAST}.frozen: must be a list of parts", ["'features'"],
    ),
    "a frozen part before a range test": (
        both(ranged(), started(frozen=["features"], lr="range")),
        ONE, f"{FAST}.lr: a range test trains a new network, not one with frozen parts of a parent",
        [],
    ),
    "a rate of nothing": (
        fast(rates={"head": 0}), ONE, f"{FAST}.rates.head: must be a number above 0",
        ["(found 0); to freeze it, set `frozen: [head]`"],
    ),
    "a rate below nothing": (
        fast(rates={"head": -1}), ONE, f"{FAST}.rates.head: must be a number above 0", ["-1"],
    ),
    "a rate that is a schedule": (
        fast(rates={"head": {"kind": "linear"}}), ONE, f"{FAST}.rates.head: must be a number", [],
    ),
    "rates without parts": (
        fast(rates=[10]), ONE, f"{FAST}.rates: must map parts to factors (found [10])", [],
    ),
    "a rate of a part that is not there": (
        fast(rates={"tail": 2}), ONE, f"{FAST}.rates: nothing here is 'tail' or in it", [],
    ),
    "a rate of a frozen part": (
        fast(rates={"head": 2}, frozen=["head"]),
        ONE, f"{FAST}.rates: 'head' is frozen, so it has no rate; drop one of them", [],
    ),
    "a rate inside a frozen part": (
        fast(rates={"body.1": 2}, frozen=["features"]),
        ONE, f"{FAST}.rates: 'body.1' is frozen, so it has no rate; drop one of them", [],
    ),
    "two rates of the same": (
        fast(rates={"body": 2, "features": 3}),
        ONE, f"{FAST}.rates: 'body' and 'features' overlap, and neither lies within the other", [],
    ),
    "a bound of nothing": (
        fast(clip_values={"tail": 2}), ONE, f"{FAST}.clip_values: nothing here is 'tail' or in it",
        [],
    ),
    "a bound that nothing passes": (
        fast(clip_values={"head": 0}), ONE, f"{FAST}.clip_values.head: must be a number above 0",
        [],
    ),
    "bounds without parts": (
        fast(clip_values=10), ONE, f"{FAST}.clip_values: must map parts to bounds (found 10)", [],
    ),
    "a bound of what is frozen": (
        fast(clip_values={"body.1": 2}, frozen=["features"]),
        ONE, f"{FAST}.clip_values: 'body.1' is frozen, so it has no gradient; drop one of them", [],
    ),
    "rates of LARS that bounds by them": (
        fast(rates={"head": 2}, optimiser={"name": "lars", "variant": "bolts", "clip": True}),
        ONE, f"{FAST}.rates: are not possible with `clip: true` of the optimiser", [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PARTS)
def test_one_clear_message(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_case(PARTS[case], tmp_path, capsys)
