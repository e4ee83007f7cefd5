"""The parts of sharing by themselves: remotes, secrets, the index, what a delivery may hold."""

from __future__ import annotations

import json
import shutil
from base64 import urlsafe_b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from factories.project import trained
from factories.sharing import INDEX

from cyclery.cli.main import main
from cyclery.common import checksums
from cyclery.common.errors import UserError
from cyclery.common.files import lock
from cyclery.common.seals import seal
from cyclery.config.load import load
from cyclery.plan.project_checks import check
from cyclery.records.run_store import Store
from cyclery.sharing import index, place, state, summary
from cyclery.sharing import publish as publishing
from cyclery.sharing.archives import Archive
from cyclery.sharing.contents import Contents
from cyclery.sharing.delivery import Delivery, examine
from cyclery.sharing.dvc import Dvc, _reason

Json = dict[str, Any]
SHA = "0" * 64


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the settings of DVC alone, and no settings of the user."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    root = tmp_path / "repository"
    (root / ".dvc").mkdir(parents=True)
    (root / ".dvc/config").write_text(
        "[core]\n    remote = published\n"
        "['remote \"published\"']\n    url = ../published\n"
        "['remote \"web\"']\n    url = https://example.org/x\n"
        "['remote \"disk\"']\n    url = /mnt/x\n"
    )
    (root / "dvc.yaml").write_text("stages:\n  publish:\n    foreach: [smoke]\n    do: {cmd: x}\n")
    return root


# DVC.


def test_remotes(repository: Path) -> None:
    dvc = Dvc(repository)
    assert dvc.remote(None).name == "published"
    assert dvc.remote(None).inside == (repository / "published").resolve()
    assert dvc.remote("web").inside is None and dvc.remote("disk").inside is None
    with pytest.raises(UserError, match="no remote 'wep'; remotes: disk, published, web"):
        dvc.remote("wep")
    (repository / ".dvc/config.local").write_text("[core]\nremote = disk\n")
    assert dvc.remote(None).name == "disk"
    (repository / ".dvc/config.local").unlink()
    (repository / ".dvc/config").write_text("")
    with pytest.raises(UserError, match="no default remote"):
        dvc.remote(None)


def test_what_is_published_is_declared(repository: Path) -> None:
    dvc = Dvc(repository)
    dvc.require("smoke")
    with pytest.raises(UserError, match="foreach lists smoke; add 'desk'"):
        dvc.require("desk")
    assert dvc.tiers() == ["smoke"] and dvc.datasets() == []
    (repository / "dvc.yaml").write_text("stages: [1]\n")
    with pytest.raises(UserError, match="lists no tier"):
        Dvc(repository).require("smoke")


def test_secrets_are_masked(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / ".dvc/config.local").write_text(
        "['remote \"web\"']\n    password = pass%word\n    secret_access_key = KEY1234\n"
    )
    monkeypatch.setenv("AWS_SESSION_TOKEN", "tok-1234")
    text = Dvc(repository).redact(
        "pass%word KEY1234 tok-1234 at https://me:other@example.org/x and s3://bucket/a@b"
    )
    assert text == "*** *** *** at https://***@example.org/x and s3://bucket/a@b"
    # A line that cannot be read may hold one.
    (repository / ".dvc/config.local").write_text("password SECRET\n")
    with pytest.raises(UserError) as caught:
        Dvc(repository).remote(None)
    assert "config.local" in str(caught.value) and "SECRET" not in str(caught.value)


def test_the_reason_is_one_sentence() -> None:
    said = "WARNING: x\nERROR: failed to pull - 2 files:\nfiles/md5/aa\nERROR: other\nhint"
    assert _reason(said) == "failed to pull - 2 files: files/md5/aa."
    assert _reason("ERROR: failed to pull - Checkout failed for:\na") == (
        "it does not answer, or does not hold all that dvc.lock names."
    )
    assert _reason("") == "it did not say why."
    assert _reason("Killed\n") == "Killed"


