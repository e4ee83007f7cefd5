"""UDA's RandAugment with a list of ops: which are drawn, and that the rest is that of `policy`."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from factories.augment import CIFAR, DIGITS, FASHION, images, raw

from cyclery.augment import check
from cyclery.augment.policy import choices_for
from cyclery.augment.policy_uda import Name
from cyclery.common.errors import UserError

SOME = ["rotate", "invert", "posterize", "translate_x"]


def uniform(count, columns):
    return torch.rand(count, columns, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("shape", "most"), [(CIFAR, 255), (FASHION, 255), (DIGITS, 16)])
def test_with_all_its_ops_it_is_the_policy_of_uda(shape, most):
    x = images(200, shape, most)
    ours = raw([{"op": "policy_uda", "n": 3, "p": 0.7}], shape, most)
    theirs = raw([{"op": "policy", "form": "uda", "n": 3, "p": 0.7}], shape, most)
    u = uniform(len(x), ours.columns)
    assert ours.columns == theirs.columns == 18
    assert torch.equal(ours(x, u), theirs(x, u))


def test_the_names_are_the_15_of_the_paper():
    assert sorted(get_args(Name)) == sorted(choices_for("uda", 3))
    assert len(get_args(Name)) == 15


@pytest.mark.parametrize("ops", [SOME, ["cutout", "solarize"], ["shear_y"]], ids=len)
def test_those_of_the_list_are_drawn_evenly_and_no_other(ops):
    x, count = images(120, FASHION), 120
    ours = raw([{"op": "policy_uda", "ops": ops, "n": 1, "p": 1.0}], FASHION)
    every = raw([{"op": "policy", "form": "uda", "n": 1, "p": 1.0}], FASHION)
    u = uniform(count, ours.columns)
    u[:, 0] = (torch.arange(count) + 0.5) / count
    names, as_drawn = choices_for("uda", 1), u.clone()
    share = count // len(ops)
    for i, name in enumerate(ops):
        as_drawn[i * share : (i + 1) * share, 0] = (names.index(name) + 0.5) / len(names)
    assert torch.equal(ours(x, u), every(x, as_drawn))


def test_the_order_of_two_ops_counts():
    x = images(1, FASHION)
    pipeline = raw([{"op": "policy_uda", "ops": ["rotate", "invert"], "p": 1.0}], FASHION)
    u = torch.full((2, 12), 0.6)
    u[:, [1, 5]] = 0.0
    u[0, 0], u[0, 4], u[1, 0], u[1, 4] = 0.2, 0.8, 0.8, 0.2
    out = pipeline(x.expand(2, -1, -1, -1), u)
    # What a turn uncovers is empty at the end, and grey where an op on opaque images follows.
    assert not torch.equal(out[0], out[1])


def test_numbers_of_an_image_are_the_same_whatever_the_list():
    pipelines = [raw([{"op": "policy_uda", "ops": ops}], FASHION) for ops in (None, ["invert"])]
    assert pipelines[0].names == pipelines[1].names


@pytest.mark.parametrize(
    ("entry", "shape", "message"),
    [
        ({"ops": ["identity"]}, CIFAR, r"policy_uda\.ops.*must be one of autocontrast, .*identity"),
        ({"ops": []}, CIFAR, r"policy_uda\.ops: must .* at least 1"),
        ({"ops": ["invert", "rotate", "invert"]}, CIFAR,
         r"policy_uda\.ops: must name each op once \(found invert more than once\)"),
        ({"ops": ["colour", "invert"]}, DIGITS,
         r"policy_uda\.ops: grey images have no op 'colour'; leave it out"),
        ({}, (2, 8, 8), r"policy_uda: images must have 1 or 3 channels \(found 2\)"),
        ({"n": 17}, CIFAR, r"policy_uda\.n: must be at least 1 and at most 16 \(found 17\)"),
        ({"p": 0}, CIFAR, r"policy_uda\.p: must be above 0\.0 and at most 1\.0 \(found 0\)"),
        ({"form": "uda"}, CIFAR, r"policy_uda: unknown key 'form'"),
    ],
)  # fmt: skip
def test_wrong_settings_are_named(entry, shape, message):
    with pytest.raises(UserError, match=message):
        check([{"op": "policy_uda", **entry}], shape)
