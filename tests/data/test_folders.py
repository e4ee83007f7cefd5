"""Datasets that are folders of images, each added by one YAML file."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from factories import data as factory
from factories.project import PAPER, TIER, evidence, refused, run, write
from PIL import Image

from cyclery.common.errors import UserError
from cyclery.config.load import datasets, load
from cyclery.data import folders, images
from cyclery.data.dataset import Dataset
from cyclery.data.prepare import load_or_remake, open_prepared, prepare
from cyclery.data.sizes import counts
from cyclery.plan.snakemake_api import Graph

Json = dict[str, Any]
GREY, COLOUR = (6, 5), (6, 5, 3)


def declare(root: Path, shape: list[int], **keys: Any) -> Path:
    path = root / "config/datasets/mine.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"title": "Mine", "shape": shape, "folder": "images"} | keys))
    return path


def mine(root: Path) -> Dataset:
    """Return the dataset as a process that has just started finds it."""
    return datasets(root)["mine"]


@pytest.fixture
def grey(tmp_path: Path) -> Path:
    """Return the root of a project whose folder `images` has two classes of grey images."""
    factory.class_folders(tmp_path / "images", GREY, {"cat": 4, "dog": 3})
    declare(tmp_path, [1, *GREY])
    return tmp_path


def in_order(*groups: list[np.ndarray]) -> list[np.ndarray]:
    """Return images [C, H, W], those of each class and part by the SHA-256 of their pixels."""
    return [x for group in groups for x in sorted(group, key=lambda x: factory.sha256(x.tobytes()))]


def test_images_are_rows_by_class_and_pixels(grey: Path) -> None:
    written = factory.class_folders(grey / "again", GREY, {"cat": 4, "dog": 3})
    dataset = mine(grey)
    assert (dataset.classes, dataset.train, dataset.test) == (2, 7, 0)
    assert dataset.train_class_counts == (4, 3) and dataset.max_value == 255
    manifest = prepare(dataset, grey / "data", grey / "mine.json")
    _, arrays = open_prepared(grey / "mine.json", dataset)
    cats, dogs = ([written[n][None] for n in written if c in n] for c in ("cat", "dog"))
    np.testing.assert_array_equal(arrays["images"], in_order(cats, dogs))
    assert manifest["order"] == "none" and set(arrays["index"]) == {-1}
    assert arrays["labels"].tolist() == [0, 0, 0, 0, 1, 1, 1]
    # Where the folder lies is nobody else's business.
    assert manifest["source"] == "class folders" and str(grey) not in json.dumps(manifest)


def test_train_and_test_are_the_official_sets(tmp_path: Path) -> None:
    train = factory.class_folders(tmp_path / "images/train", COLOUR, {"b": 2, "a": 2, "c": 1})
    test = factory.class_folders(tmp_path / "images/test", COLOUR, {"c": 2, "a": 1}, seed=9)
    declare(tmp_path, [3, 6, 5])
    dataset = mine(tmp_path)
    assert (dataset.classes, dataset.train, dataset.test) == (3, 5, 3)
    prepare(dataset, tmp_path / "data", tmp_path / "mine.json")
    _, arrays = open_prepared(tmp_path / "mine.json", dataset)
    assert arrays["labels"].tolist() == [0, 0, 1, 1, 2, 0, 2, 2]
    groups = [
        [np.moveaxis(part[n], -1, 0) for n in part if n.startswith(name)]
        for part in (train, test)
        for name in ("a", "b", "c")
    ]
    np.testing.assert_array_equal(arrays["images"], in_order(*groups))
    manifest = json.loads((tmp_path / "mine.json").read_text())
    rows, labels = arrays["images"], arrays["labels"]
    assert manifest["content"] == {
        "train": factory.content_hash(rows[:5], labels[:5]),
        "test": factory.content_hash(rows[5:], labels[5:]),
    }


def test_classes_may_be_called_train_and_something_else(tmp_path: Path) -> None:
    factory.class_folders(tmp_path / "images", GREY, {"train": 2, "bus": 1})
    declare(tmp_path, [1, *GREY])
    assert (mine(tmp_path).classes, mine(tmp_path).train) == (2, 3)


def test_classes_that_are_numbers_come_in_the_order_of_these(tmp_path: Path) -> None:
    factory.class_folders(tmp_path / "images", GREY, {"10": 1, "9": 2, "0": 3})
    declare(tmp_path, [1, *GREY])
    assert mine(tmp_path).train_class_counts == (3, 2, 1)


# Identity.


def test_identity_is_of_pixels_wherever_they_lie_and_whatever_the_files_are_called(
    grey: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = mine(grey).identity
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(grey / "images", other / "deep/images")  # with other times
    declare(other, [1, *GREY], folder=str(other / "deep/images"), title="Other words")
    assert mine(other).identity == before
    moved = other / "deep/images/cat/900.bmp"
    Image.open(other / "deep/images/cat/000.png").save(moved)
    (other / "deep/images/cat/000.png").unlink()
    assert mine(other).identity == before
    moved.rename(other / "deep/images/dog/900.bmp")
    assert mine(other).identity != before
    declare(other, [3, *GREY], folder=str(grey / "images"))
    assert mine(other).identity != before
    for fit in ("crop", "stretch"):
        declare(other, [1, 4, 4], folder=str(grey / "images"), fit=fit)
        assert mine(other).identity != before
        before = mine(other).identity


def test_planning_reads_no_image_again(grey: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = mine(grey).identity
    reads: list[Path] = []
    read = images.read
    monkeypatch.setattr(images, "read", lambda path: reads.append(path) or read(path))
    assert mine(grey).identity == before and not reads
    (grey / "images/cat/000.png").touch()
    assert mine(grey).identity == before and len(reads) == 7
    (grey / "images/cat/000.png").write_bytes(factory.png(np.zeros(GREY, np.uint8)))
    assert mine(grey).identity != before and len(reads) == 14
    # A memory that is damaged, or cannot be kept, only costs time.
    for damage in ("{", "[]", '{"looks": 1}', '{"content": 1}'):
        folders.memo(grey, "mine").write_text(damage)
        reads.clear()
        assert mine(grey).identity != before and len(reads) == 7
    shutil.rmtree(grey / ".cyclery")
    (grey / ".cyclery").write_text("no folder")
    assert mine(grey).identity != before


def test_a_reading_of_many_images_is_announced_once(
    grey: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "_MANY", 7)
    mine(grey)
    said = capsys.readouterr().err
    assert said == f"cyclery: {grey}/images: reads 7 images, once until one is changed\n"
    mine(grey)
    assert not capsys.readouterr().err


def test_an_edit_that_planning_cannot_see_is_refused_and_seen_from_then_on(grey: Path) -> None:
    before, path = mine(grey).identity, grey / "images/cat/000.png"
    found, content = path.stat(), bytearray(path.read_bytes())
    pixels = np.asarray(Image.open(path)).copy()
    pixels[0, 0] ^= 1
    path.write_bytes(factory.png(pixels).ljust(len(content), b"\0"))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    if path.stat().st_size != found.st_size:
        pytest.skip("the edited image is larger")
    planned = mine(grey)
    assert planned.identity == before
    with pytest.raises(UserError, match="its images have changed since the job was planned"):
        prepare(planned, grey, grey / "m.json")
    assert not (grey / "mine.safetensors").exists()
    assert mine(grey).identity != before
    prepare(mine(grey), grey, grey / "m.json")


def test_a_hierarchy_of_other_classes_is_named(grey: Path) -> None:
    path = declare(grey, [1, *GREY], hierarchies={"kind": [[0, 0]]})
    assert mine(grey).hierarchies == {"kind": ((0, 0),)}
    declare(grey, [1, *GREY], hierarchies={"kind": [[0, 0, 1]]})
    with pytest.raises(UserError) as error:
        mine(grey)
    assert str(error.value).startswith(f"{path}: hierarchies.kind[0]: must have a number for each")


def test_what_is_prepared_needs_the_folder_no_more(grey: Path) -> None:
    prepare(mine(grey), grey / "data", grey / "m.json")
    shutil.rmtree(grey / "images")
    known = datasets(grey)
    _, arrays = load_or_remake(grey / "m.json", known.__getitem__)
    assert len(arrays["labels"]) == 7
    (grey / "data/mine.safetensors").unlink()
    with pytest.raises(UserError, match=r"mine\.yaml: folder: .*images: there is no such folder"):
        load_or_remake(grey / "m.json", known.__getitem__)


def test_a_folder_has_no_official_order(grey: Path) -> None:
    wanted = {"test": 1, "labels": 2}
    assert counts(mine(grey), wanted)["train"] == 2
    for asked in (wanted, {"test": 1, "per_class": 1}):
        with pytest.raises(UserError, match=r"split\.choose: must be random for a folder"):
            counts(mine(grey), {**asked, "choose": "first"})


# What is wrong with a folder.


def _link(folder: Path) -> None:
    (folder / "cat/link.png").symlink_to("/etc/hostname")


def _large(folder: Path) -> None:
    with (folder / "cat/large.png").open("wb") as stream:
        stream.truncate(folders.MOST_BYTES + 1)


LISTED = {
    "there is no such folder": lambda folder: shutil.rmtree(folder),
    "holds no folder of a class": lambda folder: [shutil.rmtree(p) for p in folder.iterdir()],
    "dog: holds no image, so its class has none": lambda folder: [
        p.unlink() for p in (folder / "dog").iterdir()
    ],
    "link.png: is a link, which could lead out": _link,
    "bird: is a link": lambda folder: (folder / "bird").symlink_to("/etc"),
    "a.txt: a class has nothing but images (.bmp, .gif, .jpeg": lambda folder: (
        folder / "cat/a.txt"
    ).write_bytes(b""),
    "its classes 'DOG' and 'dog' differ in small and capital letters alone": lambda folder: (
        shutil.copytree(folder / "dog", folder / "DOG")
    ),
    "train: holds folders, as a training set does, but lies beside others": lambda folder: (
        folder / "train/cat"
    ).mkdir(parents=True),
    "cat/deeper: a class has nothing but": lambda folder: (folder / "cat/deeper").mkdir(),
    "large.png: has 64,000,001 bytes": _large,
    "x.png: lies in no folder of a class": lambda folder: (folder / "x.png").write_bytes(b""),
    "which cannot be printed": lambda folder: (folder / "a\nb").mkdir(),
}


@pytest.mark.parametrize("words", LISTED)
def test_a_wrong_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], words) -> None:
    folder = tmp_path / "images"
    factory.class_folders(folder, GREY, {"cat": 4, "dog": 3})
    LISTED[words](folder)
    tier = copy.deepcopy(TIER)
    tier["base"]["dataset"] = "mine"
    write(tmp_path, tier, PAPER)
    path = declare(tmp_path, [1, *GREY])
    said = refused(tmp_path, capsys)
    assert f"{path}: folder: {folder}" in said and words in said


def test_a_test_folder_with_an_unknown_class_is_named(tmp_path: Path) -> None:
    factory.class_folders(tmp_path / "images/train", GREY, {"cat": 1})
    factory.class_folders(tmp_path / "images/test", GREY, {"cat": 1, "Cat": 1})
    declare(tmp_path, [1, *GREY])
    with pytest.raises(UserError, match=r"test/Cat: no class of the training set\. Did you mean"):
        mine(tmp_path)


def test_a_test_folder_without_an_image_is_named(tmp_path: Path) -> None:
    factory.class_folders(tmp_path / "images/train", GREY, {"cat": 1})
    (tmp_path / "images/test/cat").mkdir(parents=True)
    declare(tmp_path, [1, *GREY])
    with pytest.raises(UserError, match=r"images/test: holds no image; add some"):
        mine(tmp_path)


def test_hidden_files_and_notes_are_passed_over(grey: Path) -> None:
    before = mine(grey).identity
    (grey / "images/README.md").write_text("x")
    (grey / "images/.git").mkdir()
    (grey / "images/cat/.DS_Store").write_text("x")
    assert mine(grey).identity == before


def test_wrong_images_are_named_before_any_job(
    grey: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = grey / "images/cat/002.png"
    path.write_bytes(b"GIF89a")
    (grey / "images/dog/001.png").write_bytes(factory.png(np.zeros((5, 6), np.uint8)))
    (grey / "images/dog/002.png").write_bytes(b"")
    tier = copy.deepcopy(TIER)
    tier["base"]["dataset"] = "mine"
    write(grey, tier, PAPER)
    said = refused(grey, capsys)
    assert f"mine.yaml: folder: {path}: cannot be read as an image" in said
    assert " 2 more are refused, as dog/001.png is. (arm" in said
    assert not folders.memo(grey, "mine").exists()


def test_images_of_mixed_sizes_need_a_fit(grey: Path) -> None:
    (grey / "images/dog/001.png").write_bytes(factory.png(np.zeros((9, 7), np.uint8)))
    with pytest.raises(UserError, match=r"001\.png: has 9 x 7 pixels where .* 6 x 5; say how"):
        mine(grey)
    declare(grey, [1, *GREY], fit="pad")
    prepare(mine(grey), grey / "data", grey / "m.json")
    assert open_prepared(grey / "m.json")[1]["images"].shape == (7, 1, 6, 5)


# The whole way.


def test_a_dataset_added_by_one_file_is_prepared_trained_and_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    factory.class_folders(tmp_path / "images", (8, 8), {"dark": 60, "light": 60, "Bright": 60})
    tier = copy.deepcopy(TIER)
    tier["base"] |= {"dataset": "mine", "split": {"test": 30, "validation": 30, "labels": 60},
                     "batch": 20}  # fmt: skip
    write(tmp_path, tier, PAPER, {"tier": "smoke", "device": "cpu"})
    declare(tmp_path, [1, 8, 8])
    graph = Graph.of(load(tmp_path, {}))
    assert graph.manifests("one") == ["results/data/mine.json"]
    out = f"{tmp_path}/results/smoke"
    run(tmp_path, "prepare", "mine")
    run(tmp_path, "train", "one/L0-0000", "--output", f"{out}/records/one/L0-0000.jsonl")
    run(tmp_path, "evidence", "one", "--output", f"{out}/evidence/one.json")
    made = evidence(tmp_path)
    assert made["claims"][0]["verdict"] in ("reproduced", "inconclusive", "contradicted")
    arm = made["experiments"][0]["arms"][0]
    assert arm["n"] == 2 and arm["metrics"]["test_accuracy"]["mean"] > 0.5
    assert "Mine" in json.dumps(made) or "mine" in json.dumps(made)
    # A changed image is another dataset: everything is planned anew.
    before = graph.identity("mine"), graph.shard_digest("one", "L0-0000")
    (tmp_path / "images/dark/000.png").unlink()
    again = Graph.of(load(tmp_path, {}))
    assert again.identity("mine") != before[0]
    assert again.shard_digest("one", "L0-0000") != before[1]
    with pytest.raises(UserError, match="was prepared from other files"):
        run_job(again)


def run_job(graph: Graph) -> None:
    from cyclery.engine.lookup import Lookup
    from cyclery.plan.job_specs import shard_jobs
    from cyclery.records.run_store import Store

    root = graph.plan.project.root
    lookup = Lookup(Store(root / "results/store"), {"mine": root / graph.manifest("mine")})
    lookup.inputs(shard_jobs(graph.plan.shard("one/L0-0000"))[0])


def test_planning_a_known_folder_loads_no_image_library(grey: Path) -> None:
    mine(grey)
    code = (
        "import sys\nfrom pathlib import Path\nfrom cyclery.config.load import datasets\n"
        f"datasets(Path({str(grey)!r}))['mine'].identity\n"
        "print([n for n in ('torch', 'PIL') if n in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