def test_a_failure_of_dvc_is_one_message(repository: Path) -> None:
    pytest.importorskip("dvc", reason="DVC is not installed")
    dvc = Dvc(repository)
    with pytest.raises(UserError, match="DVC could not freeze what was packed: ") as caught:
        dvc.freeze(["publish@desk"])
    assert "\n" not in str(caught.value)


# The index.


def home(root: Path, **changes: Any) -> index.Home:
    found = index.Home(root, "smoke")
    found.folder.mkdir(parents=True, exist_ok=True)
    found.index.write_text(json.dumps({**INDEX, **changes}))
    return found


def test_the_index_is_read_strictly(tmp_path: Path) -> None:
    entry = {"sha256": SHA, "size": 1, "unpacked": 2, "files": 3}
    found = index.read(home(tmp_path, packs={"papers/one.tar.xz": entry}))
    assert found.archive("papers/one.tar.xz") == Archive(SHA, 1, 2, 3)
    for changes, said in (
        ({"format": 1}, "has format 1, this version reads 2"),
        ({"seeds": "many"}, "seeds: Input should be"),
        ({"more": 1}, "more: Extra inputs"),
        ({"packs": {"a": {**entry, "sha256": "x"}}}, "packs.a.sha256"),
        ({"packs": {"../a": entry}}, "names paths outside"),
        ({"datasets": {"/etc/a": entry}}, "names paths outside"),
        ({"tier": "desk"}, "is not of tier 'smoke'"),
    ):
        with pytest.raises(UserError, match=said):
            index.read(home(tmp_path, **changes))
    home(tmp_path).index.write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        index.read(index.Home(tmp_path, "smoke"))


def test_a_tier_that_is_not_published(tmp_path: Path) -> None:
    home(tmp_path)
    with pytest.raises(UserError, match="'desk' is not published in this version"):
        index.read(index.Home(tmp_path, "desk"))


def test_commands_need_a_project_that_shares(tmp_path: Path, capsys: Any) -> None:
    shutil.copytree(trained() / "config", tmp_path / "config")
    assert main(["--root", str(tmp_path), "publish"]) == 2
    assert "dvc.yaml: there is no such file" in capsys.readouterr().err
    assert main(["--root", str(tmp_path), "fetch"]) == 2
    assert "'smoke' is not published" in capsys.readouterr().err


def test_the_plan_is_that_of_the_publication(tmp_path: Path) -> None:
    shutil.copytree(trained() / "config", tmp_path / "config")
    shutil.copy(tmp_path / "config/papers/one.yaml", tmp_path / "config/papers/two.yaml")
    found = index.Index.model_validate({**INDEX, "seeds": 7})
    plan = index.published_plan(tmp_path, {}, found)
    assert plan.project.selected() == ["one"] and plan.project.seeds == 7
    assert plan.project.overrides == {"papers": ["one"], "seeds": 7}


# Snakemake's side.


def test_snakemake_is_asked_for_what_was_selected() -> None:
    assert state.selection({}) == []
    chosen = state.selection({"tier": "desk", "papers": ["clr"], "seeds": 3})
    assert chosen == ["--config", 'papers=["clr"]', "seeds=3", 'tier="desk"']


def test_where_snakemake_remembers(tmp_path: Path) -> None:
    short, long = "results/a.json", f"results/{'x' * 400}.json"
    assert state.memory(tmp_path, short).parent == tmp_path / ".snakemake/metadata"
    parts = state.memory(tmp_path, long).relative_to(tmp_path / ".snakemake/metadata").parts
    assert len(parts) == 3 and all(len(part) <= 255 for part in parts)
    assert [part[0] for part in parts[:-1]] == ["@", "@"]
    joined = "".join(part.removeprefix("@") for part in parts)
    assert urlsafe_b64decode(joined).decode() == long
    state.remember(tmp_path, {short: b"{}", long: b"{}"})
    assert (tmp_path / ".snakemake/incomplete").is_dir()
    state.forget(tmp_path, [short, long, "never"])
    assert not state.memory(tmp_path, short).exists() and not state.memory(tmp_path, long).exists()


