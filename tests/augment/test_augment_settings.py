"""The settings of the ops of a list, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, fields

import pytest
from factories.augment import CIFAR, EVERYTHING

from cyclery import augment
from cyclery.augment import Pipeline, check
from cyclery.common.errors import UserError


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"op": "flip"}, r"augment: must be a list of ops"),
        (["flip"], r"augment\[0\]: must be a mapping with the key 'op' \(found 'flip'\)"),
        (
            [{"op": "flop"}],
            r"augment\[0\]: unknown op 'flop'\. Did you mean 'flip'\? Ops: colour_jitter",
        ),
        ([{"op": "flip"}, {"op": "shift"}], r"augment\[1\] shift\.size: missing"),
        ([{"op": "shift", "sise": 1}], r"unknown key 'sise'\. Did you mean 'size'\?"),
        ([{"op": "shift", "size": 0}], r"shift\.size: must be at least 1 \(found 0\)"),
        (
            [{"op": "shift", "size": 1, "border": "mirror"}],
            r"shift\.border: must be one of reflect, symmetric, zero \(found 'mirror'\)",
        ),
        ([{"op": "shift", "size": 32}], r"below the image's side, 32 pixels \(found 32\)"),
        ([{"op": "flip", "p": 1.5}], r"at least 0\.001 and at most 1\.0 \(found 1\.5\)"),
        ([{"op": "cutout", "size": 33}], r"at most the image's side, 32 pixels \(found 33\)"),
        ([{"op": "cutout", "size": 8, "p": 0}], r"p: must be above 0\.0 and at most 1\.0"),
        ([{"op": "erasing", "area": [0.5, 0.1]}], r"area: the first number must be at most"),
        ([{"op": "erasing", "area": [0.1]}], r"must be a list of 2, each element a number"),
        ([{"op": "erasing", "aspect": [0, 1]}], r"aspect\[0\]: must be above 0\.0 \(found 0\)"),
        ([{"op": "randaugment", "m": 11}], r"at least 0\.0 and at most 10\.0 \(found 11\)"),
        ([{"op": "randaugment", "m": "x"}], r"randaugment\.m: must be a number \(found 'x'\)"),
        ([{"op": "cutout", "size": 4}, {"op": "flip"}], r"augment\[1\]: flip cannot follow cutout"),
    ],
)
def test_wrong_settings_are_named(spec, message):
    with pytest.raises(UserError, match=message):
        check(spec, CIFAR)
    with pytest.raises(UserError, match=message):
        Pipeline(spec, CIFAR, [0.5] * 3, [0.5] * 3, 255)


@pytest.mark.parametrize("name", augment.names())
def test_every_key_is_documented(name):
    kind = augment.ops()[name]
    assert kind.__doc__ and all(item.metadata["doc"] for item in fields(kind))


def test_settings_survive_json():
    ops = check([*EVERYTHING, {"op": "cutout", "size": 4}])
    assert [op.columns for op in ops] == [2, 1, 12, 2, 3, 5, 2]
    assert [op.needs_magnitude for op in ops] == [False, False, False, True, False, False, False]
    for op, entry in zip(ops, EVERYTHING, strict=False):
        assert check([{"op": entry["op"], **json.loads(json.dumps(asdict(op)))}]) == [op]


def test_planning_imports_no_torch():
    code = "import sys; from cyclery import augment as a; a.ops(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
