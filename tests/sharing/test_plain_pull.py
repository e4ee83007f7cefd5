"""After a plain `dvc pull` the first Snakemake puts all in place, and nothing is to train."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from factories.sharing import Repository

pytest.importorskip("dvc", reason="DVC is not installed")
# Each takes seconds: Snakemake and DVC are run as users run them.
pytestmark = pytest.mark.slow

SMOKE = "results/published/smoke"


def nothing_to_train(said: str) -> bool:
    """Say whether Snakemake would make no more than what is made of records."""
    rules = set(re.findall(r"^(\w+) +\d+$", said, flags=re.MULTILINE))
    return bool(rules) and rules <= {"all", "evidence", "render", "total"}


def test_after_a_plain_pull_there_is_nothing_to_train(
    origin: Repository, clone: Repository, tmp_path: Path
) -> None:
    clone.dvc("pull")
    said = clone.snakemake("--dry-run")
    assert "cyclery: tier smoke: what `dvc pull` brought is put in place: 1 papers, " in said
    assert nothing_to_train(said)
    assert clone.results() == origin.results() and clone.figures() == origin.figures()
    assert not clone.git("status", "--porcelain")
    # Once, and without a word later.
    assert "cyclery: " not in clone.snakemake("--dry-run")

    # Evidence and report are made of it, to the same bytes.
    clone.snakemake()
    judged = ("evidence", "tables", "report")
    assert clone.trained() == 0 and clone.results(*judged) == origin.results(*judged)
    assert "Nothing to be done" in clone.snakemake()

    # What was removed on purpose is made anew.
    shutil.rmtree(clone.root / "results/smoke")
    said = clone.snakemake("--dry-run")
    assert "was put in place before, and is removed" in said and not nothing_to_train(said)
    assert "nothing to train" in clone.cyclery("fetch") and clone.nothing_to_train()


def test_after_a_plain_pull_results_of_this_project_stay(clone: Repository) -> None:
    table = clone.root / "results/smoke/tables/tiny.csv"
    table.parent.mkdir(parents=True)
    table.write_text("mine\n")
    clone.dvc("pull")
    said = clone.snakemake("--dry-run")
    assert "tier smoke has results already, so this publication stays in its archives" in said
    assert table.read_text() == "mine\n" and not (clone.root / "results/set-aside").exists()
    assert "stays in its archives" not in clone.snakemake("--dry-run")


def test_after_a_plain_pull_a_lock_that_was_left_is_removed(clone: Repository) -> None:
    clone.dvc("pull")
    lock = clone.root / ".snakemake/locks/0.input.lock"
    lock.parent.mkdir(parents=True)
    lock.write_text("results/smoke/evidence/tiny.json\n")
    assert "once no other Snakemake is at work here" in clone.snakemake("--unlock")
    assert not lock.exists()
    assert nothing_to_train(clone.snakemake("--dry-run"))


def test_after_a_plain_pull_two_at_once_put_in_place_once(
    origin: Repository, clone: Repository
) -> None:
    clone.dvc("pull")
    pair = [clone.start("snakemake", "--cores", "1", "--dry-run") for _ in range(2)]
    said = [process.communicate(timeout=300)[0] for process in pair]
    assert all(map(nothing_to_train, said)), said
    assert sum(each.count("is put in place: ") for each in said) == 1
    assert clone.results() == origin.results()


def test_after_a_plain_pull_a_killed_start_is_completed(
    origin: Repository, clone: Repository
) -> None:
    clone.dvc("pull")
    folder = clone.root / "results/smoke"
    process = clone.start("snakemake", "--cores", "1", "--dry-run")
    until = time.monotonic() + 60
    while not folder.exists() and time.monotonic() < until:
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert nothing_to_train(clone.snakemake("--dry-run"))
    assert clone.results() == origin.results() and clone.figures() == origin.figures()
    assert not list((clone.root / "results").glob(".fetch-*"))


def test_after_a_plain_pull_damaged_or_missing_packs_are_said(clone: Repository) -> None:
    clone.dvc("pull")
    path = clone.root / SMOKE / "packs/papers/tiny.tar.xz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    path.write_bytes(data)
    said = clone.snakemake("--dry-run")
    assert "is not put in place, and this goes on without: " in said and "Traceback" not in said
    assert f"{path}: refused: its SHA-256 is" in said and not nothing_to_train(said)
    path.unlink()
    said = clone.snakemake("--dry-run")
    assert "not all that this version published; `dvc pull` brings it" in said
    clone.dvc("pull", "--force")
    assert nothing_to_train(clone.snakemake("--dry-run"))