def test_a_snakemake_at_work_is_not_disturbed(tmp_path: Path) -> None:
    state.refuse_locked(tmp_path)
    (tmp_path / ".snakemake/locks").mkdir(parents=True)
    state.refuse_locked(tmp_path)
    (tmp_path / ".snakemake/locks/0.input.lock").touch()
    with pytest.raises(UserError, match="snakemake --unlock"):
        state.refuse_locked(tmp_path)


def test_versions_that_remember_alike() -> None:
    assert state.same_minor("9.27.1", "9.27.4") and not state.same_minor("9.27.1", "9.26.1")


# What is put into a publication.


def test_verdicts_are_counted_and_effects_listed() -> None:
    part = json.loads((trained() / "results/smoke/evidence/one.json").read_bytes())
    counts = json.loads(summary.metrics([part]))
    assert counts["all"] == counts["papers"]["one"]
    assert counts["all"]["claims"] == len(part["claims"]) == sum(counts["all"].values()) / 2
    lines = summary.effects([part]).splitlines()
    assert lines[0].startswith("test,paper,claim,comparison,metric,unit,effect,low,high")
    tested = [
        c for claim in part["claims"] for c in claim["comparisons"] if c["effect"] is not None
    ]
    assert len(lines) == 1 + len(tested) > 1


def test_weights_that_do_not_fit_are_left_out_largest_first(tmp_path: Path) -> None:
    weights: dict[str, dict[str, Path | bytes]] = {}
    for paper, size in (("large", 50_000), ("small", 1_000), ("middle", 9_000)):
        path = tmp_path / paper
        path.write_bytes(bytes(size))
        weights[paper] = {f"{paper}.safetensors": path}
    assert list(publishing._fitting(weights, 40_000)) == ["small", "middle"]
    assert list(publishing._fitting(weights, 10**6)) == ["small", "middle", "large"]
    assert publishing._fitting(weights, 0) == {}


@pytest.mark.parametrize("name", ["tables/one.csv", "evidence/one.json"])
def test_what_is_damaged_is_not_published(tmp_path: Path, name: str) -> None:
    shutil.copytree(trained(), tmp_path, dirs_exist_ok=True)
    out = tmp_path / "results/smoke"
    (out / "tables").mkdir()
    (out / "one.csv").rename(out / "tables/one.csv")
    checksums.write(out / "tables/one.sha256", [out / "tables/one.csv", out / "evidence/one.json"])
    contents = Contents(check(load(tmp_path, {})))
    contents.require_whole()
    text = (out / name).read_text()
    (out / name).write_text(f"{text[:-2]}?{text[-1]}")
    with pytest.raises(UserError, match=f"{out / name}: was altered or lost since it was made"):
        contents.require_whole()


# What a delivery may hold.


@pytest.fixture
def contents(tmp_path: Path) -> Contents:
    """A project that has the configuration of a trained one, and nothing else."""
    root = tmp_path / "project"
    shutil.copytree(trained() / "config", root / "config")
    return Contents(check(load(root, {})))


@pytest.fixture
def unpacked(tmp_path: Path, contents: Contents) -> Path:
    """The trained project as if it had been packed and unpacked."""
    folder = tmp_path / "unpacked"
    for output in contents.outputs():
        target = folder / "files" / contents.name(output)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(trained() / output, target)
    store = Store(trained() / "results/store")
    (folder / "weights").mkdir()
    for keys in contents.kept.values():
        for key in keys:
            shutil.copy(store.checkpoint(key), folder / "weights" / f"{key}.safetensors")
    return folder


def records(unpacked: Path) -> Path:
    return unpacked / "files/tier/records/one/L0-0000.jsonl"


def rewrite(path: Path, change: Callable[[Json], Any]) -> None:
    first, *rest = path.read_text().splitlines()
    record = json.loads(first)
    path.write_text("\n".join([json.dumps(change(record) or record), *rest]) + "\n")


