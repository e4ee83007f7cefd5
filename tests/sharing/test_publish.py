"""Publish, clone, fetch: nothing to train, the same bytes, and only what changed is trained."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import time
from pathlib import Path

import pytest
from factories.sharing import Repository

from cyclery.common.errors import UserError
from cyclery.common.seals import seal
from cyclery.plan import allocation
from cyclery.sharing import inside
from cyclery.sharing import publish as publishing

pytest.importorskip("dvc", reason="DVC is not installed")
# Each takes seconds: Snakemake and DVC are run as users run them.
pytestmark = pytest.mark.slow

SMOKE = "results/published/smoke"
SECRET = "hunter2-is-no-secret"


JUDGED = ("evidence", "tables", "report")
NOTHING = "nothing to train; evidence and report are made in minutes"


def test_a_clone_has_nothing_to_train_and_a_changed_arm_trains_itself(
    origin: Repository, clone: Repository, tmp_path: Path
) -> None:
    said = clone.cyclery("fetch")
    assert NOTHING in said and "checkpoints: 2\n" in said
    assert clone.nothing_to_train() and not clone.results(*JUDGED)
    assert not clone.git("status", "--porcelain")
    # Two people have the same bytes.
    second = origin.clone(tmp_path / "second")
    second.cyclery("fetch")
    assert clone.results() == second.results() == origin.results()
    assert clone.figures() == origin.figures()

    # Evidence and report are made of it, to the same bytes.
    clone.snakemake("report")
    assert clone.nothing_to_do() and clone.trained() == 0
    made = clone.results(*JUDGED)
    assert made == origin.results(*JUDGED) and "report/index.html" in made
    # It is not fetched again, for it is there.
    assert "nothing to be done" in clone.cyclery("fetch") and clone.results(*JUDGED) == made

    # The student starts from the published weights of its teacher.
    arms = clone.paper["experiments"]["other"]["arms"]
    clone.paper = json.loads(json.dumps(clone.paper))
    clone.paper["experiments"]["other"]["arms"] = {**arms, "student": {**arms["student"], "lr": 1}}
    clone.save()
    clone.snakemake("report")
    assert clone.trained() == 2
    kept = {key: figures for key, figures in clone.figures().items() if key in origin.figures()}
    assert kept == origin.figures()


def test_seeds_that_decide_gave_single_arms_are_shared(another: Repository, tmp_path: Path) -> None:
    own = {"tiny.main.smooth": 1, "tiny.other.fast": 1}
    allocation.write(another.root / "results/smoke/allocation.json", own)
    another.reproduce_and_publish("decided")
    clone = another.clone(tmp_path / "clone")
    clone.dvc("pull")
    assert clone.nothing_to_train()
    assert allocation.read(clone.root / "results/smoke/allocation.json") == own
    clone.snakemake("report")
    assert clone.trained() == 0 and clone.results(*JUDGED) == another.results(*JUDGED)
    # What a clone decided itself is set aside, like all that differs.
    allocation.write(clone.root / "results/smoke/allocation.json", {"tiny.other.fast": 2})
    assert "now in" in clone.cyclery("fetch") and clone.nothing_to_do()
    assert allocation.read(clone.root / "results/smoke/allocation.json") == own


def test_a_configuration_that_was_edited_before_is_seen(clone: Repository) -> None:
    text = (clone.root / "config/papers/tiny.yaml").read_text()
    (clone.root / "config/papers/tiny.yaml").write_text(text.replace("lr: 0.2", "lr: 0.3"))
    said = clone.cyclery("fetch")
    assert "since it was published, configuration or code changed" in said
    assert "train" in said and "render" not in said
    clone.snakemake("report")
    assert clone.trained() == 2
    assert clone.nothing_to_do()


def forget_version(repository: Repository) -> None:
    """Let the publisher have had another Snakemake."""
    path = repository.root / SMOKE / "index.json"
    found = json.loads(path.read_text())
    path.write_text(json.dumps({**found, "snakemake": "9.1.0"}))


def test_with_another_snakemake_outputs_are_touched(origin: Repository, clone: Repository) -> None:
    forget_version(clone)
    assert NOTHING in clone.cyclery("fetch")
    assert clone.results() == origin.results() and clone.nothing_to_train()
    # What is touched is known well enough to see what changes later.
    path = clone.root / "config/papers/tiny.yaml"
    path.write_text(path.read_text().replace("lr: 0.2", "lr: 0.3"))
    clone.snakemake("report")
    assert clone.trained() == 2


def test_with_another_snakemake_what_differs_is_not_touched(clone: Repository) -> None:
    forget_version(clone)
    path = clone.root / "config/papers/tiny.yaml"
    path.write_text(path.read_text().replace("lr: 0.2", "lr: 0.3"))
    said = clone.cyclery("fetch")
    assert "to do" in said
    results = clone.root / "results/smoke"
    # The students' shard is downstream of the changed one in this tier's shards of a paper.
    assert not (results / "records/tiny/L0-0000.jsonl").exists()
    assert (results / "lr-range/tiny.jsonl").exists()
    clone.snakemake("report")
    assert clone.trained() == 2
    assert clone.nothing_to_do()


def test_the_same_tier_is_the_same_bytes(origin: Repository, another: Repository) -> None:
    before = (another.root / "dvc.lock").read_bytes()
    shutil.rmtree(another.root / SMOKE)
    another.cyclery("publish")
    assert (another.root / "dvc.lock").read_bytes() == before
    assert not another.git("status", "--porcelain")


def test_dvc_reads_metrics_and_plots(origin: Repository, another: Repository) -> None:
    path = another.root / SMOKE / "metrics.json"
    shown = json.loads(another.dvc("metrics", "show", "--json"))
    assert shown[""]["data"][f"{SMOKE}/metrics.json"]["data"]["all"]["claims"] == 3
    path.write_text(path.read_text().replace('"not run": 1', '"not run": 2'))
    difference = another.dvc("metrics", "diff")
    assert "all.not run" in difference
    another.dvc("plots", "show", "--out", "plots")
    assert "T-1/1" in (another.root / "plots/index.html").read_text()


def test_an_unfinished_tier_is_refused(another: Repository) -> None:
    path = another.root / "config/papers/tiny.yaml"
    path.write_text(path.read_text().replace("lr: 0.2", "lr: 0.3"))
    before = (another.root / SMOKE / "index.json").read_bytes()
    said = another.cyclery("publish", expect=2)
    assert "tier 'smoke' is not finished" in said and "make reproduce TIER=smoke" in said
    assert (another.root / SMOKE / "index.json").read_bytes() == before
    other = another.root / "config/tiers/desk.yaml"
    shutil.copy(another.root / "config/tiers/smoke.yaml", other)
    said = another.cyclery("publish", "--set", "tier=desk", expect=2)
    assert "lists smoke; add 'desk' there" in said
    other.unlink()
    # Weights that the store lost.
    path.write_text(path.read_text().replace("lr: 0.3", "lr: 0.2"))
    next((another.root / "results/store").rglob("checkpoint.safetensors")).unlink()
    assert "TARGET=checkpoints` mends that" in another.cyclery("publish", expect=2)
    another.snakemake("checkpoints")
    another.snakemake("report")
    another.cyclery("publish")


def test_what_does_not_fit_into_the_repository(
    another: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = another.root / SMOKE / "index.json"
    before = path.read_bytes()
    found = json.loads(before)
    monkeypatch.setattr(inside, "MOST_INSIDE", 1000)
    with pytest.raises(UserError, match="tier 'smoke' does not fit into the remote inside"):
        publishing.publish(another.root, {})
    assert path.read_bytes() == before
    weights = found["packs"]["checkpoints/tiny.tar"]["size"]
    sizes = [each["size"] for each in [*found["packs"].values(), *found["datasets"].values()]]
    monkeypatch.setattr(inside, "MOST_INSIDE", sum(sizes) - weights + 100)
    publishing.publish(another.root, {}, all_weights=True)
    assert json.loads(path.read_text())["without_checkpoints"] == ["tiny"]
    # Nor is what trains again at once, wherever it would fit.
    monkeypatch.undo()
    publishing.publish(another.root, {})
    assert json.loads(path.read_text())["without_checkpoints"] == ["tiny"]
    monkeypatch.setattr(publishing, "QUICK", 0.0)
    publishing.publish(another.root, {})
    assert not json.loads(path.read_text())["without_checkpoints"]
    monkeypatch.undo()
    publishing.publish(another.root, {})
    another.commit("without weights")
    clone = another.clone(tmp_path / "clone")
    assert "checkpoints: 0\n" in clone.cyclery("fetch") and clone.nothing_to_train()
    # Who has only what was published can publish it anew.
    assert "is not finished (1 evidence to do)" in clone.cyclery("publish", expect=2)
    clone.snakemake("tiny")
    said = clone.cyclery("publish")
    assert "tiny: the weights of its parents were not published before, and are not here" in said
    assert json.loads((clone.root / SMOKE / "index.json").read_text())["without_checkpoints"]


def test_two_versions(origin: Repository, another: Repository, tmp_path: Path) -> None:
    another.git("tag", "one")
    path = another.root / "config/papers/tiny.yaml"
    path.write_text(path.read_text().replace("lr: 0.2", "lr: 0.3"))
    another.reproduce_and_publish("other results")
    clone = another.clone(tmp_path / "clone")
    clone.cyclery("fetch")
    assert clone.results() == another.results() != origin.results()
    clone.git("checkout", "--quiet", "one")
    # The outputs of the other version make room, and their runs stay in the store.
    said = clone.cyclery("fetch")
    assert NOTHING in said and "differed from what was published" in said
    assert clone.results() == origin.results()
    assert clone.figures().keys() == another.figures().keys()
    clone.git("checkout", "--quiet", "main")
    clone.cyclery("fetch")
    assert clone.results() == another.results() and clone.nothing_to_train()


def test_results_of_this_project_are_set_aside(origin: Repository, clone: Repository) -> None:
    """A run of the same key, and outputs that differ, are kept; what is the same stays as it is."""
    clone.cyclery("fetch")
    [checkpoint, _] = sorted((clone.root / "results/store").rglob("checkpoint.safetensors"))
    record = checkpoint.with_name("record.json")
    own = seal({**json.loads(record.read_text()), "seconds": 12345.0})
    record.write_text(json.dumps(own))
    sweeps = clone.root / "results/smoke/lr-range/tiny.jsonl"
    sweeps.write_text("mine\n")
    times = {p: p.stat().st_mtime_ns for p in (clone.root / "results/store").rglob("record.json")}
    said = clone.cyclery("fetch")
    assert "1 runs of this project differed" in said and "1 files of this project" in said
    assert clone.results() == origin.results() and clone.nothing_to_train()
    kept = [p for p in (clone.root / "results/set-aside").rglob("*") if p.is_file()]
    assert sorted(p.name for p in kept) == ["record.json", "tiny.jsonl"]
    assert "12345" in next(p for p in kept if p.name == "record.json").read_text()
    assert {p for p, then in times.items() if p.stat().st_mtime_ns != then} == {record}


def snapshot(repository: Repository) -> dict[str, bytes]:
    folder = repository.root / "results"
    paths = [p for p in folder.rglob("*") if p.is_file() and "published" not in p.parts]
    return {str(p): p.read_bytes() for p in paths}


def test_what_was_tampered_with_is_refused(clone: Repository) -> None:
    """The largest file of the remote, altered so that DVC cannot know: its cache trusts it."""
    before = snapshot(clone)
    largest = max((clone.root / "published").rglob("??*"), key=lambda p: p.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.chmod(0o644)
    largest.write_bytes(data)
    said = clone.cyclery("fetch", expect=2)
    assert said.count("cyclery: ") == 1 and "Traceback" not in said
    assert "refused: its SHA-256" in said or "DVC could not pull" in said
    assert snapshot(clone) == before


def test_a_dead_remote_is_one_message_without_secrets(clone: Repository) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://somebody:{SECRET}@127.0.0.1:{closed.getsockname()[1]}/x"
    clone.dvc("remote", "add", "--local", "web", address)
    clone.dvc("remote", "modify", "--local", "web", "password", SECRET)
    before = snapshot(clone)
    said = clone.cyclery("fetch", "--remote", "web", expect=2)
    assert said.count("\n") == 1 and said.startswith(
        "cyclery: DVC could not pull from remote 'web'"
    )
    assert SECRET not in said and "Traceback" not in said
    shutil.rmtree(clone.root / "published")
    said = clone.cyclery("fetch", expect=2)
    assert said.count("\n") == 1
    assert f"'published' ({clone.root / 'published'}): it does not answer" in said
    assert "there is no remote 'nowhere'; remotes: published, web" in clone.cyclery(
        "fetch", "--remote", "nowhere", expect=2
    )
    assert snapshot(clone) == before


def test_a_secret_is_nowhere(another: Repository) -> None:
    another.dvc("remote", "add", "--local", "web", f"https://me:{SECRET}@example.org/x")
    another.dvc("remote", "modify", "--local", "web", "password", SECRET)
    shutil.rmtree(another.root / SMOKE)
    said = another.cyclery("publish", "--verbose")
    said += another.cyclery("fetch", "--verbose")
    assert SECRET not in said
    for path in (p for p in another.root.rglob("*") if p.is_file()):
        if path.name != "config.local":
            assert SECRET.encode() not in path.read_bytes(), path


def kill_often(repository: Repository, command: str, seconds: float) -> None:
    """Kill a command, with all that it started, at four random moments of its time."""
    chance = random.Random(6)
    for _ in range(4):
        process = repository.start("cyclery", *repository.whole(command))
        time.sleep(chance.uniform(0.3, 1.0) * seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_a_killed_publication_is_completed(another: Repository, tmp_path: Path) -> None:
    before = (another.root / "dvc.lock").read_bytes()
    for name in (SMOKE, "results/published/datasets", "published", ".dvc/cache"):
        shutil.rmtree(another.root / name)
    (another.root / "dvc.lock").unlink()
    began = time.monotonic()
    another.cyclery("publish")
    took = time.monotonic() - began
    kill_often(another, "publish", took)
    another.cyclery("publish")
    assert (another.root / "dvc.lock").read_bytes() == before
    assert not another.git("status", "--porcelain")
    clone = another.clone(tmp_path / "clone")
    assert NOTHING in clone.cyclery("fetch")


def test_a_killed_fetch_is_completed(origin: Repository, clone: Repository, tmp_path: Path) -> None:
    began = time.monotonic()
    origin.clone(tmp_path / "timed").cyclery("fetch")
    took = time.monotonic() - began
    kill_often(clone, "fetch", took)
    clone.cyclery("fetch")
    assert clone.results() == origin.results() and clone.nothing_to_train()
    assert clone.figures() == origin.figures()
    assert not list((clone.root / "results").glob(".fetch-*"))


def test_a_dataset_that_is_not_shared_is_made_again(clone: Repository) -> None:
    path = clone.root / "results/data/digits.safetensors"
    clone.cyclery("fetch")
    content = path.read_bytes()
    path.unlink()
    assert clone.nothing_to_train()
    config = clone.root / "config/papers/tiny.yaml"
    config.write_text(config.read_text().replace("lr: 0.2", "lr: 0.3"))
    clone.snakemake("report")
    assert path.read_bytes() == content and clone.trained() == 2
