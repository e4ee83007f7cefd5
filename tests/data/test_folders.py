"""Datasets that are folders of images, each added by one YAML file."""

from __future__ import annotations

import copy
import io
import json
import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from factories import data as factory
from factories.project import PAPER, TIER, evidence, refused, run, write
from PIL import Image

from cyclery.common.errors import UserError
from cyclery.config.load import datasets
from cyclery.data import folders
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


def test_images_are_rows_by_class_and_name(grey: Path) -> None:
    written = factory.class_folders(grey / "again", GREY, {"cat": 4, "dog": 3})
    dataset = mine(grey)
    assert (dataset.classes, dataset.train, dataset.test) == (2, 7, 0)
    assert dataset.train_class_counts == (4, 3) and dataset.max_value == 255
    manifest = prepare(dataset, grey / "data", grey / "mine.json")
    _, arrays = open_prepared(grey / "mine.json", dataset)
    np.testing.assert_array_equal(arrays["images"][:, 0], [written[n] for n in sorted(written)])
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
    pixels = [*(train[n] for n in sorted(train)), *(test[n] for n in sorted(test))]
    np.testing.assert_array_equal(arrays["images"], np.moveaxis(pixels, -1, 1))


def test_classes_may_be_called_train_and_something_else(tmp_path: Path) -> None:
    factory.class_folders(tmp_path / "images", GREY, {"train": 2, "bus": 1})
    declare(tmp_path, [1, *GREY])
    assert (mine(tmp_path).classes, mine(tmp_path).train) == (2, 3)


def test_other_modes_of_a_file_give_the_same_pixels(tmp_path: Path) -> None:
    values = np.array([[0, 255], [255, 0]], dtype=np.uint8)
    colour = np.stack([values, 255 - values, values], axis=-1)
    folder = tmp_path / "images/one"
    folder.mkdir(parents=True)
    for index, mode in enumerate(("RGB", "P")):
        (folder / f"{index}.png").write_bytes(factory.png(colour, mode))
    for index, mode in enumerate(("L", "1"), 2):
        (folder / f"{index}.png").write_bytes(factory.png(values, mode))
    Image.fromarray(colour).save(folder / "4.BMP")
    declare(tmp_path, [3, 2, 2])
    prepare(mine(tmp_path), tmp_path, tmp_path / "m.json")
    images = open_prepared(tmp_path / "m.json")[1]["images"]
    grey = np.stack([values] * 3, axis=-1)
    for image, expected in zip(images, (colour, colour, grey, grey, colour), strict=True):
        np.testing.assert_array_equal(image, np.moveaxis(expected, -1, 0))


# Identity.


def test_identity_is_of_names_and_contents_wherever_the_folder_lies(
    grey: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = mine(grey).identity
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(grey / "images", other / "deep/images")  # with other times
    declare(other, [1, *GREY], folder=str(other / "deep/images"), title="Other words")
    assert mine(other).identity == before
    (other / "deep/images/cat/000.png").rename(other / "deep/images/cat/900.png")
    assert mine(other).identity != before
    declare(other, [3, *GREY], folder=str(grey / "images"))
    assert mine(other).identity != before


def test_planning_reads_no_image_again(grey: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = mine(grey).identity
    reads: list[Path] = []
    read = folders._read
    monkeypatch.setattr(folders, "_read", lambda path: reads.append(path) or read(path))
    assert mine(grey).identity == before and not reads
    (grey / "images/cat/000.png").touch()
    assert mine(grey).identity == before and len(reads) == 7
    (grey / "images/cat/000.png").write_bytes(factory.png(np.zeros(GREY, np.uint8)))
    assert mine(grey).identity != before and len(reads) == 14
    # A memory that is damaged, or cannot be kept, only costs time.
    for damage in ("{", "[]", '{"looks": 1}'):
        folders.memo(grey, "mine").write_text(damage)
        reads.clear()
        assert mine(grey).identity != before and len(reads) == 7
    shutil.rmtree(grey / ".cyclery")
    (grey / ".cyclery").write_text("no folder")
    assert mine(grey).identity != before


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
    "a.jpg: a class has nothing but images in formats that lose": lambda folder: (
        folder / "cat/a.jpg"
    ).write_bytes(b""),
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
    with pytest.raises(UserError, match=r"test/Cat: no class of the training set, which has cat"):
        mine(tmp_path)


def test_hidden_files_and_notes_are_passed_over(grey: Path) -> None:
    before = mine(grey).identity
    (grey / "images/README.md").write_text("x")
    (grey / "images/.git").mkdir()
    (grey / "images/cat/.DS_Store").write_text("x")
    assert mine(grey).identity == before


def _rgb(mode: str | None = None) -> bytes:
    return factory.png(np.zeros((6, 5, 3), np.uint8), mode)


def _animated() -> bytes:
    stream = io.BytesIO()
    frames = [Image.new("L", (5, 6), value) for value in (0, 99)]
    frames[0].save(stream, "PNG", save_all=True, append_images=frames[1:])
    return stream.getvalue()


def _huge_header() -> bytes:
    content = bytearray(factory.png(np.zeros(GREY, np.uint8)))
    content[16:24] = (40_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (_rgb(), "is no plain grey image of 8 bits (Pillow calls it RGB)"),
        (_rgb("LA"), "is no plain grey image of 8 bits (Pillow calls it LA)"),
        (factory.png(np.zeros(GREY, np.uint16)), "is no plain grey image of 8 bits"),
        (factory.png(np.zeros((5, 6), np.uint8)), "has 5 x 6 pixels where the dataset's shape"),
        (factory.png(np.zeros(GREY, np.uint8))[:-30], "cannot be read as an image"),
        (b"GIF89a", "cannot be read as an image (it is no PNG or BMP)."),
        (b"", "cannot be read as an image"),
        (_animated(), "is no plain grey image"),
        (_huge_header(), "cannot be read as an image"),
    ],
)
def test_a_wrong_image_is_named(grey: Path, content: bytes, words: str) -> None:
    path = grey / "images/dog/zzz.png"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        prepare(mine(grey), grey / "data", grey / "m.json")
    assert str(error.value).startswith(f"{path}: ") and words in str(error.value)
    assert not (grey / "data/mine.safetensors").exists() and not (grey / "m.json").exists()


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
    graph = Graph.load(tmp_path, {})
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
    again = Graph.load(tmp_path, {})
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


def test_planning_a_folder_loads_no_image_library(grey: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom cyclery.config.load import datasets\n"
        f"datasets(Path({str(grey)!r}))['mine'].identity\n"
        "print([n for n in ('torch', 'PIL') if n in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