def alter(record: Json) -> None:
    record["seconds"] = 1


def lead_elsewhere(record: Json) -> Json:
    return seal({**record, "key": "../../elsewhere"})


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "an altered record": lambda folder: rewrite(records(folder), alter),
    "a key that is a path": lambda folder: rewrite(records(folder), lead_elsewhere),
    "a line that is no record": lambda folder: records(folder).write_text("1\n"),
    "no JSON": lambda folder: records(folder).write_text("{\n"),
    "weights of another run": lambda folder: next((folder / "weights").iterdir()).write_bytes(b"x"),
    "weights of no run": lambda folder: (folder / "weights/0.safetensors").write_bytes(b"x"),
    "a name of nothing": lambda folder: (folder / "files/config.yaml").write_text("x"),
    "no manifest": lambda folder: (folder / "files/data/digits.json").unlink(),
    "a manifest of elsewhere": lambda folder: (folder / "files/data/digits.json").write_text(
        json.dumps({"file": "../../elsewhere.safetensors"})
    ),
    "a dataset that is not announced": lambda folder: (
        (folder / "data").mkdir(),
        (folder / "data/digits.safetensors").touch(),
    ),
}


FOUND = index.Index.model_validate(INDEX)


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_does_not_belong_is_refused(damage: str, unpacked: Path, contents: Contents) -> None:
    examine(unpacked, FOUND, contents)
    DAMAGE[damage](unpacked)
    with pytest.raises(UserError, match="what is published of tier 'smoke' is damaged: "):
        examine(unpacked, FOUND, contents)


@pytest.mark.parametrize("text", ["1", "{}", "{"])
def test_what_snakemake_would_not_understand_is_refused(
    text: str, unpacked: Path, contents: Contents
) -> None:
    path = unpacked / "files/snakemake/tier/lr-range/one.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text('{"rule": "lr_range", "params": [], "input": []}')
    swept = list(contents.ranges)
    assert list(examine(unpacked, FOUND, contents).memories) == swept
    path.write_text(text)
    with pytest.raises(UserError, match="damaged: snakemake"):
        examine(unpacked, FOUND, contents)


@pytest.fixture
def delivery(unpacked: Path, contents: Contents) -> Delivery:
    return examine(unpacked, FOUND, contents)


def test_the_store_is_filled_with_the_same_bytes(delivery: Delivery, contents: Contents) -> None:
    place.fill_store(contents, delivery)
    ours, theirs = (Store(root / "results/store") for root in (contents.root, trained()))
    assert delivery.records and delivery.weights
    for key in delivery.records:
        names = ["record.json", *(["checkpoint.safetensors"] if key in delivery.weights else [])]
        for name in names:
            assert (ours.folder(key) / name).read_bytes() == (
                theirs.folder(key) / name
            ).read_bytes()


def test_a_run_that_is_being_trained_is_not_touched(delivery: Delivery, contents: Contents) -> None:
    store = Store(contents.root / "results/store")
    key = next(iter(delivery.records))
    with lock(store.folder(key) / "lock"), pytest.raises(UserError, match=f"run {key} is being"):
        place.fill_store(contents, delivery)
    assert store.read(key) is None


def test_what_is_still_current(delivery: Delivery, contents: Contents) -> None:
    ask = place._still_current
    assert ask(contents, delivery) == list(delivery.files)
    # Of a shard that holds other runs, nothing that is made of it is current.
    first = "results/smoke/records/one/L0-0000.jsonl"
    delivery.listed[first].pop()
    current = ask(contents, delivery)
    assert set(current) == {"results/data/digits.json", "results/smoke/lr-range/one.jsonl"}


def test_outputs_are_put_upstream_first(delivery: Delivery, contents: Contents) -> None:
    ordered = place._ordered(contents, ["results/smoke/a", *delivery.files])
    assert ordered == [*contents.outputs(), "results/smoke/a"]
    assert ordered[0] == "results/data/digits.json"
