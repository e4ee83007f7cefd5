"""What a method's `streams` may return, and what is said before any job where it may not."""

from __future__ import annotations

from pathlib import Path

import pytest
from factories import method as method_factory
from factories.component import Write
from factories.project import PAPER, TIER, refused
from factories.project import write as write_project

from cyclery import methods
from cyclery.common.errors import UserError

write = pytest.fixture(method_factory.written)


STREAM = 'methods.Stream(("weak",)'


def declaring(streams: str) -> str:
    return (
        "from cyclery import methods\n"
        + method_factory.text()
        + f"\n\ndef streams(settings):\n    return {streams}\n"
    )


@pytest.mark.parametrize("name", methods.names())
def test_the_streams_of_every_method_are_known_ones(name: str) -> None:
    found = methods.load(name)
    views = found.streams(found.settings_type())
    assert views and all(stream.views for stream in views.values())


@pytest.mark.parametrize(
    ("streams", "said"),
    [
        (
            '{"labelled": ("weak",), "unlabeled": ("weak",)}',
            "unknown stream 'unlabeled'. Did you mean 'unlabelled'? Streams: labelled, unlabelled. "
            "Another one is a `Stream`, which says its pool.",
        ),
        ('{"labelled": ()}', "labelled: must be a tuple of views, one at least (found ())."),
        ('{"labelled": "weak"}', "labelled: must be a tuple of views, one at least"),
        ("{}", "must be a dict with one stream at least (found {})."),
        ("None", "must be a dict with one stream at least (found None)."),
        (f'{{"two words": {STREAM})}}', "names must be those of Python (found 'two words')."),
        (
            f'{{"views": {STREAM}, pool="test")}}',
            "views: unknown pool 'test'. Pools: own, trai",
        ),
        (f'{{"views": {STREAM}, pool="labelled.0")}}', "views: unknown pool 'labelled.0'."),
        (
            f'{{"views": {STREAM}, times=2)}}',
            "the first one is what an epoch counts, so it has",
        ),
        (f'{{"views": {STREAM}, times=0)}}', "views: times must be a whole number from 1, or 'mu'"),
        (f'{{"views": {STREAM}, sampler="fair")}}', "views: sampler must be balanced, poisson, s"),
        (f'{{"views": {STREAM}, "own", sampler="poisson")}}', "views: the sampler poisson needs a"),
        ('{"unlabelled": ("weak",)}', "the first one is what an epoch counts, so it has `times` 1"),
        (
            f'{{"views": {STREAM}, sampler="balanced", classes=0)}}',
            "views: classes must be a whole number from 1 (found 0).",
        ),
        (
            f'{{"views": {STREAM}, pool="unlabelled", sampler="balanced")}}',
            "views: sampler balanced looks at labels, which the pool unlabelled hides; take the po",
        ),
        (f'{{"views": {STREAM}, classes=2)}}', "views: classes belongs to the sampler balanced"),
        ('{"labelled": methods.Stream(())}', "labelled: views must be a tuple of names, one at le"),
    ],
)
def test_a_wrong_stream_is_refused_with_its_file(write: Write, streams: str, said: str) -> None:
    file = write("streaming", declaring(streams))
    found = methods.load("streaming")
    with pytest.raises(UserError) as error:
        found.streams(found.settings_type())
    assert f"streaming.py: streams: {said}" in str(error.value)
    assert file is None or Path(file).name == "streaming.py"


def test_it_is_said_before_any_job(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("streaming", declaring('{"labelled": ("weak",), "pool": ("weak",)}'))
    arms = {"plain": {}, "fast": {"method": "streaming"}}
    main = {**PAPER["experiments"]["main"], "arms": arms}
    write_project(tmp_path, TIER, {**PAPER, "experiments": {"main": main}})
    said = refused(tmp_path, capsys)
    assert "streams: unknown stream 'pool'" in said and "one.yaml" in said
