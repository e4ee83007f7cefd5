"""An op is a file: what it declares, and what is said where it is wrong."""

from __future__ import annotations

import pytest
import torch
from factories import component
from factories import engine as factory
from factories.augment import CIFAR, EVERYTHING, images, raw

from cyclery import augment
from cyclery.common.errors import UserError

# On pixels, which an op before it may have left as floats; takes a number.
DARKEN = '''
"""Darker images."""

from __future__ import annotations

from dataclasses import dataclass, field

from cyclery.augment import Images, Op, Stage
from cyclery.common.lazy import torch


@dataclass(frozen=True)
class Settings(Op):
    """Multiply by a random factor, at least the magnitude's tenth."""

    p: float = field(default=1.0, metadata={"doc": "probability", "above": 0.0, "high": 1.0})

    @property
    def columns(self) -> int:
        return 2

    @property
    def needs_magnitude(self) -> bool:
        return True

    def check(self, shape, where: str) -> None:
        if shape is not None and shape[0] == 2:
            raise UserError(f"{where}: two channels.")

    def stage(self, images: Images) -> Stage:
        return Darken(self)


class Darken(Stage):
    def __init__(self, op: Settings) -> None:
        self.constant("p", torch.tensor(op.p))

    def __call__(self, x, u, magnitude):
        least = magnitude / 10
        factor = torch.where(u[:, 0] < self.p, least + (1 - least) * u[:, 1], 1.0)
        return x.float() * factor[:, None, None, None]
'''
# On the finished image; takes no number.
BAND = '''
"""A band."""

from __future__ import annotations

from dataclasses import dataclass, field

from cyclery.augment import Images, Op, Stage


@dataclass(frozen=True)
class Settings(Op):
    """Cover the first rows with the mean pixel."""

    ON = "normalised"
    rows: int = field(metadata={"doc": "how many", "low": 1})

    def stage(self, images: Images) -> Stage:
        return Cover(self.rows)


class Cover(Stage):
    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __call__(self, x, u, magnitude):
        assert u.shape == (len(x), 0)
        x[:, :, : self.rows] = 0
        return x
'''
# Other values than it is given, as an op has that works on one scale only.
WIDEN = '''
"""Twice as bright."""

from __future__ import annotations

from dataclasses import dataclass

from cyclery.augment import Images, Op, Stage


@dataclass(frozen=True)
class Settings(Op):
    """Double every value."""

    def stage(self, images: Images) -> Stage:
        return Widen(images)


class Widen(Stage):
    def __init__(self, images: Images) -> None:
        self.max_value = 2 * images.max_value

    def __call__(self, x, u, magnitude):
        return x.float() * 2
'''
DARK, COVERED = {"op": "darken"}, {"op": "band", "rows": 3}


@pytest.fixture
def write(tmp_path):
    with component.written(augment, tmp_path / "augment") as written:
        yield written


def test_an_op_is_one_file(write):
    write("darken", DARKEN)
    write("band", BAND)
    assert {"darken", "band"} <= set(augment.names())
    pipeline = raw([{"op": "flip"}, DARK, COVERED])
    assert pipeline.names == ("flip.0/0", "darken.0/0", "darken.0/1")
    x = images(4)
    u = torch.tensor([[0.9, 0.5, 0.0]]).expand(4, -1)
    out = pipeline(x, u, torch.tensor(5.0))
    expected = x.float() / 2
    expected[:, :, :3] = 0
    torch.testing.assert_close(out, expected)
    with pytest.raises(UserError, match=r"augment\[1\]: darken cannot follow band, which works on"):
        augment.check([COVERED, DARK])
    with pytest.raises(UserError, match=r"darken\.p: must be above 0\.0 and at most 1\.0"):
        augment.check([DARK | {"p": 2}])


def test_an_op_of_one_file_takes_its_place_among_the_others(write):
    write("darken", DARKEN)
    write("band", BAND)
    pixels, finished = EVERYTHING[:-2], EVERYTHING[-2:]
    for spec in ([*pixels, DARK], [DARK, *pixels], [*pixels, DARK, *finished, COVERED]):
        pipeline = raw(spec)
        u = torch.rand(8, pipeline.columns, generator=torch.Generator().manual_seed(0))
        out = pipeline(images(8), u, torch.tensor(4.0))
        assert out.isfinite().all() and out.shape == (8, *CIFAR)
        alone = pipeline(images(8)[:1], u[:1], torch.tensor(4.0))
        torch.testing.assert_close(out[:1], alone, rtol=1e-5, atol=1e-4)


def test_a_stage_may_change_the_range_of_values(write):
    write("widen", WIDEN)
    x = images(4)
    torch.testing.assert_close(raw([{"op": "widen"}])(x), x.float())
    solarised = raw([{"op": "widen"}, {"op": "randaugment", "n": 1, "m": 0}])
    torch.testing.assert_close(solarised(x, torch.rand(4, 1)), x.float())


def test_a_run_is_augmented_by_an_op_of_one_file(write):
    write("darken", DARKEN)
    write("band", BAND)
    settings = factory.settings(epochs=1, augment=(DARK, COVERED), magnitude=10.0)
    run = factory.run(settings)
    feed = run.feeds["labelled"]
    (pipeline,) = feed.pipelines
    seen = []

    def watched(images, u, magnitude):
        seen.append(pipeline(images, u, magnitude))
        return seen[-1]

    watched.columns = pipeline.columns
    feed.pipelines[:] = [watched]
    factory.finish(run)
    views = torch.cat(seen)
    assert len(views) and not views[:, :, :3].any() and views[:, :, 3:].any()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"""Darker images."""', "def", r"darken\.py:2: "),
        ("import Images,", "import Image,", r"darken\.py:8: the op 'darken' cannot be imported"),
        ("class Settings", "class Setings", r"darken\.py: declares no Settings; every op's file"),
        ("(Op)", "", r"darken\.py:13: Settings must derive from Op"),
        ("def stage", "def stag", r"darken\.py:13: Settings must define `stage`"),
        ('"doc"', '"dog"', r"darken\.py:16: Settings\.p does not say what it is"),
    ],
)
def test_a_wrong_file_is_named(write, old, new, message):
    assert old in DARKEN
    write("darken", DARKEN.replace(old, new))
    with pytest.raises(UserError, match=message):
        augment.check([DARK])


def test_a_stage_that_changes_the_shape_is_named(write):
    write("darken", DARKEN.replace("return x.float()", "return x[:, :, 1:].float()"))
    with pytest.raises(UserError, match=r"darken\.py: a stage must return images of the shape"):
        raw([DARK])(images(4), torch.rand(4, 2), torch.tensor(1.0))
