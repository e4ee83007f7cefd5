"""Configurations that a slip of the pen or of a program makes: thousands, from those shipped.

Each is one of the shipped files with a change, at one of the tiers, loaded and checked. It is
accepted, or refused in one message: of at most 2,000 characters, printable, beginning with the file
or the option. Nothing hangs, crashes, or ends in another exception; and what is sure to be wrong,
such as a key that stands twice, is never accepted.
"""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from factories.fuzz import FOLDERS, PAPERS, RAW, ROOT, SHARED, TIERS, VALUES, changed
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from cyclery.common.errors import UserError
from cyclery.config.load import load, overrides, read_yaml
from cyclery.config.models import Paper
from cyclery.config.settings import Settings
from cyclery.plan.project_checks import check

# Far more than any check takes: only what would go on and on meets it.
PATIENCE = 120


@contextmanager
def patience(seconds: int) -> Iterator[None]:
    """Raise in what takes longer, which is a hang."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"still going on after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def said(root: Path, options: dict[str, Any]) -> str | None:
    """Return the message that a configuration is refused with, or None."""
    with patience(PATIENCE), warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            check(load(root, options))
        except UserError as error:
            return str(error)
    return None


def fits(message: str, *places: str) -> None:
    assert len(f"cyclery: {message}\n") <= 2000, len(message)
    assert message.startswith(places), message
    assert all(line.isprintable() for line in message.split("\n")), repr(message)
    assert "Traceback" not in message and "Error:" not in message, message


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a project for each paper, with the shipped tiers, to be changed one file at a time."""
    folder, found = tmp_path_factory.mktemp("projects"), {}
    for paper in PAPERS:
        found[paper] = root = folder / paper
        root.mkdir()
        (root / "pyproject.toml").touch()
        own = [f"config/papers/{paper}.yaml", f"config/reported/{paper}.csv"]
        # A paper needs no printed figures.
        for file in (*SHARED, *filter(lambda file: (ROOT / file).exists(), own)):
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).write_bytes((ROOT / file).read_bytes())
    return found


def judged(projects: dict[str, Path], seed: int, tier: str) -> None:
    change = changed(seed)
    path = Path(change.file)
    # Where a tier is changed, that is the one to look at.
    tier = path.stem if path.parent.name == "tiers" else change.tier or tier
    paper = path.stem if path.parent.name == "papers" else PAPERS[seed % len(PAPERS)]
    root = projects[paper]
    (root / path).write_text(change.text, encoding="utf-8", newline="")
    note(repr(change))
    try:
        message = said(root, {"tier": tier})
    finally:
        (root / path).write_bytes((ROOT / path).read_bytes())
    if message is not None:
        fits(message, str(root), "--set, or snakemake --config: tier")
    assert message is not None or not change.must, change


SEEDS, TIER_NAMES = st.integers(0, 2**32), st.sampled_from(TIERS)
COMMON: dict[str, Any] = {
    "deadline": None,
    "database": None,
    # What fails is small as it is.
    "phases": [Phase.explicit, Phase.generate],
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}


@settings(max_examples=100, derandomize=True, **COMMON)
@given(SEEDS, TIER_NAMES)
def test_changed_files(projects: dict[str, Path], seed: int, tier: str) -> None:
    judged(projects, seed, tier)


@pytest.mark.slow
@settings(max_examples=2000, **COMMON)
@given(SEEDS, TIER_NAMES)
def test_many_changed_files(projects: dict[str, Path], seed: int, tier: str) -> None:
    judged(projects, seed, tier)


KEYS = [*read_yaml(ROOT / "config/config.yaml"), "gpus", "gres", "cohort", "planned", "nobody", ""]
OPTIONS = st.one_of(
    st.sampled_from([f"{folder}={place}" for folder in ("results", "data") for place in FOLDERS]),
    st.builds("{}={}".format, st.sampled_from(KEYS), st.sampled_from(RAW)),
    st.builds(lambda key, value: f"{key}={value}", st.sampled_from(KEYS), st.sampled_from(VALUES)),
    st.builds("{}={}".format, st.sampled_from(KEYS), st.text(max_size=30)),
    st.text(max_size=30),
)


def asked(projects: dict[str, Path], text: str) -> None:
    try:
        options = overrides([text])
    except UserError as error:
        fits(str(error), "--set")
        return
    root = projects["kd"]
    message = said(root, options)
    if message is not None:
        fits(message, "--set, or snakemake --config: ", str(root))
    folder = text.partition("=")[2]
    if text.startswith(("results=", "data=")) and folder in FOLDERS:
        assert message is not None, text


@settings(max_examples=40, derandomize=True, **COMMON)
@given(OPTIONS)
def test_changed_options(projects: dict[str, Path], text: str) -> None:
    asked(projects, text)


@pytest.mark.slow
@settings(max_examples=500, **COMMON)
@given(OPTIONS)
def test_many_changed_options(projects: dict[str, Path], text: str) -> None:
    asked(projects, text)


@settings(max_examples=60, derandomize=True, **COMMON)
@given(st.sampled_from(KEYS), st.sampled_from([v for v in VALUES if v is not None]))
def test_what_snakemake_hands_over(projects: dict[str, Path], key: str, value: Any) -> None:
    root = projects["clr"]
    message = said(root, {key: value})
    if message is not None:
        fits(message, "--set, or snakemake --config: ", str(root))


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
NAMES = st.text(max_size=12) | st.sampled_from([*Settings.model_fields])
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(TREES)
@settings(max_examples=150, derandomize=True, **COMMON)
def test_any_tree(tree: Any) -> None:
    from cyclery.config.load import validate

    for model in (Settings, Paper):
        try:
            validate(model, tree, "file")
        except UserError as error:
            fits(str(error), "file: ")
