"""What a plain `dvc pull` brought is put in place once, and never over other results."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from factories.project import trained

from cyclery.common.errors import UserError
from cyclery.config.load import load
from cyclery.plan import allocation
from cyclery.plan.graph import Plan
from cyclery.plan.project_checks import check
from cyclery.records.run_store import Store
from cyclery.sharing import index, place, state
from cyclery.sharing.archives import write_archive
from cyclery.sharing.arrival import NESTED, install_pulled, mark_installed
from cyclery.sharing.contents import Contents

Capture = pytest.CaptureFixture[str]
SWEEPS = "results/smoke/lr-range/one.jsonl"
ARCHIVE = "packs/papers/one.tar.xz"
IN_PLACE = "cyclery: tier smoke: what `dvc pull` brought is put in place: 1 papers, "
STAYS = (
    "cyclery: tier smoke has results already, so this publication stays in its archives; `make pull"
)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project without results, to which somebody's publication was pulled."""
    monkeypatch.delenv(NESTED, raising=False)
    shutil.copytree(trained() / "config", tmp_path / "config")
    contents = Contents(check(load(tmp_path, {})))
    files: dict[str, Path | bytes] = {}
    for output in contents.outputs():
        files[contents.name(output)] = trained() / output
        memory = json.dumps({"rule": "r", "params": [], "input": []}).encode()
        files[f"snakemake/{contents.name(output)}"] = memory
    store = Store(trained() / "results/store")
    keys = [key for keys in contents.kept.values() for key in keys]
    weights: dict[str, Path | bytes] = {f"{key}.safetensors": store.checkpoint(key) for key in keys}
    home = index.Home(tmp_path, "smoke")
    packs = {
        "papers/one.tar.xz": write_archive(home.archives / "papers/one.tar.xz", files).as_dict(),
        "checkpoints/one.tar": write_archive(
            home.archives / "checkpoints/one.tar", weights
        ).as_dict(),
    }
    publish(tmp_path, format=2, tier="smoke", papers=["one"], results="results", packs=packs,
            seeds=contents.plan.project.seeds, checkpoints=contents.plan.project.config.checkpoints,
            data="results/data", snakemake=state.snakemake_version(), datasets={},
            without_checkpoints=[])  # fmt: skip
    return tmp_path


def publish(root: Path, **changes: Any) -> None:
    """Change the index of what is published."""
    path = index.Home(root, "smoke").index
    found = json.loads(path.read_bytes()) if path.exists() else {}
    path.write_text(json.dumps({**found, **changes}))


def start(root: Path, capsys: Capture, **overrides: Any) -> str:
    """Return what is said when Snakemake starts."""
    capsys.readouterr()
    install_pulled(load(root, overrides))
    return capsys.readouterr().err


def own(root: Path, name: str = SWEEPS, text: str = "mine") -> Path:
    """Write a result of the user's own."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def damage(root: Path) -> bytes:
    """Flip a bit of an archive; return the original."""
    path = index.Home(root, "smoke").folder / ARCHIVE
    whole = path.read_bytes()
    path.write_bytes(whole[:99] + bytes([whole[99] ^ 1]) + whole[100:])
    return whole


def test_it_is_put_in_place_once_for_each_publication(root: Path, capsys: Capture) -> None:
    assert start(root, capsys).startswith(IN_PLACE)
    assert (root / SWEEPS).read_bytes() == (trained() / SWEEPS).read_bytes()
    assert start(root, capsys) == ""
    shutil.rmtree(root / "results/smoke")
    said = start(root, capsys)
    assert "was put in place before, and is removed: it is made again; `make pull" in said
    assert not (root / SWEEPS).exists()


def test_a_lock_of_snakemake_is_left_to_snakemake(root: Path, capsys: Capture) -> None:
    """So `snakemake --unlock` gets as far as to remove it."""
    lock = own(root, ".snakemake/locks/0.input.lock")
    said = start(root, capsys)
    assert "is put in place once no other Snakemake is at work here" in said
    assert not (root / SWEEPS).exists()
    lock.unlink()
    assert start(root, capsys).startswith(IN_PLACE)


def test_results_of_ones_own_stay_at_every_change_of_folder(root: Path, capsys: Capture) -> None:
    assert start(root, capsys).startswith(IN_PLACE)
    other = own(root, "other/smoke/tables/one.csv")
    assert start(root, capsys, results="other").startswith(STAYS)
    mine = own(root)
    assert start(root, capsys) == start(root, capsys, results="other") == ""
    assert start(root, capsys, data="elsewhere").startswith(STAYS)
    assert mine.read_text() == other.read_text() == "mine"
    assert not list(root.glob("*/set-aside"))


def test_a_newer_publication_does_not_take_the_place_of_results(
    root: Path, capsys: Capture
) -> None:
    assert start(root, capsys).startswith(IN_PLACE)
    mine = own(root)
    publish(root, without_checkpoints=["one"])
    assert start(root, capsys).startswith(STAYS)
    assert start(root, capsys) == "" and mine.read_text() == "mine"
    # Nothing of it was put in place, so nothing of it can have been removed.
    shutil.rmtree(root / "results/smoke")
    said = start(root, capsys)
    assert (
        "stayed in its archives next to other results, which are removed: they are made again"
        in said
    )
    assert not mine.exists()


def test_what_fetch_or_publish_installed_is_known(root: Path, capsys: Capture) -> None:
    own(root)
    mark_installed(load(root, {}))
    assert start(root, capsys) == ""
    assert start(root, capsys, data="elsewhere").startswith(STAYS)


@pytest.mark.parametrize("fault", ["damaged", "missing", "format", "index"])
def test_what_cannot_be_used_is_said_and_stops_nothing(
    root: Path, capsys: Capture, fault: str
) -> None:
    home = index.Home(root, "smoke")
    path, before = home.index, home.index.read_bytes()
    if fault == "damaged":
        path, before = home.folder / ARCHIVE, damage(root)
        said = "refused: its SHA-256 is"
    elif fault == "missing":
        path, before = home.folder / ARCHIVE, (home.folder / ARCHIVE).read_bytes()
        path.unlink()
        said = "not all that this version published; `dvc pull` brings it."
    elif fault == "format":
        publish(root, format=1)
        said = "has format 1, this version reads 2"
    else:
        path.write_text("{")
        said = "cannot be read"
    for _ in range(2):
        told = start(root, capsys)
        assert "is not put in place, and this goes on without: " in told and said in told
        assert told.count("\n") == 1 and not (root / "results/smoke").exists()
    # What is made meanwhile is the user's own, also when the archives are complete again.
    mine = own(root)
    path.write_bytes(before)
    assert start(root, capsys).startswith(STAYS)
    assert start(root, capsys) == "" and mine.read_text() == "mine"


def test_seeds_of_single_arms_come_along(root: Path, capsys: Capture) -> None:
    path = allocation.place(root / "results", "smoke")
    mine = {"one.main.fast": 1, "two.main.plain": 7}
    allocation.write(path, mine)
    # One publication after another; arms of other papers keep their seeds.
    for number, own in enumerate(({"one.main.plain": 2}, {"one.main.fast": 3}, {})):
        publish(root, allocation=own)
        shutil.rmtree(root / "results/smoke/lr-range", ignore_errors=True)
        shutil.rmtree(root / "results/smoke/records", ignore_errors=True)
        assert IN_PLACE in start(root, capsys), number
        wanted = {"two.main.plain": 7, **own}
        assert Plan(load(root, {})).allocation == wanted
    kept = sorted((root / "results/set-aside").glob("*/results/smoke/allocation.json"))
    assert json.loads(kept[0].read_bytes())["seeds"] == mine


def test_seeds_are_not_changed_while_they_are_chosen(root: Path, capsys: Capture) -> None:
    publish(root, allocation={"one.main.plain": 2})
    path = allocation.place(root / "results", "smoke")
    with allocation.hold(path), pytest.raises(UserError, match="`cyclery decide` is at work"):
        start(root, capsys)
    assert not path.exists()
    assert start(root, capsys).startswith(IN_PLACE) and path.exists()


def test_a_mistake_in_the_configuration_is_said_once(root: Path, capsys: Capture) -> None:
    paper = root / "config/papers/one.yaml"
    right = paper.read_text()
    paper.write_text(right.replace("against: plain", "against: plane"))
    assert paper.read_text() != right
    with pytest.raises(UserError, match="plane"):
        start(root, capsys)
    assert "plane" not in capsys.readouterr().err
    paper.write_text(right)
    assert start(root, capsys).startswith(IN_PLACE)


def test_what_was_begun_is_completed(
    root: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*given: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(place, "put", killed)
        with pytest.raises(KeyboardInterrupt):
            start(root, capsys)
    assert not (root / SWEEPS).exists()
    own(root, "results/smoke/lr-range/half")
    # A power cut may leave files that had not come to the disk.
    torn, *_ = sorted((root / "results/store").glob("*/*/record.json"))
    [weights, *_] = sorted((root / "results/store").glob("*/*/checkpoint.safetensors"))
    whole = weights.read_bytes()
    for file in (torn, weights):
        file.write_bytes(b"")
    assert IN_PLACE in start(root, capsys) and (root / SWEEPS).exists()
    found, there = (Store(folder / "results/store").read(torn.parent.name)
                    for folder in (root, trained()))  # fmt: skip
    assert found == there is not None and weights.read_bytes() == whole


def test_a_full_disk_is_no_fault_of_the_packs(
    root: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any) -> None:
        raise UserError("no space on disk")

    with monkeypatch.context() as patch:
        patch.setattr(place, "put", full)
        with pytest.raises(UserError, match="no space on disk"):
            start(root, capsys)
    assert start(root, capsys).startswith(IN_PLACE)
